"""What the backend does with TensorRT's classes; run by test_tensorrt_contract.py in a child process of each major.

Every call goes through stand-ins made from the real bindings (tensorrt_checked.py): names, arguments and enums are
checked, and what was called is asserted here.
"""

import ctypes
import hashlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorrt_bindings as trt
import torch

from tests.workers.backends.tensorrt_checked import checked, constructor

REAL = ("BuilderFlag DataType ILayer ILogger IProfiler ITensor LayerInformationFormat LayerType MemoryPoolType "
        "NetworkDefinitionCreationFlag ProfilingVerbosity TensorIOMode __version__")  # fmt: skip
MAJOR = int(trt.__version__.partition(".")[0])
only_10 = pytest.mark.skipif(MAJOR > 10, reason="TensorRT 11 has no implicit int8")

module = ModuleType("tensorrt")
for name in REAL.split():
    setattr(module, name, getattr(trt, name))
module.init_libnvinfer_plugins = lambda logger, namespace: True  # the real one calls into the library
module.get_plugin_registry = lambda: None  # of empty stand-in libraries
for name in ["Builder", "OnnxParser", "Runtime", "ICudaEngine", "IBuilderConfig", "INetworkDefinition"]:
    setattr(module, name, getattr(trt, name))
sys.modules["tensorrt"] = module

from workers.backends.tensorrt import building, execution, implicit  # noqa: E402
from workers.backends.tensorrt.seam import BuildRequest, EngineFailure, ImplicitInt8, InputRange  # noqa: E402
from workers.backends.tensorrt.timing_cache import TimingCacheFile  # noqa: E402

RANGE = InputRange("x", (1, 3), (8, 3), (8, 3))


class Machine:
    """A TensorRT whose parts are stand-ins; the network holds ``layers``."""

    def __init__(self, monkeypatch: Any, folder: Path, layers: tuple[Any, ...] = ()) -> None:
        self.cache = checked(trt.ITimingCache, serialize=lambda: b"learned", combine=True)
        self.config = checked(
            trt.IBuilderConfig,
            create_timing_cache=lambda content: self.cache,
            get_timing_cache=lambda: self.cache,
            set_timing_cache=True,
            add_optimization_profile=0,
        )
        self.network = checked(trt.INetworkDefinition, num_layers=len(layers), get_layer=lambda index: layers[index])
        self.profile = checked(trt.IOptimizationProfile)
        self.builder = checked(
            trt.Builder,
            create_network=lambda flags: self.network,
            create_builder_config=lambda: self.config,
            create_optimization_profile=lambda: self.profile,
            build_serialized_network=lambda network, config: self.plan,
        )
        self.error = checked(trt.ParserError, desc=lambda: "no such operator", node_name=lambda: "odd")
        self.parser = checked(
            trt.OnnxParser, parse=lambda model: self.parses, num_errors=1, get_error=lambda i: self.error
        )
        self.runtime = checked(trt.Runtime, deserialize_cuda_engine=None)
        self.plan: bytes | None = b"plan"
        self.parses = True
        for name, made in (("Builder", self.builder), ("OnnxParser", self.parser), ("Runtime", self.runtime)):
            monkeypatch.setattr(module, name, constructor(getattr(trt, name), made))
        self.timings = TimingCacheFile(folder / "gpu.timing")
        self.maker = building.NativeMaker(gpu="GPU", device="cuda:0", timings=self.timings)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path)


def test_an_explicit_network_is_strongly_typed_and_keeps_fp32_exact(machine) -> None:
    assert machine.maker.build(BuildRequest(b"onnx", (RANGE,))) == b"plan"
    (flags,) = machine.builder.create_network.call_args.args
    assert flags & 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    machine.config.clear_flag.assert_called_once_with(trt.BuilderFlag.TF32)
    machine.config.set_flag.assert_not_called()
    assert machine.config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    machine.profile.set_shape.assert_called_once_with("x", (1, 3), (8, 3), (8, 3))
    machine.config.add_optimization_profile.assert_called_once_with(machine.profile)


def test_a_model_of_fixed_sizes_needs_no_profile(machine) -> None:
    machine.maker.build(BuildRequest(b"onnx", ()))
    machine.config.add_optimization_profile.assert_not_called()


def test_what_a_build_learned_is_merged_into_the_file_and_given_to_the_next(machine) -> None:
    machine.maker.build(BuildRequest(b"onnx", ()))
    assert machine.timings.read() == b"learned"
    machine.config.create_timing_cache.reset_mock()
    machine.maker.build(BuildRequest(b"onnx", ()))
    assert [each.args for each in machine.config.create_timing_cache.call_args_list] == [(b"learned",)] * 2
    machine.cache.combine.assert_called_with(machine.cache, ignore_mismatch=False)


def test_a_graph_that_cannot_be_parsed_is_a_failure_with_the_node(machine) -> None:
    machine.parses = False
    with pytest.raises(EngineFailure, match=r"build failed: .*no such operator.*'odd'"):
        machine.maker.build(BuildRequest(b"onnx", ()))


def test_plugin_libraries_are_registered_once_and_their_content_is_part_of_the_identity(
    machine, monkeypatch, tmp_path
) -> None:
    registry = checked(trt.IPluginRegistry, load_library=lambda path: object())
    monkeypatch.setattr(module, "get_plugin_registry", lambda: registry)
    library = tmp_path / "plugins.so"
    library.write_bytes(b"some plugins")
    made = building.NativeMaker(gpu="GPU", device="cuda:0", timings=machine.timings, libraries=(library,))
    building.NativeMaker(gpu="GPU", device="cuda:0", timings=machine.timings, libraries=(library,))
    registry.load_library.assert_called_once_with(str(library))
    assert made.identity == f"{machine.maker.identity}/{hashlib.sha256(b'some plugins').hexdigest()}"


@pytest.mark.parametrize("raised", [False, True], ids=["no handle", "an error"])
def test_a_graph_with_a_plugin_that_cannot_be_parsed_names_it_its_setting_and_its_library(
    machine, monkeypatch, tmp_path, raised
) -> None:
    def load(path: str) -> None:
        if raised:
            raise RuntimeError("undefined symbol: nobody")

    monkeypatch.setattr(module, "get_plugin_registry", lambda: checked(trt.IPluginRegistry, load_library=load))
    library = tmp_path / "broken.so"
    made = building.NativeMaker(gpu="GPU", device="cuda:0", timings=machine.timings, libraries=(library,))
    machine.parses = False
    why = "undefined symbol: nobody" if raised else "TensorRT cannot load it"
    wanted = (
        rf"no such operator.*plugins maker::Swirl.*TENSORRT_PLUGIN_LIBRARIES names broken\.so \(not loaded: {why}\)"
    )
    with pytest.raises(EngineFailure, match=wanted):
        made.build(BuildRequest(b"onnx", (), plugins=("maker::Swirl",)))
    with pytest.raises(EngineFailure, match="names no library"):
        machine.maker.build(BuildRequest(b"onnx", (), plugins=("maker::Swirl",)))


def test_a_build_that_fails_gives_the_error_that_tensorrt_logged(machine) -> None:
    machine.plan = None
    severity = trt.ILogger.Severity

    def complain(network: object, config: object) -> None:
        machine.maker._complaints.log(severity.WARNING, "slow")
        machine.maker._complaints.log(severity.ERROR, "no tactic for conv1")

    machine.builder.build_serialized_network.side_effect._answer = complain
    with pytest.raises(EngineFailure, match="build failed: no tactic for conv1"):
        machine.maker.build(BuildRequest(b"onnx", ()))


def test_an_engine_that_cannot_be_loaded_is_a_failure(machine) -> None:
    with pytest.raises(EngineFailure, match="cannot load"):
        machine.maker.load(b"plan")


def tensor(name: str, kind: Any = trt.DataType.FLOAT) -> Any:
    answers = {"set_dynamic_range": True} if MAJOR <= 10 else {}
    return checked(trt.ITensor, name=name, dtype=kind, is_shape_tensor=False, **answers)


def layer(name: str, inputs: tuple[Any, ...], output: Any, kind: Any, metadata: str = "") -> Any:
    return checked(
        trt.ILayer,
        name=name,
        metadata=metadata,
        type=kind,
        num_inputs=len(inputs),
        num_outputs=1,
        get_input=lambda index: inputs[index],
        get_output=lambda index: output,
    )


@only_10
def test_implicit_int8_asks_for_int8_on_the_target_alone(monkeypatch, tmp_path) -> None:
    x, w, a, b, s = (tensor(each) for each in "xwabs")
    s.dtype = trt.DataType.INT64
    types = trt.LayerType
    weight = layer("w", (), w, types.CONSTANT)
    first = layer("conv1 [parsed]", (x, w), a, types.CONVOLUTION, "[ONNX Layer: conv1]")
    second = layer("conv2", (a, w), b, types.CONVOLUTION)
    sizes = layer("shape", (a,), s, types.SHAPE)
    machine = Machine(monkeypatch, tmp_path, (weight, first, second, sizes))
    before = second.precision, sizes.precision, weight.precision
    wanted = ImplicitInt8(frozenset({"conv1"}), {"x": 2.0, "a": 3.0})
    assert machine.maker.build(BuildRequest(b"onnx", (), wanted)) == b"plan"

    flags = [each.args[0] for each in machine.config.set_flag.call_args_list]
    assert flags == [trt.BuilderFlag.INT8, trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS]
    assert first.precision == trt.DataType.INT8
    assert second.precision == trt.DataType.FLOAT
    assert (sizes.precision, weight.precision) == before[1:]
    first.set_output_type.assert_called_once_with(0, trt.DataType.FLOAT)
    sizes.set_output_type.assert_not_called()
    x.set_dynamic_range.assert_called_with(-2.0, 2.0)
    a.set_dynamic_range.assert_called_with(-3.0, 3.0)
    b.set_dynamic_range.assert_not_called()
    (made,) = machine.builder.create_network.call_args.args
    assert not made & 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


@only_10
def test_a_target_that_the_parsed_network_lacks_is_a_failure(monkeypatch, tmp_path) -> None:
    machine = Machine(monkeypatch, tmp_path, ())
    with pytest.raises(EngineFailure, match="holds no layer for 'conv1'"):
        machine.maker.build(BuildRequest(b"onnx", (), ImplicitInt8(frozenset({"conv1"}), {})))


def test_implicit_int8_is_offered_up_to_10_only(machine) -> None:
    assert implicit.offers_implicit() is (MAJOR <= 10)
    assert machine.maker.implicit is (MAJOR <= 10)
    if MAJOR > 10:
        with pytest.raises(EngineFailure, match="no implicit int8; use explicit"):
            machine.maker.build(BuildRequest(b"onnx", (), ImplicitInt8(frozenset(), {})))


def engine_of(context: Any) -> Any:
    return checked(
        trt.ICudaEngine,
        num_io_tensors=2,
        get_tensor_name=lambda index: ("x", "y")[index],
        get_tensor_mode=lambda name: {"x": trt.TensorIOMode.INPUT, "y": trt.TensorIOMode.OUTPUT}[name],
        get_tensor_dtype=lambda name: trt.DataType.FLOAT,
        create_execution_context=context,
        create_engine_inspector=checked(trt.EngineInspector, get_engine_information=lambda form: f'"{form.name}"'),
    )


class Doubling:
    """An execution context that doubles x into y, by the addresses that it is given."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.context = checked(
            trt.IExecutionContext,
            set_input_shape=lambda name, shape: self._set_shape(shape),
            get_tensor_shape=lambda name: self.shape,
            infer_shapes=[],
            set_tensor_address=lambda name, memory: self.addresses.update({name: memory}) is None,
            execute_async_v3=lambda stream_handle: self._run(),
            report_to_profiler=lambda: self._report(),
            profiler=None,
            enqueue_emits_profile=True,
        )
        self.reports = True

    def _set_shape(self, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= 8

    def _report(self) -> bool:
        assert self.context.enqueue_emits_profile is False
        for name, ms in (("conv1 + relu1", 0.25), ("conv1 + relu1", 0.25), ("fc", 1.5)):
            self.context.profiler.report_layer_time(name, ms)
        return self.reports

    def _run(self) -> bool:
        count = int(np.prod(self.shape))
        x, y = ((ctypes.c_float * count).from_address(self.addresses[name]) for name in "xy")
        y[:] = [2 * each for each in x]
        return True


@pytest.fixture
def no_cuda(monkeypatch):
    stream = SimpleNamespace(cuda_stream=7, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda given: torch.no_grad())


def test_an_engine_runs_on_the_memory_of_torch_tensors(no_cuda) -> None:
    doubling = Doubling()
    engine = execution.TorchEngine(engine_of(doubling.context), "cpu")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(engine.run({"x": x})["y"], 2 * x)
    doubling.context.execute_async_v3.assert_called_once_with(7)
    assert engine.information() == '"JSON"'


def test_a_shape_that_the_engine_was_not_built_for_is_a_failure(no_cuda) -> None:
    engine = execution.TorchEngine(engine_of(Doubling().context), "cpu")
    with pytest.raises(EngineFailure, match=r"not built for input 'x' of shape \(9, 3\)"):
        engine.run({"x": np.zeros((9, 3), dtype=np.float32)})


def test_the_profiler_is_told_of_each_run_when_its_stream_is_done(no_cuda) -> None:
    made = Doubling()
    times = execution.TorchEngine(engine_of(made.context), "cpu").profile({"x": np.ones((2, 3), np.float32)}, 2)
    assert times == [{"conv1 + relu1": pytest.approx(5e-4), "fc": pytest.approx(1.5e-3)}] * 2
    assert made.context.execute_async_v3.call_count == made.context.report_to_profiler.call_count == 2
    assert isinstance(made.context.profiler, trt.IProfiler)


def test_an_engine_that_reports_no_times_is_a_failure(no_cuda) -> None:
    made = Doubling()
    made.reports = False
    with pytest.raises(EngineFailure, match="no times"):
        execution.TorchEngine(engine_of(made.context), "cpu").profile({"x": np.ones((2, 3), np.float32)}, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: checked(trt.Builder).create_netwrk(1),
        lambda: checked(trt.Builder).create_network(1, 2),
        lambda: checked(trt.Builder).create_network(flag=1),
        lambda: checked(trt.IBuilderConfig).set_flag(8),
        lambda: checked(trt.IBuilderConfig).clear_flag(trt.DataType.INT8),
        lambda: setattr(checked(trt.IBuilderConfig), "profiling_verbosty", 1),
        lambda: checked(trt.IExecutionContext).set_tensor_address("x"),
    ],
    ids=["method", "count", "keyword", "integer for an enum", "another enum", "property", "argument left out"],
)
def test_the_stand_ins_refuse_what_the_real_classes_lack(call) -> None:
    with pytest.raises((AttributeError, TypeError)):
        call()
