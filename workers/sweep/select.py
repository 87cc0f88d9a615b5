"""Phase 4: from the measured table to the next question, or to the decision."""

from collections.abc import Mapping, Sequence

from service.domain.errors import SweepFailure
from service.domain.layers import ALL_INT8, FP32, LAYER_PREFIX
from service.domain.results import Decision, Interval
from service.domain.settings import SweepMethod, SweepMode
from service.selection.budget import limit_of
from service.selection.decide import Fallback, Question, next_step
from service.selection.ranking import Ranked, rank_layers
from workers.metrics.scores import Scoreboard, layer_scores
from workers.metrics.shard_result import ShardResult
from workers.sweep import probed, race
from workers.sweep.course import Course
from workers.sweep.job import Job
from workers.sweep.measure import MIXED_PREFIX, fallback_of, mixed_name
from workers.sweep.outcome import Decided, NextRound
from workers.sweep.table import measured_shards


def run(job: Job) -> NextRound | Decided:
    """One step of the decision, from all that is measured so far."""
    done = measured_shards(job)
    shards = [done[each] for each in sorted(done)]
    if job.settings.method.probes:
        board = job.board(shards)
        _check(job.course, board)
        return _probed(job, board, shards=len(shards))
    return step(job.course, shards)


def step(course: Course, shards: Sequence[ShardResult]) -> NextRound | Decided:
    """The same where nothing was probed: from the results of the shards alone."""
    board = course.board(shards)
    _check(course, board)
    mode = course.settings.mode
    scores = layer_scores(course.board(shards, held=False), mode)
    sensitivities = {layer: score.drop for layer, score in scores.items()}
    ranking = rank_layers(scores, mode, divergence=course.metric.is_divergence)
    question = _question(course, board, ranking, sensitivities)
    variants = _measured(course, board, question)
    if course.settings.method is SweepMethod.RACING:
        return race.step(course, shards, question, variants)
    answer = next_step(question, {fallback: board.score(name) for fallback, name in variants.items()})
    if isinstance(answer, Decision):
        return Decided(answer)
    names = tuple(mixed_name(each) for each in answer)
    return NextRound(dict.fromkeys(range(len(shards)), names))


def _probed(job: Job, board: Scoreboard, *, shards: int) -> NextRound | Decided:
    sums = probed.probe_sums(job).sums
    assert sums is not None
    found = probed.known(sums, board, metric=job.metric().name)
    question = _question(job.course, board, found.ranking, found.values)
    variants = _measured(job.course, board, question)
    usable = {fallback: board.score(name) for fallback, name in variants.items()}
    return probed.step(job, question, usable, found, shards=shards)


def _check(course: Course, board: Scoreboard) -> None:
    """The trial before measuring let them pass: on some samples only, layers fail that passed on others."""
    if ALL_INT8 not in board.failures:
        return
    broken = {name.removeprefix(LAYER_PREFIX) for name in board.failures}
    names = [each.name for each in course.plan.layers if each.id in broken]
    advice = f"; exclude the layers that fail on some samples: {', '.join(names)}" if names else ""
    raise SweepFailure(
        f"with all layers in int8 the model does not run: {board.failures[ALL_INT8]}{advice}", code="all-int8-failed"
    )


def _question(
    course: Course, board: Scoreboard, ranking: tuple[Ranked, ...], sensitivities: Mapping[str, Interval]
) -> Question:
    names = {each.id: each.name for each in course.plan.layers}
    budget = course.settings.budget
    return Question(
        selection=course.settings.selection,
        limit=limit_of(budget, board.score(FP32).metric) if budget is not None else None,
        ranking=ranking,
        sensitivities=dict(sensitivities),
        names={each.layer_id: names[each.layer_id] for each in ranking},
        most=None if course.settings.method is SweepMethod.EXACT else race.places(len(ranking)),
    )


def _measured(course: Course, board: Scoreboard, question: Question) -> dict[Fallback, str]:
    """Fallback list → the variant that shows it: the controls and lone layers of the table, and verified lists."""
    every = tuple(each.layer_id for each in question.ranking)
    found = {(): ALL_INT8, every: FP32}
    if course.settings.mode is SweepMode.ONE_OFF:
        found |= {(layer,): LAYER_PREFIX + layer for layer in every}
    for name, reason in board.failures.items():
        if name.startswith(MIXED_PREFIX):
            raise SweepFailure(f"a mixed-precision variant cannot run: {reason}", code="verification-failed")
    return found | {fallback_of(name): name for name in board.variants if name.startswith(MIXED_PREFIX)}
