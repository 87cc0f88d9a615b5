"""``quantsieve serve`` and ``quantsieve api``: a server until it is asked to stop."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from service.api.access import Access, access_of
from service.cli.problems import read_settings, stderr
from service.embedded.server import EmbeddedServer
from service.settings import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0: any free one.  [default: 8080]")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the database and all files.")]


def serve(*, host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run everything on this machine: API, broker and one worker, until Ctrl-C or SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    _serve(EmbeddedServer(_settings(host=host, port=port, data_dir=data_dir)))


def api(*, host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the API alone, with its log on standard error; workers and the broker are run beside it."""
    settings = _settings(host=host, port=port, data_dir=data_dir)
    configured = settings.model_copy(update={"broker_url": settings.resolved_broker_url})
    _serve(EmbeddedServer(configured, with_worker=False, log_to_file=False))


def _settings(**given: Any) -> Settings:
    return read_settings().model_copy(update={name: value for name, value in given.items() if value is not None})


def _serve(embedded: EmbeddedServer) -> None:
    stop = _Stop()
    with stop.listening(), embedded as server:
        stop.on_second = server.hurry
        broker = server.broker.kind.value if server.broker is not None else "as configured"
        out = stderr()
        # the one line on standard output: scripts read the URL from it
        print(f"quantsieve is serving at {server.url}", flush=True)
        out.print(
            f"  data   {server.settings.data_dir}\n  broker {broker}\n  API    {server.url}/openapi.json\n"
            f"  keys   {_keys(server.settings)}",
            markup=False,
        )
        out.print("  Ctrl-C stops it", markup=False)
        stop.wait(server)
        out.print("stopping; once more to stop at once", markup=False)


def _keys(settings: Settings) -> str:
    match access_of(settings):
        case Access.LOCAL:
            return f"Authorization: Bearer $(cat {settings.key_file})"
        case Access.KEYS:
            return "required; `quantsieve keys create` makes one"
        case Access.OPEN:
            return "none: everybody who reaches this address may do everything"


class _Stop:
    """Waits for SIGINT or SIGTERM. A second signal does not wait for the work in hand."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.on_second: Callable[[], None] = _nothing

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in this block: a stop that is asked for during the start takes effect right after it."""
        before = {each: signal.signal(each, self._on_signal) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked.is_set():
            self.on_second()
        self._asked.set()

    def wait(self, server: EmbeddedServer) -> None:
        """Wait until a stop is asked for; say once where the worker does not start."""
        said = False
        while not self._asked.wait(1.0):
            problem = server.worker_problem()
            if problem is not None and not said:
                stderr().print(problem, markup=False)
            said = problem is not None


def _nothing() -> None:
    """Before the server runs there is nothing to hurry."""
