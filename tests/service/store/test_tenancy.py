"""A session of one project, whatever kind of statement it is given."""

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import aliased

from service.domain.tenant import Limits, Tenant
from service.store import projects, resources
from service.store.blobs import Blob
from service.store.database import Database, ProjectDatabase
from service.store.tables import CalibrationRow, ConversionRow, DatasetRow, ModelRow, Owned, ProjectRow, SweepRow

LIMITS = Limits(10, 10, 1000)


def add_model(database: ProjectDatabase) -> str:
    with database.write() as session:
        return resources.add_model(session, resources.NewFile("m", Blob("a" * 64, 1), "onnx"))[0].id


@pytest.fixture
def two(database: Database) -> tuple[ProjectDatabase, ProjectDatabase]:
    with database.write() as session:
        for name in ("one", "two"):
            projects.create(session, ProjectRow(id=name))
    return database.of(Tenant("one", LIMITS)), database.of(Tenant("two", LIMITS))


def test_the_same_bytes_are_two_models_of_two_projects(two: tuple[ProjectDatabase, ProjectDatabase]):
    one, other = two
    assert add_model(one) == add_model(one) != add_model(other)


def test_no_statement_reaches_another_projects_rows(two: tuple[ProjectDatabase, ProjectDatabase]):
    one, other = two
    theirs = add_model(one)
    alias = aliased(ModelRow)
    with other.write() as session:
        assert session.get(ModelRow, theirs) is None
        assert session.get(ModelRow, theirs, with_for_update=True, populate_existing=True) is None
        assert session.scalars(select(ModelRow)).all() == session.query(ModelRow).all() == []
        assert session.scalars(select(ModelRow.sha256)).all() == session.scalars(select(alias.id)).all() == []
        assert session.scalar(select(func.count()).select_from(ModelRow)) == 0
        assert session.scalar(select(func.sum(ModelRow.size))) is None
        session.execute(update(ModelRow).values(name="mine now"))
        session.execute(delete(ModelRow))
    with one.read() as session:
        assert session.get_one(ModelRow, theirs).name == "m"


def test_every_table_that_a_caller_names_rows_of_is_owned():
    for table in (ModelRow, DatasetRow, CalibrationRow, ConversionRow, SweepRow):
        assert issubclass(table, Owned)
