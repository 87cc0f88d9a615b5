"""Phase 4: from the measured table to the next question, or to the decision."""

from collections.abc import Mapping

from service.domain.errors import SweepFailure
from service.domain.layers import ALL_INT8, FP32, LAYER_PREFIX
from service.domain.results import Decision, Interval
from service.domain.settings import SweepMethod, SweepMode
from service.selection.budget import limit_of
from service.selection.decide import Fallback, Question, next_step
from service.selection.ranking import Ranked, rank_layers
from workers.metrics.scores import Scoreboard, layer_scores
from workers.sweep import probed, race
from workers.sweep.job import Job
from workers.sweep.measure import MIXED_PREFIX, fallback_of, mixed_name
from workers.sweep.outcome import Decided, NextRound
from workers.sweep.table import measurements


def run(job: Job) -> NextRound | Decided:
    """One step of the decision, from all that is measured so far."""
    shards = measurements(job).shards
    board = job.board(shards)
    if ALL_INT8 in board.failures:
        raise SweepFailure(_all_int8_failed(job, board.failures), code="all-int8-failed")
    if job.settings.method.probes:
        return _probed(job, board, shards=len(shards))
    scores = layer_scores(Scoreboard(shards, job.metric()), job.settings.mode)
    sensitivities = {layer: score.drop for layer, score in scores.items()}
    question = _question(job, board, rank_layers(scores, job.settings.mode), sensitivities)
    variants = _measured(job, board, question)
    if job.settings.method is SweepMethod.RACING:
        return race.step(job, shards, question, variants)
    answer = next_step(question, {fallback: board.score(name) for fallback, name in variants.items()})
    if isinstance(answer, Decision):
        return Decided(answer)
    names = tuple(mixed_name(each) for each in answer)
    return NextRound(dict.fromkeys(range(len(shards)), names))


def _probed(job: Job, board: Scoreboard, *, shards: int) -> NextRound | Decided:
    sums = probed.probe_sums(job).sums
    assert sums is not None
    found = probed.known(sums, board, metric=job.metric().name)
    question = _question(job, board, found.ranking, found.values)
    variants = _measured(job, board, question)
    usable = {fallback: board.score(name) for fallback, name in variants.items()}
    return probed.step(job, question, usable, found, shards=shards)


def _all_int8_failed(job: Job, failures: Mapping[str, str]) -> str:
    """The trial before measuring let them pass: on some samples only, layers fail that passed on others."""
    broken = {name.removeprefix(LAYER_PREFIX) for name in failures}
    names = [each.name for each in job.plan.layers if each.id in broken]
    advice = f"; exclude the layers that fail on some samples: {', '.join(names)}" if names else ""
    return f"with all layers in int8 the model does not run: {failures[ALL_INT8]}{advice}"


def _question(
    job: Job, board: Scoreboard, ranking: tuple[Ranked, ...], sensitivities: Mapping[str, Interval]
) -> Question:
    names = {each.id: each.name for each in job.plan.layers}
    budget = job.settings.budget
    return Question(
        selection=job.settings.selection,
        limit=limit_of(budget, board.score(FP32).metric) if budget is not None else None,
        ranking=ranking,
        sensitivities=dict(sensitivities),
        names={each.layer_id: names[each.layer_id] for each in ranking},
        most=None if job.settings.method is SweepMethod.EXACT else race.places(len(ranking)),
    )


def _measured(job: Job, board: Scoreboard, question: Question) -> dict[Fallback, str]:
    """Fallback list → the variant that shows it: the controls and lone layers of the table, and verified lists."""
    every = tuple(each.layer_id for each in question.ranking)
    found = {(): ALL_INT8, every: FP32}
    if job.settings.mode is SweepMode.ONE_OFF:
        found |= {(layer,): LAYER_PREFIX + layer for layer in every}
    for name, reason in board.failures.items():
        if name.startswith(MIXED_PREFIX):
            raise SweepFailure(f"a mixed-precision variant cannot run: {reason}", code="verification-failed")
    return found | {fallback_of(name): name for name in board.variants if name.startswith(MIXED_PREFIX)}
