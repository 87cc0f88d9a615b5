"""Sweeps: made once for each idempotency key, cancelled, deleted, and what they found."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.costs import CostModel
from service.domain.errors import Conflict, InvalidInput, NotFound
from service.domain.layers import Layer
from service.domain.results import LayerResult, VariantScore
from service.domain.settings import BackendName, SweepSettings
from service.domain.states import Phase, ResourceState, SweepState, UnitKind
from service.store import quotas
from service.store.clock import now
from service.store.endings import end_sweep
from service.store.identifiers import Prefix, could_be_id, new_id
from service.store.resources import share
from service.store.tables import (
    ArtifactRow,
    CalibrationRow,
    DatasetRow,
    LayerRow,
    ModelRow,
    ScoreRow,
    SweepRow,
)
from service.store.units import NewUnit, add_units, is_held, lock_sweep


@dataclass(frozen=True)
class Subjects:
    """What a sweep works on; none of the rows changes until the transaction ends.

    ``calibration``: the set that activations are seen on, beside ``cache`` only for statistics.
    """

    model: ModelRow
    dataset: DatasetRow
    calibration: DatasetRow
    cache: CalibrationRow | None = None

    @property
    def checking(self) -> bool:
        """Whether a worker still looks at one of them."""
        return any(row.state == ResourceState.CHECKING for row in (self.model, self.dataset, self.calibration))


@dataclass(frozen=True)
class NewSweep:
    """A sweep to be made. ``settings`` are kept as they were asked for; ``backend`` is the one in force."""

    settings: SweepSettings
    subjects: Subjects
    backend: BackendName
    warnings: Sequence[dict[str, str]] = ()
    idempotency_key: str | None = None


def subjects_of(session: Session, settings: SweepSettings) -> Subjects:
    """The rows that the settings name; raises NotFound."""
    model = share(session, ModelRow, settings.model)
    dataset = share(session, DatasetRow, settings.dataset)
    calibration = dataset
    if settings.calibration.dataset is not None:
        calibration = share(session, DatasetRow, settings.calibration.dataset)
    cache = None
    if settings.calibration.cache is not None:
        cache = share(session, CalibrationRow, settings.calibration.cache)
    return Subjects(model, dataset, calibration, cache)


def by_idempotency_key(session: Session, key: str, settings: SweepSettings) -> SweepRow | None:
    """The sweep that was made with this key; raises InvalidInput where that one had other settings."""
    row = session.scalar(select(SweepRow).where(SweepRow.idempotency_key == key))
    if row is not None and SweepSettings.model_validate(row.settings) != settings:
        raise InvalidInput(
            f"Idempotency-Key {key!r} was used for sweep {row.id}, which has other settings; use a new key",
            field="Idempotency-Key",
            code="idempotency-key-reused",
        )
    return row


def create(session: Session, new: NewSweep) -> tuple[SweepRow, str | None]:
    """The sweep, and the queue to hint at (None: it was there already, or waits for a check); raises QuotaExceeded."""
    quotas.check_sweeps(session)
    row = SweepRow(
        id=new_id(Prefix.SWEEP),
        model_id=new.subjects.model.id,
        dataset_id=new.subjects.dataset.id,
        calibration_id=new.subjects.calibration.id,
        cache_id=new.subjects.cache.id if new.subjects.cache is not None else None,
        backend=new.backend,
        settings=new.settings.model_dump(mode="json"),
        idempotency_key=new.idempotency_key,
        state=SweepState.QUEUED,
        phase=Phase.PREPARE,
        round=0,
        cancel_requested=False,
        plan={},
        amax={},
        warnings=list(new.warnings),
        decision={},
        environment={},
        created_at=now(),
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # the same key came in twice at the same time, and the other was first
        existing = by_idempotency_key(session, new.idempotency_key or "", new.settings)
        if existing is None:
            raise
        return existing, None
    session.refresh(row)
    waiting = new.subjects.checking
    unit = NewUnit(UnitKind.PREPARE, row.id, row.queue, sweep_id=row.id, waiting=waiting)
    add_units(session, [unit])
    return row, None if waiting else row.queue


def get(session: Session, sweep_id: str) -> SweepRow:
    """The sweep; raises NotFound."""
    row = session.get(SweepRow, sweep_id) if could_be_id(sweep_id) else None
    return _present(row, sweep_id)


def locked(session: Session, sweep_id: str) -> SweepRow:
    """The sweep, locked until the transaction ends; raises NotFound."""
    return _present(lock_sweep(session, sweep_id) if could_be_id(sweep_id) else None, sweep_id)


def _present(row: SweepRow | None, sweep_id: str) -> SweepRow:
    if row is None:
        raise NotFound(f"there is no sweep {sweep_id!r}", code="sweep-not-found")
    return row


def cancel(session: Session, sweep_id: str) -> SweepRow:
    """Cancel a sweep: at once where no worker holds a unit of it, else soon; one that has ended stays as it is."""
    row = locked(session, sweep_id)
    if SweepState(row.state).terminal:
        return row
    row.cancel_requested = True
    if not is_held(session, row.id):
        end_sweep(session, row, SweepState.CANCELLED)
    session.flush()
    session.refresh(row)
    return row


def remove(session: Session, sweep_id: str) -> None:
    """Delete an ended sweep with all that it found; raises NotFound, or Conflict while it has not ended."""
    row = locked(session, sweep_id)
    if not SweepState(row.state).terminal:
        raise Conflict(f"sweep {row.id} is {row.state}; cancel it first", code="sweep-not-ended")
    session.execute(delete(SweepRow).where(SweepRow.id == row.id))


def layers(session: Session, sweep: SweepRow) -> list[LayerResult]:
    """The layer table as far as it is measured, in the model's order; empty before planning is done."""
    query = select(LayerRow.document).where(LayerRow.sweep_id == sweep.id).order_by(LayerRow.position)
    stored = [LayerResult.model_validate(document) for document in session.scalars(query)]
    if stored or not sweep.plan:
        return stored
    excluded: dict[str, str] = sweep.plan["excluded"]
    planned = [Layer.model_validate(document) for document in sweep.plan["layers"]]
    return [
        LayerResult(layer=each, state="excluded" if each.id in excluded else "pending", reason=excluded.get(each.id))
        for each in planned
    ]


def costs(sweep: SweepRow) -> CostModel | None:
    """What the layers cost and how they hang together; None before planning is done, and of older plans."""
    stored = sweep.plan.get("costs") if sweep.plan else None
    return CostModel.model_validate(stored) if stored is not None else None


def scores(session: Session, sweep_id: str) -> list[VariantScore]:
    """The controls and mixed variants that are measured, by name."""
    query = select(ScoreRow.document).where(ScoreRow.sweep_id == sweep_id).order_by(ScoreRow.variant)
    return [VariantScore.model_validate(document) for document in session.scalars(query)]


def artifacts(session: Session, sweep_id: str) -> list[ArtifactRow]:
    """The files that the sweep produced, by name."""
    return list(session.scalars(select(ArtifactRow).where(ArtifactRow.sweep_id == sweep_id).order_by(ArtifactRow.name)))
