"""The backends that this program knows, by name."""

from collections.abc import Callable
from functools import cache

from service.domain.errors import SweepFailure
from service.domain.settings import BackendName
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import Backend
from workers.backends.tensorrt.backend import TensorRTBackend
from workers.backends.torch_fake_quant import TorchBackend

BACKENDS: dict[BackendName, Callable[[], Backend]] = {
    BackendName.TORCH: TorchBackend,
    BackendName.ONNXRUNTIME: OnnxRuntimeBackend,
    BackendName.TENSORRT: TensorRTBackend,
}


def backend(name: BackendName) -> Backend:
    """The backend of that name; raises SweepFailure for one that this program cannot run."""
    if name not in BACKENDS:
        offered = ", ".join(BACKENDS)
        raise SweepFailure(f"no worker can run backend {name}; there are {offered}", code="backend-unavailable")
    return BACKENDS[name]()


@cache
def device_for(name: BackendName, wanted: str) -> str:
    """The device that a worker told ``wanted`` runs this backend on."""
    return backend(name).capability().device(wanted)
