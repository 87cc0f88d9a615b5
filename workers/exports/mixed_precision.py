"""What every export says in another tool's words: which layers are in int8, and which stay in floating point."""

from dataclasses import dataclass

from service.domain.costs import Precision
from service.domain.layers import Layer, SkippedOperation
from service.domain.settings import WeightGranularity


@dataclass(frozen=True)
class MixedPrecision:
    """The chosen variant. ``layers``: all, in topological order.

    ``fallback``: the ids of those that stay in floating point, for whatever reason: chosen, excluded, not measurable.
    ``fallback_precision``: fp32 or fp16, in which these are to be deployed.
    ``skipped`` are operations that are no layers; they were in floating point in every variant.
    """

    layers: tuple[Layer, ...]
    fallback: frozenset[str]
    skipped: tuple[SkippedOperation, ...] = ()
    weights: WeightGranularity = WeightGranularity.PER_CHANNEL
    fallback_precision: Precision = Precision.FP32

    @property
    def int8(self) -> tuple[Layer, ...]:
        """The layers in int8."""
        return tuple(each for each in self.layers if each.id not in self.fallback)

    @property
    def floating(self) -> tuple[Layer, ...]:
        """The layers in floating point."""
        return tuple(each for each in self.layers if each.id in self.fallback)
