"""An independent quantization of an exported network, by hand: nothing of the project is used.

It runs the archive node by node and replaces, for the one layer that is in int8, its input and its weight by what
pytorch-quantization's own ``fake_tensor_quant`` makes of them, with ranges measured on the same inputs.
"""

from typing import Any

import numpy as np
import torch
from pytorch_quantization.tensor_quant import fake_tensor_quant
from torch import Tensor, fx

aten = torch.ops.aten
OUTPUT_AXIS = {
    aten.conv1d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.default: 0,
    aten.conv3d.default: 0,
    aten.linear.default: 0,
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 1,
    aten.conv_transpose3d.input: 1,
}


class Oracle(fx.Interpreter):
    """Runs a network whose batch norms stay as they are; ``int8``: the node that is quantized."""

    def __init__(self, path: Any, *, per_channel: bool = True) -> None:
        super().__init__(torch.export.load(path).module())
        self.per_channel = per_channel
        self.int8: str | None = None
        self.amax: dict[str, float] = {}

    def outputs(self, inputs: Tensor) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            result = self.run(inputs.clone(), enable_io_processing=False)
        return np.concatenate([each.flatten(1).numpy() for each in result], axis=1)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = self.node.name
        if target in OUTPUT_AXIS:
            self.amax.setdefault(name, float(args[0].abs().max()))
            if name == self.int8:
                args = (self.quantized(args[0], name), self.weight(target, args), *args[2:])
        return super().call_function(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        self.node = n
        if n.op == "call_module":
            return None  # the guards
        return super().run_node(n)

    def quantized(self, data: Tensor, name: str) -> Tensor:
        return fake_tensor_quant(data, torch.tensor(self.amax[name]), 8, False, False)

    def weight(self, target: Any, args: Any) -> Tensor:
        weight, axis = args[1], OUTPUT_AXIS[target]
        transposed = "transpose" in str(target)
        grouped = transposed and len(args) > 6 and args[6] != 1
        if not self.per_channel or grouped:
            return fake_tensor_quant(weight, weight.abs().max(), 8, False, False)
        channels = [fake_tensor_quant(each, each.abs().max(), 8, False, False) for each in weight.unbind(axis)]
        return torch.stack(channels, axis)
