import pytest

from service.domain.errors import QuotaExceeded
from service.domain.settings import BackendName, Preprocessing, SweepSettings
from service.domain.tenant import Limits, Tenant
from service.store import projects, quotas, resources, sweeps
from service.store.blobs import Blob
from service.store.database import Database, ProjectDatabase
from service.store.sweeps import NewSweep
from service.store.tables import ProjectRow

GENERAL = Limits(open_sweeps=2, queued_units=100, stored_bytes=100)


def project(database: Database, **own: int) -> ProjectDatabase:
    with database.write() as session:
        name = projects.create(session, ProjectRow(id=f"p{len(own)}", **own)).id
    return database.of(Tenant(name, GENERAL))


def add_model(database: ProjectDatabase, *, digit: str, size: int) -> str:
    with database.write() as session:
        return resources.add_model(session, resources.NewFile("m", Blob(digit * 64, size), "onnx"))[0].id


def add_sweep(database: ProjectDatabase) -> str:
    with database.write() as session:
        file = resources.NewFile("d", Blob("d" * 64, 1), "npz")
        dataset = resources.add_dataset(session, file, Preprocessing(), queue="data")[0].id
        model = resources.add_model(session, resources.NewFile("m", Blob("a" * 64, 1), "onnx"))[0].id
        asked = SweepSettings(model=model, dataset=dataset)
        new = NewSweep(asked, sweeps.subjects_of(session, asked), BackendName.ONNXRUNTIME)
        return sweeps.create(session, new)[0].id


def test_bytes_are_counted_once_for_the_same_file(database: Database):
    at = project(database)
    add_model(at, digit="a", size=60)
    add_model(at, digit="a", size=60)
    with pytest.raises(QuotaExceeded, match=r"has 60 bytes of files, of 100 .* 41 more do not fit"):
        add_model(at, digit="b", size=41)
    add_model(at, digit="b", size=40)
    with at.write() as session:
        quotas.check_upload(session, Blob("a" * 64, 60))
        with pytest.raises(QuotaExceeded):
            quotas.check_upload(session, Blob("c" * 64, 1))


def test_a_sweep_counts_until_it_has_ended(database: Database):
    at = project(database)
    first = add_sweep(at)
    add_sweep(at)
    with pytest.raises(QuotaExceeded, match="has 2 sweeps that have not ended, of 2"):
        add_sweep(at)
    with at.write() as session:
        sweeps.cancel(session, first)
    add_sweep(at)


def test_a_project_may_have_limits_of_its_own_and_is_not_charged_for_others(database: Database):
    add_sweep(project(database))
    narrow = project(database, max_queued_units=1)
    add_sweep(narrow)
    with pytest.raises(QuotaExceeded, match="has 1 work units that wait or run, of 1"):
        add_sweep(narrow)
