"""Constants of a torch graph: parameters, buffers, and what is computed from them alone (a normalised weight)."""

from typing import Any

import torch
from torch import fx


class Constants:
    """The nodes of a module whose values depend on no input. ``in`` also takes arguments that are not nodes."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._nodes: set[fx.Node] = set()
        for node in module.graph.nodes:  # topological order
            if node.op == "get_attr" or (_is_pure(node) and all(each in self._nodes for each in node.all_input_nodes)):
                self._nodes.add(node)

    def __contains__(self, value: object) -> bool:
        return not isinstance(value, fx.Node) or value in self._nodes

    def value(self, node: fx.Node) -> torch.Tensor:
        """The tensor that a constant node stands for."""
        found = self._evaluate(node)
        assert isinstance(found, torch.Tensor)
        return found.detach()

    def _evaluate(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return attribute(self._module, str(node.target))
        assert callable(node.target)
        arguments = fx.map_arg(node.args, self._evaluate)
        with torch.no_grad():
            return node.target(*arguments, **fx.map_arg(node.kwargs, self._evaluate))


def attribute(module: torch.nn.Module, target: str) -> Any:
    """What a get_attr node names."""
    found: Any = module
    for part in target.split("."):
        found = getattr(found, part)
    return found


def source_of(node: Any) -> str | None:
    """The attribute that a constant is made of first, behind views and other operations; None where there is none."""
    while isinstance(node, fx.Node) and node.op != "get_attr":
        node = next(iter(node.all_input_nodes), None)
    return str(node.target) if isinstance(node, fx.Node) else None


def _is_pure(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return not random and not node.is_impure()
