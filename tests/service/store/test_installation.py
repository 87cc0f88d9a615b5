import re

import pytest
from sqlalchemy import text

from alembic import command
from service.domain.errors import InvalidInput
from service.domain.protocol import PROTOCOL, Spoken, skew
from service.store import installation
from service.store.database import Database


def say(database: Database, statement: str) -> None:
    with database.write() as session:
        session.execute(text(statement))


@pytest.mark.parametrize(
    ("code", "installed", "words"),
    [
        (Spoken("2", 1), Spoken("2", 1), None),
        (Spoken("2", 1), Spoken("3", 1), "the code is for schema 2, and the database is at 3"),
        (Spoken("2", 1), Spoken("2", 2), "the code speaks protocol 1, and the API 2"),
        (Spoken("2", 1), Spoken("3", 2), "at 3; the code speaks"),
        (Spoken("2", 1), Spoken("2", None), None),
        (Spoken(None, None), Spoken("2", 1), None),
    ],
    ids=["same", "schema", "protocol", "both", "no API has spoken yet", "a worker that tells nothing"],
)
def test_a_difference_that_both_tell_is_refused(code: Spoken, installed: Spoken, words: str | None):
    reason = skew(code, installed)
    if words is None:
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith("version skew detected and refused: ")
        assert words in reason
    assert Spoken.of_versions(code.versions() if code.schema else {}) == code


def test_a_database_of_this_release_is_not_refused(database: Database):
    assert installation.refusal(database) is None
    with database.write() as session:
        installation.announce(session)
    assert installation.refusal(database) is None
    with database.read() as session:
        assert installation.installed(session) == Spoken(installation.code_speaks().schema, PROTOCOL)


def test_a_database_of_another_release_is_refused_with_both_revisions(database: Database):
    say(database, "update alembic_version set version_num = '9999'")
    assert re.search(r"code is for schema \d{4}, and the database is at 9999", installation.refusal(database) or "")
    with pytest.raises(InvalidInput, match="a newer release: run that one"):
        database.migrate()
    say(database, f"update alembic_version set version_num = '{installation.code_speaks().schema}'")
    say(database, f"update installation set protocol = {PROTOCOL + 1}")
    assert f"the code speaks protocol {PROTOCOL}, and the API {PROTOCOL + 1}" in (installation.refusal(database) or "")


def test_a_database_from_before_there_was_a_protocol_is_refused_too(database: Database):
    with database._writer.connect() as connection:
        command.downgrade(database.alembic_config(connection), "0006")
        connection.commit()
    assert "the database is at 0006" in (installation.refusal(database) or "")


def test_one_of_all_who_ask_collects(database: Database):
    def turn(every: float) -> bool:
        with database.write() as session:
            return installation.take_collection(session, every=every)

    assert [turn(60), turn(60), turn(60)] == [True, False, False]
    assert turn(-1)
