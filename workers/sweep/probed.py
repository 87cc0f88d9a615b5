"""One step of the decision where layers were probed first: ranks by estimates, and what is still to be measured.

Layers are ranked by one continuous measure, KL divergence or output MSE: as measured where it was, else as estimated.
``probe_then_exact`` measures the layers that an estimate is not to be believed for, then those that the end of the
list might lie on either side of.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from service.domain.layers import LAYER_PREFIX
from service.domain.results import Interval, LayerEstimate, VariantScore
from service.domain.settings import SweepMode
from service.domain.states import UnitKind, UnitState
from service.selection.ranking import Ranked, rank_by
from service.store import units
from workers.engine.probe import beyond_linear, estimates
from workers.engine.probe_sums import Measure, ProbeSums
from workers.metrics.scores import Scoreboard, layer_scores
from workers.sweep.job import Job


@dataclass(frozen=True)
class ProbedShards:
    """The sums over all shards that are probed so far, and their number; None before the first."""

    sums: ProbeSums | None
    shards: int


NOT_PROBED = ProbedShards(None, 0)


def probe_sums(job: Job, own: Mapping[int, ProbeSums] | None = None) -> ProbedShards:
    """What the finished units say, and ``own``, which is not stored yet."""
    with job.context.database.read() as session:
        rows = units.units_of(session, job.sweep_id, UnitKind.PROBE)
        stored = {row.ordinal: row.result_sha256 for row in rows if row.state == UnitState.DONE and row.result_sha256}
    found = {ordinal: ProbeSums.from_bytes(job.context.blobs.read(sha256)) for ordinal, sha256 in stored.items()}
    found |= own or {}
    total: ProbeSums | None = None
    for ordinal in sorted(found):  # in one order, so that the sums are the same bits on every worker
        total = found[ordinal] if total is None else total + found[ordinal]
    return ProbedShards(total, len(found))


@dataclass(frozen=True)
class Known:
    """All that is known of the layers, by id: estimates of each, ``scores`` of those that were measured too.

    ``values``: what they are ranked by; ``ranking``: in that order.
    """

    estimates: Mapping[str, LayerEstimate]
    scores: Mapping[str, VariantScore]
    values: Mapping[str, Interval]
    ranking: tuple[Ranked, ...]


def known(sums: ProbeSums, board: Scoreboard, *, metric: str) -> Known:
    """Ranked by the metric where that is a measure of probes, else by KL divergence, else by output MSE."""
    scores = layer_scores(board, SweepMode.ONE_ON)
    measure: Measure = "mse" if metric == "mse" or sums.kl is None else "kl"
    exact = {layer: score.measures["mse"] for layer, score in scores.items() if "mse" in score.measures}
    marked = beyond_linear(sums, exact)
    found = {
        layer: LayerEstimate(measures=measures, beyond_linear=layer in marked)
        for layer, measures in estimates(sums).items()
        if LAYER_PREFIX + layer not in board.failures
    }
    measured = {layer: score.measures[measure] for layer, score in scores.items() if measure in score.measures}
    values = {layer: measured.get(layer, each.measures[measure]) for layer, each in found.items()}
    return Known(found, scores, values, rank_by(values))


def doubtful(found: Known) -> list[str]:
    """The layers that an estimate is not to be believed for, and that are not measured yet."""
    marked = (layer for layer, each in found.estimates.items() if each.beyond_linear)
    return [layer for layer in marked if layer not in found.scores]


def at_the_end(found: Known, fallback: Collection[str]) -> list[str]:
    """The layers, not measured yet, whose intervals reach over the end of the list: they might be on its other side."""
    order, values = [each.layer_id for each in found.ranking], found.values
    inside, outside = ([each for each in order if (each in fallback) is side] for side in (True, False))
    if not inside or not outside:
        return []
    last, first = values[inside[-1]], values[outside[0]]
    below = [each for each in inside if not _surely_above(values[each], first)]
    near = [*below, *(each for each in outside if not _surely_above(last, values[each]))]
    return [each for each in near if each not in found.scores]


def _surely_above(one: Interval, other: Interval) -> bool:
    return one.low is not None and other.high is not None and one.low > other.high
