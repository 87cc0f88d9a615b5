"""What a worker deletes by itself, once for all of them."""

import os
from pathlib import Path

from sqlalchemy import text

from service.domain.states import SweepState
from service.settings import Settings
from service.store.folder_blobs import FolderBlobStore
from service.store.tables import InstallationRow, SweepRow
from tests.workers.installation import Installation, wait_for
from workers.context import WorkerContext
from workers.reconciler import Reconciler, collect


def with_leftovers(installation: Installation, **settings: object) -> tuple[WorkerContext, str, str]:
    """A worker's context, a sweep that ended eight days ago, and an old file that nothing names."""
    sweep_id = installation.sweep()
    blobs = installation.context.blobs
    assert isinstance(blobs, FolderBlobStore)
    file = blobs.put(b"nobody's").sha256
    os.utime(blobs.path(file), (0, 0))
    with installation.context.database.write() as session:
        row = session.get_one(SweepRow, sweep_id)
        row.state, row.finished_at = SweepState.FAILED, row.created_at - 8 * 86_400
    made: Settings = installation.context.settings.model_copy(update=settings)
    return WorkerContext.open(made, "wrk_collecting"), sweep_id, file


def left(context: WorkerContext) -> tuple[int, int]:
    with context.database.read() as session:
        sweeps = session.query(SweepRow).count()
    return sweeps, len(context.blobs.written_before(3600))


def test_it_deletes_what_is_due_when_it_is_its_turn(installation: Installation) -> None:
    context, _, file = with_leftovers(installation, retention_days=7.0)
    with context.database.write() as session:
        session.query(InstallationRow).update({"collected_at": 1e11})  # another worker did, just now
    collect(context)
    assert left(context) == (1, 1)
    with context.database.write() as session:
        session.query(InstallationRow).update({"collected_at": 0.0})
    collect(context)
    assert left(context) == (0, 0)
    assert not Path(context.settings.data_dir / "blobs" / file[:2] / file).exists()
    context.database.close()


def test_sweeps_are_kept_unless_the_operator_says_otherwise(installation: Installation) -> None:
    context, _, _ = with_leftovers(installation)
    collect(context)
    assert left(context) == (1, 0)
    context.database.close()


def test_a_worker_of_another_release_deletes_nothing(installation: Installation) -> None:
    context, _, _ = with_leftovers(installation, retention_days=7.0, reconcile_seconds=0.02)
    ours = context.database

    def schema(revision: str) -> None:
        with ours.write() as session:
            session.execute(text("update alembic_version set version_num = :revision"), {"revision": revision})

    with ours.read() as session:
        right = session.scalar(text("select version_num from alembic_version"))
    schema("9999")
    reconciler = Reconciler(context)
    reconciler.start()
    reconciler.join(0.5)
    assert left(context) == (1, 1)
    schema(right or "")
    wait_for(lambda: left(context) == (0, 0))
    reconciler.stop()
    reconciler.join()
    ours.close()
