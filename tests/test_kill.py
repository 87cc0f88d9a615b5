"""`kill -9` of a worker in each phase, twice each, ends in the report of the undisturbed sweep.

What is compared: the layer table (JSON and CSV), the controls, the decision with all lists that were verified, and the
four files of the report. What is not, since it differs between any two sweeps: the sweep's id, its times and how long
it took, and the host. Not one figure is compared with a tolerance.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest

from service.client import Client
from service.domain.conversion import ConversionSettings
from service.domain.selections import SelectionQuestion
from service.domain.settings import Budget, CalibrationSettings, SelectionSettings, SweepSettings
from service.embedded.server import EmbeddedServer, worker_environment
from service.settings import Settings
from tests.live_service import bearer

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the pool's child in /proc")

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits"
PHASES = ("prepare", "calibrate", "measure", "select", "verify", "report")
# leases so short may run out on a busy machine without anybody's death; that must not add up to the cap
SHORT = {"lease_seconds": 0.8, "heartbeat_seconds": 0.2, "reconcile_seconds": 0.2, "max_attempts": 20}
PATIENCE_SECONDS = 120.0
WORKER = ("-m", "workers.main")
# the same without the look at what the machine can run, which takes longer than the whole sweep
QUICK_WORKER = (
    "-c",
    """
import workers.capabilities, workers.main
from service.domain.settings import BackendName
from workers.backends.protocol import Capability

workers.capabilities.probe_in_child = lambda: [Capability(BackendName.ONNXRUNTIME, True, ("cpu",), {})]
workers.main.main([])
""",
)


@dataclass
class Service:
    """The API and the broker of one machine; the workers are the test's own, to be killed."""

    server: EmbeddedServer
    client: Client
    logs: Path
    settings: SweepSettings | None = None
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """That of a worker."""
        return worker_environment(self.server.settings) | {"OMP_NUM_THREADS": "1"}

    def start_worker(self, start: tuple[str, ...] = WORKER) -> "subprocess.Popen[bytes]":
        """A worker with a process group of its own, as the embedded server starts it."""
        with (self.logs / f"worker-{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-P", *start],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def end_workers(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            if worker.poll() is None:
                kill_group(worker.pid)
            worker.wait()

    def upload(self) -> None:
        """Upload the example; returns when it is checked."""
        model, evaluation, calibration = (
            self.client.upload_model(DIGITS / "digits.onnx"),
            self.client.upload_dataset(DIGITS / "eval.npz"),
            self.client.upload_dataset(DIGITS / "calib.npz"),
        )
        for each in (model, evaluation, calibration):
            self.client.wait_ready(each, timeout=PATIENCE_SECONDS)
        self.settings = SweepSettings(
            model=model["id"],
            dataset=evaluation["id"],
            backend="onnxruntime",
            budget=Budget(max_drop=0.01),
            calibration=CalibrationSettings(dataset=calibration["id"]),
            shard_size=256,
        )

    def sweep(self) -> str:
        """A new sweep; its id."""
        assert self.settings is not None
        return str(self.client.create_sweep(self.settings)["id"])

    def findings(self, sweep_id: str) -> dict[str, Any]:
        """What the sweep found, once it has ended, less what differs between any two sweeps.

        The sweep is deleted then: results that were measured before are not measured again.
        """
        ended = self.client.wait(sweep_id, timeout=PATIENCE_SECONDS)
        assert ended["state"] == "succeeded", ended["problem"]
        report, table, fallback = (
            json.loads(self.client.report(sweep_id, "json")),
            self.client.layers(sweep_id),
            json.loads(self.client.report(sweep_id, "fallback-layers")),
        )
        for document, names in ((report, ("sweep_id", "created_at", "finished_at")), (table, ("sweep",))):
            for name in names:
                del document[name]
        del report["environment"]["host"], report["cost"]["seconds"], fallback["sweep"]
        page = self.client.report(sweep_id, "html").decode().replace(sweep_id, "SWEEP")
        page = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?", "TIME", page)
        page = re.sub(r"\b(prepare|calibrate|measure|select|verify|report) [\d.,]+ s", r"\1 SECONDS", page)
        csv = self.client.layers_csv(sweep_id)
        httpx.delete(f"{self.server.url}/v1/sweeps/{sweep_id}", headers=bearer(self.server)).raise_for_status()
        return {
            "report": report,
            "layers": table,
            "decision": ended["decision"],
            "warnings": ended["warnings"],
            "fallback": fallback,
            "csv": csv,
            "page": page,
        }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("kill")
    settings = Settings(data_dir=folder / "data", port=0, database_url=None, broker_url=None, blob_url=None, **SHORT)
    with EmbeddedServer(settings, with_worker=False) as server, Client(server.url, key=server.key) as client:
        made = Service(server, client, folder)
        yield made
        made.end_workers()


@pytest.fixture(scope="module")
def undisturbed(service: Service) -> dict[str, Any]:
    """The findings of a sweep whose worker is left alone; that worker then goes on to serve."""
    service.start_worker()
    service.upload()
    return service.findings(service.sweep())


@dataclass
class Watch:
    """Looks at the units of a sweep or a conversion through a connection of its own, which can hold the write lock."""

    database: Path
    subject_id: str
    seen: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._connection = sqlite3.connect(self.database, isolation_level=None, timeout=5.0)

    def do_in(self, kind: str, action: Callable[[int], None]) -> dict[str, Any]:
        """Call ``action`` with the pid of the worker that holds a unit of this kind; the unit as it was then.

        Meanwhile the unit cannot be finished, since we hold the write lock; no lease is met twice.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._fresh(kind) is None:
                assert self._state() not in ("succeeded", "done", "failed"), f"it ended; nobody was met in {kind}"
                time.sleep(0.0005)
                continue
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                unit = self._fresh(kind)
                if unit is not None:
                    action(self._pid(unit["owner"]))
                    self.seen.add((unit["id"], unit["token"]))
                    return unit
            finally:
                self._connection.execute("ROLLBACK")
        raise AssertionError(f"no unit of {kind} was leased within {PATIENCE_SECONDS} s")

    def unit(self, unit_id: str) -> dict[str, Any]:
        """A unit as it is now."""
        return self._rows("select * from work_units where id = ?", unit_id)[0]

    def attempts_lost(self) -> dict[str, int]:
        """Kind → how many attempts at a unit of it led to nothing."""
        query = "select kind, sum(attempts - 1) as lost from work_units where subject_id = ? group by kind"
        return {each["kind"]: each["lost"] for each in self._rows(query, self.subject_id)}

    def _fresh(self, kind: str) -> dict[str, Any] | None:
        query = "select * from work_units where subject_id = ? and kind = ? and state = 'leased'"
        leased = self._rows(query, self.subject_id, kind)
        return next((each for each in leased if (each["id"], each["token"]) not in self.seen), None)

    def _pid(self, worker_id: str) -> int:
        return int(self._rows("select pid from workers where id = ?", worker_id)[0]["pid"])

    def _state(self) -> str:
        tables = ("sweeps", "conversions", "selections")
        query = " union all ".join(f"select id, state from {each}" for each in tables)
        return str(self._rows(f"select state from ({query}) where id = ?", self.subject_id)[0]["state"])

    def _rows(self, query: str, *values: str) -> list[dict[str, Any]]:
        cursor = self._connection.execute(query, values)
        return [dict(zip([each[0] for each in cursor.description], row, strict=True)) for row in cursor]


def watch(service: Service, subject_id: str) -> Watch:
    return Watch(service.server.settings.data_dir / "quantsieve.db", subject_id)


def terminate(pid: int) -> None:
    """The worker is asked to end."""
    os.kill(pid, signal.SIGTERM)


def kill_group(pid: int) -> None:
    """The worker and its pool at once: the machine lost power."""
    os.killpg(pid, signal.SIGKILL)


def kill_child(pid: int) -> None:
    """The process that computes, and not its parent: the system was out of memory."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    computing = [each for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]
    assert computing, "the pool has no child"
    for each in computing:
        os.kill(int(each), signal.SIGKILL)


def test_sigterm_gives_the_unit_back_at_once_and_counts_no_attempt(
    service: Service, undisturbed: dict[str, Any]
) -> None:
    worker, sweep_id = service.workers[-1], service.sweep()
    watched = watch(service, sweep_id)
    unit = watched.do_in("measure", terminate)
    assert worker.wait(timeout=PATIENCE_SECONDS) == 0
    after = watched.unit(unit["id"])
    assert (after["state"], after["attempts"], after["owner"]) == ("queued", unit["attempts"] - 1, None)
    assert after["token"] > unit["token"]
    service.start_worker(QUICK_WORKER)
    assert service.findings(sweep_id) == undisturbed


def test_workers_killed_in_each_phase_twice_change_nothing(service: Service, undisturbed: dict[str, Any]) -> None:
    service.end_workers()  # one that has the model open would have prepared the sweep before we look
    sweep_id = service.sweep()
    watched = watch(service, sweep_id)
    service.start_worker(QUICK_WORKER)
    for phase in PHASES:
        service.start_worker(QUICK_WORKER)  # takes the place of the one that is killed next
        watched.do_in(phase, kill_group)
        watched.do_in(phase, kill_child)
    assert service.findings(sweep_id) == undisturbed
    assert len(watched.seen) == 2 * len(PHASES)


def test_a_worker_that_dies_before_the_work_and_in_the_commit_changes_nothing(
    service: Service, undisturbed: dict[str, Any]
) -> None:
    service.end_workers()  # or they would take the units of the one that dies
    sweep_id = service.sweep()
    command = [sys.executable, "-m", "tests.dying_worker", sweep_id]
    environment = service.environment | {"QUANTSIEVE_LEASE_SECONDS": "0.4", "QUANTSIEVE_HEARTBEAT_SECONDS": "0.1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, timeout=PATIENCE_SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert min(watch(service, sweep_id).attempts_lost().values()) >= 2
    assert service.findings(sweep_id) == undisturbed


def test_workers_killed_while_they_measure_for_a_selection_change_nothing(
    service: Service, undisturbed: dict[str, Any]
) -> None:
    service.start_worker(QUICK_WORKER)
    client, sweep_id = service.client, service.sweep()
    assert client.wait(sweep_id, timeout=PATIENCE_SECONDS)["state"] == "succeeded"
    service.end_workers()
    question = SelectionQuestion(budget=Budget(max_drop=0.03), selection=SelectionSettings(cost="macs"), verify=True)
    asked = client.select(sweep_id, question)
    assert asked["result"]["state"] == "predicted"
    watched = watch(service, asked["id"])
    service.start_worker(QUICK_WORKER)
    for kind in ("select", "verify"):
        service.start_worker(QUICK_WORKER)  # takes the place of the one that is killed next
        watched.do_in(kind, kill_group)
        watched.do_in(kind, kill_child)
    disturbed = client.wait_selected(asked, timeout=PATIENCE_SECONDS)
    assert disturbed["state"] == "done"
    assert min(watched.attempts_lost().values()) >= 2
    alone = client.wait_selected(client.select(sweep_id, question), timeout=PATIENCE_SECONDS)
    assert disturbed["result"] == alone["result"]
    assert service.findings(sweep_id) == undisturbed


def test_workers_killed_while_they_convert_change_nothing(service: Service, tmp_path: Path) -> None:
    service.end_workers()
    client, cache = service.client, tmp_path / "digits.cache"
    cache.write_text("".join(["TRT-100300-EntropyCalibration2\n", *(f"{name}: 3d4ccccd\n" for name in tensors())]))
    model, calibration = client.upload_model(DIGITS / "digits.onnx"), client.upload_calibration(cache)
    asked = ConversionSettings(model=model["id"], calibration=calibration["id"])
    made = client.create_conversion(asked)
    watched = watch(service, made["id"])
    service.start_worker(QUICK_WORKER)
    for death in (kill_group, kill_child):
        service.start_worker(QUICK_WORKER)  # takes the place of the one that is killed next
        watched.do_in("convert", death)
    disturbed = client.wait_converted(made, timeout=PATIENCE_SECONDS)
    assert watched.attempts_lost() == {"convert": 2}
    alone = client.wait_converted(client.create_conversion(asked), timeout=PATIENCE_SECONDS)
    assert disturbed["summary"] == alone["summary"]
    assert [(each["name"], each["sha256"]) for each in disturbed["files"]] == [
        (each["name"], each["sha256"]) for each in alone["files"]
    ]


def tensors() -> list[str]:
    graph = onnx.load(DIGITS / "digits.onnx").graph
    held = {each.name for each in graph.initializer}
    return sorted({name for node in graph.node for name in node.input if name} - held)
