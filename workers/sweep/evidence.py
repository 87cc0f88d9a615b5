"""What the decision rests on, from all that is measured and probed so far."""

from collections.abc import Mapping, Sequence

from service.domain.costs import CostModel, LayerCost
from service.domain.layers import ALL_INT8, FP32, Layer
from service.domain.results import Interaction, Interval, VariantScore
from service.domain.settings import SweepMode
from service.selection.candidates import Fallback
from service.selection.evidence import Evidence, MeasuredList
from service.selection.ranking import Ranked, rank_layers
from workers.engine.probe import gram, interactions
from workers.engine.probe_sums import Measure, ProbeSums
from workers.metrics.scores import Scoreboard
from workers.sweep.job import Job
from workers.sweep.measure import MIXED_PREFIX, fallback_of, mixed_name
from workers.sweep.probed import Known
from workers.sweep.table import Measurements


def of_measurements(
    job: Job, done: Measurements, board: Scoreboard, scores: Mapping[str, VariantScore], costs: CostModel
) -> Evidence:
    """Where every layer was measured (``scores``): layers that were not have no place in the decision."""
    scored_by_class = any("kl" in each.measures for each in scores.values())
    measure: Measure = "kl" if scored_by_class and job.metric().name != "mse" else "mse"
    all_int8 = _value(board.score(ALL_INT8), measure)
    noises = {layer: _value(score, measure) for layer, score in scores.items()}
    if job.settings.mode is SweepMode.ONE_OFF:  # a layer's variant has the noise of all others
        noises = {layer: max(0.0, all_int8 - noise) for layer, noise in noises.items()}
    return _evidence(
        job,
        done,
        board,
        measure=measure,
        ranking=rank_layers(scores, job.settings.mode),
        sensitivities={layer: score.drop for layer, score in scores.items()},
        noises=noises,
        drops={layer: score.drop for layer, score in scores.items()},
        pairs=(),
        costs=costs,
    )


def of_probes(
    job: Job, done: Measurements, board: Scoreboard, found: Known, sums: ProbeSums, costs: CostModel
) -> Evidence:
    """Where layers were probed: estimates, measured values where there are some, and the interactions."""
    measure: Measure = "mse" if job.metric().name == "mse" or sums.kl is None else "kl"
    return _evidence(
        job,
        done,
        board,
        measure=measure,
        ranking=found.ranking,
        sensitivities=dict(found.values),
        noises={layer: max(0.0, each.value or 0.0) for layer, each in found.values.items()},
        drops={layer: score.drop for layer, score in found.scores.items()},
        pairs=interactions(gram(sums, measure), measure),
        costs=costs,
    )


def _evidence(
    job: Job,
    done: Measurements,
    board: Scoreboard,
    *,
    measure: Measure,
    ranking: tuple[Ranked, ...],
    sensitivities: Mapping[str, Interval],
    noises: Mapping[str, float],
    drops: Mapping[str, Interval],
    pairs: Sequence[Interaction],
    costs: CostModel,
) -> Evidence:
    held_out = job.board(done.held_out) if job.plan.held_out else None
    names = {each.id: each.name for each in job.plan.layers if each.id in noises}
    return Evidence(
        names=names,
        ranking=ranking,
        sensitivities=dict(sensitivities),
        measure=measure,
        noises=dict(noises),
        drops=dict(drops),
        interactions=tuple(pairs),
        costs=costs if costs.layers else _unweighed(job.plan.layers),
        fp32=board.score(FP32).metric,
        fp32_held_out=held_out.score(FP32).metric if held_out is not None and FP32 in held_out.variants else None,
        measured=tuple(measured_lists(board, held_out, measure)),
        held_out=job.plan.held_out_samples,
        fallback_precision=job.settings.fallback_precision,
    )


def measured_lists(board: Scoreboard, held_out: Scoreboard | None, measure: str) -> list[MeasuredList]:
    """The lists that were run on both parts; all layers in int8 is the empty one."""
    lists: dict[Fallback, str] = {(): ALL_INT8}
    lists |= {fallback_of(name): name for name in board.variants if name.startswith(MIXED_PREFIX)}
    return [
        MeasuredList(
            fallback=tuple(sorted(fallback)),
            choice=board.score(name),
            held_out=held_out.score(name) if held_out is not None else None,
            noise=_value(board.score(name), measure),
        )
        for fallback, name in lists.items()
        if held_out is None or name in held_out.variants
    ]


def variant_of(fallback: Fallback) -> str:
    """The name of the variant with this list."""
    return mixed_name(fallback) if fallback else ALL_INT8


def _value(score: VariantScore, measure: str) -> float:
    found = score.measures.get(measure)
    return max(0.0, found.value) if found is not None and found.value is not None else 0.0


def _unweighed(layers: Sequence[Layer]) -> CostModel:
    """Of a sweep that was planned before plans had costs."""
    return CostModel(layers=tuple(LayerCost.of(each) for each in layers))
