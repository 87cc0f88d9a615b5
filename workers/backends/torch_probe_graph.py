"""A torch graph that runs in fp32 with every layer's int8 error at hand, and differentiates by those errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from service.domain.errors import InvalidInput, first_line
from workers.backends.torch_calls import Call, call_of
from workers.backends.torch_tree import ERRORS, is_out_of_memory

aten = torch.ops.aten

Floats = npt.NDArray[np.float64]

SHAPE_ONLY_NAMES = (
    "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty "
    "sym_size sym_numel sym_stride shape_of size_of"
)
SHAPE_ONLY = frozenset(SHAPE_ONLY_NAMES.split())
"""Their results hold none of the input's values, only its shape."""

STEPS = frozenset({"round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside", "floor_divide"})
"""Their derivative is zero wherever it exists."""


@dataclass(frozen=True)
class Split:
    """Where the samples stand in a layer's output: along ``axis``, each a run of neighbours there.

    ``interleaved``: sample after sample instead, and again from the first. None: there is one sample.
    """

    axis: int | None
    interleaved: bool = False

    def parts(self, tensor: torch.Tensor, samples: int) -> torch.Tensor:
        """The tensor as (samples, values)."""
        if self.axis is None:
            return tensor.reshape(1, -1)
        tensor = tensor.movedim(self.axis, 0)
        if self.interleaved:
            tensor = tensor.reshape(-1, samples, *tensor.shape[1:]).transpose(0, 1)
        return tensor.reshape(samples, -1)


WHOLE = Split(None)


@dataclass(frozen=True, eq=False)
class _Step:
    """A node: where its operands are, and where their int8 versions come from (quantizers by operand)."""

    node: fx.Node
    position: int
    call: Call | None
    operands: tuple[int, ...]
    frees: tuple[int, ...]
    layer: int | None = None
    quantizers: tuple[tuple[int, Call], ...] = ()


Tap = Callable[[_Step, Sequence[Any], torch.Tensor], torch.Tensor]
"""What stands in for a layer's output, given the layer, its operands in fp32, and the output."""


class Forward:
    """A forward pass that can be differentiated until it is closed. ``output``: the scored one.

    ``failures``: layer number → why its error is not known. ``constants``: nodes through which no error goes on.
    """

    def __init__(
        self, output: torch.Tensor, ts: list[torch.Tensor], failures: dict[int, str], constants: tuple[str, ...]
    ) -> None:
        self.output = output
        self.failures = failures
        self.constants = constants
        self._ts = ts

    def derivatives(self, of: torch.Tensor, direction: torch.Tensor) -> Floats:
        """Of direction · ``of`` by each layer's error, (samples, L); what the output does not depend on gives 0."""
        samples = len(self._ts[0])
        if not of.requires_grad:
            return np.zeros((samples, len(self._ts)))
        found = torch.autograd.grad(of, self._ts, direction, retain_graph=True, allow_unused=True)
        rows = torch.stack(
            [torch.zeros_like(t) if each is None else each for each, t in zip(found, self._ts, strict=True)]
        )
        values: Floats = rows.T.cpu().numpy().astype(np.float64)
        finite = np.isfinite(values).all(axis=0)
        for index in np.flatnonzero(~finite):
            self.failures.setdefault(int(index), "its error or its gradient holds NaN or infinite values")
        return values

    def close(self) -> None:
        """Let go of the graph's tensors."""
        self.output = self.output.detach()


class ProbeGraph:
    """The session's graph, its quantizers taken out of the way.

    ``layer_of``: quantizer nodes → layer ids; ``layers``: those that are probed, but for ``left_out``.
    """

    def __init__(self, layer_of: Mapping[fx.Node, str], layers: Sequence[str], left_out: frozenset[str]) -> None:
        module = next(iter(layer_of)).graph.owning_module
        assert module is not None
        self._layers = layers
        number = {each: index for index, each in enumerate(layers)}
        layer_at = {user: number[layer] for node, layer in layer_of.items() if layer in number for user in node.users}
        self._left_out = {number[each] for each in left_out}
        nodes = [each for each in module.graph.nodes if each.op != "output"]
        self._position = {each: index for index, each in enumerate(nodes)}
        (result,) = module.graph.output_node().args
        leaves = result if isinstance(result, list | tuple) else (result,)
        self._outputs = [
            self._plain(each, layer_of)
            for each in leaves
            if isinstance(each, fx.Node) and isinstance(each.meta.get("val"), torch.Tensor)
        ]
        self._steps = self._make_steps(module, nodes, layer_of, layer_at)

    def _plain(self, node: fx.Node, layer_of: Mapping[fx.Node, str]) -> int:
        """The position of what a node stands for: a quantizer for its operand, a detach for what it detaches."""
        while node in layer_of or node.target is aten.detach.default:
            (node,) = node.all_input_nodes
        return self._position[node]

    def _make_steps(
        self,
        module: fx.GraphModule,
        nodes: Sequence[fx.Node],
        layer_of: Mapping[fx.Node, str],
        layer_at: Mapping[fx.Node, int],
    ) -> list[_Step]:
        kept = [each for each in nodes if each not in layer_of and each.target is not aten.detach.default]
        operands = {each: tuple(self._plain(one, layer_of) for one in each.all_input_nodes) for each in kept}
        last: dict[int, fx.Node] = {}
        for node in kept:
            last |= dict.fromkeys(operands[node], node)
        for position in self._outputs:
            last.pop(position, None)
        frees: dict[fx.Node, list[int]] = {}
        for position, node in last.items():
            frees.setdefault(node, []).append(position)
        return [
            _Step(
                node,
                self._position[node],
                None if node.op == "placeholder" else call_of(module, node),
                operands[node],
                tuple(frees.get(node, ())),
                layer_at.get(node),
                tuple(
                    (slot, call_of(module, each)) for slot, each in enumerate(node.all_input_nodes) if each in layer_of
                ),
            )
            for node in kept
        ]

    def forward(self, inputs: Mapping[str, torch.Tensor], output: int, splits: Sequence[Split]) -> Forward:
        """Run fp32, and beside it each layer once in int8 from the same inputs."""
        run = _Run(self._steps, inputs)
        samples = max((len(each) for each in inputs.values() if each.ndim), default=1)
        device = next(iter(inputs.values())).device
        ts = [
            torch.zeros(samples if split.axis is not None else 1, device=device, requires_grad=True) for split in splits
        ]

        def tap(step: _Step, operands: Sequence[Any], value: torch.Tensor) -> torch.Tensor:
            index = step.layer
            assert index is not None
            if index in self._left_out:
                return value
            delta = run.delta(step, operands, value)
            if delta is None:
                return value
            tapped: torch.Tensor = _Tap.apply(  # type: ignore[no-untyped-call]
                value, ts[index], delta, splits[index]
            )
            return tapped

        found = run.to_end(tap, self._outputs[output])
        return Forward(found, ts, run.failures, tuple(run.constants))

    def find_splits(self, inputs: Mapping[str, torch.Tensor], output: int, *, samples: int) -> list[Split]:
        """Where the samples stand in each layer's output: a gradient of one sample's output shows it.

        ``samples``: those of ``inputs`` that count; the rest fill a fixed batch. Raises InvalidInput where the model
        mixes samples.
        """
        if samples < 2:
            return [WHOLE] * len(self._layers)
        values: dict[int, torch.Tensor] = {}

        def tap(step: _Step, operands: Sequence[Any], value: torch.Tensor) -> torch.Tensor:
            assert step.layer is not None
            values[step.layer] = value if value.requires_grad else value.detach().requires_grad_(True)
            return values[step.layer]

        z = _Run(self._steps, inputs).to_end(tap, self._outputs[output])
        if not z.requires_grad:
            return [Split(0)] * len(self._layers)
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(z.shape, generator=generator).to(z)
        gradients: dict[int, list[tuple[int, torch.Tensor]]] = {index: [] for index in values}
        for sample in (0, samples - 1):
            alone = torch.zeros_like(z)
            alone[sample] = direction[sample]
            found = torch.autograd.grad(z, list(values.values()), alone, retain_graph=True, allow_unused=True)
            for index, gradient in zip(values, found, strict=True):
                if gradient is not None:
                    gradients[index].append((sample, gradient))
        return [self._split(index, gradients[index], len(z)) for index in range(len(self._layers))]

    def _split(self, layer: int, gradients: Sequence[tuple[int, torch.Tensor]], samples: int) -> Split:
        axes = range(gradients[0][1].ndim if gradients else 1)
        for split in (Split(axis, interleaved) for axis in axes for interleaved in (False, True)):
            if all(_is_apart(split, gradient, sample, samples) for sample, gradient in gradients):
                return split
        raise InvalidInput(
            f"method: probe follows each sample's error on its own, but layer {self._layers[layer]} mixes the samples "
            "of a batch; measure this model with method: exact",
            field="method",
        )


class _Tap(torch.autograd.Function):
    """value + t · delta at t = 0: the value itself; its derivative by t is gradient · delta for each sample."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, t: torch.Tensor, delta: torch.Tensor, split: Split) -> torch.Tensor:
        ctx.save_for_backward(delta)
        ctx.split, ctx.samples = split, len(t)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (delta,) = ctx.saved_tensors
        mine, error = (ctx.split.parts(each, ctx.samples) for each in (gradient, delta))
        # on a CPU four times as fast as the same by bmm
        return gradient, torch.linalg.vecdot(mine.float(), error.float()), None, None


class _Run:
    """One forward pass."""

    def __init__(self, steps: Sequence[_Step], inputs: Mapping[str, torch.Tensor]) -> None:
        self._steps = steps
        self._inputs = inputs
        self.failures: dict[int, str] = {}
        self.constants: list[str] = []

    def to_end(self, tap: Tap, output: int) -> torch.Tensor:
        """The tensor at position ``output``; ``tap`` replaces each layer's."""
        values: dict[int, Any] = {}
        with torch.enable_grad():
            for step in self._steps:
                operands = [values[each] for each in step.operands]
                value = self._value(step, operands)
                values[step.position] = value if step.layer is None else tap(step, operands, value)
                for each in step.frees:
                    del values[each]
        found = values[output]
        assert isinstance(found, torch.Tensor)
        return found

    def _value(self, step: _Step, operands: Sequence[Any]) -> Any:
        if step.call is None:
            return self._inputs.get(str(step.node.target))
        value = step.call(operands)
        if not any(isinstance(each, torch.Tensor) and each.requires_grad for each in operands):
            return value
        if _operation(step.node) in SHAPE_ONLY:
            return value
        if isinstance(value, torch.Tensor) and value.grad_fn is not None and "NotImplemented" in value.grad_fn.name():
            value = value.detach()  # torch knows no derivative of it
        if not _has_gradient(value) or _operation(step.node) in STEPS:
            self.constants.append(step.node.name)
        return value

    def delta(self, step: _Step, operands: Sequence[Any], value: torch.Tensor) -> torch.Tensor | None:
        """The layer's error, from fp32 inputs; None where it cannot run in int8."""
        assert step.layer is not None
        assert step.call is not None
        with torch.no_grad():
            quantized = list(operands)
            try:
                for slot, quantizer in step.quantizers:
                    quantized[slot] = quantizer([operands[slot]])
                found: torch.Tensor = step.call(quantized) - value
            except ERRORS as error:
                if is_out_of_memory(error):
                    raise
                self.failures[step.layer] = f"{type(error).__name__}: {first_line(error)}"
                return None
        return found


def _operation(node: fx.Node) -> str:
    """``round`` of ``aten.round.default``; a function's own name."""
    if isinstance(node.target, FunctionType):
        return node.target.__name__
    return str(node.target).split(".")[1].removesuffix("_") if "." in str(node.target) else ""


def _has_gradient(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, torch.Tensor) and each.requires_grad for each in values)


def _is_apart(split: Split, gradient: torch.Tensor, sample: int, samples: int) -> bool:
    """Whether nothing but the sample's own part has a gradient."""
    assert split.axis is not None
    if gradient.ndim == 0 or gradient.shape[split.axis] % samples:
        return False
    parts = split.parts(gradient, samples)
    return not bool(parts[:sample].any() or parts[sample + 1 :].any())
