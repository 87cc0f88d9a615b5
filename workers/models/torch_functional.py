"""Makes an exported program free of side effects and of its own device, so that any node can be run again anywhere."""

import torch
from torch import fx
from torch.export import ExportedProgram

aten = torch.ops.aten

# operation → the argument that stands for its result. copy_ is the epilogue that would write changed inputs and
# buffers back: each batch starts from the state in the file
REPLACED = {aten.dropout.default: 0, aten.copy_.default: 1}


def functional_module(exported: ExportedProgram, device: torch.device) -> fx.GraphModule:
    """The program's graph on ``device``, without in-place operations, guards, or dropouts that do nothing.

    In-place operations would change the caller's arrays, and tensors that other variants share.
    """
    if any(_changes_its_input(node) for node in exported.graph.nodes):
        exported = exported.run_decompositions({})
    module = exported.module()
    assert isinstance(module, fx.GraphModule)
    for node in list(module.graph.nodes):
        if _is_superfluous(node):
            module.graph.erase_node(node)
        elif node.target in REPLACED:
            node.replace_all_uses_with(node.args[REPLACED[node.target]])
            module.graph.erase_node(node)
        else:
            _move(node, device)
    return module.to(device)


def _changes_its_input(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_superfluous(node: fx.Node) -> bool:
    if node.op == "call_module" and node.target == "_guards_fn":
        return True  # the guards refuse batch sizes that the example did not have but the graph can run
    return node.target is aten._assert_tensor_metadata.default  # it holds the exporter's device


def _move(node: fx.Node, device: torch.device) -> None:
    if isinstance(node.kwargs.get("device"), torch.device):
        node.update_kwarg("device", device)
    if len(node.args) > 1 and isinstance(node.args[1], torch.device):
        node.update_arg(1, device)
