"""Reads a torch.export archive into a graph that runs, with the attributes of its nodes at hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from service.domain.errors import RejectedFile, first_line
from service.domain.layers import TensorSpec
from workers.models.torch_attention import expand_attention
from workers.models.torch_batch_norm import fold_batch_norms
from workers.models.torch_functional import functional_module

HOW = "export the model with torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"


@dataclass(frozen=True)
class TorchProgram:
    """A graph that takes ``inputs`` in order and gives ``outputs``; ``batch_size`` None where the batch is free."""

    module: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_size: int | None
    folded_batch_norms: int


def read_archive(path: Path, *, fuse_bn: bool, device: str = "cpu") -> TorchProgram:
    """Open the archive. It can run code: call this only in a process that may be lost. Raises RejectedFile."""
    try:
        exported = torch.export.load(path)
        _refuse_training(exported.graph)
        module = functional_module(exported, torch.device(device))
    except RejectedFile:
        raise
    except Exception as error:  # the archive decides what is raised here
        raise RejectedFile(f"torch.export cannot load this archive: {first_line(error, most=300)}; {HOW}") from error
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


def _refuse_training(graph: fx.Graph) -> None:
    for node in graph.nodes:
        name = str(node.target)
        if name.startswith("aten.batch_norm.") and node.args[5] is True and node.args[3] is None:
            raise RejectedFile(
                f"batch norm {node.name} keeps no running statistics, so that outputs depend on the rest of the batch; "
                "train it with track_running_stats=True"
            )
        training = name.startswith("aten.batch_norm.") and node.args[5] is True
        training |= name.startswith("aten.dropout.") and node.args[2] is True
        training |= name.startswith("aten.native_dropout.") and node.args[2] is not False
        training |= name.startswith("aten.scaled_dot_product_attention.") and _dropout(node) != 0
        if training or name.startswith("aten._native_batch_norm_legit.default"):
            raise RejectedFile(
                f"the archive was exported in training mode (node {node.name}); call model.eval() first: {HOW}"
            )


def _dropout(attention: fx.Node) -> Any:
    return attention.args[4] if len(attention.args) > 4 else attention.kwargs.get("dropout_p", 0.0)


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
    tree = pytree.tree_unflatten(list(range(count)), spec)
    paths, _ = pytree.tree_flatten_with_path(tree)
    if count == 1 and all(hasattr(part, "idx") for part in paths[0][0]):
        return ["output"]
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
