"""Reads a torch.export archive into a graph that runs, with the attributes of its nodes at hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from service.domain.errors import RejectedFile
from service.domain.layers import TensorSpec
from workers.models.torch_attention import expand_attention
from workers.models.torch_batch_norm import fold_batch_norms

HOW = "export the model with torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"


@dataclass(frozen=True)
class TorchProgram:
    """A graph that takes ``inputs`` in order and gives ``outputs``; ``batch_size`` None where the batch is free."""

    module: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_size: int | None
    folded_batch_norms: int


def read_archive(path: Path, *, fuse_bn: bool) -> TorchProgram:
    """Open the archive. It can run code: call this only in a process that may be lost. Raises RejectedFile."""
    try:
        exported = torch.export.load(path)
        module = exported.module()
    except Exception as error:  # the archive decides what is raised here
        raise RejectedFile(f"torch.export cannot load this archive: {_first_line(error)}; {HOW}") from error
    _drop_guards(module)
    _refuse_training(module)
    inputs = _inputs(module)
    outputs = _outputs(module, exported.call_spec.out_spec)
    expand_attention(module)
    folded = fold_batch_norms(module) if fuse_bn else 0
    module.graph.eliminate_dead_code()
    module.recompile()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return TorchProgram(module, inputs, outputs, _batch_size(inputs), folded)


def module_path(node: fx.Node) -> str:
    """The path of the module that the node was traced in ("" for the top)."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = list(stack.values())
    return str(entries[-1][0]) if entries else ""


def attribute(module: torch.nn.Module, target: str) -> Any:
    """What a get_attr node names."""
    found: Any = module
    for part in target.split("."):
        found = getattr(found, part)
    return found


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def _drop_guards(module: fx.GraphModule) -> None:
    # the guards refuse batch sizes that the example did not have but the graph can run
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            module.graph.erase_node(node)


def _refuse_training(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        name = str(node.target)
        training = name.startswith("aten.batch_norm.") and node.args[5] is True
        training |= name.startswith("aten.dropout.") and node.args[2] is True
        if training or name.startswith("aten._native_batch_norm_legit.default"):
            raise RejectedFile(
                f"the archive was exported in training mode (node {node.name}); call model.eval() first: {HOW}"
            )


def _inputs(module: fx.GraphModule) -> tuple[TensorSpec, ...]:
    specs = []
    for node in module.graph.nodes:
        if node.op != "placeholder":
            continue
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            specs.append(_spec(str(node.target), value))
        elif node.users:
            raise RejectedFile(f"input {node.name} is {type(value).__name__}, not a tensor; export it as a constant")
    if not specs:
        raise RejectedFile("the exported program has no tensor input")
    return tuple(specs)


def _outputs(module: fx.GraphModule, spec: pytree.TreeSpec) -> tuple[TensorSpec, ...]:
    (result,) = next(node for node in module.graph.nodes if node.op == "output").args
    leaves: Sequence[Any] = result if isinstance(result, tuple | list) else (result,)
    names = _leaf_names(spec, len(leaves))
    found = [
        _spec(name, leaf.meta["val"])
        for name, leaf in zip(names, leaves, strict=True)
        if isinstance(leaf, fx.Node) and isinstance(leaf.meta.get("val"), torch.Tensor)
    ]
    if not found:
        raise RejectedFile("the exported program has no tensor output")
    return tuple(found)


def _leaf_names(spec: pytree.TreeSpec, count: int) -> list[str]:
    if count == 1:
        return ["output"]
    tree = pytree.tree_unflatten(list(range(count)), spec)
    paths, _ = pytree.tree_flatten_with_path(tree)
    return [".".join(_key(part) for part in path) or "output" for path, _ in paths]


def _key(part: Any) -> str:
    for field in ("key", "name"):
        if hasattr(part, field):
            return str(getattr(part, field))
    return f"output_{part.idx}"


def _spec(name: str, value: torch.Tensor) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=shape)


def _batch_size(inputs: Sequence[TensorSpec]) -> int | None:
    sizes = {each.shape[0] for each in inputs if each.shape}
    fixed = [size for size in sizes if isinstance(size, int)]
    return fixed[0] if len(sizes) == 1 and fixed else None
