"""The methods of a sweep side by side: cost, peak memory, and how far they agree with the exact table.

    python -m benchmarks.methods            # the table
    python -m benchmarks.methods digits     # of one network

Every row is a process of its own with one thread: a plain fp32 pass, and a whole sweep by KL divergence without a
budget (after a small one, for the imports), which asks for the most sensitive quarter of the layers. "cost": CPU time
of all units but preparing, calibrating and the report, in fp32 evaluations of the same samples, the lists that were
verified included. "MiB": the most that was resident above what was before (Linux). "measured": layers with exact
values on all samples. "KL": Spearman's correlation of the ranking value with that of the exact table. "list": whether
the fallback list holds the exact table's first layers, all but some that it names as ties, or how many of them it
misses. The naive loop runs the whole graph for each layer.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.engine import cpu_seconds, naive, opened, use_one_thread
from benchmarks.memory import peak_of
from benchmarks.networks import Network, batches_of, here, table_of
from benchmarks.sweeps import Swept, evaluation, sweep
from service.domain.settings import BackendName, SweepMethod, SweepMode

NETWORKS = {"digits": 512, "cifar10_resnet20": 512, "cifar10_resnet56": 256, "kws_transformer": 236}
"""And how many samples of each."""
NAIVE = "naive"
METHODS = (SweepMethod.EXACT, NAIVE, *(each for each in SweepMethod if each is not SweepMethod.EXACT))
COLUMNS = (
    f"{'network':16s} {'L':>4s} {'samples':>7s} {'method':16s} {'cost':>6s} {'MiB':>5s} "
    f"{'measured':>8s} {'KL':>6s} {'list':>7s}"
)
Row = dict[str, Any]


def row_of(network: Network, method: str) -> Row:
    """Measured in this process."""
    inputs = network.samples(NETWORKS[network.name])
    one = evaluation(network, inputs)
    if method == NAIVE:
        model = opened(network, BackendName.TORCH)
        batches, variants = batches_of(model, inputs, 64), table_of(model, SweepMode.ONE_ON)
        seconds = 0.0

        def work() -> None:
            nonlocal seconds
            seconds, _ = cpu_seconds(naive(network, model, batches, variants))

        return {"peak": peak_of(work), "cost": seconds / one}
    warm_up(method)
    found: list[Swept] = []
    arrays, calibration = {"inputs": inputs}, network.calibration.read_bytes()

    def whole() -> None:
        found.append(sweep(network.pt2, arrays, calibration, method=method, metric={"name": "kl"}))

    peak = peak_of(whole)
    (swept,) = found
    return {
        "peak": peak,
        "cost": swept.seconds / one,
        "values": {each["layer"]["id"]: value_of(each) for each in swept.layers},
        "measured": sum(
            bool(each["score"]) and each["score"]["drop"]["samples"] == len(inputs) for each in swept.layers
        ),
        "fallback": sorted(swept.fallback),
        "ties": swept.decision["ties"],
    }


def warm_up(method: str) -> None:
    """Import what such a sweep needs, which small networks' rows would show instead of the method."""
    digits = next(each for each in here() if each.name == "digits")
    arrays, calibration = {"inputs": digits.samples(32)}, digits.calibration.read_bytes()
    sweep(digits.pt2, arrays, calibration, method=method, metric={"name": "kl"})


def value_of(layer: Mapping[str, Any]) -> float:
    """The KL divergence that the layer is ranked by."""
    return float((layer["score"] or layer["estimate"])["measures"]["kl"]["value"])


def printed(network: Network, method: str, row: Row, exact: Row | None) -> str:
    """One line of the table."""
    told = [f"{'':>8s}", f"{'':>6s}", f"{'':>7s}"]
    if "values" in row and exact is not None:
        order = sorted(exact["values"])
        rho = spearmanr([row["values"][each] for each in order], [exact["values"][each] for each in order]).statistic
        wanted = sorted(order, key=lambda each: -exact["values"][each])[: len(row["fallback"])]
        missed = set(wanted) - set(row["fallback"])
        tied = missed <= {each for tie in row["ties"] for each in tie}
        same = "same" if not missed else "ties" if tied else f"{len(missed)} of {len(wanted)}"
        told = [f"{row['measured']:8d}", f"{rho:6.3f}", f"{same:>7s}"]
    layers = len(exact["values"]) if exact is not None else 0
    told = [f"{row['cost']:6.1f}", f"{row['peak']:5.0f}", *told]
    return f"{network.name:16s} {layers:4d} {NETWORKS[network.name]:7d} {method:16s} " + " ".join(told)


def main() -> None:
    """Print the table, or one row's numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", help="only this one")
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    use_one_thread()
    networks = [each for each in here() if each.name in NETWORKS and arguments.network in (None, each.name)]
    if arguments.one:
        print(json.dumps(row_of(networks[0], arguments.one)))
        return
    print(f"torch {torch.__version__}, numpy {np.__version__}, {os.cpu_count()} processors, one thread\n{COLUMNS}")
    for network in networks:
        rows = {}
        for method in METHODS:
            call = [sys.executable, "-m", "benchmarks.methods", network.name, "--one", method]
            done = subprocess.run(call, capture_output=True, text=True, check=True)
            rows[method] = json.loads(done.stdout.splitlines()[-1])
            print(printed(network, method, rows[method], rows[SweepMethod.EXACT]), flush=True)


if __name__ == "__main__":
    main()
