"""The order of the layers: by what is surely measured first, then by a continuous measure that tells ties apart."""

import math
from collections.abc import Mapping

from service.domain.layers import Frozen
from service.domain.results import Interval, VariantScore
from service.domain.settings import SweepMode

SIGNIFICANCE = 0.05
# the first of these that a table holds ranks what the metric cannot tell apart
CONTINUOUS = ("kl", "mse")


class Ranked(Frozen):
    """A layer's place. ``significant``: its sensitivity is surely above zero, not noise."""

    layer_id: str
    significant: bool


def is_significant(drop: Interval) -> bool:
    """Whether a drop is above zero beyond noise: by its lower bound and, where there is one, its p-value."""
    if drop.value is None or drop.value <= 0 or drop.low is None:
        return False
    return drop.low > 0 and (drop.p_value is None or drop.p_value < SIGNIFICANCE)


def is_sensitive(score: VariantScore, mode: SweepMode, *, divergence: bool) -> bool:
    """Whether a layer's sensitivity is above zero, not noise.

    A divergence from fp32 is nowhere below zero: where one sample's is above it, so is their mean, and no test could
    say more. (One off, a sensitivity is the difference of two, which may be noise.)
    """
    if divergence and mode is SweepMode.ONE_ON:
        return score.drop.value is not None and continuous(score) > 0
    return is_significant(score.drop)


def rank_layers(
    scores: Mapping[str, VariantScore], mode: SweepMode = SweepMode.ONE_ON, *, divergence: bool = False
) -> tuple[Ranked, ...]:
    """Most sensitive first, from layer id → score (whose drop is the sensitivity).

    Significant layers come first, by drop. The rest, whose drops are noise, follow by KL (else output MSE): the more
    of it a layer adds alone, or (one-off) the less is left without it. Equal ones keep the order of the table; a layer
    without a number comes last. ``divergence``: the metric is a distance from fp32, itself as continuous as any that
    could tell ties apart; then all go by drop, or a large but scattered one would come after a small and even one.
    """
    significant = {layer: is_sensitive(score, mode, divergence=divergence) for layer, score in scores.items()}

    def key(layer: str) -> tuple[float, float]:
        score = scores[layer]
        by_drop = significant[layer] or (divergence and score.drop.value is not None)
        first = -(score.drop.value or 0.0) if by_drop else math.inf
        found = continuous(score)
        return first, found if mode is SweepMode.ONE_OFF and math.isfinite(found) else -found

    return tuple(Ranked(layer_id=layer, significant=significant[layer]) for layer in sorted(scores, key=key))


def rank_by(values: Mapping[str, Interval]) -> tuple[Ranked, ...]:
    """Most sensitive first, from layer id → one divergence from fp32 of each; one without a number comes last.

    Above zero is beyond noise, as in ``is_sensitive``: where one sample is most of it, its interval may reach below.
    """

    def key(layer: str) -> float:
        value = values[layer].value
        return math.inf if value is None else -value

    return tuple(
        Ranked(layer_id=layer, significant=(values[layer].value or 0.0) > 0) for layer in sorted(values, key=key)
    )


def continuous(score: VariantScore) -> float:
    """The measure that tells ties apart; minus infinity where there is none."""
    for name in CONTINUOUS:
        found = score.measures.get(name)
        if found is not None and found.value is not None:
            return found.value
    return score.drop.value if score.drop.value is not None else -math.inf
