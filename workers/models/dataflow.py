"""How layers hang together, whatever file they come from: which tensors flow between them, and who shares a precision.

A tensor stays in int8 through what an engine fuses or moves past a quantizer: activation functions, pooling by maximum,
reshapes, concatenations. Through anything else (a softmax, a layer norm) it flows in floating point, whatever its
neighbours run in, so that no boundary is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from service.domain.costs import Boundary, CostModel, Group, LayerCost
from service.domain.layers import Layer, Operation


@dataclass(frozen=True)
class Step:
    """One operation of a graph. ``inputs`` and ``outputs``: names of tensors, constants left out.

    ``layer``: the layer that it is; ``quantized``: those of its inputs that are quantized with it. ``passes``: int8 can
    flow through it; ``joins``: it is a concatenation.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: Layer | None = None
    quantized: tuple[str, ...] = ()
    passes: bool = False
    joins: bool = False


def cost_model(steps: Sequence[Step], elements: Mapping[str, int]) -> CostModel:
    """Costs, boundaries and groups of the layers of a graph.

    ``steps`` in topological order; ``elements``: tensor → its values per sample, where that is known (else those of the
    layer that made it count).

    Groups, by NVIDIA's developer guide (Working with Quantized Types, Q/DQ layer-placement) and by what is fused there:
    a residual addition is one kernel with the convolution that it is added to; one matrix product serves all linear
    layers that read one tensor (Q, K and V of attention); a concatenation is int8 only where all of its branches are.
    """
    flow = _Flow(steps)
    layers = [each.layer for each in steps if each.layer is not None]
    return CostModel(
        layers=tuple(LayerCost.of(each) for each in layers),
        boundaries=tuple(flow.boundaries(elements)),
        groups=(*flow.shared_inputs(), *flow.additions(), *flow.concatenations()),
    )


class _Flow:
    """Tensor → the layers whose output it is, past what int8 can flow through."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._layers = {each.layer.id: each.layer for each in steps if each.layer is not None}
        self._sources: dict[str, tuple[str, ...]] = {}
        for each in steps:
            found: tuple[str, ...] = ()
            if each.layer is not None:
                found = (each.layer.id,)
            elif each.passes or each.joins:
                found = self._of(each.inputs)
            self._sources |= dict.fromkeys(each.outputs, found)

    def _of(self, tensors: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(source for each in tensors for source in self._sources.get(each, ())))

    def boundaries(self, elements: Mapping[str, int]) -> Iterable[Boundary]:
        """One for each quantized tensor and each layer that it comes from; the larger of two between a pair."""
        found: dict[tuple[str, str], int] = {}
        for each in self._steps:
            if each.layer is None:
                continue
            for tensor in each.quantized:
                for source in self._of([tensor]):
                    made = prod(self._layers[source].output_shape or (0,))
                    pair = source, each.layer.id
                    found[pair] = max(found.get(pair, 0), elements.get(tensor, made))
        return (Boundary(source=source, target=target, elements=size) for (source, target), size in found.items())

    def shared_inputs(self) -> Iterable[Group]:
        """Linear layers that read one tensor."""
        readers: dict[str, list[str]] = {}
        for each in self._steps:
            if each.layer is not None and each.layer.op is Operation.LINEAR:
                for tensor in each.quantized:
                    readers.setdefault(tensor, []).append(each.layer.id)
        return (
            self._group("shared_input", layers, f"read the input of {self._layers[layers[0]].name}")
            for layers in readers.values()
            if len(layers) > 1
        )

    def additions(self) -> Iterable[Group]:
        """A residual addition and the layer whose output it takes as it comes from the kernel, unquantized."""
        for each in self._steps:
            if each.layer is None or each.layer.op is not Operation.ADD:
                continue
            fused = self._of(tensor for tensor in each.inputs if tensor not in each.quantized)
            if len(fused) == 1:
                yield self._group("residual_add", [*fused, each.layer.id], f"added up in {each.layer.name}")

    def concatenations(self) -> Iterable[Group]:
        """The layers that feed a concatenation which a layer reads quantized."""
        read = {tensor for each in self._steps if each.layer is not None for tensor in each.quantized}
        for each in reversed(self._steps):  # readers first: what is read behind a reshape is read here
            if each.passes and not read.isdisjoint(each.outputs):
                read.update(each.inputs)
        for each in self._steps:
            layers = self._of(each.inputs) if each.joins else ()
            if len(layers) > 1 and not read.isdisjoint(each.outputs):
                yield self._group("concat", layers, f"joined with {self._layers[layers[0]].name}")

    def _group(self, reason: str, layers: Iterable[str], name: str) -> Group:
        return Group.model_validate({"name": name, "layers": tuple(layers), "reason": reason})
