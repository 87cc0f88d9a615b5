"""The API under load: many clients at once that submit, poll and listen, each with a key of its own.

``python -m benchmarks.load [clients]``: one line for each operation with its median and its 99 % quantile, then the
answers that were not as they should be. PostgreSQL, valkey, the API and the clients share this machine.
"""

import asyncio
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import numpy as np

from benchmarks.installation import installed, made_up_subjects
from service.domain.api_keys import KeyScope
from service.domain.settings import SweepSettings
from service.embedded.server import worker_environment
from service.settings import Settings
from service.store import keys, projects
from service.store.database import Database
from service.store.keys import NewKey, Pepper
from service.store.tables import ProjectRow

CLIENTS, CLIENTS_OF_PROJECT = 200, 10
SWEEPS, POLLS, POLL_SECONDS = 2, 10, 2.0
PEPPER = "a pepper for this benchmark alone"
PORT = 18_080


@dataclass
class Seen:
    """Seconds of each operation, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    def add(self, operation: str, began: float) -> None:
        """One that went well."""
        self.seconds[operation].append(time.perf_counter() - began)


@dataclass(frozen=True)
class Tenant:
    """What one client works with."""

    key: str
    settings: SweepSettings


def main() -> None:
    """Print the table."""
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS
    with installed(host="127.0.0.1", port=PORT, require_keys=True, key_pepper=PEPPER) as settings:
        tenants = tenants_of(settings, clients)
        with api(settings):
            seen, began = Seen(), time.perf_counter()
            asyncio.run(all_at_once(tenants, seen))
            lasted = time.perf_counter() - began
    requests = sum(len(each) for each in seen.seconds.values())
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores,", end=" "
    )
    print(f"load average {os.getloadavg()[0]:.1f} (the machine is shared)")
    print(f"{clients} clients at once, {requests} operations in {lasted:.1f} s")
    for operation, seconds in seen.seconds.items():
        p50, p99 = 1e3 * np.quantile(seconds, (0.5, 0.99))
        print(f"{operation:<28} {len(seconds):>6}   p50 {p50:7.0f} ms   p99 {p99:7.0f} ms")
    print(f"errors: {len(seen.errors)}", *sorted(set(seen.errors))[:5], sep="\n  ")


def tenants_of(settings: Settings, clients: int) -> list[Tenant]:
    """Projects, and a key for each client."""
    database, pepper, tenants = Database(settings.resolved_database_url), Pepper(PEPPER), []
    for number in range(clients):
        project_id = f"project-{number // CLIENTS_OF_PROJECT}"
        if number % CLIENTS_OF_PROJECT == 0:
            with database.write() as session:
                projects.create(session, ProjectRow(id=project_id))
            asked = made_up_subjects(database, project_id)
        with database.write() as session:
            scopes = (KeyScope.READ, KeyScope.SUBMIT)
            _, key = keys.create(session, NewKey(f"client {number}", scopes, project_id), pepper)
        tenants.append(Tenant(key.text, asked))
    database.close()
    return tenants


@contextmanager
def api(settings: Settings) -> Iterator[None]:
    """The API as a process of its own."""
    environment = worker_environment(settings) | {"QUANTSIEVE_KEY_PEPPER": PEPPER}
    command = [sys.executable, "-c", "from service.cli import main; main()", "api"]
    with (settings.data_dir / "api.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{PORT}/readyz", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise SystemExit((settings.data_dir / "api.log").read_text()[-2000:])
        yield
    finally:
        process.terminate()
        process.wait()


async def all_at_once(tenants: list[Tenant], seen: Seen) -> None:
    """Every client does its work beside all others."""
    await asyncio.gather(*(client_of(each, seen) for each in tenants))


async def client_of(tenant: Tenant, seen: Seen) -> None:
    """Sweeps, one after the other: submitted, listened to and polled at once, cancelled."""
    headers = {"Authorization": f"Bearer {tenant.key}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", headers=headers, timeout=120) as http:
        ask = partial(answered, http, seen)
        for _ in range(SWEEPS):
            made = await ask("submit", "POST", "/v1/sweeps", json=tenant.settings.model_dump(mode="json"))
            if made is None:
                continue
            url, ended = f"/v1/sweeps/{made['id']}", asyncio.Event()
            listening = asyncio.create_task(listen(http, seen, f"{url}/events", ended))
            for _ in range(POLLS):
                await ask("poll", "GET", url)
                await asyncio.sleep(POLL_SECONDS)
            ended.set()
            await ask("cancel", "POST", f"{url}/cancel")
            began = time.perf_counter()
            await listening
            seen.add("from cancel to the last event", began)


async def answered(http: httpx.AsyncClient, seen: Seen, operation: str, method: str, url: str, **body: Any) -> Any:
    """The document; None where it was not answered as it should be."""
    began = time.perf_counter()
    try:
        response = await http.request(method, url, **body)
    except httpx.HTTPError as error:
        seen.errors.append(f"{operation}: {error!r}")
        return None
    if response.is_error:
        seen.errors.append(f"{operation}: {response.status_code} {response.text[:200]}")
        return None
    seen.add(operation, began)
    return response.json()


async def listen(http: httpx.AsyncClient, seen: Seen, url: str, ended: asyncio.Event) -> None:
    """The event stream until it ends, which it must not do before the sweep has."""
    began, events = time.perf_counter(), 0
    try:
        async with http.stream("GET", url) as response:
            if response.is_error:
                seen.errors.append(f"stream: {response.status_code}")
                return
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    events += 1
                    if events == 1:
                        seen.add("stream: to the first event", began)
                    last = line
    except httpx.HTTPError as error:
        seen.errors.append(f"stream: {error!r}")
        return
    if not ended.is_set() or events < 2 or '"state":"cancelled"' not in last:
        seen.errors.append(f"stream: ended after {events} events without the end of the sweep")


if __name__ == "__main__":
    main()
