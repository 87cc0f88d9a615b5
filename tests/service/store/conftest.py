import pytest

from service.domain.settings import BackendName, Preprocessing, SweepSettings
from service.domain.states import ResourceState, UnitState
from service.store import resources, sweeps
from service.store.blobs import Blob
from service.store.database import Database
from service.store.sweeps import NewSweep
from service.store.tables import DatasetRow, ModelRow, SweepRow, UnitRow


class Rows:
    """Makes rows; resources are ready unless said otherwise."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def model(self, digit: str = "a", state: ResourceState = ResourceState.READY) -> str:
        with self.database.write() as session:
            row, _ = resources.add_model(session, resources.NewFile("m", Blob(digit * 64, 1), "onnx"))
            row.state = state
            session.query(UnitRow).filter(UnitRow.subject_id == row.id).update({"state": UnitState.DONE})
            return row.id

    def dataset(self, digit: str = "b", state: ResourceState = ResourceState.READY) -> str:
        with self.database.write() as session:
            file = resources.NewFile("d", Blob(digit * 64, 1), "npz")
            row, _ = resources.add_dataset(session, file, Preprocessing(), queue="data")
            row.state = state
            session.query(UnitRow).filter(UnitRow.subject_id == row.id).update({"state": UnitState.DONE})
            return row.id

    def sweep(self, key: str | None = None, **settings: object) -> str:
        with self.database.write() as session:
            asked = SweepSettings.model_validate(
                {"model": self._only(ModelRow), "dataset": self._only(DatasetRow), **settings}
            )
            subjects = sweeps.subjects_of(session, asked)
            row, _ = sweeps.create(session, NewSweep(asked, subjects, BackendName.ONNXRUNTIME, idempotency_key=key))
            return row.id

    def _only(self, table: type[ModelRow] | type[DatasetRow]) -> str:
        with self.database.read() as session:
            return session.query(table).order_by(table.created_at).first().id

    def get(self, sweep_id: str) -> SweepRow:
        with self.database.read() as session:
            return sweeps.get(session, sweep_id)


@pytest.fixture
def rows(database: Database) -> Rows:
    made = Rows(database)
    made.model()
    made.dataset()
    return made
