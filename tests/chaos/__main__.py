"""``python -m tests.chaos``: every fault on every set-up, many times; prints a table of what was lost.

The exit status is 0 where nothing was. ``--seed`` repeats the choices of an earlier run (not its timing).
"""

import argparse
import os
import platform
import secrets
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
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and print the table; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=int(os.environ.get("CHAOS_RUNS") or 8), help="of each fault")
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--fault", help="only those whose names hold this text")
    parser.add_argument("--set-up", help="only those whose names hold this text")
    asked = parser.parse_args(arguments)
    print(f"seed {asked.seed}, {asked.runs} runs of each fault", flush=True)
    faults = [each for each in FAULTS if asked.fault is None or asked.fault in each.name]
    clusters = [each for each in CLUSTERS if asked.set_up is None or asked.set_up in each.name]
    started, rows = time.monotonic(), []
    threads = [threading.Thread(target=_series, args=(each, faults, asked, rows)) for each in clusters[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in clusters[2:]:
        _series(each, faults, asked, rows)
    _print(rows, time.monotonic() - started)
    return int(not rows or any(row.lost or not row.runs for row in rows))


def _series(kind: type[Cluster], faults: Sequence[Fault], asked: argparse.Namespace, rows: list[Row]) -> None:
    """All faults that this set-up can have, one after the other; after a loss the set-up is made anew."""
    for fault in (each for each in faults if kind in each.clusters):
        row = Row(fault, kind.name)
        rows.append(row)
        runs = max(1, round(asked.runs * fault.share))
        while row.runs < runs:
            folder = Path(mkdtemp(prefix="chaos-"))
            try:
                with kind(folder / "set-up") as cluster:
                    print(f"{kind.name}: {fault.name} (disk: {cluster.disk.how}; logs: {folder})", flush=True)
                    _repeat(cluster, row, runs, asked.seed)
            except Exception:
                row.runs, row.lost = row.runs + 1, row.lost + 1
                print(f"LOST: {kind.name}: {fault.name}, run {row.runs}; logs: {folder}\n{traceback.format_exc()}")


def _repeat(cluster: Cluster, row: Row, runs: int, seed: str) -> None:
    drill = Drill.begin(cluster)
    while row.runs < runs:
        started = time.monotonic()
        sweep_id = drill.submit()
        row.kills += row.fault.strike(Blow(drill, sweep_id, Random(f"{seed}/{row.cluster}/{row.fault.name}/{row.runs}")))
        drill.wait(sweep_id)
        drill.check(sweep_id)
        row.runs += 1
        row.seconds += time.monotonic() - started


def _print(rows: Sequence[Row], seconds: float) -> None:
    print(f"\n{time.strftime('%Y-%m-%d')}, {platform.platform()}, {os.cpu_count()} cores, {seconds / 60:.1f} min\n")
    print("| fault | set-up | runs | kills | lost |\n|---|---|---:|---:|---:|")
    for row in sorted(rows, key=lambda row: [each.name for each in FAULTS].index(row.fault.name)):
        print(f"| {row.fault.name} | {row.cluster} | {row.runs} | {row.kills} | {row.lost} |")
    total = [sum(getattr(row, name) for row in rows) for name in ("runs", "kills", "lost")]
    print("| **all** | | " + " | ".join(f"**{each}**" for each in total) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
