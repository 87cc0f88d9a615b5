"""``quantsieve doctor``: what this machine can run, and why not the rest."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from service import __version__
from service.cli.installed import opened_database
from service.cli.problems import read_settings, stderr, stdout
from service.domain.errors import QuantsieveError, first_line
from service.domain.settings import BackendName
from service.domain.storage import S3Location
from service.embedded.broker import broker_options
from service.embedded.lock import running_server
from service.embedded.server import worker_environment
from service.settings import Settings
from service.store import installation, leftovers, workers
from service.store.blobs import DamagedBlob
from service.store.database import Database
from service.store.open_blobs import open_blobs

PROBE_SECONDS = 300
VERIFY_SECONDS = 1800  # some twenty engines, the first of which load every kernel library
LOW_DISK_BYTES = 5 * 2**30


def doctor(
    *,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Build tiny TensorRT engines and compare them with ONNX Runtime.")
    ] = False,
    files: Annotated[
        bool, typer.Option("--files", help="Look whether every file that the database names is there.")
    ] = False,
) -> None:
    """Say what this machine can run, and why not the rest."""
    settings = read_settings()
    if tensorrt:
        _tensorrt(settings)
        return
    if files:
        _named_files(settings)
        return
    table = Table(title=f"quantsieve {__version__} · Python {platform.python_version()} · {platform.platform()}")
    for heading in ("part", "", "what was found"):
        table.add_column(heading, overflow="fold")
    kept = (*_database(settings), _files(settings))
    for part, good, found in [*_backends(settings), *_sandbox(settings), *_brokers(settings), *kept, *_disk(settings)]:
        table.add_row(part, Text("yes", "green") if good else Text("no", "yellow"), Text(found))
    stdout().print(table)


Finding = tuple[str, bool, str]


def _backends(settings: Settings) -> list[Finding]:
    try:
        capabilities = _capabilities(settings)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return [("backends", False, f"the worker cannot be asked: {error}")]
    found = [(f"backend {each['backend']}", bool(each["available"]), _describe(each)) for each in capabilities]
    found += [_library(each["backend"], library) for each in capabilities for library in each["libraries"]]
    known = {each["backend"] for each in capabilities}
    return found + [(f"backend {name}", False, "not in this version") for name in BackendName if name not in known]


def _sandbox(settings: Settings) -> list[Finding]:
    """What confines the processes that open uploaded files."""
    try:
        measures = _asked(settings, "--sandbox", seconds=PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return [("sandbox", False, f"none can be made: {error}")]
    return [(f"sandbox {each['name']}", bool(each["holds"]), each["found"]) for each in measures]


def _tensorrt(settings: Settings) -> None:
    """Every check of the TensorRT backend; status 1 where one fails or where there is no TensorRT."""
    try:
        checks = _asked(settings, "--verify-tensorrt", seconds=VERIFY_SECONDS)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        checks = [{"way": "-", "variant": "-", "good": False, "found": f"the worker cannot be asked: {error}"}]
    table = Table(title="TensorRT: a tiny network, built in each way, against ONNX Runtime")
    for heading in ("int8", "variant", "", "what was found"):
        table.add_column(heading, overflow="fold")
    for each in checks:
        good = Text("yes", "green") if each["good"] else Text("no", "red")
        table.add_row(Text(each["way"]), Text(each["variant"]), good, Text(each["found"]))
    stdout().print(table)
    if not all(each["good"] for each in checks):
        raise typer.Exit(1)


def _capabilities(settings: Settings) -> list[dict[str, Any]]:
    return _asked(settings, "--capabilities", seconds=PROBE_SECONDS)


def _asked(settings: Settings, question: str, *, seconds: int) -> list[dict[str, Any]]:
    """What a worker answers, from a process of its own, so that this one loads no runtime."""
    command = [sys.executable, "-P", "-m", "workers.main", question]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, check=False, env=worker_environment(settings)
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with status {done.returncode}"]
        raise ValueError(last[0])
    # the last line: what a runtime itself prints comes before it
    parsed: list[dict[str, Any]] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return parsed


def _describe(capability: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in capability["versions"].items())
    if not capability["available"]:
        return " · ".join(filter(None, [capability["reason"] or "not available", versions]))
    providers = f" · by {', '.join(capability['providers'])}" if capability["providers"] else ""
    return f"on {', '.join(capability['devices'])}{providers} · {versions}"


def _library(backend: str, library: dict[str, Any]) -> Finding:
    reason = library["reason"]
    state = f"SHA-256 {library['sha256'][:12]}…" if reason is None else f"left out: {reason}"
    return (f"plugins {backend}", reason is None, f"{library['path']} · {state}")


def _brokers(settings: Settings) -> list[Finding]:
    if settings.broker_url is not None:
        return [("broker", True, "as configured in QUANTSIEVE_BROKER_URL; none is embedded")]
    return [
        (f"broker {each.kind}", each.available, each.reason or str(each.binary or "a folder of messages"))
        for each in broker_options()
    ]


def _database(settings: Settings) -> list[Finding]:
    path = settings.data_dir / "quantsieve.db"
    if settings.database_url is None and not path.exists():
        return [("database", True, f"SQLite in {path}, made at the first start")]
    try:
        database = Database(settings.resolved_database_url)
        database.ping()
    except (SQLAlchemyError, OSError, ImportError) as error:
        return [("database", False, first_line(error, most=1000))]
    try:
        return [("database", True, database.url.render_as_string(hide_password=True)), *_versions(database)]
    finally:
        database.close()


def _versions(database: Database) -> list[Finding]:
    """Whether this release fits the database, and each live worker too."""
    code = installation.code_speaks()
    fits = f"schema {code.schema}, protocol {code.protocol}"
    try:
        refused = installation.refusal(database)
        if refused is not None:
            return [("versions", False, refused)]
        with database.read() as session:
            live = workers.judged(session)
    except SQLAlchemyError:
        return [("versions", True, f"{fits}; the database has no schema yet")]
    found = [("versions", True, fits)]
    for row, refused in live:
        found.append((f"worker {row.id}", refused is None, refused or f"on {row.host}, process id {row.pid}"))
    return found


def _named_files(settings: Settings) -> None:
    """Each file that is named and not there; status 1 where there is one, as in a backup that is not whole."""
    with opened_database(settings) as database:
        missing = leftovers.missing(database, open_blobs(settings))
    for each in missing:
        typer.echo(each)
    if missing:
        stderr().print(f"{len(missing)} files that the database names are not in {settings.storage}", markup=False)
        raise typer.Exit(1)
    typer.echo(f"every file that the database names is in {settings.storage}")


def _files(settings: Settings) -> Finding:
    """A file is stored, read and deleted again, so that what the service may not do in a bucket is known."""
    storage = settings.storage
    if not isinstance(storage, S3Location):
        return ("files", True, f"in {storage}" + ("" if storage.is_dir() else ", made at the first start"))
    try:
        store = open_blobs(settings)
        store.check()
        blob = store.put(os.urandom(32))
        store.read(blob.sha256)
        store.delete(blob.sha256)
    except (QuantsieveError, DamagedBlob, OSError) as error:
        cause = f": {first_line(error.__cause__, most=1000)}" if error.__cause__ is not None else ""
        return ("files", False, f"{storage}: {first_line(error)}{cause}")
    copies = f"copies in {settings.resolved_blob_cache_dir}, at most {settings.blob_cache_bytes / 2**30:.0f} GiB"
    return ("files", True, f"{store} · a file was stored, read and deleted · {copies}")


def _disk(settings: Settings) -> list[Finding]:
    folder = settings.data_dir.absolute()
    existing = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    state = f"{free / 2**30:.0f} GiB free in {folder}" + ("" if writable else ", not writable")
    return [("disk", writable and free > LOW_DISK_BYTES, state), _server(folder)]


def _server(folder: Path) -> Finding:
    running = running_server(folder)
    if running is None:
        return ("server", False, "none runs on this data folder")
    return ("server", True, f"{running.url or 'starting'} (process id {running.pid})")
