"""What int8 does to each layer's own output: a pass in fp32 in which layers run once more, quantized."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from service.domain.errors import first_line
from workers.backends.protocol import OutputError
from workers.backends.torch_tree import ERRORS


class ErrorMeter(fx.Interpreter):
    """An interpreter in fp32 that fills ``errors`` (layer id → error) on its way.

    ``layers``: node → layer id; ``quantizers``: the nodes of the quantizers, identities until ``select`` enables those
    of a layer; ``length``: how many samples count of a fixed batch, None: all.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        layers: Mapping[fx.Node, str],
        quantizers: Mapping[fx.Node, str],
        *,
        select: Callable[[frozenset[str]], None],
        length: int | None,
    ) -> None:
        super().__init__(module)
        self._layers = layers
        self._quantizers = quantizers
        self._select = select
        self._length = length
        self.errors: dict[str, OutputError] = {}

    def run_node(self, n: fx.Node) -> Any:
        """The node in fp32; a layer's error beside it."""
        result = super().run_node(n)
        if n in self._layers:
            layer_id = self._layers[n]
            try:
                error = self._in_int8(n, layer_id) - result
                self.errors[layer_id] = OutputError(self._energy(result), self._energy(error))
            except ERRORS as failure:
                self.errors[layer_id] = OutputError(0.0, 0.0, f"{type(failure).__name__}: {first_line(failure)}")
            finally:
                self._select(frozenset())
        return result

    def _in_int8(self, n: fx.Node, layer_id: str) -> Any:
        self._select(frozenset({layer_id}))

        def operand(each: fx.Node) -> Any:
            value = self.env[each]
            return self.fetch_attr(str(each.target))(value) if each in self._quantizers else value

        assert callable(n.target)
        return n.target(*fx.node.map_arg(n.args, operand), **fx.node.map_arg(n.kwargs, operand))

    def _energy(self, values: torch.Tensor) -> float:
        if self._length is not None and values.ndim:
            values = values[: self._length]
        return float(values.float().square().sum(dtype=torch.float64))
