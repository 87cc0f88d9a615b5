"""A torch graph with quantizers in it, on a device."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_quantization.nn.modules.tensor_quantizer import TensorQuantizer
from pytorch_quantization.tensor_quant import QuantDescriptor
from torch import fx

from service.domain.errors import first_line
from service.domain.settings import WeightGranularity
from workers.backends.protocol import Array, ModelFacts, Observe, OpenSettings, OutputError, Tensors
from workers.backends.torch_memory import keep_freed_memory
from workers.backends.torch_output_errors import ErrorMeter
from workers.backends.torch_tree import ERRORS, TorchTree
from workers.engine.fixed_batch import filled, length_of
from workers.models.torch_dataflow import torch_costs
from workers.models.torch_export import TorchProgram
from workers.models.torch_layers import Found, LayerFinder, Weight

SMALLEST_AMAX = 2.0**-24
"""pytorch-quantization quantizes everything to 0 where the range is no larger."""


class ActivationQuantizer(TensorQuantizer):  # type: ignore[misc]  # the package is untyped
    """A quantizer of one range. It rounds as its base does, bit for bit.

    Its base asks the device about the range in every forward: each question waits for all that runs on a GPU, and no
    CUDA graph can hold it.
    """

    _factor: torch.Tensor
    _divisor: torch.Tensor

    def fix(self, amax: float, device: torch.device) -> None:
        """Values beyond ±``amax`` are cut off; where it is next to nothing they become 0."""
        if hasattr(self, "_amax"):
            del self._amax
        self.amax = np.float32(amax)
        self.to(device)
        nothing = float(self._amax) <= SMALLEST_AMAX
        # a tensor divided by a tensor, as in the package: a number divided by a tensor rounds twice
        scale = torch.tensor(127.0, device=device) / self._amax
        self._factor = torch.zeros_like(scale) if nothing else scale
        self._divisor = torch.ones_like(scale) if nothing else scale

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The fake-quantized tensor while enabled, the tensor itself otherwise."""
        if self._disabled:
            return inputs
        if inputs.dtype is torch.half:
            # computed in float32 between
            quantized: torch.Tensor = super().forward(inputs)
            return quantized
        return torch.clamp((inputs * self._factor).round_(), -128.0, 127.0) / self._divisor.to(inputs.dtype)


class WeightQuantizer(TensorQuantizer):  # type: ignore[misc]  # the package is untyped
    """A quantizer of a constant: the quantized weight is computed once, not for every batch."""

    def __init__(self, descriptor: QuantDescriptor) -> None:
        super().__init__(descriptor)
        self._quantized: torch.Tensor | None = None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The fake-quantized weight while enabled, the weight itself otherwise."""
        if self._disabled:
            return inputs
        if self._quantized is None:
            quantized = super().forward(inputs)
            assert isinstance(quantized, torch.Tensor)
            self._quantized = quantized
        return self._quantized


class TorchSession:
    """Runs one batch at a time with the selected layers in int8. Layers' quantizers are off until selected.

    ``layers``: those of the program where they are known already; they are looked for otherwise.
    """

    def __init__(self, program: TorchProgram, settings: OpenSettings, layers: Sequence[Found] | None = None) -> None:
        finder = LayerFinder(program)
        self._found = finder.find() if layers is None else list(layers)
        self.facts = ModelFacts(
            inputs=program.inputs,
            outputs=program.outputs,
            layers=tuple(each.layer for each in self._found),
            skipped=tuple(finder.skipped),
            folded_batch_norms=program.folded_batch_norms,
            batch_size=program.batch_size,
            costs=torch_costs(program, self._found),
        )
        self._device = torch.device(settings.device)
        self._module = program.module
        self._placeholders = [str(each.target) for each in program.module.graph.find_nodes(op="placeholder")]
        self._activations: dict[str, ActivationQuantizer] = {}
        self._quantizers: dict[str, list[TensorQuantizer]] = {}
        self._edges: dict[fx.Node, str] = {}
        self.layer_of: dict[fx.Node, str] = {}
        """The nodes of the quantizers, and the ids of their layers."""
        self._broken: dict[str, str] = {}
        for each in self._found:
            self._insert(each, per_channel=settings.weights is WeightGranularity.PER_CHANNEL)
        self._module.graph.lint()
        self._module.recompile()
        self._module.to(self._device)
        self._selected: frozenset[str] = frozenset()
        # fp32 means fp32: TF32 would change the reference
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        keep_freed_memory()

    def _insert(self, found: Found, *, per_channel: bool) -> None:
        node, layer = found.node, found.layer
        placed: list[TensorQuantizer] = []
        arguments = list(node.args)
        for number, index in enumerate(found.operands):
            quantizer = ActivationQuantizer(QuantDescriptor(num_bits=8))
            suffix = "_input_quantizer" if number == 0 else f"_input_quantizer_{number}"
            quantized = self._place(found, index, suffix, quantizer)
            self._edges[quantized] = f"{layer.id}:{index}"
            self._activations[f"{layer.id}:{index}"] = quantizer
            arguments[index] = quantized
            placed.append(quantizer)
        if found.weight is not None:
            index = found.weight.index
            if bool(torch.isfinite(found.weight.value).all()):
                quantizer = _weight_quantizer(found.weight, per_channel=per_channel)
                arguments[index] = self._place(found, index, "_weight_quantizer", quantizer)
                placed.append(quantizer)
            else:
                self._broken[layer.id] = "its weight holds NaN or infinite values"
        node.args = tuple(arguments)
        for quantizer in placed:
            quantizer.disable()
        self._quantizers[layer.id] = placed

    def _place(self, found: Found, index: int, suffix: str, quantizer: TensorQuantizer) -> fx.Node:
        operand, name = found.node.args[index], f"{found.layer.name}.{suffix}"
        assert isinstance(operand, fx.Node)
        if not self._module.add_submodule(name, quantizer):
            # a parameter stands where a module would have to
            name = name.replace(".", "_")
            self._module.add_submodule(name, quantizer)
        with self._module.graph.inserting_before(found.node):
            made = self._module.graph.call_module(name, (operand,))
        made.meta = dict(operand.meta)
        self.layer_of[made] = found.layer.id
        return made

    def set_amax(self, amax: Mapping[str, float]) -> None:
        """Fix the range of each activation edge that is named."""
        for edge, value in amax.items():
            self._activations[edge].fix(value, self._device)

    def select(self, int8: frozenset[str]) -> None:
        """Put exactly these layers in int8; raises KeyError where one of them has no amax."""
        for layer_id in self._selected - int8:
            for quantizer in self._quantizers[layer_id]:
                quantizer.disable()
        self._selected = int8
        for layer_id in int8:
            for quantizer in self._quantizers[layer_id]:
                if not hasattr(quantizer, "_amax"):
                    raise KeyError(f"layer {layer_id} has no amax")
                quantizer.enable()

    def unusable(self, int8: frozenset[str]) -> str | None:
        """Why these layers cannot be in int8; None where they can."""
        return next((reason for layer_id, reason in self._broken.items() if layer_id in int8), None)

    def tree(self) -> TorchTree:
        """The graph as a variant tree. Layers are numbered in the order of ``facts.layers``."""
        number = {layer.id: index for index, layer in enumerate(self.facts.layers)}
        return TorchTree(self._module, {node: number[each] for node, each in self.layer_of.items()}, self._device)

    def observe(self, batch: Tensors, observe: Observe) -> None:
        """Run fp32 and show the tensor on every activation edge."""
        self.select(frozenset())
        self.interpret(_Watcher(self._module, self._edges, observe, length_of(batch)), batch)

    def weight(self, layer_id: str) -> Array | None:
        """The layer's weight in float32; None where it has none."""
        weight = next(each.weight for each in self._found if each.layer.id == layer_id)
        if weight is None:
            return None
        values: Array = weight.value.detach().float().cpu().numpy()
        return values

    def output_errors(self, batch: Tensors, layers: frozenset[str]) -> dict[str, OutputError]:
        """Run fp32, and each of these layers once more in int8 from the same inputs."""
        self.select(frozenset())
        broken = {each: why for each, why in self._broken.items() if each in layers}
        nodes = {each.node: each.layer.id for each in self._found if each.layer.id in layers - broken.keys()}
        length = length_of(batch) if self.facts.batch_size is not None else None
        meter = ErrorMeter(self._module, nodes, self.layer_of, select=self.select, length=length)
        try:
            self.interpret(meter, batch)
        except ERRORS as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            return {each: OutputError(0.0, 0.0, reason) for each in layers}
        return meter.errors | {each: OutputError(0.0, 0.0, why) for each, why in broken.items()}

    def outputs(self, batch: Tensors) -> dict[str, Array]:
        """Outputs by name, each (n, ...), the selected layers in int8."""
        return self.interpret(fx.Interpreter(self._module), batch)

    def interpret(self, interpreter: fx.Interpreter, batch: Tensors) -> dict[str, Array]:
        """Outputs by name, each (n, ...), as this interpreter of the graph finds them, the selected layers in int8."""
        with torch.inference_mode():
            inputs = self.tensors(batch)
            # a placeholder that is no tensor is an argument that the export fixed, and nothing reads it
            arguments = [inputs.get(name) for name in self._placeholders]
            result = interpreter.run(*arguments, enable_io_processing=False)
            return self.arrays([each for each in result if isinstance(each, torch.Tensor)], length_of(batch))

    def tensors(self, batch: Tensors) -> dict[str, torch.Tensor]:
        """A batch on the device, filled up where the model takes one batch size only."""
        return {spec.name: self._tensor(batch[spec.name]) for spec in self.facts.inputs}

    def arrays(self, leaves: Sequence[torch.Tensor], length: int) -> dict[str, Array]:
        """The model's outputs for the first ``length`` samples, by name."""
        return {spec.name: self._array(leaf, length) for spec, leaf in zip(self.facts.outputs, leaves, strict=True)}

    def _tensor(self, array: Array) -> torch.Tensor:
        array = filled(array, self.facts.batch_size)
        # torch wants writable memory; the graph is functional, so that nothing is written
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def _array(self, leaf: torch.Tensor, length: int) -> Array:
        if self.facts.batch_size is not None and leaf.ndim > 0:
            leaf = leaf[:length]
        # NumPy has no bfloat16
        leaf = leaf.float() if leaf.dtype is torch.bfloat16 else leaf
        if leaf.is_cuda:
            # pages that are pinned already, of an earlier output, cost a fraction of fresh ones
            leaf = torch.empty(leaf.shape, dtype=leaf.dtype, pin_memory=True).copy_(leaf)
        found: Array = leaf.cpu().numpy()
        return found


class _Watcher(fx.Interpreter):
    """An interpreter that shows what reaches the quantizers; samples that only fill a fixed batch are not shown."""

    def __init__(self, module: fx.GraphModule, edges: Mapping[fx.Node, str], observe: Observe, length: int) -> None:
        super().__init__(module)
        self._edges = edges
        self._observe = observe
        self._length = length

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self._edges:
            self._observe(self._edges[n], result.detach().cpu().numpy()[: self._length])
        return result


def _weight_quantizer(weight: Weight, *, per_channel: bool) -> WeightQuantizer:
    axis = weight.axis if per_channel else None
    quantizer = WeightQuantizer(QuantDescriptor(num_bits=8, axis=None if axis is None else (axis,)))
    magnitude = weight.value.abs().float()
    if axis is None:
        amax = magnitude.max()
    else:
        amax = magnitude.amax(dim=[index for index in range(magnitude.ndim) if index != axis], keepdim=True)
    quantizer.amax = amax.cpu().numpy()
    return quantizer
