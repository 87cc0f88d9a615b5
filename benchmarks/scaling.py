"""How the service scales with its workers: measured with 1, 2 and 4, and by a model of that up to 1,000.

``python -m benchmarks.scaling``: PostgreSQL, valkey, Celery workers; the compute of a shard is a fixed wait, so that
two cores can show it. Then the statements and the seconds that one shard costs the database, the model, and how much of
a whole sweep's processor time is the service's.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import event, func, select, update
from sqlalchemy.engine import Engine

from benchmarks.installation import installed, made_up_subjects
from benchmarks.overhead import print_overhead
from service.broker import Hints
from service.domain.settings import BackendName
from service.domain.states import Phase, SweepState, UnitKind, UnitState
from service.embedded.server import worker_environment
from service.settings import Settings
from service.store import sweeps, units
from service.store.database import Database
from service.store.sweeps import NewSweep
from service.store.tables import DEFAULT_PROJECT, SweepRow, UnitRow
from service.store.units import NewUnit
from workers.context import WorkerContext

WAIT_SECONDS = 0.5
SHARDS_OF_WORKER = 40
QUEUED = 10_000
COUNTED = 50
MODELLED = (1, 4, 16, 64, 128, 256, 512, 1_000)
SHARD_SECONDS = (1.0, 10.0, 60.0)


def main() -> None:
    """Print the tables."""
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} (shared)")
    with installed() as settings:
        subjects = Subjects(settings)
        for workers in (1, 2, 4):
            print_throughput(subjects, workers)
        shared = print_cost(subjects)
        print_model(shared)
    print_overhead()


class Subjects:
    """The database, and sweeps whose shards are being scouted."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.resolved_database_url)
        self.hints = Hints(settings)
        self._asked = made_up_subjects(self.database, DEFAULT_PROJECT)

    def measuring(self, shards: int) -> str:
        """A sweep with so many queued shards, and one that never comes, so that no decision follows."""
        with self.database.write() as session:
            found = sweeps.subjects_of(session, self._asked)
            row, _ = sweeps.create(session, NewSweep(self._asked, found, BackendName.ONNXRUNTIME))
            row.state, row.phase = SweepState.RUNNING, Phase.SCOUT
            session.execute(update(UnitRow).where(UnitRow.subject_id == row.id).values(state=UnitState.DONE))
            new = [self._shard(row, ordinal) for ordinal in range(shards)]
            units.add_units(session, [*new, self._shard(row, shards, waiting=True)])
            return row.id

    @staticmethod
    def _shard(row: SweepRow, ordinal: int, *, waiting: bool = False) -> NewUnit:
        return NewUnit(UnitKind.SCOUT, row.id, row.queue, sweep_id=row.id, ordinal=ordinal, waiting=waiting)

    def done(self, sweep_id: str) -> int:
        """How many of its shards are."""
        mine = (UnitRow.subject_id == sweep_id, UnitRow.kind == UnitKind.SCOUT, UnitRow.state == UnitState.DONE)
        with self.database.read() as session:
            return session.scalar(select(func.count()).where(*mine)) or 0


def print_throughput(subjects: Subjects, workers: int) -> None:
    """Shards per second of so many workers, from the time when all are busy."""
    shards = SHARDS_OF_WORKER * workers
    sweep_id = subjects.measuring(shards)
    subjects.hints.publish(BackendName.ONNXRUNTIME, shards)
    with ExitStack() as stack:
        for number in range(workers):
            stack.enter_context(worker(subjects.settings, number))
        warm = _until(subjects, sweep_id, 4 * workers)
        began = time.perf_counter()
        last = _until(subjects, sweep_id, shards - 4 * workers)
        rate = (last - warm) / (time.perf_counter() - began)
    ideal = workers / WAIT_SECONDS
    each = workers / rate - WAIT_SECONDS
    print(
        f"{workers} workers, {WAIT_SECONDS} s a shard: {rate:.2f} shards/s, {rate / ideal:.0%} of the ideal "
        f"{ideal:.0f}; {1e3 * each:.0f} ms between the end of a shard's compute and the next one's start",
        flush=True,
    )


@contextmanager
def worker(settings: Settings, number: int) -> Iterator[None]:
    """A worker that waits."""
    environment = worker_environment(settings) | {"BENCH_WAIT_SECONDS": str(WAIT_SECONDS), "OMP_NUM_THREADS": "1"}
    with (settings.data_dir / f"worker-{number}.log").open("wb") as log:
        command = [sys.executable, "-m", "benchmarks.waiting_worker"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _until(subjects: Subjects, sweep_id: str, count: int, patience: float = 240) -> int:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done = subjects.done(sweep_id)
        if done >= count:
            return done
        time.sleep(0.05)
    raise SystemExit(f"{done} of {count} shards after {patience} s")


def print_cost(subjects: Subjects) -> float:
    """Statements and milliseconds of one shard; what PostgreSQL itself computes for it, in seconds, is returned."""
    from benchmarks import waiting_worker
    from workers.sweep.runner import run_unit

    context = WorkerContext.open(subjects.settings, "wrk_bench")
    counted = {"statements": 0}

    def count(*_: object) -> None:
        counted["statements"] += 1

    event.listen(Engine, "before_cursor_execute", count)
    for queued in (COUNTED, QUEUED):
        subjects.measuring(queued)
        claims, rests, before = [], [], counted["statements"]
        backend, own = postgresql_seconds(), time.process_time()
        for _ in range(COUNTED):
            began = time.perf_counter()
            with context.database.write() as session:
                lease = units.claim(session, BackendName.ONNXRUNTIME, owner=context.worker_id, lease_seconds=60)
            assert lease is not None
            claimed = time.perf_counter()
            run_unit(context, lease)
            claims.append(claimed - began)
            rests.append(time.perf_counter() - claimed)
        backend, own = (postgresql_seconds() - backend) / COUNTED, (time.process_time() - own) / COUNTED
        print(
            f"{queued:>6} queued: {(counted['statements'] - before) / COUNTED:.1f} statements a shard; claim "
            f"{1e3 * statistics.median(claims):.1f} ms, the rest {1e3 * statistics.median(rests):.1f} ms (median); "
            f"processor: {1e3 * own:.1f} ms of the worker, {1e3 * backend:.1f} ms of PostgreSQL",
            flush=True,
        )
        with context.database.write() as session:
            session.execute(update(UnitRow).where(UnitRow.state == UnitState.QUEUED).values(state=UnitState.DONE))
    event.remove(Engine, "before_cursor_execute", count)
    assert waiting_worker.WAIT_SECONDS == 0
    return backend


def postgresql_seconds() -> float:
    """Processor seconds of all processes of PostgreSQL on this machine that live, and of those that ended."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "postgres":
                ticks += sum(map(int, (entry / "stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def print_model(shared: float) -> None:
    """Throughput by mean value analysis: workers that compute, and one database that serves them one by one."""
    print(f"model, not measured: a closed network with one station, the database, of {1e3 * shared:.1f} ms a shard")
    print(f"{'workers':>8}" + "".join(f"{f'{seconds:g} s a shard':>18}" for seconds in SHARD_SECONDS))
    for workers in MODELLED:
        rates = [throughput(workers, seconds, shared) for seconds in SHARD_SECONDS]
        cells = [
            f"{rate:.1f}/s ({rate * seconds / workers:.0%})" for rate, seconds in zip(rates, SHARD_SECONDS, strict=True)
        ]
        print(f"{workers:>8}" + "".join(f"{each:>18}" for each in cells))
    bends = ", ".join(f"{(each + shared) / shared:,.0f} workers at {each:g} s" for each in SHARD_SECONDS)
    print(f"it bends where the database is busy all the time: {bends}")


def throughput(workers: int, compute: float, shared: float) -> float:
    """Shards per second of a closed network: think time ``compute``, and one queue of service time ``shared``."""
    waiting = rate = 0.0
    for population in range(1, workers + 1):
        response = shared * (1 + waiting)
        rate = population / (compute + response)
        waiting = rate * response
    return rate


if __name__ == "__main__":
    main()
