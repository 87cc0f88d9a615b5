"""Which server a command talks to: a configured one, one that runs on this machine, or one started for the command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from service.client import Client
from service.domain.errors import InvalidInput, Unavailable
from service.embedded.lock import running_server
from service.embedded.server import EmbeddedServer, url_of
from service.settings import LOOPBACK, Settings

URL_VARIABLE = "QUANTSIEVE_URL"
KEY_VARIABLE = "QUANTSIEVE_KEY"


@dataclass(frozen=True)
class Connection:
    """A client of a server; ``server`` where this process runs it."""

    client: Client
    url: str
    server: EmbeddedServer | None = None

    def check_worker(self) -> None:
        """Raise Unavailable where our own worker will never do the work."""
        problem = self.server.worker_problem() if self.server is not None else None
        if problem is not None:
            raise Unavailable(problem, code="worker-does-not-start")


def running_url(settings: Settings) -> str | None:
    """The URL of a server that is configured, or that holds the data folder; None where there is neither."""
    configured = os.environ.get(URL_VARIABLE)
    if configured:
        return configured.rstrip("/")
    running = running_server(settings.data_dir)
    return running.url if running is not None else None


@contextmanager
def existing_server(url: str | None, settings: Settings) -> Iterator[Connection]:
    """A server that runs already; ``url`` overrides what is configured."""
    found = url or running_url(settings) or url_of(settings.host, settings.port)
    with _client(found, settings) as client:
        yield Connection(client, found)


@contextmanager
def any_server(url: str | None, settings: Settings) -> Iterator[Connection]:
    """A server that runs already, else one that lives as long as the block."""
    found = url or running_url(settings)
    if found is not None:
        with _client(found, settings) as client:
            yield Connection(client, found)
        return
    with own_server(settings) as connection:
        yield connection


def _client(url: str, settings: Settings) -> Client:
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"{url!r} is not the URL of a server, such as http://127.0.0.1:8080", field=URL_VARIABLE)
    return Client(url, key=os.environ.get(KEY_VARIABLE) or _local_key(url, settings))


def _local_key(url: str, settings: Settings) -> str | None:
    """The key in the data folder, for the server that runs on that folder and for no other; None where there is none.

    Whatever else listens at the URL, perhaps another user's, shall not be told the key.
    """
    running = running_server(settings.data_dir)
    if running is None or running.url is None or _place(url) != _place(running.url):
        return None
    try:
        return settings.key_file.read_text().strip()
    except OSError:
        return None


def _place(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return "loopback" if parts.hostname in LOOPBACK else parts.hostname, parts.port


@contextmanager
def own_server(settings: Settings) -> Iterator[Connection]:
    """A server on a free loopback port, stopped at the end of the block."""
    private = settings.model_copy(update={"host": "127.0.0.1", "port": 0, "require_keys": None})
    with EmbeddedServer(private) as server, Client(server.url, key=server.key) as client:
        yield Connection(client, server.url, server)
