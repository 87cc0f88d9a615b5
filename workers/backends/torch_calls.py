"""The nodes of a torch graph as plain calls: operand values in, result out. A tenth of an interpreter's overhead."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

Call = Callable[[Sequence[Any]], Any]


def call_of(module: fx.GraphModule, node: fx.Node) -> Call:
    """What runs ``node``; it takes the values of ``node.all_input_nodes``, in that order."""
    if node.op == "get_attr":
        value = _attribute(module, str(node.target))
        return lambda _: value
    if node.op == "call_module":
        submodule = module.get_submodule(str(node.target))
        return lambda operands: submodule(*operands)
    if node.op != "call_function":
        raise ValueError(f"node {node.name} of kind {node.op} is no operation")
    function, slots = node.target, {each: index for index, each in enumerate(node.all_input_nodes)}
    assert callable(function)
    if node.kwargs or not all(isinstance(each, fx.Node) or _is_plain(each) for each in node.args):
        return _nested(node, function, slots)
    template = [None if isinstance(each, fx.Node) else each for each in node.args]
    places = [(index, slots[each]) for index, each in enumerate(node.args) if isinstance(each, fx.Node)]

    def call(operands: Sequence[Any]) -> Any:
        arguments = template.copy()
        for index, slot in places:
            arguments[index] = operands[slot]
        return function(*arguments)

    return call


def _nested(node: fx.Node, function: Callable[..., Any], slots: dict[fx.Node, int]) -> Call:
    def call(operands: Sequence[Any]) -> Any:
        arguments = fx.node.map_arg(node.args, lambda each: operands[slots[each]])
        keywords = fx.node.map_arg(node.kwargs, lambda each: operands[slots[each]])
        return function(*arguments, **keywords)

    return call


def _is_plain(argument: Any) -> bool:
    if isinstance(argument, list | tuple):
        return all(_is_plain(each) for each in argument)
    return argument is None or isinstance(
        argument, bool | int | float | str | torch.dtype | torch.device | torch.layout | torch.memory_format
    )


def _attribute(module: fx.GraphModule, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value
