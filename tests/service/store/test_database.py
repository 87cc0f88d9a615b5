import pytest
from sqlalchemy.exc import DBAPIError

from service.store import database as module
from service.store.database import Database
from service.store.tables import SweepRow
from service.store.units import lock_sweep
from tests.service.store.conftest import Rows


def test_what_a_client_that_went_away_had_locked_is_free_again(
    database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that loses power says nothing; nor does this session."""
    if database.is_sqlite:
        pytest.skip("its locks end with the process")
    monkeypatch.setattr(module, "IDLE_IN_TRANSACTION_MS", 300)
    gone, sweep_id = Database(database.url.render_as_string(hide_password=False)), rows.sweep()

    def lock_and_be_silent() -> None:
        with gone.write() as session:
            lock_sweep(session, sweep_id)
            with database.write() as other:
                row = lock_sweep(other, sweep_id)  # waits for the other one
                assert isinstance(row, SweepRow)

    with pytest.raises(DBAPIError):  # the silent one's own, when it goes on
        lock_and_be_silent()
    gone.close()


def test_the_url_has_the_last_word_on_the_connection(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("it has no line")
    url = database.url.update_query_dict({"connect_timeout": "7"})
    slow = Database(url.render_as_string(hide_password=False))
    with slow.read() as session:
        parameters = session.connection().connection.driver_connection.info.get_parameters()
    slow.close()
    assert (parameters["connect_timeout"], parameters["keepalives_idle"]) == ("7", "15")
