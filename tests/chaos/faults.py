"""The faults, each a function that strikes while a sweep runs. It says how many processes it killed."""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from sqlalchemy.exc import DBAPIError

from service.client import ApiProblem
from tests.chaos.cluster import LEASE_SECONDS, PATIENCE_SECONDS, SHORT, Cluster, Part
from tests.chaos.drill import DIGITS, Drill
from tests.chaos.embedded import EmbeddedCluster, FolderBrokerCluster
from tests.chaos.kept import Kept
from tests.chaos.postgresql import PostgresqlCluster
from tests.chaos.watch import Watch

BOTH = (EmbeddedCluster, PostgresqlCluster)
MOST_KILLS = 5
JUMP_SECONDS = 3 * 3600.0


@dataclass
class Blow:
    """One sweep that is disturbed. ``random`` decides all that is left to chance."""

    drill: Drill
    sweep_id: str
    random: Random

    @property
    def cluster(self) -> Cluster:
        """The installation."""
        return self.drill.cluster

    @property
    def watch(self) -> Watch:
        """A look at the sweep's units."""
        return Watch(self.cluster.database, self.sweep_id)

    def wait_a_while(self, share: float = 1.0) -> None:
        """Until a random number of units more are done, at most this share of a sweep's, and into the next one."""
        wanted = self._done() + self.random.randint(0, round(share * len(self.drill.units)))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._done() < wanted and self.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.pause(self.drill.seconds / len(self.drill.units))

    def pause(self, most: float, *, least: float = 0.0) -> None:
        """Sleep at random, in seconds."""
        time.sleep(self.random.uniform(least, most))

    def _done(self) -> int:
        query = "select count(*) from work_units where sweep_id = :sweep and state = 'done'"
        try:
            return self.cluster.count(query, sweep=self.sweep_id)
        except DBAPIError:
            return 0

    def running(self) -> bool:
        """Whether there is still something to disturb; a database that does not answer says nothing else."""
        try:
            return not self.watch.ended()
        except DBAPIError:
            return True

    def holder(self) -> tuple[Kept, int] | None:
        """A worker that holds a unit now, and the unit's token; None where the sweep ended before one was met."""
        while self.running():
            held = self.watch.held_by()
            for worker in self.cluster.workers:
                if worker.pid in held:
                    return worker, held[worker.pid].token
            time.sleep(0.002)
        return None


@dataclass(frozen=True)
class Fault:
    """``strike``: during a sweep. ``after``: once it has ended. ``clusters``: the set-ups that can have it."""

    name: str
    strike: Callable[[Blow], int]
    clusters: Sequence[type[Cluster]] = BOTH
    share: float = 1.0
    """Of the runs that are asked for."""


def killing(part: Part, *, most: int = MOST_KILLS) -> Callable[[Blow], int]:
    """``kill -9`` again and again while the sweep runs."""

    def strike(blow: Blow) -> int:
        killed = 0
        times = blow.random.randint(min(2, most), most)
        for _ in range(times):
            blow.wait_a_while(1 / times)
            if not blow.running():
                break
            killed += blow.cluster.kill(part, blow.random)
        return killed

    return strike


def broker_of_the_server(blow: Blow) -> int:
    """The server starts it again, after a longer pause each time; a new server does not know of the earlier deaths."""
    blow.cluster.api.send(signal.SIGTERM, group=False)
    blow.wait_a_while(0.7)
    return blow.cluster.kill(Part.BROKER, blow.random)


def in_each_phase(blow: Blow) -> int:
    """Who holds a unit is killed twice in each phase: a whole worker, and a child alone."""
    watch, killed, met = blow.watch, Counter[str](), set[tuple[str, int]]()
    while blow.running():
        for worker in blow.cluster.workers:
            unit = watch.held_by().get(worker.pid or 0)
            if unit is None or (unit.id, unit.token) in met or killed[unit.kind] == 2:
                continue
            met.add((unit.id, unit.token))
            whole = killed[unit.kind] == 0
            killed[unit.kind] += worker.send(signal.SIGKILL) if whole else blow.cluster.kill_children(worker)
        time.sleep(0.001)
    return killed.total()


def flush(blow: Blow) -> int:
    """All messages of the broker are gone, again and again."""
    for _ in range(5):
        blow.wait_a_while(0.3)
        blow.cluster.flush_broker()
    return 0


def duplicates(blow: Blow) -> int:
    """Hints that nobody asked for, in heaps."""
    for _ in range(3):
        blow.wait_a_while(0.3)
        for queue in ("onnxruntime", "data"):
            blow.cluster.hint(queue, blow.random.randint(5, 30))
    return 0


def zombie(blow: Blow) -> int:
    """A worker that holds a unit is stopped past its lease, and wakes up when another one has the unit, or had it."""
    blow.wait_a_while(0.7)
    met = blow.holder()
    if met is None:
        return 0
    worker, _ = met
    worker.send(signal.SIGSTOP)
    # stopped in a transaction it holds SQLite's lock: then nobody can take the unit from it, until it wakes up
    time.sleep(LEASE_SECONDS + blow.random.uniform(0.5, 3.0))
    worker.send(signal.SIGCONT)
    return 0


def full_disk(blow: Blow) -> int:
    """No byte can be written for a while; an upload meanwhile is refused as it should be, and taken afterwards."""
    cluster = blow.cluster
    blow.wait_a_while(0.9)
    cluster.disk.fill(cluster.processes())
    try:
        with contextlib.suppress(ApiProblem):
            made = cluster.client.upload_model(DIGITS / "digits.onnx")
            raise AssertionError(f"an upload was taken on a full disk: {made}")
        blow.pause(2 * LEASE_SECONDS, least=0.5)
    finally:
        cluster.disk.free(cluster.processes())
    return 0


def clock(blow: Blow) -> int:
    """Three hours ahead and back; who claimed a unit in between dies just before the way back."""
    blow.wait_a_while(0.5)
    blow.cluster.jump_clock(JUMP_SECONDS)
    try:
        blow.wait_a_while(0.3)
        met = blow.holder()
        return int(met is not None and met[0].send(signal.SIGKILL))
    finally:
        blow.cluster.jump_clock(0.0)


def network(blow: Blow) -> int:
    """Between the first worker and the database: cut and refused, or held without a word, past the lease or not.

    Or held until the sweep has ended, while the worker dies: its machine lost power, and the database is not told.
    """
    line = blow.cluster.line
    assert line is not None
    blow.wait_a_while(0.8)
    way = blow.random.choice(("cut", "held", "power"))
    if way == "power":
        line.hold()
        return int(blow.cluster.workers[0].send(signal.SIGKILL))
    if way == "cut":
        line.cut()
        blow.pause(2 * LEASE_SECONDS)
        line.mend()
    else:
        line.hold()
        blow.pause(3 * LEASE_SECONDS)
        if blow.random.random() < 0.5:
            line.cut()
            line.mend()
        line.release()
    return 0


def poison(blow: Blow) -> int:
    """A model beside it kills whoever measures it, each time."""
    drill, cluster = blow.drill, blow.cluster
    cursed = drill.submit(drill.poisoned)
    ended = drill.wait(cursed)
    assert (ended["state"], ended["problem"]["code"]) == ("failed", "worker-lost"), ended
    lost = cluster.count(
        "select max(attempts) from work_units where sweep_id = :sweep and kind = 'measure'", sweep=cursed
    )
    assert lost == SHORT["max_attempts"], f"{lost} attempts"
    assert drill.open_units(cursed) == []
    drill.delete(cursed)
    return lost


FAULTS = (
    Fault("kill -9 worker", killing(Part.WORKER)),
    Fault("kill -9 worker's child", killing(Part.CHILD)),
    Fault("kill -9 worker's parent, child orphaned", killing(Part.PARENT)),
    Fault("kill -9 worker and child in each phase", in_each_phase, share=0.2),
    Fault("kill -9 API", killing(Part.API)),
    Fault("kill -9 broker", killing(Part.BROKER, most=10), (PostgresqlCluster,)),
    Fault("kill -9 broker", broker_of_the_server, (EmbeddedCluster,)),
    Fault("kill -9 database", killing(Part.DATABASE, most=8), (PostgresqlCluster,)),
    Fault("kill -9 everything at once", killing(Part.DATABASE, most=3), (EmbeddedCluster,)),
    Fault("broker flushed", flush, (*BOTH, FolderBrokerCluster)),
    Fault("stopped past the lease, then continued", zombie),
    Fault("hints in heaps", duplicates),
    Fault("disk full", full_disk),
    Fault("poison model", poison, share=0.3),
    Fault("clock three hours ahead and back", clock),
    Fault("network to the database cut or held", network, (PostgresqlCluster,)),
)
