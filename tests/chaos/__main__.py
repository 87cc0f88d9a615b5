"""``python -m tests.chaos``: every fault on every set-up, many times; prints a table of what was lost.

The exit status is 0 where nothing was. ``--seed`` repeats the choices of an earlier run (not its timing).
"""

import argparse
import os
import platform
import secrets
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import mkdtemp

from tests.chaos.cluster import Cluster
from tests.chaos.drill import Drill
from tests.chaos.embedded import EmbeddedCluster, FolderBrokerCluster
from tests.chaos.faults import FAULTS, Blow, Fault
from tests.chaos.postgresql import PostgresqlCluster

CLUSTERS = (EmbeddedCluster, PostgresqlCluster, FolderBrokerCluster)


@dataclass
class Row:
    """A fault on a set-up: ``lost`` counts the runs after which an invariant did not hold."""

    fault: Fault
    cluster: str
    runs: int = 0
    kills: int = 0
    lost: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and print the table; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=8, help="of each fault")
    parser.add_argument("--minutes", type=float, default=25.0, help="no run begins later than that")
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--fault", help="only those whose names hold this text")
    parser.add_argument("--set-up", help="only those whose names hold this text")
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}, {asked.runs} runs of each fault", flush=True)
    faults = [each for each in FAULTS if asked.fault is None or asked.fault in each.name]
    clusters = [each for each in CLUSTERS if asked.set_up is None or asked.set_up in each.name]
    started, rows, stop = time.monotonic(), [], threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    timer = threading.Timer(60 * asked.minutes, stop.set)
    timer.daemon = True
    timer.start()
    series = [Series(each, faults, asked.runs, asked.seed, rows, stop) for each in clusters]
    for each in series:  # side by side, since most of the time is waiting
        each.start()
    for each in series:
        each.join()
    _print(rows, time.monotonic() - started)
    return int(not rows or any(row.lost or not row.runs for row in rows))


@dataclass
class Series:
    """All faults that a set-up can have, in rounds; after a loss the set-up is made anew."""

    kind: type[Cluster]
    faults: Sequence[Fault]
    runs: int
    seed: str
    rows: list[Row]
    stop: threading.Event

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self.run, name=self.kind.name)
        self.start, self.join = self._thread.start, self._thread.join

    def run(self) -> None:
        """Until all is run, or a stop is asked for."""
        todo = [Row(each, self.kind.name) for each in self.faults if self.kind in each.clusters]
        self.rows += todo
        while any(self._left(row) for row in todo):
            folder = Path(mkdtemp(prefix="chaos-"))
            try:
                with self.kind(folder / "set-up") as cluster:
                    print(f"{self.kind.name}: disk: {cluster.disk.how}; logs: {folder}", flush=True)
                    self._on(cluster, todo)
                shutil.rmtree(folder)
            except Lost as lost:
                print(f"LOST: {self.kind.name}: {lost}; logs: {folder}\n{traceback.format_exc()}", flush=True)

    def _left(self, row: Row) -> int:
        return 0 if self.stop.is_set() else max(1, round(self.runs * row.fault.share)) - row.runs

    def _on(self, cluster: Cluster, todo: Sequence[Row]) -> None:
        drill = Drill.begin(cluster)
        for number in range(self.runs):
            for row in todo:
                if row.runs <= number and self._left(row) > 0:
                    self._once(drill, row)

    def _once(self, drill: Drill, row: Row) -> None:
        started = time.monotonic()
        random = Random(f"{self.seed}/{row.cluster}/{row.fault.name}/{row.runs}")
        row.runs += 1
        try:
            sweep_id = drill.submit()
            row.kills += row.fault.strike(Blow(drill, sweep_id, random))
            drill.wait(sweep_id)
            drill.cluster.mend()
            drill.check(sweep_id)
        except Exception as error:
            row.lost += 1
            raise Lost(f"{row.fault.name}, run {row.runs}") from error
        spent = time.monotonic() - started
        print(f"{row.cluster}: {row.fault.name}: {row.runs} runs, {row.kills} kills; {spent:.0f} s", flush=True)


class Lost(Exception):
    """An invariant did not hold after a fault."""


def _print(rows: Sequence[Row], seconds: float) -> None:
    print(f"\n{time.strftime('%Y-%m-%d')}, {platform.platform()}, {os.cpu_count()} cores, {seconds / 60:.1f} min\n")
    print("| fault | set-up | runs | kills | lost |\n|---|---|---:|---:|---:|")
    for row in sorted(rows, key=lambda row: [each.name for each in FAULTS].index(row.fault.name)):
        print(f"| {row.fault.name} | {row.cluster} | {row.runs} | {row.kills} | {row.lost} |")
    total = [sum(getattr(row, name) for row in rows) for name in ("runs", "kills", "lost")]
    print("| **all** | | " + " | ".join(f"**{each}**" for each in total) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
