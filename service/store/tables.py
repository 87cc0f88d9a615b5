"""The tables. Migrations in ``alembic/`` are the only thing that creates them."""

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.domain.scheduling import DeviceKind, queue_of

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Table(DeclarativeBase):
    """Base of all rows. Times are seconds since 1970 UTC by the database's clock."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


DEFAULT_PROJECT = "default"


class ProjectRow(Table):
    """A tenant; its ``id`` is the name that people know it by. Limits that are None are the installation's."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    max_open_sweeps: Mapped[int | None]
    max_queued_units: Mapped[int | None]
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[float]


class Owned:
    """Rows that belong to a project; what hangs on them (units, layers, files) is found through them alone."""

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), server_default=DEFAULT_PROJECT)


class KeyRow(Table):
    """An API key; ``digest`` is an HMAC of its text. ``tokens``: requests that were left to it at ``refilled_at``."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    digest: Mapped[str]
    scopes: Mapped[list[Any]]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    tokens: Mapped[float | None]
    refilled_at: Mapped[float | None]


class AuditRow(Table):
    """One request that could change something, and how it ended. The database refuses to change or delete rows."""

    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    project_id: Mapped[str]
    action: Mapped[str]
    object: Mapped[str]
    outcome: Mapped[int]
    request_id: Mapped[str]
    created_at: Mapped[float]


class ModelRow(Owned, Table):
    """An uploaded model."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("project_id", "sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str]
    state: Mapped[str]
    problem: Mapped[str | None]
    info: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class DatasetRow(Owned, Table):
    """An uploaded evaluation set with its preprocessing."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project_id", "sha256", "preprocessing_key"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str]
    preprocessing: Mapped[dict[str, Any]]
    preprocessing_key: Mapped[str]
    state: Mapped[str]
    problem: Mapped[str | None]
    info: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class CalibrationRow(Owned, Table):
    """An uploaded calibration cache of TensorRT: read as a whole before it was stored, so that nothing is checked."""

    __tablename__ = "calibrations"
    __table_args__ = (UniqueConstraint("project_id", "sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    info: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class ConversionRow(Owned, Table):
    """A conversion between a calibration cache and Q/DQ: what was asked, how it ended, what it found."""

    __tablename__ = "conversions"

    id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    cache_id: Mapped[str | None] = mapped_column(ForeignKey("calibrations.id"), index=True)
    settings: Mapped[dict[str, Any]]
    state: Mapped[str]
    problem_code: Mapped[str | None]
    problem: Mapped[str | None]
    summary: Mapped[dict[str, Any]]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class ConversionFileRow(Table):
    """A file that a conversion produced."""

    __tablename__ = "conversion_files"

    conversion_id: Mapped[str] = mapped_column(ForeignKey("conversions.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    media_type: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)


class SweepRow(Owned, Table):
    """A sweep: what was asked, where it stands, what it found.

    ``calibration_id``: the evaluation set that calibrates; ``cache_id``: the cache that has the ranges instead.
    ``evidence``: what the decision rests on, read only where it is asked for; None before there is a decision, and of
    a race.
    """

    __tablename__ = "sweeps"
    __table_args__ = (UniqueConstraint("project_id", "idempotency_key"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), index=True)
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    calibration_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    cache_id: Mapped[str | None] = mapped_column(ForeignKey("calibrations.id"), index=True)
    backend: Mapped[str]
    settings: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str | None]
    state: Mapped[str] = mapped_column(index=True)
    phase: Mapped[str]
    round: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    problem_code: Mapped[str | None]
    problem: Mapped[str | None]
    plan: Mapped[dict[str, Any]]
    amax: Mapped[dict[str, Any]]
    warnings: Mapped[list[Any]]
    decision: Mapped[dict[str, Any]]
    evidence: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), deferred=True)
    environment: Mapped[dict[str, Any]]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    revision: Mapped[int] = mapped_column(default=0)

    @property
    def queue(self) -> str:
        """The queue of its units."""
        return queue_of(self.backend, DeviceKind(self.settings.get("device", DeviceKind.ANY)))

    __mapper_args__ = {"version_id_col": revision}  # noqa: RUF012


class LayerRow(Table):
    """One row of a sweep's layer table; ``document`` is a LayerResult."""

    __tablename__ = "sweep_layers"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    layer_id: Mapped[str]
    name: Mapped[str]
    state: Mapped[str]
    metric: Mapped[float | None]
    drop: Mapped[float | None]
    document: Mapped[dict[str, Any]]


class ScoreRow(Table):
    """A measured control or mixed variant of a sweep; ``document`` is a VariantScore."""

    __tablename__ = "sweep_scores"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]]


class ArtifactRow(Table):
    """A file that a sweep produced."""

    __tablename__ = "artifacts"

    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    media_type: Mapped[str]
    sha256: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)


class SelectionRow(Owned, Table):
    """Another selection from what a sweep measured: ``settings`` are a Question, ``result`` is its Selected.

    ``result`` is the prediction until lists were measured for it. ``round``: of that measuring.
    """

    __tablename__ = "selections"

    id: Mapped[str] = mapped_column(primary_key=True)
    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), index=True)
    settings: Mapped[dict[str, Any]]
    state: Mapped[str]
    result: Mapped[dict[str, Any]]
    round: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    problem_code: Mapped[str | None]
    problem: Mapped[str | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class UnitRow(Table):
    """A work unit: a piece of work that one worker leases, does and finishes.

    ``subject_id``: the upload, conversion, sweep or selection that it works for. ``sweep_id``: of a sweep's own units
    and of those of its selections; they go with it.

    ``token`` grows with each lease and fences every write of a worker whose lease is gone.
    ``cost`` is the planned share of the sweep's work, ``progress`` how much of it is done (0 to 1).
    ``content_key`` names what was measured, whatever sweep it was for. ``project_id`` and ``weight`` are those of what
    it works for, kept here so that a claim finds whose turn it is.
    ``trace``: the W3C traceparent of what queued it; None where nothing is traced.
    """

    __tablename__ = "work_units"
    __table_args__ = (
        UniqueConstraint("subject_id", "kind", "round", "ordinal"),
        Index("ix_work_units_turn", "state", "queue", "project_id", "subject_id", "created_at", "ordinal"),
        Index("ix_work_units_project_served", "queue", "project_id", "started_at"),
        Index("ix_work_units_subject_served", "subject_id", "started_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject_id: Mapped[str]
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), index=True)
    round: Mapped[int]
    ordinal: Mapped[int]
    queue: Mapped[str]
    project_id: Mapped[str] = mapped_column(server_default=DEFAULT_PROJECT)
    weight: Mapped[int] = mapped_column(server_default="4")
    payload: Mapped[dict[str, Any]]
    cost: Mapped[float]
    progress: Mapped[float]
    state: Mapped[str]
    attempts: Mapped[int]
    owner: Mapped[str | None]
    token: Mapped[int]
    lease_expires_at: Mapped[float | None]
    published_at: Mapped[float]
    result_sha256: Mapped[str | None]
    result: Mapped[dict[str, Any]]
    content_key: Mapped[str | None] = mapped_column(index=True)
    trace: Mapped[str | None]
    error: Mapped[str | None]
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class WorkerRow(Table):
    """A worker, by its heartbeats."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[Any]]
    capabilities: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    started_at: Mapped[float]
    seen_at: Mapped[float]


class InstallationRow(Table):
    """The installation, one row: what the API that started last speaks (None: none has), and the last collection."""

    __tablename__ = "installation"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[str | None]
    protocol: Mapped[int | None]
    collected_at: Mapped[float]
