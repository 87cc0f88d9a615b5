"""What every backend offers: open a model on a device, name its layers, observe its activations, run its variants."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.domain.costs import CostModel
from service.domain.layers import Layer, SkippedOperation, TensorSpec, Variant
from service.domain.settings import BackendName, WeightGranularity
from workers.backends.onnx_providers import GpuProvider
from workers.data.binding import Batch
from workers.engine.probe_settings import ProbeSettings
from workers.engine.probe_sums import ProbeSums

Array = npt.NDArray[np.generic]
Tensors = Mapping[str, Array]
"""Named tensors of one batch; the first axis of each is the sample."""


@dataclass(frozen=True)
class PluginLibraries:
    """Where operators outside the standard domains come from, for each runtime: paths that an installation sets."""

    onnxruntime: tuple[Path, ...] = ()
    tensorrt: tuple[Path, ...] = ()


@dataclass(frozen=True)
class OpenSettings:
    """How a model is opened. ``device``: ``cpu`` or ``cuda:<index>``.

    ``segments``: into how many an ONNX graph may be cut to share work, None: as many as there are layers; 1: every
    variant runs the whole graph, as it is deployed. ``implicit_int8``: TensorRT 10 and before is given scales and
    precisions beside the graph, rather than Q/DQ in it. ``as_written``: ONNX Runtime fuses nothing by itself, as it
    otherwise does (batch norms among it). ``gpu_provider``: by which of its execution providers ONNX Runtime runs
    variants on a GPU.
    """

    fuse_bn: bool = True
    weights: WeightGranularity = WeightGranularity.PER_CHANNEL
    device: str = "cpu"
    segments: int | None = None
    implicit_int8: bool = False
    libraries: PluginLibraries = PluginLibraries()
    as_written: bool = False
    gpu_provider: GpuProvider = "cuda"


@dataclass(frozen=True)
class Evaluated:
    """One variant's outputs on one batch, or why it could not run (``outputs`` is None then)."""

    variant: Variant
    batch: int
    outputs: Tensors | None
    failure: str | None = None


@dataclass(frozen=True)
class LibraryState:
    """A configured plugin library. ``reason``: why it cannot be loaded; None where it was, and ``sha256`` is known."""

    path: str
    sha256: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Capability:
    """Whether this machine can run a backend: the devices, the library versions, or the reason why not.

    ``providers``: ONNX Runtime's execution providers that work here. ``libraries``: the plugin libraries that are
    configured for it; it runs without those that do not load.
    """

    backend: BackendName
    available: bool
    devices: tuple[str, ...]
    versions: Mapping[str, str]
    reason: str | None = None
    libraries: tuple[LibraryState, ...] = ()
    providers: tuple[str, ...] = ()

    def device(self, wanted: str) -> str:
        """The device that a worker told ``auto`` runs this backend on: the first GPU, else the CPU."""
        if wanted != "auto":
            return wanted
        return next((each for each in self.devices if each != "cpu"), "cpu")


@dataclass(frozen=True)
class ModelFacts:
    """What a model file holds. ``layers`` in topological order.

    ``batch_size`` is the only one that the model takes, None where it takes any: smaller batches are filled up.
    ``live_bytes``: the most that the tensors of one sample take at once in a plain run; None where it is not known.
    ``costs``: what the layers cost and how they hang together, as far as the file tells.
    ``cost_per_layer``: a variant costs more to prepare (an engine's build) than to run on a shard.
    ``libraries``: SHA-256 → file name of the plugin libraries that it may use; none where its operators are standard.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    skipped: tuple[SkippedOperation, ...]
    folded_batch_norms: int
    batch_size: int | None
    costs: CostModel
    live_bytes: int | None = None
    cost_per_layer: bool = False
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputError:
    """A layer's output a in fp32 and in int8, from the same fp32 inputs: ``signal`` is Σ a², ``noise`` Σ (a_int8 − a)².

    ``failure``: why they are not known; both are 0 then.
    """

    signal: float
    noise: float
    failure: str | None = None


class OutOfMemory(Exception):
    """The device has no room for a batch of this size; a smaller one may fit."""


Observe = Callable[[str, Array], None]
"""Called with an activation edge (as ``Layer.activations`` names it) and the tensor that flows there in fp32."""


class OpenedModel(Protocol):
    """A model on a device. Not thread-safe. The model file is never changed."""

    facts: ModelFacts

    def observe(self, batches: Iterable[Tensors], observe: Observe) -> None:
        """Run fp32 over the batches and show ``observe`` every activation edge of every layer."""

    def set_amax(self, amax: Mapping[str, float]) -> None:
        """Fix the range of each activation edge; weights' ranges come from the weights themselves."""

    def weight(self, layer_id: str) -> Array | None:
        """The layer's weight in floating point, as it is quantized (batch norms folded in); None where it has none."""

    def output_errors(self, batches: Iterable[Tensors], layers: Sequence[str]) -> Iterator[Mapping[str, OutputError]]:
        """For each batch what int8 does to each layer's own output: one pass in fp32, each layer once more in int8.

        The ranges must be set; nothing is raised where a layer, or the batch, cannot run.
        """

    def evaluate(self, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Iterator[Evaluated]:
        """Outputs of every variant on every batch, in any order. Raises OutOfMemory where a batch is too large.

        A variant whose int8 layers cannot run comes back with a ``failure`` for each batch; nothing is raised for it.
        Each layer that is in int8 needs its edges' amax: KeyError otherwise (our own mistake).
        """

    def probe(self, batches: Iterable[Batch], settings: ProbeSettings) -> ProbeSums:
        """What every layer's int8 error does to the output to first order, summed over the samples.

        The ranges must be set. Raises InvalidInput where gradients of this model cannot be had, OutOfMemory where a
        micro-batch is too large.
        """


class Backend(Protocol):
    """A runtime that can open models."""

    name: BackendName

    def capability(self) -> Capability:
        """What this machine can run."""

    def open(self, path: Path, settings: OpenSettings) -> OpenedModel:
        """Open the model file; raises RejectedFile where it cannot be used, naming what is wrong."""
