"""Builds engines with the installed TensorRT: one network parsed from ONNX, int8 explicit or implicit."""

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import tensorrt as trt

from service.domain.errors import first_line
from workers.backends.tensorrt.execution import TorchEngine
from workers.backends.tensorrt.implicit import apply_implicit, offers_implicit
from workers.backends.tensorrt.seam import BuildRequest, Engine, EngineFailure, InputRange
from workers.backends.tensorrt.timing_cache import TimingCacheFile
from workers.models.onnx_libraries import contents

SETTING = "QUANTSIEVE_TENSORRT_PLUGIN_LIBRARIES"
WORKSPACE_BYTES = 2 * 2**30


class Complaints(trt.ILogger):
    """Keeps the errors that TensorRT logs: of a failed build it returns no reason, it logs one."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from its own threads too."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(msg)

    def failure(self, otherwise: str) -> EngineFailure:
        """The build's failure, by the first error since the last one."""
        reason = self.errors[0] if self.errors else otherwise
        self.errors.clear()
        return EngineFailure(f"build failed: {reason}")


class NativeMaker:
    """Makes engines on one CUDA device.

    ``gpu``: the device's product name; ``device``: as torch calls it. Builds run one at a time. ``libraries``: plugin
    libraries, which stay loaded as long as the process lives; a model that needs one that does not load is not built.
    """

    def __init__(self, *, gpu: str, device: str, timings: TimingCacheFile, libraries: Sequence[Path] = ()) -> None:
        self.identity = "/".join([gpu, trt.__version__, *sorted(contents(libraries))])
        self.implicit = offers_implicit()
        self._device, self._timings = device, timings
        self._complaints = Complaints()
        # the plugins that come with TensorRT; false where there are none to register
        trt.init_libnvinfer_plugins(self._complaints, "")
        self._libraries = {path.name: load_plugins(path) for path in libraries}
        self._runtime = trt.Runtime(self._complaints)
        self._building = threading.Lock()

    def build(self, request: BuildRequest) -> bytes:
        """Parse, configure, build; what the build learned about kernels goes into the timing cache file."""
        if request.implicit is not None and not self.implicit:
            raise EngineFailure(f"build failed: TensorRT {trt.__version__} has no implicit int8; use explicit")
        with self._building:
            self._complaints.errors.clear()
            builder = trt.Builder(self._complaints)
            network = builder.create_network(_network_flags(explicit=request.implicit is None))
            config = builder.create_builder_config()
            if network is None or config is None:
                raise self._complaints.failure("TensorRT makes no network on this machine")
            self._parse(network, request)
            self._configure(builder, config, request.inputs)
            if request.implicit is not None:
                apply_implicit(network, config, request.implicit)
            return self._built(builder, network, config)

    def load(self, plan: bytes) -> Engine:
        """Deserialize it on the device."""
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._complaints.failure("TensorRT cannot load the engine that it built")
        return TorchEngine(engine, self._device)

    def _parse(self, network: trt.INetworkDefinition, request: BuildRequest) -> None:
        parser = trt.OnnxParser(network, self._complaints)
        if parser.parse(request.model):
            return
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise EngineFailure(
            "build failed: TensorRT cannot parse the graph: "
            + ("; ".join(f"{each.desc()} (node {each.node_name()!r})" for each in errors) or "it gives no reason")
            + self._about(request.plugins)
        )

    def _about(self, plugins: Sequence[str]) -> str:
        """What to look at where the graph has operators that only a library knows."""
        if not plugins:
            return ""
        loaded = self._libraries.items()
        states = [name if reason is None else f"{name} (not loaded: {reason})" for name, reason in loaded]
        where = f"{SETTING} names {', '.join(states) or 'no library'}"
        return f"; the graph has the plugins {', '.join(plugins)}, and {where}"

    def _configure(self, builder: trt.Builder, config: trt.IBuilderConfig, inputs: tuple[InputRange, ...]) -> None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
        # the inspector tells precisions and ONNX nodes only of an engine that was built with them
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # fp32 is the reference: it must not round its products to TF32
        config.clear_flag(trt.BuilderFlag.TF32)
        if inputs:
            profile = builder.create_optimization_profile()
            for each in inputs:
                profile.set_shape(each.name, each.least, each.usual, each.most)
            if config.add_optimization_profile(profile) < 0:
                raise self._complaints.failure("TensorRT refuses the shapes of the inputs")

    def _built(self, builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> bytes:
        cache = config.create_timing_cache(self._timings.read())
        # without it the build takes longer, and is right all the same
        attached = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise self._complaints.failure("TensorRT finds no implementation")
        if attached:
            self._keep_timings(config)
        return bytes(plan)

    def _keep_timings(self, config: trt.IBuilderConfig) -> None:
        learned = config.get_timing_cache()
        if learned is None:
            return
        with self._timings.locked():
            written = config.create_timing_cache(self._timings.read())
            if written is not None:
                learned.combine(written, ignore_mismatch=False)
            self._timings.write(bytes(learned.serialize()))


@cache  # TensorRT's registry belongs to the process, and takes no plugin twice
def load_plugins(path: Path) -> str | None:
    """Register the plugins of a library with TensorRT; why that cannot be done, None where it was."""
    try:
        handle = trt.get_plugin_registry().load_library(str(path))
    except RuntimeError as error:
        return first_line(error)
    return None if handle is not None else "TensorRT cannot load it"


def _network_flags(*, explicit: bool) -> int:
    """By name, never by number: STRONGLY_TYPED is not the same in every major, and EXPLICIT_BATCH is gone from 11."""
    names = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if explicit else [])
    flags = [getattr(trt.NetworkDefinitionCreationFlag, name, None) for name in names]
    if explicit and flags[1] is None:
        raise EngineFailure(f"build failed: TensorRT {trt.__version__} has no strongly typed networks; 10 has")
    return sum(1 << int(flag) for flag in flags if flag is not None)
