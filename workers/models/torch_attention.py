"""Writes fused attention out as matmul, softmax, matmul, so that both products are layers of their own."""

import math
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def expand_attention(module: fx.GraphModule) -> int:
    """Replace each scaled_dot_product_attention in place; how many there were."""
    graph, count = module.graph, 0
    for node in list(graph.nodes):
        if node.target is aten.scaled_dot_product_attention.default and not node.kwargs.get("enable_gqa", False):
            _expand(graph, node)
            count += 1
    return count


def add_causal_mask(scores: torch.Tensor) -> torch.Tensor:
    """Hide later positions: scores (..., L, S) with -inf above the diagonal."""
    rows, columns = scores.shape[-2:]
    mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(mask, -math.inf)


def add_mask(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Apply an attention mask: boolean ones say which positions take part, others are added."""
    return scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask


def _expand(graph: fx.Graph, node: fx.Node) -> None:
    query, key, value = node.args[:3]
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    causal = node.args[5] if len(node.args) > 5 else node.kwargs.get("is_causal", False)
    scale = node.kwargs.get("scale")
    assert isinstance(query, fx.Node)
    if scale is None:
        scale = 1.0 / math.sqrt(int(query.meta["val"].shape[-1]))

    def emit(function: Any, *args: Any) -> fx.Node:
        made = graph.call_function(function, args)
        made.meta = {key: node.meta[key] for key in ("nn_module_stack", "stack_trace") if key in node.meta}
        values = [each.meta["val"] if isinstance(each, fx.Node) else each for each in args]
        with query.meta["val"].fake_mode:
            made.meta["val"] = function(*values)
        return made

    with graph.inserting_before(node):
        scores = emit(aten.matmul.default, query, emit(aten.transpose.int, key, -2, -1))
        scores = emit(aten.mul.Tensor, scores, scale)
        if causal:
            scores = emit(add_causal_mask, scores)
        if mask is not None:
            scores = emit(add_mask, scores, mask)
        # rows that the mask hides entirely become zeros, as in the fused operation
        weights = emit(aten._safe_softmax.default if mask is not None else aten.softmax.int, scores, -1)
        product = emit(aten.matmul.default, weights, value)
    node.replace_all_uses_with(product)
    graph.erase_node(node)
