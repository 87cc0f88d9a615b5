"""ONNX Runtime's execution providers: which of them work on this machine, and what a session asks of them.

A provider that the package lists was compiled in; whether its libraries load shows only when a session is made with it.
"""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from service.domain.errors import Unavailable

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
GpuProvider = Literal["cuda", "tensorrt"]
TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"
TRIAL = """<ir_version: 8, opset_import: ["" : 17]> trial (float[1] x) => (float[1] y) { y = Identity(x) }"""

Provider = str | tuple[str, dict[str, Any]]


def provider_of(device: str, gpu_provider: GpuProvider) -> str:
    """The provider that runs variants on this device."""
    if not device.startswith("cuda"):
        return CPU
    return TENSORRT if gpu_provider == "tensorrt" else CUDA


def session_providers(provider: str, device: str, *, int8: bool = False) -> list[Provider]:
    """What a session is made with: the provider, then those that take what it cannot run.

    ``int8``: the graph holds Q/DQ, which TensorRT computes in int8 only where that is enabled. Engines are not kept: a
    kept one is found by the graph's names, so that one made with other ranges would be taken for it.
    """
    index = int(device.partition(":")[2] or 0)
    cuda: Provider = (CUDA, {"device_id": index, "use_tf32": 0})
    tensorrt: Provider = (TENSORRT, {"device_id": index, "trt_int8_enable": int8})
    if provider == CPU:
        return [CPU]
    return [cuda, CPU] if provider == CUDA else [tensorrt, cuda, CPU]


@cache
def usable_providers() -> tuple[str, ...]:
    """The CPU, and those of the GPU with which a session can be made here."""
    import onnxruntime

    listed = set(onnxruntime.get_available_providers())
    return tuple(each for each in (CPU, CUDA, TENSORRT) if each in listed and _works(each))


def refuse_unusable(provider: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raise Unavailable where sessions cannot be made with the provider, or its fp32 would be no reference."""
    if provider == CPU:  # which asks no GPU for anything
        return
    if provider not in usable_providers():
        raise Unavailable(
            f"ONNX Runtime cannot use {provider} on this machine, it can use {', '.join(usable_providers())}; install "
            "quantsieve[gpu] (and for TensorRT its libraries), or use cpu"
        )
    if provider == TENSORRT and environment.get(TF32_VARIABLE) != "0":
        raise Unavailable(
            f"{TF32_VARIABLE}: {environment.get(TF32_VARIABLE)!r} lets {TENSORRT} compute fp32 in TF32, and it has no "
            "option against that; set it to 0 for this worker"
        )


def _works(provider: str) -> bool:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the answer is not an error
    model = onnx.parser.parse_model(TRIAL).SerializeToString()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=session_providers(provider, "cuda:0"))
    except Exception:  # the runtime raises classes of its own
        return False
    return provider in session.get_providers()
