"""The shapes that an engine is built for, from the data that it will run on."""

from collections import Counter
from collections.abc import Mapping, Sequence

from workers.backends.tensorrt.seam import InputRange


def input_ranges(
    declared: Mapping[str, Sequence[int | str | None]], seen: Sequence[Mapping[str, tuple[int, ...]]]
) -> tuple[InputRange, ...]:
    """The range of every input with a free size. ``declared``: as in the model, not an integer where a size is free.

    ``seen``: the inputs' shapes, one mapping for each batch. A free first axis, the batch, may be anything from 1 to
    the largest seen, other free sizes whatever lies between the least and the most seen; engines are tuned for the
    shape seen most often (of several, the largest). Raises ValueError where a shape does not fit the model's.
    """
    ranges = []
    for name, sizes in declared.items():
        shapes = [each[name] for each in seen]
        for shape in shapes:
            fits = len(shape) == len(sizes) and all(
                not isinstance(size, int) or size == found for size, found in zip(sizes, shape, strict=True)
            )
            if not fits:
                raise ValueError(f"input {name!r} takes {_shown(sizes)}; the data have {_shown(shape)}")
        if all(isinstance(size, int) for size in sizes):
            continue
        counted = Counter(shapes)
        usual = max(counted, key=lambda shape: (counted[shape], shape))
        least = [min(each) for each in zip(*shapes, strict=True)]
        most = tuple(max(each) for each in zip(*shapes, strict=True))
        if not isinstance(sizes[0], int):
            least[0] = 1
        ranges.append(InputRange(name, tuple(least), usual, most))
    return tuple(ranges)


def _shown(sizes: Sequence[object]) -> str:
    return "×".join("?" if each is None else str(each) for each in sizes)
