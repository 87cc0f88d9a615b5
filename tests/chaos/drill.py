"""One cluster's uploads, its undisturbed sweep, and disturbed ones that must end in the same."""

import fcntl
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import onnx
from sqlalchemy import select

from service.domain.settings import Budget, CalibrationSettings, SweepSettings
from service.domain.states import UnitState
from service.store.leftovers import remove_leftovers
from service.store.tables import UnitRow
from service.store.units import OPEN_STATES
from tests.chaos import audit
from tests.chaos.cluster import PATIENCE_SECONDS, RETRY_SECONDS, Cluster
from tests.chaos.findings import Findings, findings
from tests.chaos.worker import POISON
from tests.live_service import TABLES
from tests.stored_files import stored_files
from workers.models.private_folder import remove_stale
from workers.sandbox.template import FOLDER_PREFIX, STARTING_SECONDS

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SAMPLES, CALIBRATION_SAMPLES, SHARD = 96, 32, 16
SETTLED_SECONDS = 20.0


@dataclass(frozen=True)
class Stored:
    """All that is stored: rows by table, files, temporary files."""

    rows: dict[str, int]
    files: frozenset[str]


@dataclass
class Drill:
    """``seconds``: how long the undisturbed sweep took; ``undisturbed``: what it found."""

    cluster: Cluster
    settings: SweepSettings
    poisoned: SweepSettings
    seconds: float = 0.0
    undisturbed: Findings = field(default_factory=dict)
    units: frozenset[tuple[str, int, int]] = frozenset()
    kept: Stored = field(default_factory=lambda: Stored({}, frozenset()))

    @classmethod
    def begin(cls, cluster: Cluster) -> "Drill":
        """Upload what is swept, and sweep it undisturbed."""
        drill = cls(cluster, *_uploaded(cluster))
        started = time.monotonic()
        first = drill.submit()
        drill.wait(first)
        drill.seconds = time.monotonic() - started
        drill.undisturbed, drill.units = findings(cluster.client, first), _units(cluster, first)
        drill.delete(first)
        drill.kept = drill.look()
        return drill

    def submit(self, settings: SweepSettings | None = None) -> str:
        """A new sweep, accepted: its id."""
        key = f"chaos-{time.time_ns()}"
        made = self.cluster.retry(
            lambda: self.cluster.client.create_sweep(settings or self.settings, idempotency_key=key)
        )
        assert made is not None
        return str(made["id"])

    def wait(self, sweep_id: str) -> dict[str, Any]:
        """The sweep once it has ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            sweep = self.cluster.retry(lambda: self.cluster.client.sweep(sweep_id))
            if sweep is not None and sweep["state"] in ("succeeded", "failed", "cancelled"):
                return sweep
            time.sleep(RETRY_SECONDS)
        raise AssertionError(f"the sweep has not ended within {PATIENCE_SECONDS:.0f} s")

    def check(self, sweep_id: str) -> None:
        """The invariants, of a sweep that has ended well; it is deleted, and must leave nothing."""
        found = self.cluster.retry(lambda: findings(self.cluster.client, sweep_id))
        assert found is not None
        differ = [name for name in self.undisturbed if found[name] != self.undisturbed[name]]
        assert differ == [], f"not as undisturbed: {differ}"
        assert _units(self.cluster, sweep_id) == self.units, "a shard was left out, or counted twice"
        self.settled(sweep_id)

    def settled(self, sweep_id: str) -> None:
        """Nothing of an ended sweep is open, no end was taken back, and once deleted it leaves nothing."""
        assert self.open_units(sweep_id) == []
        self.delete(sweep_id)
        deadline = time.monotonic() + SETTLED_SECONDS
        while (now := self.look()) != self.kept and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)  # who was stopped or orphaned may still be on its way out
        assert now.rows == self.kept.rows
        differ = sorted(now.files ^ self.kept.files)
        assert not differ, f"left, or gone: {differ}"
        assert audit.moves(self.cluster.database) == []

    def open_units(self, sweep_id: str) -> list[tuple[str, str]]:
        """(kind, state) of units that are not ended."""
        query = select(UnitRow.kind, UnitRow.state).where(UnitRow.sweep_id == sweep_id, UnitRow.state.in_(OPEN_STATES))
        with self.cluster.database.read() as session:
            return [(kind, state) for kind, state in session.execute(query)]

    def delete(self, sweep_id: str) -> None:
        """Or its results would be found by the next sweep, which would have nothing to measure."""
        self.cluster.retry(
            lambda: self.cluster.client._send("DELETE", f"/v1/sweeps/{sweep_id}"),
            ready=lambda problem: problem.status == httpx.codes.NOT_FOUND,
        )

    def look(self) -> Stored:
        """What is kept once everything that no row names was removed."""
        database, blobs = self.cluster.database, self.cluster.blobs
        remove_leftovers(database, blobs, older_than=-1)
        remove_stale(self.cluster.temporary, older_than=-1)
        # as the next sandboxes' template does; one that is just starting has not locked its own yet
        remove_stale(self.cluster.temporary, prefix=FOLDER_PREFIX, older_than=STARTING_SECONDS)
        rows = {
            table.__tablename__: self.cluster.count(f"select count(*) from {table.__tablename__}") for table in TABLES
        }
        files = {str(path) for path in stored_files(blobs.folder)}
        temporary = {str(path) for path in self.cluster.temporary.glob("quantsieve-*") if not _of_a_worker(path)}
        return Stored(rows, frozenset(files | temporary))


def _uploaded(cluster: Cluster) -> tuple[SweepSettings, SweepSettings]:
    client = cluster.client
    with TemporaryDirectory() as name:
        model, poison = DIGITS / "digits.onnx", Path(name) / POISON
        same = onnx.load(model)
        same.doc_string = POISON
        onnx.save(same, poison)
        few, fewer = (Path(name) / f"{each}.npz" for each in ("eval", "calib"))
        _cut(DIGITS / "eval.npz", few, SAMPLES)
        _cut(DIGITS / "calib.npz", fewer, CALIBRATION_SAMPLES)
        made = [client.upload_model(each) for each in (model, poison)]
        made += [client.upload_dataset(each) for each in (few, fewer)]
    for each in made:
        client.wait_ready(each, timeout=PATIENCE_SECONDS)
    good, bad, evaluation, calibration = (each["id"] for each in made)
    settings = SweepSettings(
        model=good,
        dataset=evaluation,
        backend="onnxruntime",
        budget=Budget(max_drop=0.05),
        calibration=CalibrationSettings(dataset=calibration),
        shard_size=SHARD,
    )
    return settings, settings.model_copy(update={"model": bad, "shard_size": SAMPLES})


def _cut(source: Path, target: Path, samples: int) -> None:
    np.savez(target, **{name: values[:samples] for name, values in np.load(source).items()})


def _units(cluster: Cluster, sweep_id: str) -> frozenset[tuple[str, int, int]]:
    """(kind, round, ordinal) of a sweep's own units, not its selections': all are done."""
    with cluster.database.read() as session:
        rows = session.scalars(select(UnitRow).where(UnitRow.subject_id == sweep_id)).all()
    assert {row.state for row in rows} == {UnitState.DONE}
    found = frozenset((row.kind, row.round, row.ordinal) for row in rows)
    assert len(found) == len(rows)
    return found


def _of_a_worker(folder: Path) -> bool:
    """Whether it is that of a template which lives: each worker's child has one, under a new name after each start."""
    if not folder.name.startswith(FOLDER_PREFIX):
        return False
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # it has just gone
        return True
    return False
