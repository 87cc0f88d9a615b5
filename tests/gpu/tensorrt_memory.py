"""The part of the TensorRT backend that handles GPU memory, on a real GPU: ``python -m tests.gpu.tensorrt_memory``.

No engine runs: an execution context made from the real bindings copies x to y on the stream and between the addresses
that it is given, which proves that these are what TensorRT asks for. Needs a CUDA GPU, torch, and the bindings.
"""

import ctypes
import sys
from typing import Any

import numpy as np


def copying_engine(trt: Any, checked: Any) -> Any:
    """An engine whose context copies x to y with the CUDA runtime."""
    import torch

    cuda = ctypes.CDLL(f"libcudart.so.{(torch.version.cuda or '').partition('.')[0]}")
    addresses: dict[str, int] = {}
    shapes: list[tuple[int, ...]] = []

    def copy(stream_handle: int) -> bool:
        size, device_to_device = 4 * int(np.prod(shapes[-1])), 3
        pointers = [ctypes.c_void_p(addresses[name]) for name in ("y", "x")]
        done = cuda.cudaMemcpyAsync(*pointers, ctypes.c_size_t(size), device_to_device, ctypes.c_void_p(stream_handle))
        return int(done) == 0

    context = checked(
        trt.IExecutionContext,
        set_input_shape=lambda name, shape: shapes.append(shape) is None,
        get_tensor_shape=lambda name: shapes[-1],
        infer_shapes=[],
        set_tensor_address=lambda name, memory: addresses.update({name: memory}) is None,
        execute_async_v3=lambda stream_handle: copy(stream_handle),
    )
    modes = {"x": trt.TensorIOMode.INPUT, "y": trt.TensorIOMode.OUTPUT}
    return checked(
        trt.ICudaEngine,
        num_io_tensors=2,
        get_tensor_name=lambda index: "xy"[index],
        get_tensor_mode=lambda name: modes[name],
        get_tensor_dtype=lambda name: trt.DataType.FLOAT,
        create_execution_context=context,
    )


def main() -> None:
    """Copy arrays of several sizes there and back; AssertionError where one comes back changed."""
    import tensorrt_bindings as trt
    import torch

    sys.modules["tensorrt"] = trt
    from tests.workers.backends.tensorrt_checked import checked
    from workers.backends.tensorrt.execution import TorchEngine

    engine = TorchEngine(copying_engine(trt, checked), "cuda:0")
    for size in (1, 64, 512):
        x = np.random.default_rng(size).normal(size=(size, 3, 32, 32)).astype(np.float32)
        np.testing.assert_array_equal(engine.run({"x": x})["y"], x)
    print(f"memory and streams agree: TensorRT {trt.__version__} bindings, {torch.cuda.get_device_name(0)}")


if __name__ == "__main__":
    main()
