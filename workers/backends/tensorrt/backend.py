"""The TensorRT backend: opens ONNX files, and says what is missing where it cannot."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from service.domain.errors import InvalidInput, Unavailable, first_line
from service.domain.settings import BackendName, WeightGranularity
from workers.backends.onnx_reading import read_model
from workers.backends.protocol import Capability, OpenedModel, OpenSettings
from workers.backends.tensorrt.plans import PlanStore
from workers.backends.tensorrt.seam import EngineMaker
from workers.backends.tensorrt.timing_cache import TimingCacheFile, cache_folder, file_name

PACKAGES = ("onnx", "onnxruntime", "torch", "tensorrt")


class TensorRTBackend:
    """Opens ONNX files. ``make``: the engine maker of a device; by default that of the installed TensorRT."""

    name = BackendName.TENSORRT

    def __init__(self, make: Callable[[str], EngineMaker] | None = None, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder(os.environ)
        self._make = make

    def capability(self) -> Capability:
        """Whether TensorRT, what it loads, and a GPU are here."""
        for package in PACKAGES:
            if find_spec(package) is None:
                reason = f"the package {package} is not installed; install quantsieve[gpu,tensorrt]"
                return Capability(self.name, False, (), {}, reason)
        try:
            import tensorrt
            import torch
        except (ImportError, OSError) as error:
            return Capability(self.name, False, (), {}, f"TensorRT cannot be loaded: {first_line(error)}")

        versions = {"tensorrt": tensorrt.__version__, "torch": torch.__version__}
        if not torch.cuda.is_available():
            return Capability(self.name, False, (), versions, "torch sees no CUDA GPU")
        devices = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        return Capability(self.name, True, devices, versions)

    def open(self, path: Path, settings: OpenSettings) -> OpenedModel:
        """Read the file and find its layers, as the ONNX Runtime backend does."""
        from workers.backends.tensorrt.model import TensorRTModel

        if settings.implicit_int8 and settings.weights is WeightGranularity.PER_TENSOR:
            raise InvalidInput("implicit int8 scales weights per channel, by TensorRT's own choice", field="weights")
        read = read_model(path, settings)
        make = self._make or partial(native_maker, self._folder, libraries=settings.libraries.tensorrt)
        model = TensorRTModel(read, settings, partial(make, settings.device), PlanStore(self._folder / "plans"))
        model.try_out()
        return model


def native_maker(folder: Path, device: str, libraries: Sequence[Path] = ()) -> EngineMaker:
    """The installed TensorRT on a CUDA device; raises Unavailable where there is none."""
    capability = TensorRTBackend(folder=folder).capability()
    if not capability.available:
        raise Unavailable(f"TensorRT cannot run here: {capability.reason}")
    if device not in capability.devices:
        raise Unavailable(f"TensorRT runs on {', '.join(capability.devices)} of this machine, not on {device}")
    import torch

    from workers.backends.tensorrt.building import NativeMaker

    torch.cuda.set_device(device)
    gpu = torch.cuda.get_device_name(device)
    timings = TimingCacheFile(folder / file_name(gpu, capability.versions["tensorrt"]))
    return NativeMaker(gpu=gpu, device=device, timings=timings, libraries=libraries)
