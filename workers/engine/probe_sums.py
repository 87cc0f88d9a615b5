"""What the probes of a shard add up to: sums over samples, so that shards merge and no sample's values are kept.

Of one measure, a probe gives a number s for every sample and layer: the change that the layer's int8 error makes,
seen along one random direction of the outputs. Over the directions E[s_i s_j] is what layers i and j have in common:
with i = j the layer's own measure. A sample's probes are averaged first, so that a sample is one observation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from workers.metrics.packed import DAMAGES, Array, damaged, pack, unpack

Floats = npt.NDArray[np.float64]
Measure = Literal["mse", "kl"]

VERSION = 1


@dataclass(frozen=True, eq=False)
class PairSums:
    """Of x_ij = the mean over a sample's probes of s_i s_j, sums over samples. L layers.

    ``first``: Σ x_ij and ``second``: Σ x_ij², both (L, L); ``third``: Σ x_ii³, (L,).
    """

    first: Floats
    second: Floats
    third: Floats

    @classmethod
    def of(cls, values: Floats) -> "PairSums":
        """From s, shape (probes, samples, L)."""
        probes, _, layers = values.shape
        first, second = np.zeros((layers, layers)), np.zeros((layers, layers))
        for one in range(probes):
            first += values[one].T @ values[one] / probes
            for other in range(one, probes):
                # x_ij² = Σ over pairs of probes of (s_i s_i')(s_j s_j')
                both = values[one] * values[other]  # (samples, L)
                second += both.T @ both * (1 if other == one else 2) / probes**2
        third = (np.square(values).mean(axis=0) ** 3).sum(axis=0)
        return cls(first, second, third)

    def __add__(self, other: "PairSums") -> "PairSums":
        return PairSums(self.first + other.first, self.second + other.second, self.third + other.third)


@dataclass(frozen=True, eq=False)
class MeanSums:
    """Of one value for each sample and layer, sums over samples: Σ x and Σ x², both (L,)."""

    first: Floats
    second: Floats

    @classmethod
    def of(cls, values: Floats) -> "MeanSums":
        """From x, shape (samples, L)."""
        return cls(values.sum(axis=0), np.square(values).sum(axis=0))

    def __add__(self, other: "MeanSums") -> "MeanSums":
        return MeanSums(self.first + other.first, self.second + other.second)


@dataclass(frozen=True, eq=False)
class ProbeSums:
    """One shard's sums, or several shards'. ``kl`` only of class scores, ``loss`` only with labels beside them.

    ``spread``: Σ over samples of the squared distance of the fp32 output from its mean (within a micro-batch, mean over
    the output's elements), with ``spread_freedom`` degrees of freedom. ``failures``: layer → why it could not be
    probed (its sums mean nothing). ``constants``: nodes that errors cannot be followed through.
    """

    layers: tuple[str, ...]
    samples: int
    probes: int
    mse: PairSums
    kl: PairSums | None
    loss: MeanSums | None
    spread: float
    spread_freedom: int
    failures: dict[str, str] = field(default_factory=dict)
    constants: tuple[str, ...] = ()

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Those that were probed, the loss change apart."""
        return ("mse",) if self.kl is None else ("mse", "kl")

    def __add__(self, other: "ProbeSums") -> "ProbeSums":
        """Both shards' sums; raises ValueError where they are of different layers, measures or numbers of probes."""
        mine, theirs = ((each.layers, each.probes, each.kl is None, each.loss is None) for each in (self, other))
        if mine != theirs:
            raise ValueError("the shards were probed for other layers, measures or numbers of probes")
        return ProbeSums(
            layers=self.layers,
            samples=self.samples + other.samples,
            probes=self.probes,
            mse=self.mse + other.mse,
            kl=None if self.kl is None or other.kl is None else self.kl + other.kl,
            loss=None if self.loss is None or other.loss is None else self.loss + other.loss,
            spread=self.spread + other.spread,
            spread_freedom=self.spread_freedom + other.spread_freedom,
            failures={**other.failures, **self.failures},
            constants=tuple(dict.fromkeys(self.constants + other.constants)),
        )

    def to_bytes(self) -> bytes:
        """As a zip of .npy members and a JSON header."""
        return pack(VERSION, *self.to_parts())

    def to_parts(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What JSON can hold of them, and the sums."""
        header = {
            "layers": self.layers,
            "samples": self.samples,
            "probes": self.probes,
            "spread": self.spread,
            "spread_freedom": self.spread_freedom,
            "failures": self.failures,
            "constants": self.constants,
        }
        sums = {"mse": self.mse, "kl": self.kl, "loss": self.loss}
        arrays: dict[str, Array] = {}
        for name, each in sums.items():
            arrays |= {} if each is None else {f"{name}/{key}": value for key, value in vars(each).items()}
        return header, arrays

    @classmethod
    def from_bytes(cls, content: bytes) -> "ProbeSums":
        """What ``to_bytes`` wrote; raises QuantsieveError (``damaged-result``) for anything else."""
        try:
            return cls.from_parts(*unpack(VERSION, content))
        except DAMAGES as error:
            raise damaged(error) from error

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> "ProbeSums":
        """What ``to_parts`` gave; raises LookupError, TypeError or ValueError for anything else."""
        found: dict[str, dict[str, Floats]] = {"mse": {}, "kl": {}, "loss": {}}
        for name, array in arrays.items():
            kind, _, key = name.partition("/")
            found[kind][key] = array.astype(np.float64)
        return cls(
            layers=tuple(header["layers"]),
            samples=header["samples"],
            probes=header["probes"],
            mse=PairSums(**found["mse"]),
            kl=PairSums(**found["kl"]) if found["kl"] else None,
            loss=MeanSums(**found["loss"]) if found["loss"] else None,
            spread=header["spread"],
            spread_freedom=header["spread_freedom"],
            failures=header["failures"],
            constants=tuple(header["constants"]),
        )
