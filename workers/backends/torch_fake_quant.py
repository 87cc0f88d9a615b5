"""The torch backend: pytorch-quantization's fake quantizers in the graph of an exported program.

Every quantized operand and weight has a TensorQuantizer of its own, named after the layer's module path as
pytorch-quantization names its own (``layer1.0.conv1._input_quantizer``). A variant enables those of its layers.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from service.domain.errors import RejectedFile, first_line
from service.domain.settings import BackendName
from workers.backends.protocol import (
    Array,
    Capability,
    Evaluated,
    Observe,
    OpenedModel,
    OpenSettings,
    OutOfMemory,
    OutputError,
    Tensors,
)
from workers.engine.fixed_batch import length_of

if TYPE_CHECKING:
    from service.domain.layers import Variant
    from workers.backends.torch_cuda_graph import RepeatedRuns
    from workers.backends.torch_session import TorchSession
    from workers.backends.torch_tree import Failed, Outputs
    from workers.data.binding import Batch
    from workers.engine.probe_settings import ProbeSettings
    from workers.engine.probe_sums import ProbeSums


class TorchBackend:
    """Opens torch.export archives."""

    name = BackendName.TORCH

    def capability(self) -> Capability:
        """Whether torch and pytorch-quantization are here, and on which devices they run."""
        for package in ("torch", "pytorch_quantization"):
            if find_spec(package) is None:
                reason = f"the package {package} is not installed; install quantsieve[cpu] or quantsieve[gpu]"
                return Capability(self.name, False, (), {}, reason)
        try:
            import pytorch_quantization  # noqa: F401
            import torch
        except (ImportError, OSError) as error:
            return Capability(self.name, False, (), {}, f"torch cannot be imported: {first_line(error)}")

        devices = ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))
        versions = {name: version(name) for name in ("torch", "pytorch-quantization", "numpy")}
        return Capability(self.name, True, devices, versions)

    def open(self, path: Path, settings: OpenSettings) -> OpenedModel:
        """Load the archive (it can run code) and put quantizers at its layers."""
        from workers.backends.torch_session import TorchSession
        from workers.models.torch_export import read_archive

        session = TorchSession(read_archive(path, fuse_bn=settings.fuse_bn, device=settings.device), settings)
        if not session.facts.layers:
            raise RejectedFile("the model has no quantizable layer (convolution, linear, matmul, add, average pool)")
        return TorchModel(session)


class TorchModel:
    """An opened archive."""

    def __init__(self, session: "TorchSession") -> None:
        self._session = session
        self._tree = session.tree()
        self._number = {layer.id: index for index, layer in enumerate(session.facts.layers)}
        self.facts = replace(session.facts, live_bytes=self._tree.live_bytes)

    def observe(self, batches: Iterable[Tensors], observe: Observe) -> None:
        """Run fp32 and show every activation edge."""
        for batch in batches:
            self._session.observe(batch, observe)

    def set_amax(self, amax: Mapping[str, float]) -> None:
        """Fix the range of each activation quantizer."""
        self._session.set_amax(amax)

    def weight(self, layer_id: str) -> Array | None:
        """The layer's weight, batch norms folded in."""
        return self._session.weight(layer_id)

    def output_errors(self, batches: Iterable[Tensors], layers: Sequence[str]) -> Iterator[Mapping[str, OutputError]]:
        """One pass over the graph for each batch, in which each layer's node runs twice."""
        for batch in batches:
            yield self._session.output_errors(batch, frozenset(layers))

    def evaluate(self, batches: Sequence[Tensors], variants: Sequence["Variant"]) -> Iterator[Evaluated]:
        """Batch by batch, all variants in one pass over the tree that they share."""
        from workers.backends.torch_cuda_graph import RepeatedRuns
        from workers.backends.torch_tree import Failed

        unusable = {each.name: self._session.unusable(each.int8) for each in variants}
        usable = [each for each in variants if unusable[each.name] is None]
        self._session.select(frozenset().union(*(each.int8 for each in usable)))
        masks = [sum(1 << self._number[each] for each in variant.int8) for variant in usable]
        runs = RepeatedRuns(self._tree, masks, batches=len(batches))
        for index, batch in enumerate(batches):
            for variant in variants:
                if unusable[variant.name] is not None:
                    yield Evaluated(variant, index, None, unusable[variant.name])
            for position, outputs in self._run(runs, batch):
                if isinstance(outputs, Failed):
                    yield Evaluated(usable[position], index, None, outputs.reason)
                else:
                    yield Evaluated(usable[position], index, self._session.arrays(outputs, length_of(batch)))

    def probe(self, batches: Iterable["Batch"], settings: "ProbeSettings") -> "ProbeSums":
        """A pass forward and a few backward for each micro-batch."""
        from workers.backends.torch_probe import TorchProbe

        return TorchProbe(self._session, settings.layers).sums(batches, settings)

    def _run(self, runs: "RepeatedRuns", batch: Tensors) -> Iterator[tuple[int, "Outputs | Failed"]]:
        from workers.backends.torch_tree import is_out_of_memory

        try:
            yield from runs.run(self._session.tensors(batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(f"a batch of {length_of(batch)} samples does not fit: {first_line(error)}") from error
