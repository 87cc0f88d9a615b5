"""A float16 graph in float32 arithmetic whose results are rounded to float16, one node at a time.

ONNX Runtime's CPU has hardly any float16 kernel. It computes such nodes in float32, and takes out the casts between
them and before them, so that nothing is rounded and nothing overflows. Casts that stand in the graph it keeps.
"""

import onnx

from workers.models.onnx_names import fresh_prefix
from workers.models.onnx_walk import all_names

HALF, SINGLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


def round_halves(model: onnx.ModelProto) -> None:
    """Change the graph in place: a node that reads float16 computes in float32, and its result is rounded.

    Inner graphs are left alone. Sums inside one node are not rounded, as on GPUs that add up in float32.
    """
    graph = model.graph
    prefix = fresh_prefix(all_names(graph), "rounded/")
    halves = {each.name for each in graph.initializer if each.data_type == HALF}
    singles: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    def cast(source: str, result: str, kind: int) -> None:
        name = f"{prefix}{result}_Cast"
        nodes.append(onnx.helper.make_node("Cast", [source], [result], name=name, to=kind))

    def single(tensor: str) -> str:
        if tensor not in singles:
            singles[tensor] = f"{prefix}{tensor}_single"
            cast(tensor, singles[tensor], SINGLE)
        return singles[tensor]

    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.op_type == "Cast":
            nodes.append(node)
            if onnx.helper.get_node_attr_value(node, "to") == HALF:
                halves.update(node.output)
            continue
        if halves.isdisjoint(node.input):
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name in halves:
                node.input[index] = single(name)
        results = list(node.output)
        for index, name in enumerate(results):
            node.output[index] = f"{prefix}{name}_exact"
        nodes.append(node)
        for name in results:
            cast(f"{prefix}{name}_exact", name, HALF)
        halves.update(results)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # the types of what was renamed
