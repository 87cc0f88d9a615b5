"""One step of a selection that was asked of a decided sweep: from the sweep's evidence and the lists of its own."""

from collections.abc import Sequence

from service.domain.layers import FP32
from service.domain.selections import Selected, SelectionQuestion
from service.selection.evidence import Evidence, MeasuredList
from service.selection.what_if import next_answer
from service.store.kept import KeptResults
from service.store.tables import SweepRow
from workers.sweep.evidence import measured_lists
from workers.sweep.failures import check_failures
from workers.sweep.job import Job
from workers.sweep.lists import kept_curve, lists_to_measure
from workers.sweep.outcome import Chosen, NextRound
from workers.sweep.table import Measurements, measurements


def run(job: Job) -> NextRound | Chosen:
    """The lists to be measured next, on all samples of the sweep, or the answer."""
    assert job.selection is not None, "the unit is a selection's"
    question, done = SelectionQuestion.model_validate(job.selection.settings), measurements(job)
    kept = KeptResults(job.context.database, job.context.blobs)
    stored = _stored(job)
    evidence, before = _with_own(job, stored, done), len(stored.measured)
    answer = next_answer(evidence, question.selection, question.budget, kept, before=before)
    if isinstance(answer, Selected):
        return Chosen(answer, kept_curve(kept))
    found = lists_to_measure(job, done, answer)
    return NextRound(found.variants, curve=kept_curve(kept))


def _stored(job: Job) -> Evidence:
    """What the sweep was decided by."""
    with job.context.database.read() as session:
        return Evidence.model_validate(session.get_one(SweepRow, job.sweep_id).evidence)


def _with_own(job: Job, stored: Evidence, done: Measurements) -> Evidence:
    """With what was measured for this selection since."""
    if not done.shards:
        return stored
    check_failures(job.course, job.board((*done.shards, *done.held_out)))
    board = job.board(done.shards)
    held_out = job.board(done.held_out) if job.plan.held_out else None
    return stored.model_copy(
        update={
            "measured": _joined(stored.measured, measured_lists(board, held_out, stored.measure)),
            "fp32_held_out": held_out.score(FP32).metric if held_out is not None else None,
        }
    )


def _joined(stored: Sequence[MeasuredList], own: Sequence[MeasuredList]) -> tuple[MeasuredList, ...]:
    """Of a list that the sweep has measured too, its numbers stand."""
    return tuple({each.fallback: each for each in (*own, *stored)}.values())
