"""Runs one leased unit from claim to commit: do the work, then finish it and queue what follows in one transaction."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service import logs
from service.broker import DATA_QUEUE
from service.domain.errors import InvalidInput, LeaseLost, SweepCancelled, SweepFailure
from service.domain.no_space import NoSpace, no_space_told
from service.domain.states import UnitKind
from service.store import units
from service.store.blobs import StorageUnavailable
from service.store.database import out_of_space
from service.store.subjects import lock_open_subject
from service.store.tables import ArtifactRow, SweepRow, UnitRow
from service.store.units import Lease
from service.tracing import UNTRACED, Span
from workers.context import WorkerContext
from workers.lease import HeldLease
from workers.sweep import calibrate, check, convert, measure, prepare, probe, report, scout, select, table
from workers.sweep.job import Job
from workers.sweep.outcome import (
    Calibrated,
    Chosen,
    Counted,
    Decided,
    Measured,
    NextRound,
    Outcome,
    Probed,
    Reported,
    Scouted,
)
from workers.sweep.selection_transitions import advance_selection
from workers.sweep.transitions import advance
from workers.verdicts import give_up

log = logging.getLogger(__name__)

PHASES: dict[UnitKind, Callable[[Job], Outcome]] = {
    UnitKind.PREPARE: prepare.run,
    UnitKind.CALIBRATE: calibrate.run,
    UnitKind.PROBE: probe.run,
    UnitKind.SCOUT: scout.run,
    UnitKind.MEASURE: measure.run,
    UnitKind.SELECT: select.run,
    UnitKind.VERIFY: measure.run,
    UnitKind.REPORT: report.run,
}


def run_unit(context: WorkerContext, lease: Lease, span: Span = UNTRACED) -> None:
    """Do a leased unit. A lost lease drops the work; any other error ends the attempt, not the worker."""
    try:
        with no_space_told(), HeldLease(context, lease) as held:
            if lease.sweep_id is not None:
                _run_phase(context, held)
            elif lease.kind is UnitKind.CONVERT:
                convert.run(context, held)
            else:
                check.run(context, held)
    except LeaseLost:
        log.info("unit %s belongs to another worker now", lease.unit_id)
        span.failed("the lease was lost")
    except SweepCancelled:
        _cancel(context, lease)
    except (SweepFailure, InvalidInput) as error:
        span.failed(error)
        _fail(context, lease, code=error.code, problem=error.message)
    except (StorageUnavailable, NoSpace) as error:
        log.warning("unit %s waits: %s", lease.unit_id, error)
        span.failed(error)
        _wait(context, lease, error.message)
    except Exception as error:  # the process boundary: record it, try again up to the cap
        log.exception("unit %s failed", lease.unit_id)
        span.failed(error)
        if isinstance(error, DBAPIError) and out_of_space(error):
            _wait(context, lease, "there is no space left for the database")
        else:
            _attempt_failed(context, lease, f"{type(error).__name__}: {error}")


def _run_phase(context: WorkerContext, held: HeldLease) -> None:
    job = Job.load(context, held)
    logs.note(project=job.sweep.project_id)
    if job.cancel_requested:
        raise SweepCancelled("it was cancelled")
    outcome = PHASES[held.lease.kind](job)
    queued = _commit(context, held.lease, job, outcome)
    if queued:
        context.hints.publish(job.sweep.queue, queued)


def _commit(context: WorkerContext, lease: Lease, job: Job, outcome: Outcome) -> int:
    finished: dict[str, Any] = {"result": {}}
    if isinstance(outcome, Measured):
        finished = {
            "result": {
                "variants": len(outcome.result.variants),
                "found": outcome.found,
                "failures": dict(outcome.result.failures),
            },
            "result_sha256": context.blobs.put(outcome.result.to_bytes()).sha256,
            "content_key": outcome.content_key,
        }
    if isinstance(outcome, Probed):
        finished = {
            "result": {"found": outcome.found},
            "result_sha256": context.blobs.put(outcome.sums.to_bytes()).sha256,
            "content_key": outcome.content_key,
        }
    if isinstance(outcome, Scouted):
        finished = {
            "result": {},
            "result_sha256": context.blobs.put(outcome.result.to_bytes()).sha256,
            "content_key": outcome.content_key,
        }
    if isinstance(outcome, NextRound | Decided | Chosen) and outcome.curve is not None:
        finished = {"result": {}, "result_sha256": outcome.curve.sha256, "content_key": outcome.curve.key}
    counted = outcome.counted if isinstance(outcome, Calibrated) else outcome
    if isinstance(counted, Counted):
        finished = {
            "result": {"samples": counted.samples},
            "result_sha256": context.blobs.put(counted.histograms.to_bytes()).sha256,
            "content_key": counted.content_key,
        }
    refreshed = table.refresh(job, outcome) if job.selection is None else None
    with context.database.write() as session:
        subject = lock_open_subject(session, job.sweep_id, lease.subject_id)
        if subject is None:
            raise LeaseLost("what the unit was for has ended")
        if subject.cancel_requested:
            raise SweepCancelled("it was cancelled")
        units.finish(session, lease, **finished)
        if subject.selection is not None:
            return advance_selection(session, subject.sweep, subject.selection, outcome)
        if refreshed is not None:
            table.store(session, subject.sweep, refreshed)
        if isinstance(outcome, Reported):
            _store_artifacts(session, subject.sweep, outcome)
        return advance(session, subject.sweep, outcome)


def _store_artifacts(session: Session, sweep: SweepRow, outcome: Reported) -> None:
    for each in outcome.artifacts:
        row = ArtifactRow(sweep_id=sweep.id, name=each.name, media_type=each.media_type)
        row.sha256, row.size = each.blob.sha256, each.blob.size
        session.merge(row)


def _cancel(context: WorkerContext, lease: Lease) -> None:
    with context.database.write() as session, suppress(LeaseLost):
        subject = lock_open_subject(session, lease.sweep_id, lease.subject_id)
        if subject is not None:
            units.cancel(session, lease)
            subject.cancel(session)


def _fail(context: WorkerContext, lease: Lease, *, code: str, problem: str) -> None:
    with context.database.write() as session, suppress(LeaseLost):
        subject = lock_open_subject(session, lease.sweep_id, lease.subject_id)
        if subject is not None:
            units.fail(session, lease, error=problem)
            subject.fail(session, code=code, problem=problem)


def _wait(context: WorkerContext, lease: Lease, problem: str) -> None:
    """Queue the unit again, and no attempt is counted. Without a hint: the reconciler gives one after a pause."""
    with context.database.write() as session, suppress(LeaseLost):
        units.give_back(session, lease, error=problem, count_attempt=False)


def _attempt_failed(context: WorkerContext, lease: Lease, error: str) -> None:
    with context.database.write() as session:
        subject = lock_open_subject(session, lease.sweep_id, lease.subject_id)
        unit = session.get(UnitRow, lease.unit_id)
        attempts = unit.attempts if unit is not None else 0
        try:
            if attempts < context.settings.max_attempts:
                units.give_back(session, lease, error=error, count_attempt=True)
                queue = unit.queue if unit is not None else DATA_QUEUE
            else:
                units.fail(session, lease, error=error)
                if subject is not None:
                    problem = f"the phase {lease.kind} failed {attempts} times, last with {error}"
                    subject.fail(session, code="phase-failed", problem=problem)
                elif lease.sweep_id is None:
                    doing = "converting" if lease.kind is UnitKind.CONVERT else "checking"
                    reason = f"{doing} failed {attempts} times, last with {error}"
                    give_up(session, lease.kind, lease.subject_id, reason)
                return
        except LeaseLost:
            return
    context.hints.publish(queue)
