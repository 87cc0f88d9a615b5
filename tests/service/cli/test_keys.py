import re
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.connection import existing_server, own_server
from service.cli.root import app
from service.client import ApiProblem, Client
from service.domain.api_keys import ApiKey
from service.settings import Settings
from service.store.database import Database
from service.store.tables import AuditRow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTSIEVE_DATA_DIR", str(tmp_path))
    return tmp_path


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["keys", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_first_key_of_an_installation_is_made_listed_and_revoked(folder: Path):
    key = ApiKey.parse(said("create", "--name", "first", "--scope", "admin", "--scope", "read").strip())
    assert key is not None
    listed = said("list")
    assert re.search(rf"{key.id}.*default.*admin, read.*first", listed)
    assert key.text not in listed
    assert said("revoke", key.id) == f"{key.id} is revoked\n"
    assert said("list").count("–") < listed.count("–")
    database = Database(Settings(data_dir=folder).resolved_database_url)
    with database.read() as session:
        actions = [(each.key_id, each.action) for each in session.query(AuditRow).order_by(AuditRow.created_at)]
    database.close()
    assert actions == [("command-line", "create_key"), ("command-line", "revoke_key")]
    assert stat.S_IMODE((folder / "pepper").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "--name", "x", "--scope", "root"], "root"),
        (["create", "--name", "\n", "--scope", "read"], "--name"),
        (["create", "--name", "x", "--scope", "read", "--project", "nobody"], "there is no project 'nobody'"),
        (["create", "--name", "x", "--scope", "read", "--expires-days", "0"], "--expires-days"),
        (["revoke", "key_000000000000"], "there is no key"),
    ],
)
def test_wrong_words_are_named(folder: Path, arguments: list[str], words: str):
    done = CliRunner().invoke(app, ["keys", *arguments])
    assert done.exit_code == 2
    assert words in done.stderr


def test_the_key_of_a_server_is_found_by_its_folder_and_sent_to_no_other(folder: Path, tmp_path: Path):
    settings = Settings(data_dir=folder, port=0)
    with own_server(settings) as connection:
        url = connection.url
        for same in (None, url, url.replace("127.0.0.1", "localhost")):
            with existing_server(same, settings) as found:
                with pytest.raises(ApiProblem) as unknown:
                    found.client.sweep("swp_000000000000")
                assert unknown.value.code == "sweep-not-found"
        other = settings.model_copy(update={"data_dir": tmp_path / "other"})
        with existing_server(url, other) as found, pytest.raises(ApiProblem) as refused:
            found.client.sweep("swp_000000000000")
        assert refused.value.code == "key-missing"
        with Client(url, key=ApiKey.generate().text) as client, pytest.raises(ApiProblem, match="nobody has this key"):
            client.sweep("swp_000000000000")


def test_a_pepper_that_is_too_short_is_refused_and_not_shown(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUANTSIEVE_KEY_PEPPER", "my-own-secret")
    done = CliRunner().invoke(app, ["keys", "list"])
    assert done.exit_code == 2
    assert "QUANTSIEVE_KEY_PEPPER: what it holds is wrong" in done.stderr
    assert "my-own-secret" not in done.output


def test_a_database_that_is_away_is_told_by_its_setting(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUANTSIEVE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
    done = CliRunner().invoke(app, ["keys", "list"])
    assert done.exit_code == 2
    assert "database_url: " in done.stderr
