"""ONNX models that are meant to break whoever opens them."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.small_network import CHANNELS, SIDE, network

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    initializers: Sequence[TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "g", [X], [Y], list(initializers))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=9)
    return bytes(made.SerializeToString())


def linear(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [source, "w"], [target], f"to_{target}")


WEIGHT = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")


def cyclic() -> bytes:
    return model(
        [linear("x", "a"), helper.make_node("Add", ["a", "y"], ["b"]), helper.make_node("Relu", ["b"], ["y"])],
        initializers=[WEIGHT],
    )


def many_nodes(count: int = 10**5) -> bytes:
    """A chain, written out as bytes, since so many objects would take seconds."""
    chain = b"".join(_identity(f"t{index}", f"t{index + 1}") for index in range(count))
    frame = model([linear("x", "t0"), helper.make_node("Relu", [f"t{count}"], ["y"])], initializers=[WEIGHT])
    whole = onnx.ModelProto.FromString(frame)
    graph = whole.graph.SerializeToString()
    whole.ClearField("graph")
    return bytes(whole.SerializeToString()) + _field(7, graph + chain)


def _identity(source: str, target: str) -> bytes:
    return _field(1, _field(1, source.encode()) + _field(2, target.encode()) + _field(4, b"Identity"))


def _field(number: int, content: bytes) -> bytes:
    length, size = bytearray(), len(content)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def function(name: str, calls: Sequence[str]) -> onnx.FunctionProto:
    nodes, source = [], "i"
    for index, each in enumerate(calls):
        domain = "own" if each.startswith("f") else ""
        nodes.append(helper.make_node(each, [source], [f"t{index}"], domain=domain))
        source = f"t{index}"
    nodes.append(helper.make_node("Identity", [source], ["o"]))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["i"], ["o"], nodes, opsets)


def calling(functions: Sequence[onnx.FunctionProto]) -> bytes:
    call = helper.make_node("f0", ["a"], ["y"], domain="own")
    return model([linear("x", "a"), call], initializers=[WEIGHT], functions=functions)


def recursive_function() -> bytes:
    return calling([function("f0", ["f1"]), function("f1", ["f0"])])


def billion_laughs() -> bytes:
    """Thirty functions, each of which calls the next one ten times."""
    return calling([*(function(f"f{index}", [f"f{index + 1}"] * 10) for index in range(30)), function("f30", ["Relu"])])


def lying_initializer(dims: Sequence[int]) -> bytes:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 64)
    return model([linear("x", "y")], initializers=[weight])


def huge_constant() -> bytes:
    """Eight bytes of shape that a runtime folds into four terabytes."""
    shape = numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        linear("x", "a"),
        helper.make_node("Add", ["a", "sum"], ["y"]),
    ]
    return model(nodes, initializers=[WEIGHT, shape])


def doubling_subgraphs(depth: int = 17) -> bytes:
    """An If whose two branches hold an If whose two branches …, by the thousand."""
    inner = [helper.make_node("Identity", ["x"], ["out"])]
    for _ in range(depth):
        graph = helper.make_graph(inner, "s", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
        inner = [helper.make_node("If", ["c"], ["out"], then_branch=graph, else_branch=graph)]
    condition = numpy_helper.from_array(np.array(True), "c")
    nodes = [linear("x", "a"), *inner, helper.make_node("Add", ["a", "out"], ["y"])]
    return model(nodes, initializers=[WEIGHT, condition])


def renamed(change: Callable[[str], str]) -> bytes:
    """The small network under other names of its nodes."""
    made = network()
    for node in made.graph.node:
        node.name = change(node.name)
    return bytes(made.SerializeToString())


def with_values(value: float) -> bytes:
    """The small network with one value in the weight of its convolution."""
    weight = np.ones((16, CHANNELS, 3, 3), np.float32)
    weight[0, 0, 0, 0] = value
    assert SIDE == 8
    return bytes(network(weights={"conv.weight": weight}).SerializeToString())
