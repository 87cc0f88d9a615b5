"""What layers cost in fp32 and in int8 on this machine, by ONNX Runtime's own profiler.

    python -m benchmarks.latency [network] [--batch 16] [--runs 50] [--threads 1]

Microseconds per sample with 95 % intervals of the median over runs. The graphs run in turn; whole runs are timed once
more without the profiler, and mixed.onnx as it deploys for TensorRT beside them.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.networks import Network, here
from service.domain.costs import CostModel, Precision
from service.domain.results import Interval
from workers.backends.onnx_profiling import ProfileSettings
from workers.backends.onnx_ranges import largest_magnitudes
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.onnxruntime import OnnxModel
from workers.backends.protocol import OpenSettings
from workers.exports.integer_form import integer_form, tensors_behind
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_onnx import export_qdq
from workers.sweep.latency import measured_costs

MICRO = 1e6


def ranges_of(read: ReadModel, samples: Any) -> dict[str, float]:
    """Activation edge → max |x| over the samples."""
    model, amax = OnnxModel(read, OpenSettings()), dict[str, float]()

    def observe(edge: str, tensor: Any) -> None:
        amax[edge] = max(amax.get(edge, 0.0), float(np.abs(tensor).max()))

    model.observe([{model.facts.inputs[0].name: samples}], observe)
    return amax


def whole_runs(read: ReadModel, amax: Mapping[str, float], feeds: Mapping[str, Any], runs: int, threads: int) -> None:
    """Print seconds per sample of whole graphs without a profiler, in turn."""
    program, found = read.program, read.found
    export = export_qdq(program, found, amax)
    behind = tensors_behind(program.skeleton.graph, found)
    form = integer_form(export, found, largest_magnitudes(program, behind, feeds))
    graphs = {
        "fp32": (program.skeleton, program.weights),
        "int8, as timed": (form.model, form.weights),
        "int8, mixed.onnx": (export.model, export.weights),
    }
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for index, (name, (model, weights)) in enumerate(graphs.items()):
            path = Path(folder) / f"{index}.onnx"
            write_onnx(path, model, weights)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = threads, 3
            sessions[name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        times: dict[str, list[float]] = {name: [] for name in graphs}
        for index in range(runs + 5):
            for name, session in sessions.items():
                started = time.perf_counter()
                session.run(None, dict(feeds))
                times[name] += [time.perf_counter() - started] if index >= 5 else []
    samples = len(next(iter(feeds.values())))
    base = statistics.median(times["fp32"])
    for name, each in times.items():
        middle = statistics.median(each)
        print(f"  {name:18s} {middle / samples * MICRO:9.1f} µs per sample, {middle / base:5.2f} of fp32")


def shown(interval: Interval | None) -> str:
    """Microseconds, with the interval."""
    if interval is None or interval.value is None:
        return f"{'-':>24s}"
    low, high = (0.0 if end is None else end * MICRO for end in (interval.low, interval.high))
    return f"{interval.value * MICRO:8.2f} ({low:6.2f}-{high:6.2f})"


def table(read: ReadModel, costs: CostModel) -> None:
    """Print one line for each layer, then where the time of whole graphs went."""
    names = {each.layer.id: each.layer for each in read.found}
    print(f"  {'layer':24s} {'kMACs':>8s} {'fp32 µs':>24s} {'int8 µs':>24s}  int8/fp32")
    for each in costs.layers:
        fp32, int8 = each.latency.get(Precision.FP32), each.latency.get(Precision.INT8)
        ratio = f"{int8.value / fp32.value:9.2f}" if fp32 and int8 and fp32.value and int8.value else f"{'-':>9s}"
        remark = "".join(f" [{key} {one.method}]" for key, one in each.latency.items() if ";" in one.method)
        macs = (each.macs or 0) / 1e3
        print(f"  {names[each.layer].name:24s} {macs:8.0f} {shown(fp32):>24s} {shown(int8):>24s}  {ratio}{remark}")
    for graph in costs.timed:
        other = ", ".join(f"{name} {share:.1%}" for name, share in list(graph.other.items())[:6])
        print(
            f"  {graph.precision}: {shown(graph.wall)} µs per sample; layers {graph.layers:.1%}, conversions "
            f"{graph.conversions:.1%}, outside of kernels {graph.outside:.1%}; other: {other or 'none'}"
        )
    known = [each.latency for each in costs.boundaries if each.latency is not None]
    if known:
        middle = statistics.median(known) * MICRO
        print(f"  {len(known)} of {len(costs.boundaries)} conversions timed, median {middle:.2f} µs per sample")
    for note in costs.notes:
        print(f"  note: {note}")


def measure(network: Network, batch: int, runs: int, threads: int) -> None:
    """Print everything of one network."""
    read = read_model(network.onnx, OpenSettings())
    model = OnnxModel(read, OpenSettings())
    amax = ranges_of(read, network.calibration_samples(64))
    feeds = {model.facts.inputs[0].name: network.samples(batch)}
    settings = ProfileSettings(runs=runs, threads=threads)
    costs = measured_costs(read, model.facts.costs, amax, feeds, settings=settings)
    print(f"{network.name}: {costs.measured_on}, batch {costs.batch_size}, {runs} runs")
    table(read, costs)
    print("  without the profiler:")
    whole_runs(read, amax, feeds, runs, threads)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="cifar10_resnet20")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for network in here():
        if network.name == arguments.network:
            measure(network, arguments.batch, arguments.runs, arguments.threads)


if __name__ == "__main__":
    main()
