"""Latencies of layers from times of kernels: literal numbers."""

import numpy as np
import pytest

from service.domain.costs import Precision
from workers.engine.latency import (
    NO_KERNEL,
    TimedKernel,
    TimedRuns,
    conversion_latencies,
    in_floating_point,
    layer_latencies,
    timed_graph,
)

NAMES = {"a": "first", "b": "second", "c": "third"}


def kernel(operator: str, seconds: list[float], **fields: object) -> TimedKernel:
    return TimedKernel(operator, np.array(seconds), **fields)  # type: ignore[arg-type]


def runs(*kernels: TimedKernel, precision: Precision = Precision.FP32, samples: int = 4) -> TimedRuns:
    count = len(kernels[0].seconds)
    return TimedRuns(precision, kernels, np.full(count, 100.0), samples)


def test_a_latency_is_the_median_over_runs_per_sample() -> None:
    times = [8.0, 8.0, 4.0, 8.0, 8.0, 400.0, 12.0]
    found = layer_latencies(runs(kernel("Conv", times, layers=("a",))), NAMES)["a"]
    assert (found.value, found.samples) == (2.0, 7)
    assert (found.low, found.high) == (1.0, 100.0)
    assert found.method == "order statistics of the median"


def test_kernels_of_one_layer_add_up_run_by_run() -> None:
    own = [kernel("MatMul", [1.0, 9.0, 1.0], layers=("a",)), kernel("Add", [9.0, 1.0, 2.0], layers=("a",))]
    assert layer_latencies(runs(*own, samples=1), NAMES)["a"].value == 10.0


def test_a_layer_within_another_ones_kernel_costs_nothing_and_both_say_so() -> None:
    found = layer_latencies(runs(kernel("Conv", [8.0] * 6, layers=("a", "b"))), NAMES)
    assert (found["b"].value, found["b"].method) == (0.0, "within the kernel of first")
    assert found["a"].method.endswith("; with second")


def test_what_else_a_kernel_computes_is_told() -> None:
    fused = kernel("SkipLayerNormalization", [8.0] * 6, layers=("a",), beside=("LayerNormalization",))
    assert layer_latencies(runs(fused), NAMES)["a"].method.endswith("; with LayerNormalization")


def test_a_layer_without_a_kernel_has_no_number_and_the_reason() -> None:
    found = layer_latencies(runs(kernel("Conv", [8.0] * 6, layers=("a",))), NAMES)["c"]
    assert (found.value, found.method) == (None, NO_KERNEL)


def test_int8_that_is_computed_in_floating_point_is_told() -> None:
    timed = runs(
        kernel("QLinearConv", [8.0] * 6, layers=("a",), floating=False),
        kernel("ConvTranspose", [8.0] * 6, layers=("b",)),
        precision=Precision.INT8,
    )
    found = layer_latencies(timed, NAMES)
    assert "floating" not in found["a"].method
    assert found["b"].method.endswith("computed in floating point (ConvTranspose)")
    assert in_floating_point(timed) == ("b",)


def test_the_shares_of_a_graph_add_up_to_the_whole() -> None:
    found = timed_graph(
        runs(
            kernel("Conv", [40.0, 60.0], layers=("a",)),
            kernel("QuantizeLinear", [10.0, 10.0], converts=True, tensor="t"),
            kernel("Slice", [5.0, 15.0]),
            kernel("Softmax", [20.0, 0.0]),
        )
    )
    assert (found.layers, found.conversions) == (0.5, 0.1)
    assert found.other == {"Slice": 0.1, "Softmax": 0.1}
    assert found.outside == pytest.approx(0.2)
    assert found.wall.value == 25.0


def test_a_conversion_is_the_mean_of_both_ways_and_unknown_where_one_was_not_timed() -> None:
    def conversion(operator: str, seconds: float, tensor: str | None) -> TimedKernel:
        return kernel(operator, [seconds] * 3, converts=True, tensor=tensor)

    found = conversion_latencies(
        runs(
            conversion("QuantizeLinear", 8.0, "t"),
            conversion("DequantizeLinear", 3.0, "t"),
            conversion("DequantizeLinear", 5.0, "t"),
            conversion("QuantizeLinear", 8.0, "u"),
            conversion("QuantizeLinear", 8.0, None),
        )
    )
    assert found == {"t": 1.5}
