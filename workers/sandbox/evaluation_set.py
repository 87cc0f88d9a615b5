"""An evaluation set that is parsed, unpacked and decoded in a sandbox; samples come out as arrays."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, with_config

from workers.data.evaluation_set import open_evaluation_set
from workers.data.stored import Array, ArraySpec, EvaluationSet, Indices, RawTensors
from workers.sandbox.confined import Confined
from workers.sandbox.sandbox import Sandbox
from workers.sandbox.serving import Fetch, Reply
from workers.sandbox.wire import DTYPES, Message

KIND, TARGETS = "set", "targets"
STRICT = ConfigDict(extra="forbid")


@with_config(STRICT)
@dataclass(frozen=True)
class SpecFacts:
    """An ``ArraySpec`` whose dtype is a name."""

    shape: tuple[int | None, ...]
    dtype: str
    encoded: bool

    @property
    def spec(self) -> ArraySpec:
        """As it is used; raises ValueError for a dtype that is never sent."""
        if self.dtype not in DTYPES:
            raise ValueError(self.dtype)
        return ArraySpec(self.shape, np.dtype(self.dtype), self.encoded)


@with_config(STRICT)
@dataclass(frozen=True)
class SetFacts:
    """What a set tells of itself."""

    samples: int
    specs: Mapping[str, SpecFacts]
    class_names: tuple[str, ...] | None
    class_counts: Mapping[str, int] | None


FACTS = TypeAdapter(SetFacts)


class ServedSet:
    """The inner side."""

    def __init__(self, opened: EvaluationSet) -> None:
        self._set = opened

    def opened(self) -> Reply:
        """Facts, and the targets of all samples."""
        found = self._set
        specs = {name: SpecFacts(each.shape, each.dtype.name, each.encoded) for name, each in found.specs.items()}
        names = tuple(found.class_names) if found.class_names else None
        facts = SetFacts(found.samples, specs, names, found.class_counts)
        return Reply(
            FACTS.dump_python(facts, mode="json"), {} if found.targets is None else {TARGETS: np.asarray(found.targets)}
        )

    def answers(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        """The samples at the positions that are asked for."""
        arrays: dict[str, Array] = {}
        lists: dict[str, int] = {}
        for name, stored in self._set.batch(np.asarray(asked.arrays["indices"], np.int64)).items():
            if isinstance(stored, list):
                lists[name] = len(stored)
                arrays |= {f"{name}/{index}": each for index, each in enumerate(stored)}
            else:
                arrays[name] = stored
        yield Reply(lists, arrays)


def served_set(files: Sequence[Path], asked: Message) -> ServedSet:
    """Open the file as the format that the service found it to be."""
    return ServedSet(open_evaluation_set(files[0], asked.document))


class SandboxedSet:
    """An evaluation set in a sandbox, to the worker like any other. Raises SandboxDied besides."""

    def __init__(self, confined: Confined) -> None:
        self._confined = confined
        facts, targets = confined.checked(lambda: _read(confined.first))
        self._targets: Array | None = targets
        self.samples: int = facts.samples
        self.specs: Mapping[str, ArraySpec] = {name: each.spec for name, each in facts.specs.items()}
        self.class_names: Sequence[str] | None = facts.class_names
        self.class_counts: Mapping[str, int] | None = facts.class_counts

    @property
    def alive(self) -> bool:
        """Whether it can still be read."""
        return self._confined.alive

    @property
    def targets(self) -> Array | None:
        """Of all samples."""
        return self._targets

    def batch(self, indices: Indices) -> RawTensors:
        """The samples at these positions."""
        answer = self._confined.one("batch", None, {"indices": np.asarray(indices, np.int64)})
        return self._confined.checked(lambda: self._samples(answer, len(indices)))

    def _samples(self, answer: Message, count: int) -> RawTensors:
        lists: Mapping[str, Any] = answer.document
        found: dict[str, Array | list[Array]] = {}
        for name, spec in self.specs.items():
            if name in lists:
                pieces = [answer.arrays[f"{name}/{index}"] for index in range(count)]
                for each in pieces:
                    _refuse_other(each, spec)
                found[name] = pieces
                continue
            stacked = answer.arrays[name]
            if stacked.ndim == 0 or len(stacked) != count:
                raise ValueError(name)
            _refuse_other(stacked[0], spec)
            found[name] = stacked
        return found


def open_sandboxed_set(sandbox: Sandbox, path: Path, format: str) -> SandboxedSet:
    """Open an evaluation set of a DatasetFormat; raises RejectedFile where it cannot be read."""
    return SandboxedSet(sandbox.open(KIND, [path], format))


def _read(first: Message) -> tuple[SetFacts, Array | None]:
    facts, targets = FACTS.validate_python(first.document), first.arrays.get(TARGETS)
    if facts.samples < 1 or not facts.specs or (targets is not None and len(targets) != facts.samples):
        raise ValueError("samples")
    for each in facts.specs.values():
        _ = each.spec
    return facts, targets


def _refuse_other(sample: Array, spec: ArraySpec) -> None:
    fits = len(sample.shape) == len(spec.shape) and all(
        known is None or known == size for size, known in zip(sample.shape, spec.shape, strict=True)
    )
    if not fits or sample.dtype != spec.dtype:
        raise ValueError("a sample is not as announced")
