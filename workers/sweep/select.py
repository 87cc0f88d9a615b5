"""Phase 4: from the measured table to the next question, or to the decision."""

from collections.abc import Mapping

from service.domain.errors import SweepFailure
from service.domain.layers import ALL_INT8, CONTROLS, FP32, LAYER_PREFIX
from service.domain.results import Decision, VariantScore
from service.domain.settings import SweepMode
from service.domain.states import UnitKind, UnitState
from service.selection.budget import limit_of
from service.selection.decide import Fallback, Question, next_step
from service.selection.ranking import rank_layers
from service.store import units
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.sweep.job import Job
from workers.sweep.measure import MIXED_PREFIX
from workers.sweep.outcome import Decided, NextRound
from workers.sweep.table import measured_shards


def run(job: Job) -> NextRound | Decided:
    """One step of the decision, from all that is measured so far."""
    shards = measured_shards(job)
    board = Scoreboard([shards[each] for each in sorted(shards)], job.metric())
    if ALL_INT8 in board.failures:
        raise SweepFailure(_all_int8_failed(job, board.failures), code="all-int8-failed")
    question = _question(job, board)
    answer = next_step(question, _measured(job, board, question))
    return Decided(answer) if isinstance(answer, Decision) else NextRound(answer)


def _all_int8_failed(job: Job, failures: Mapping[str, str]) -> str:
    """The trial before measuring let them pass: on some samples only, layers fail that passed on others."""
    broken = {name.removeprefix(LAYER_PREFIX) for name in failures}
    names = [each.name for each in job.plan.layers if each.id in broken]
    advice = f"; exclude the layers that fail on some samples: {', '.join(names)}" if names else ""
    return f"with all layers in int8 the model does not run: {failures[ALL_INT8]}{advice}"


def _question(job: Job, board: Scoreboard) -> Question:
    layers = {each.id: each.name for each in job.plan.layers}
    scores = {
        name.removeprefix(LAYER_PREFIX): board.sensitivity(name, job.settings.mode)
        for name in board.variants
        if name not in CONTROLS
    }
    budget = job.settings.budget
    return Question(
        selection=job.settings.selection,
        limit=limit_of(budget, board.score(FP32).metric) if budget is not None else None,
        ranking=rank_layers(scores),
        sensitivities={layer: score.drop for layer, score in scores.items()},
        names={layer: layers[layer] for layer in scores},
    )


def _measured(job: Job, board: Scoreboard, question: Question) -> dict[Fallback, VariantScore]:
    """Fallback list → score against fp32: the controls and lone layers of the table, and every verified list."""
    every = tuple(each.layer_id for each in question.ranking)
    found: dict[Fallback, VariantScore] = {(): board.score(ALL_INT8), every: board.score(FP32)}
    if job.settings.mode is SweepMode.ONE_OFF:
        found |= {(layer,): board.score(LAYER_PREFIX + layer) for layer in every}
    return found | _verified(job)


def _verified(job: Job) -> dict[Fallback, VariantScore]:
    with job.context.database.read() as session:
        rows = units.units_of(session, job.sweep_id, UnitKind.VERIFY)
        results = [(row.round, row.ordinal, row.result_sha256) for row in rows if row.state == UnitState.DONE]
    rounds: dict[int, list[ShardResult]] = {}
    for round_, _, sha256 in results:  # in order of round and ordinal
        if sha256 is not None:
            rounds.setdefault(round_, []).append(ShardResult.from_bytes(job.context.blobs.read(sha256)))
    found: dict[Fallback, VariantScore] = {}
    for shards in rounds.values():
        board = Scoreboard(shards, job.metric())
        if board.failures:
            name, reason = next(iter(board.failures.items()))
            raise SweepFailure(f"a mixed-precision variant cannot run: {reason}", code="verification-failed")
        for name in board.variants:
            if name.startswith(MIXED_PREFIX):
                found[tuple(each for each in name.removeprefix(MIXED_PREFIX).split("\n") if each)] = board.score(name)
    return found
