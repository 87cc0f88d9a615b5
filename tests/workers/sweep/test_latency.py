"""Measured costs of real networks: every layer has a number, and the numbers fit the whole runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.domain.costs import CostModel, Precision, TimedGraph
from service.domain.states import UnitKind
from tests.real_data import RESNET20, TRANSFORMER, needs_data
from tests.workers.installation import LAYERS, Installation, npz_bytes
from tests.workers.models import torch_networks as networks
from workers.backends.onnx_profiling import ProfileSettings
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.onnxruntime import OnnxModel
from workers.backends.protocol import OpenSettings
from workers.lease import HeldLease
from workers.sweep import latency
from workers.sweep.job import Job
from workers.sweep.latency import ONLY_ON_CUDA, measured_costs

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
QUICK = ProfileSettings(runs=8, warm_up=2, threads=1)
BATCH = 8


def opened(path: Path, samples: Path) -> tuple[ReadModel, CostModel, dict[str, float], dict[str, np.ndarray]]:
    """The model, its costs, its ranges and a batch."""
    read = read_model(path, OpenSettings())
    model = OnnxModel(read, OpenSettings())
    inputs = np.load(samples)["inputs" if "inputs" in np.load(samples) else "images"][:BATCH].astype(np.float32)
    amax: dict[str, float] = {}
    batch = {model.facts.inputs[0].name: inputs}
    model.observe([batch], lambda edge, tensor: amax.__setitem__(edge, float(np.abs(tensor).max())))
    return read, model.facts.costs, amax, batch


def named(read: ReadModel) -> dict[str, str]:
    return {each.layer.id: each.layer.name for each in read.found}


def fits(told: float, graph: TimedGraph) -> bool:
    """Whether the layers' sum fits the whole: loosely, since whatever else runs here interrupts some of the runs."""
    return 0.3 * graph.wall.low < told < 1.5 * graph.wall.high


@pytest.fixture(scope="module")
def digits() -> CostModel:
    read, costs, amax, batch = opened(DIGITS / "digits.onnx", DIGITS / "calib.npz")
    return measured_costs(read, costs, amax, batch, settings=QUICK)


def test_every_layer_has_a_latency_in_int8_and_in_fp32(digits) -> None:
    for cost in digits.layers:
        assert set(cost.latency) == {Precision.FP32, Precision.INT8}
        for each in cost.latency.values():
            assert each.value is not None
            assert each.low <= each.value <= each.high
            assert each.samples == QUICK.runs


def test_all_layers_of_a_convolutional_network_have_integer_kernels(digits) -> None:
    assert not any("floating point" in cost.latency[Precision.INT8].method for cost in digits.layers)
    assert digits.notes == (ONLY_ON_CUDA,)


def test_every_boundary_has_the_time_of_a_conversion(digits) -> None:
    assert all(each.latency is not None and each.latency > 0 for each in digits.boundaries)


def test_layers_are_most_of_the_time_and_no_more_than_all(digits) -> None:
    assert [each.precision for each in digits.timed] == [Precision.FP32, Precision.INT8]
    for graph in digits.timed:
        assert graph.layers + graph.conversions + sum(graph.other.values()) + graph.outside == pytest.approx(1.0)
        assert graph.outside >= 0
        told = sum(cost.latency[graph.precision].value for cost in digits.layers)
        assert fits(told, graph)


def test_the_device_and_the_batch_are_named(digits) -> None:
    assert digits.batch_size == BATCH
    assert "1 threads" in digits.measured_on
    assert "ONNX Runtime" in digits.measured_on


def test_groups_sizes_and_macs_stay_what_they_were(digits) -> None:
    _, costs, _, _ = opened(DIGITS / "digits.onnx", DIGITS / "calib.npz")
    assert digits.groups == costs.groups
    assert [each.model_copy(update={"latency": {}}) for each in digits.layers] == list(costs.layers)
    assert [each.model_copy(update={"latency": None}) for each in digits.boundaries] == list(costs.boundaries)


def test_layers_that_cannot_be_int8_are_timed_in_floating_point() -> None:
    read, costs, amax, batch = opened(DIGITS / "digits.onnx", DIGITS / "calib.npz")
    found = measured_costs(read, costs, amax, batch, settings=QUICK, floating={"stem"})
    int8 = {each.layer: each.latency[Precision.INT8].method for each in found.layers}
    assert "in floating point" in int8["stem"]
    assert "in floating point" not in int8["classifier"]
    assert any("1 of 19 layers" in note for note in found.notes)


def test_a_provider_that_does_not_run_leaves_a_note_and_the_costs_as_they_were() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a GPU")
    read, costs, amax, batch = opened(DIGITS / "digits.onnx", DIGITS / "calib.npz")
    found = measured_costs(read, costs, amax, batch, settings=ProfileSettings(device="cuda:0", runs=1, warm_up=0))
    assert found.layers == costs.layers
    assert "no latency was measured: ONNX Runtime cannot use CUDAExecutionProvider" in found.notes[0]


def by_phase(installation: Installation, **settings: Any) -> CostModel:
    """What the phase gives of a sweep that is calibrated."""
    installation.sweep(**settings)
    lease = installation.run_until(UnitKind.MEASURE)
    assert lease is not None
    with HeldLease(installation.context, lease) as held:
        return latency.run(Job.load(installation.context, held))


def test_a_calibrated_sweep_is_timed_by_its_own_ranges_and_samples(installation: Installation) -> None:
    found = by_phase(installation)
    assert [each.layer for each in found.layers] == list(LAYERS)
    assert all(set(each.latency) == {Precision.FP32, Precision.INT8} for each in found.layers)
    assert found.batch_size == 48
    assert CostModel.model_validate_json(found.model_dump_json()) == found  # as the plan stores it


def test_an_excluded_layer_is_timed_in_floating_point(installation: Installation) -> None:
    found = by_phase(installation, exclude=["first"])
    int8 = {each.layer: each.latency[Precision.INT8].method for each in found.layers}
    assert "in floating point" in int8["first"]
    assert "in floating point" not in int8["second"]


def test_of_an_exported_torch_program_no_latency_is_offered_and_the_reason_is(
    installation: Installation, tmp_path: Path
) -> None:
    path = networks.save(networks.ConvNet(), (torch.randn(2, 3, 8, 8),), tmp_path / "model.pt2", dynamic=True)
    x = np.random.default_rng(0).normal(size=(48, 3, 8, 8)).astype(np.float32)
    model, dataset = installation.model(path.read_bytes(), "pt2"), installation.dataset(npz_bytes(x=x))
    found = by_phase(installation, backend="torch", model=model, dataset=dataset)
    assert found.notes == (latency.NOT_ONNX,)
    assert found.layers
    assert not any(each.latency for each in found.layers)
    assert found.boundaries


@needs_data
def test_the_residual_network_is_attributed_to_its_layers() -> None:
    read, costs, amax, batch = opened(RESNET20.file("onnxruntime"), RESNET20.calibration)
    found = measured_costs(read, costs, amax, batch, settings=QUICK)
    names = named(read)
    methods = {names[each.layer]: each.latency for each in found.layers}
    assert all(each.value is not None for latency in methods.values() for each in latency.values())
    assert not any("floating point" in latency[Precision.INT8].method for latency in methods.values())
    for graph in found.timed:
        assert fits(sum(each[graph.precision].value for each in methods.values()), graph)
    macs = {names[each.layer]: each.macs for each in found.layers}
    heavy = [name for name, count in macs.items() if (count or 0) > 1e6]
    whole = sum(latency[Precision.FP32].value for latency in methods.values())
    assert sum(methods[name][Precision.FP32].value for name in heavy) > 0.8 * whole


@needs_data
def test_the_transformer_says_what_is_fused_and_what_stays_in_floating_point() -> None:
    read, costs, amax, batch = opened(TRANSFORMER.file("onnxruntime"), TRANSFORMER.calibration)
    found = measured_costs(read, costs, amax, batch, settings=QUICK)
    names = named(read)
    latencies = {names[each.layer]: each.latency for each in found.layers}
    assert all(each.value is not None for one in latencies.values() for each in one.values())
    assert "LayerNormalization" in latencies["b.0.add"][Precision.FP32].method
    assert "in floating point" in latencies["b.0.add"][Precision.INT8].method
    assert "in floating point" not in latencies["b.0.q"][Precision.INT8].method
    assert all(graph.other for graph in found.timed)
