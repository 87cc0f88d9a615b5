"""What a sweep finds: measured numbers with their intervals, the layer table, the decision."""

from typing import Literal

from pydantic import Field

from service.domain.layers import Frozen, Layer


class Interval(Frozen):
    """A measured number with its 95 % confidence interval. ``method`` names how the interval was made.

    ``p_value``: of the hypothesis that the true value is zero, where the method gives one.
    ``value`` None: not defined on this data (the reason is in ``method``).
    """

    value: float | None
    low: float | None
    high: float | None
    method: str
    samples: int
    p_value: float | None = None


class PredictedDrop(Frozen):
    """A drop that was not measured: estimated from output noise, by a fit through ``variants`` measured variants.

    ``low`` and ``high``: where 95 % of such variants would be measured. ``extrapolated``: none of those measured had
    so much noise.
    """

    value: float
    low: float
    high: float
    variants: int
    extrapolated: bool


class VariantScore(Frozen):
    """One measured variant: the metric's own value, and its drop against the reference variant (positive = worse).

    ``measures``: every continuous measure that was recorded at no extra forward pass, by name.
    """

    variant: str
    metric: Interval
    drop: Interval
    measures: dict[str, Interval]


class Extent(Frozen):
    """The smallest and the largest value that were seen."""

    low: float
    high: float


class FoldingDifference(Frozen):
    """How far fp32 outputs with batch norms folded lie from those of the model as it is, on the same ``samples``.

    ``max_abs``: the largest difference of one output value. ``relative_rms``: root mean square of the difference over
    that of the output, of the output for which it is largest. Both None for the ``reason``.
    """

    samples: int
    max_abs: float | None
    relative_rms: float | None
    reason: str | None = None


class LayerStatistics(Frozen):
    """What calibration tells of a layer without labels: by-products, on which no decision rests.

    ``weight_ratio``: max |w| / mean |w|; None for a layer without a weight, and where that is zero throughout or holds
    NaN or infinite values. ``activations``: activation edge → what was seen there in fp32; empty where the ranges are
    those of a calibration cache, for which nothing is counted. ``sqnr_db``: of the
    operation's own output a (before its activation function), 10 · log10(Σ a² / Σ (a_int8 − a)²), where a_int8 has
    the layer in int8 and the same fp32 inputs; None for the reason in ``no_sqnr``.
    """

    weight_ratio: float | None
    activations: dict[str, Extent]
    sqnr_db: float | None
    no_sqnr: str | None = None


class LayerEstimate(Frozen):
    """What probes say of a layer to first order: an estimate, not a measurement.

    ``measures``: ``mse``, ``kl`` (nats) and, where it was asked for, ``loss_change`` (cross-entropy, nats), by name;
    their intervals are over samples and directions. ``beyond_linear``: not to be believed, for the layer's error is
    large, or differs from what was measured.
    """

    measures: dict[str, Interval]
    beyond_linear: bool


class Interaction(Frozen):
    """What two layers (ids) in int8 do to a measure beyond the sum of each alone; an estimate, to first order.

    ``value`` and its ``standard_error``; ``shrunk`` is what is reckoned with: 0 where the value is all noise.
    """

    layers: tuple[str, str]
    measure: Literal["mse", "kl"]
    value: float
    standard_error: float
    shrunk: float


class LayerResult(Frozen):
    """One row of the layer table. ``rank`` 1 is the most sensitive; None where there is nothing to rank it by.

    ``estimated``: ranked by ``estimate`` alone, ``score`` is None. ``stopped``: in a racing sweep, why the layer was
    measured on no more samples.
    """

    layer: Layer
    state: Literal["pending", "measured", "estimated", "failed", "excluded"]
    reason: str | None = None
    rank: int | None = None
    significant: bool | None = None
    amax: dict[str, float] = Field(default_factory=dict)
    statistics: LayerStatistics | None = None
    stopped: str | None = None
    estimate: LayerEstimate | None = None
    score: VariantScore | None = None

    @property
    def scored(self) -> bool:
        """Whether something is known of it, so that the decision is about it."""
        return self.state in ("measured", "estimated")


class VerifiedVariant(Frozen):
    """A mixed-precision variant that was measured: ``fallback`` layers in floating point, all others in int8.

    ``score``: on the held-out samples where the decision has some. ``cost``: by the cost that was minimised;
    ``predicted``: from its predicted noise, by the fit through all that was measured.
    """

    fallback: tuple[str, ...]
    score: VariantScore
    within_budget: bool | None
    cost: float | None = None
    predicted: PredictedDrop | None = None


class CurvePoint(Frozen):
    """A candidate: nothing of it is measured. ``cost``: by the cost that was minimised; ``predicted``: its drop.

    ``bound``: no list with as little predicted noise costs less; ``gap``: how much less one might, as a share of the
    cost; both None where nothing was proven.
    """

    fallback: tuple[str, ...]
    cost: float
    predicted: PredictedDrop | None
    bound: float | None
    gap: float | None


class Decision(Frozen):
    """The fallback list, as measured. ``status`` says whether the budget is met.

    ``met`` with ``same_samples`` false: the upper confidence bound of the drop on held-out samples, which the list was
    not chosen on, is within the budget; on unseen data it is with a probability of at least ``confidence``.
    ``undecidable``: neither surely within nor surely beyond; ``samples_needed`` is an estimate of how many samples of
    the evaluation set would tell, None where no number would with the drop measured.
    ``cost``: the name of what was minimised; ``curve``: the candidates that were searched among, the cheapest first.
    ``certain``: the drop's upper confidence bound is within the budget too.
    ``same_samples``: the list was verified on the samples that it was chosen on.

    ``error_rate``: of a racing sweep, the probability at most, over the random order of the samples, that the exact
    sweep of the same samples would have given a list of other layers, but for ``ties``. It holds for counts of answers
    at any size; for other measures it rests on means of at least 64 differences being near normal. ``ties``: a layer of
    the list (id), and after it those left out that the exact sweep might have put in its place, for its own 95 %
    intervals of the two overlap: that they do is as sure. Only without a budget, and by a divergence from fp32.
    """

    status: Literal["met", "not_met", "undecidable", "no_budget"]
    algorithm: str
    fallback: tuple[str, ...]
    fallback_names: tuple[str, ...]
    max_drop: float | None
    certain: bool | None
    same_samples: bool
    chosen: VerifiedVariant | None
    measured: tuple[VerifiedVariant, ...]
    explanation: str
    error_rate: float | None = None
    confidence: float | None = None
    samples_needed: int | None = None
    cost: str | None = None
    curve: tuple[CurvePoint, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
