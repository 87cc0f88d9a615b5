"""The per-sample results of one shard, as stored: arrays in a zip, never a pickle; equal results are equal bytes."""

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.domain.errors import QuantsieveError

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]

HEADER = "header.json"
VERSION = 1
EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time in the zip, so that equal results have one hash


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
        header = {
            "version": VERSION,
            "variants": self.variants,
            "failures": self.failures,
            "identities": self.identities,
        }
        members = {HEADER: json.dumps(header, sort_keys=True).encode()}
        for kind, arrays in (("measures", self.measures), ("states", self.states)):
            for name in sorted(arrays):
                members[f"{kind}/{name}.npy"] = _npy(arrays[name])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name, EPOCH), content, zipfile.ZIP_DEFLATED, 1)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "ShardResult":
        """What ``to_bytes`` wrote; raises QuantsieveError (``damaged-result``) for anything else."""
        try:
            return cls._read(content)
        except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, TypeError, ValueError) as error:
            raise QuantsieveError(f"a shard's stored result cannot be read: {error}", code="damaged-result") from error

    @classmethod
    def _read(cls, content: bytes) -> "ShardResult":
        found: dict[str, dict[str, Array]] = {"measures": {}, "states": {}}
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            header = json.loads(archive.read(HEADER))
            if header["version"] != VERSION:
                raise ValueError(f"it has version {header['version']}, and this program reads {VERSION}")
            for name in archive.namelist():
                if name != HEADER:
                    kind, _, rest = name.partition("/")
                    found[kind][rest.removesuffix(".npy")] = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
        measures = {name: array.astype(np.float64) for name, array in found["measures"].items()}
        identities = tuple(header["identities"])
        return cls(tuple(header["variants"]), measures, found["states"], header["failures"], identities)


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


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
