"""Runs a TensorRT engine on tensors that torch holds on the GPU."""

from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np
import tensorrt as trt
import torch

from workers.backends.protocol import Array, OutOfMemory
from workers.backends.tensorrt.seam import EngineFailure

TORCH_TYPES = {
    trt.DataType.FLOAT: torch.float32,
    trt.DataType.HALF: torch.float16,
    trt.DataType.INT8: torch.int8,
    trt.DataType.UINT8: torch.uint8,
    trt.DataType.INT32: torch.int32,
    trt.DataType.INT64: torch.int64,
    trt.DataType.BOOL: torch.bool,
}


class LayerTimes(trt.IProfiler):
    """Adds up what TensorRT reports of each layer, in seconds."""

    def __init__(self) -> None:
        trt.IProfiler.__init__(self)
        self.seconds: dict[str, float] = {}

    def report_layer_time(self, layer_name: str, ms: SupportsFloat) -> None:
        """Called by TensorRT."""
        self.seconds[layer_name] = self.seconds.get(layer_name, 0.0) + float(ms) * 1e-3


class TorchEngine:
    """One engine and its execution context, on ``device`` as torch calls it."""

    def __init__(self, engine: trt.ICudaEngine, device: str) -> None:
        self._engine, self._device = engine, torch.device(device)
        context = engine.create_execution_context()
        if context is None:
            raise OutOfMemory("TensorRT has no memory on the GPU for the engine's activations")
        self._context = context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._inputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.INPUT]
        self._outputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.OUTPUT]

    def information(self) -> str:
        """All layers, as JSON."""
        inspector = self._engine.create_engine_inspector()
        if inspector is None:
            raise EngineFailure("the engine has no inspector")
        return inspector.get_engine_information(trt.LayerInformationFormat.JSON)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy the inputs there, run, copy the outputs back."""
        try:
            return self._run(feeds)
        except torch.cuda.OutOfMemoryError as error:
            raise OutOfMemory(str(error)) from error

    def profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, float]]:
        """In a context of its own, so that other runs are not slowed down by the profiler."""
        return TorchEngine(self._engine, str(self._device))._profile(feeds, runs)

    def _profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, float]]:
        times = LayerTimes()
        self._context.profiler = times
        # asked for when the stream is done, or the launch itself would wait for every layer
        self._context.enqueue_emits_profile = False
        found = []
        for _ in range(runs):
            times.seconds = {}
            self.run(feeds)
            if not self._context.report_to_profiler():
                raise EngineFailure("TensorRT reports no times of the engine's layers")
            found.append(times.seconds)
        return found

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            held = {name: self._input(name, feeds[name]) for name in self._inputs}
            missing = self._context.infer_shapes()
            if missing:
                raise EngineFailure(f"the engine cannot run: nothing tells the shape of {missing[0]!r}")
            made = {name: self._output(name) for name in self._outputs}
            for name, tensor in (held | made).items():
                if not self._context.set_tensor_address(name, tensor.data_ptr()):
                    raise EngineFailure(f"the engine cannot run: it takes no memory for {name!r}")
            if not self._context.execute_async_v3(stream.cuda_stream):
                raise EngineFailure("the engine cannot run: TensorRT could not start it")
            stream.synchronize()
            return {name: tensor.cpu().numpy() for name, tensor in made.items()}

    def _input(self, name: str, value: Array) -> torch.Tensor:
        wanted = TORCH_TYPES.get(self._engine.get_tensor_dtype(name))
        tensor = torch.from_numpy(np.ascontiguousarray(value)).to(self._device)
        if wanted is not None and tensor.dtype != wanted:
            tensor = tensor.to(wanted)
        if not self._context.set_input_shape(name, tuple(tensor.shape)):
            raise EngineFailure(f"the engine was not built for input {name!r} of shape {tuple(tensor.shape)}")
        return tensor

    def _output(self, name: str) -> torch.Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        kind = TORCH_TYPES.get(self._engine.get_tensor_dtype(name))
        if kind is None or min(shape, default=0) < 0:
            raise EngineFailure(f"the engine cannot run: output {name!r} has a type or a size known only after it ran")
        return torch.empty(shape, dtype=kind, device=self._device)
