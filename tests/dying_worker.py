"""A worker without a queue that dies by SIGKILL twice in every phase that a sweep has; then one that finishes it.

Run as ``python -m tests.dying_worker SWEEP_ID`` with a worker's environment. Each life is a process of its own (a
fork, which spares the imports). The deaths are at the two worst moments: when the unit is leased and nothing is done,
and when all is done and the transaction that ends the unit holds its writes, but is not committed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from service.domain.settings import SweepSettings
from service.domain.states import SweepState, UnitKind
from service.settings import Settings
from service.store import units
from service.store.tables import SweepRow
from workers.context import WorkerContext
from workers.reconciler import reconcile
from workers.sweep.runner import PHASES
from workers.tasks import work


def main(sweep_id: str) -> None:
    with WorkerContext.open(Settings(), "looking").database.read() as session:
        settings = SweepSettings.model_validate(session.get_one(SweepRow, sweep_id).settings)
    absent = {UnitKind.PROBE: not settings.method.probes, UnitKind.SCOUT: not settings.scouts}
    for kind in (each for each in PHASES if not absent.get(each)):
        for arm in (die_before_the_work, die_in_the_commit):
            ended = life(sweep_id, kind, arm)
            if ended != -signal.SIGKILL:
                sys.exit(f"{arm.__name__} of {kind}: the worker ended with {ended} instead of being killed")
    if life(sweep_id, None, None) != 0:
        sys.exit("the last worker did not finish the sweep")


def life(sweep_id: str, kind: UnitKind | None, arm: Callable[[UnitKind], None] | None) -> int:
    """One worker process until it dies or the sweep has ended; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        if kind is not None and arm is not None:
            arm(kind)
        serve(sweep_id)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve(sweep_id: str) -> None:
    context = WorkerContext.open(Settings(), f"dying-{os.getpid()}")
    while True:
        with context.database.read() as session:
            sweep = session.get_one(SweepRow, sweep_id)
        if SweepState(sweep.state).terminal:
            return
        reconcile(context)
        if not work(context, sweep.backend):
            time.sleep(0.02)


def die(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_the_work(kind: UnitKind) -> None:
    PHASES[kind] = die


def die_in_the_commit(kind: UnitKind) -> None:
    finish = units.finish

    def finish_and_die(session: Any, lease: units.Lease, **result: Any) -> None:
        finish(session, lease, **result)
        if lease.kind is kind:
            die()

    units.finish = finish_and_die


if __name__ == "__main__":
    main(sys.argv[1])
