"""The embedded server's parts that need no running worker."""

import os
import sys
import time
from pathlib import Path

import httpx
import pytest

from service.domain.errors import InvalidInput
from service.embedded.process import ChildProcess, Command
from service.embedded.server import HOPELESS_DEATHS, EmbeddedServer, url_of, worker_environment
from service.settings import Settings


def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", port=0, database_url=None, broker_url=None, blob_url=None)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),
        ("::", "http://[::1]:1"),
        ("example.org", "http://example.org:1"),
    ],
)
def test_the_url_reaches_the_server_from_its_own_machine(host: str, url: str) -> None:
    assert url_of(host, 1) == url


def test_the_worker_gets_the_servers_settings_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_DATABASE_URL", "postgresql://elsewhere")
    environment = worker_environment(settings(tmp_path))
    assert environment["QUANTSIEVE_DATA_DIR"] == str(tmp_path / "data")
    assert "QUANTSIEVE_DATABASE_URL" not in environment


def test_without_a_worker_the_api_answers_and_the_port_is_free_afterwards(tmp_path: Path) -> None:
    with EmbeddedServer(settings(tmp_path), with_worker=False) as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert server.worker_problem() is None
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InvalidInput, match=r"the data folder .* cannot be made"):
        EmbeddedServer(settings(tmp_path)).__enter__()


def test_a_worker_that_never_starts_is_told_with_the_end_of_its_output(tmp_path: Path) -> None:
    server = EmbeddedServer(settings(tmp_path))
    command = Command("worker", [sys.executable, "-c", "raise SystemExit('no such library')"], dict(os.environ))
    server.worker = ChildProcess(command, run_dir=tmp_path, log_dir=tmp_path)
    server.worker.start()
    try:
        deadline = time.monotonic() + 30
        while server.worker_problem() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        problem = server.worker_problem()
    finally:
        server.worker.stop()
    assert problem is not None
    assert "no such library" in problem
    assert server.worker.early_deaths >= HOPELESS_DEATHS


def test_an_address_that_others_reach_is_refused_before_anything_starts(tmp_path: Path) -> None:
    open_to_all = settings(tmp_path).model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(InvalidInput, match="QUANTSIEVE_REQUIRE_KEYS"):
        EmbeddedServer(open_to_all).__enter__()
    assert not (tmp_path / "data").exists()


def test_the_key_lies_in_the_folder_for_its_owner_and_stays_the_same(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        with EmbeddedServer(settings(tmp_path), with_worker=False) as server:
            keys.append(server.key)
            assert httpx.get(f"{server.url}/v1/models").status_code == 401
            authorized = {"Authorization": f"Bearer {server.key}"}
            assert httpx.get(f"{server.url}/v1/models", headers=authorized).status_code == 200
            log = (tmp_path / "data" / "logs" / "api.log").read_text()
            assert "/v1/models" in log
            assert str(server.key) not in log
    assert keys[0] == keys[1] == (tmp_path / "data" / "key").read_text().strip()
    assert (tmp_path / "data" / "key").stat().st_mode & 0o777 == 0o600


def test_the_worker_is_not_told_the_pepper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_KEY_PEPPER", "a long random text")
    environment = worker_environment(Settings(data_dir=tmp_path))
    assert "QUANTSIEVE_KEY_PEPPER" not in environment
