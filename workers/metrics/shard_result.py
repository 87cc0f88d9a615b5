"""The per-sample results of one shard, as stored: arrays in a zip, never a pickle; equal results are equal bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.metrics.packed import DAMAGES, damaged, pack, unpack

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

VERSION = 1


@dataclass(frozen=True)
class ShardResult:
    """Variants × samples.

    ``measures``: name → (V, N); ``states``: corpus metric state → (V, ...) or, for states that grow with the samples,
    (V, n, ...). ``failures``: variant → why it did not run (its rows hold NaN). ``identities``: what each variant is
    whatever it is called, where results are to be found again.
    """

    variants: tuple[str, ...]
    measures: dict[str, Floats]
    states: dict[str, Array] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    identities: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """How many samples the shard holds."""
        return len(next(iter(self.measures.values()))[0])

    def to_bytes(self) -> bytes:
        """As a zip of .npy members and a JSON header."""
        header = {"variants": self.variants, "failures": self.failures, "identities": self.identities}
        arrays: dict[str, Array] = {}
        for kind, named in (("measures", self.measures), ("states", self.states)):
            arrays |= {f"{kind}/{name}": named[name] for name in sorted(named)}
        return pack(VERSION, header, arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> "ShardResult":
        """What ``to_bytes`` wrote; raises QuantsieveError (``damaged-result``) for anything else."""
        try:
            return cls._read(content)
        except DAMAGES as error:
            raise damaged(error) from error

    @classmethod
    def _read(cls, content: bytes) -> "ShardResult":
        header, arrays = unpack(VERSION, content)
        found: dict[str, dict[str, Array]] = {"measures": {}, "states": {}}
        for name, array in arrays.items():
            kind, _, rest = name.partition("/")
            found[kind][rest] = array
        measures = {name: array.astype(np.float64) for name, array in found["measures"].items()}
        identities = tuple(header["identities"])
        return cls(tuple(header["variants"]), measures, found["states"], header["failures"], identities)


def assemble(variants: Sequence[str], identities: Sequence[str], sources: Sequence[ShardResult]) -> ShardResult:
    """These variants' rows, from results of the same samples that hold them under any name, the first that does.

    Raises KeyError where none does.
    """
    where = {identity: (source, row) for source in reversed(sources) for row, identity in enumerate(source.identities)}
    found = [where[each] for each in identities]
    failures = {
        variant: source.failures[source.variants[row]]
        for variant, (source, row) in zip(variants, found, strict=True)
        if source.variants[row] in source.failures
    }
    # a result in which every variant failed knows neither the states nor their shapes
    model = next((pair for variant, pair in zip(variants, found, strict=True) if variant not in failures), found[0])

    def rows(name: str, kind: str) -> Array:
        blank = np.zeros_like(getattr(model[0], kind)[name][model[1]])
        return np.stack(
            [
                blank if kind == "states" and variant in failures else getattr(source, kind)[name][row]
                for variant, (source, row) in zip(variants, found, strict=True)
            ]
        )

    measures = {name: rows(name, "measures").astype(np.float64) for name in model[0].measures}
    states = {name: rows(name, "states") for name in model[0].states}
    return ShardResult(tuple(variants), measures, states, failures, tuple(identities))


def merge(results: Sequence[ShardResult]) -> ShardResult:
    """All variants that were measured on one shard's samples, of each name the first (corpus states stay apart)."""
    rows = {name: (each, row) for each in reversed(results) for row, name in enumerate(each.variants)}
    names = tuple(dict.fromkeys(name for each in results for name in each.variants))
    if len(results) == 1 or names == results[0].variants:
        return results[0]
    failures = {name: rows[name][0].failures[name] for name in names if name in rows[name][0].failures}

    def stacked(kind: str, measure: str) -> Array:
        return np.stack([getattr(source, kind)[measure][row] for source, row in (rows[name] for name in names)])

    measures = {measure: stacked("measures", measure).astype(np.float64) for measure in results[0].measures}
    states = {state: stacked("states", state) for state in results[0].states}
    return ShardResult(names, measures, states, failures)
