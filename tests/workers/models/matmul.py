"""The smallest ONNX model with a weight."""

import onnx
from onnx import TensorProto, helper


def matmul_model(weight: TensorProto) -> onnx.ModelProto:
    """y = x · fc.weight, for a weight of 64 × 64 by that name."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "fc.weight"], ["y"], "fc")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
