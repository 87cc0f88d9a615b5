"""Which nodes are layers, what they are called, and which of their inputs are quantized."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.layers import Operation
from workers.models.onnx_graph import read_onnx
from workers.models.onnx_layers import Found, LayerFinder

IMAGE = "float[n,2,4,4]"


def finder_of(folder: Path, body: str, opset: int = 18) -> LayerFinder:
    text = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n{body}'
    # the outputs' types need not be written: shape inference adds them
    return finder_of_model(folder, onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))


def finder_of_model(folder: Path, model: onnx.ModelProto) -> LayerFinder:
    path = folder / "m.onnx"
    onnx.save(model, path)
    return LayerFinder(read_onnx(path, fuse_bn=True))


def found_in(folder: Path, body: str, opset: int = 18) -> list[Found]:
    return finder_of(folder, body, opset).find()


WEIGHTED = {
    "Conv": (f"{IMAGE} x", "float[2,2,1,1] w = {1,2,3,4}", "y = Conv(x, w)", Operation.CONV, (0,), 0, 64),
    "ConvTranspose": (
        f"{IMAGE} x",
        "float[2,3,1,1] w = {1,2,3,4,5,6}",
        "y = ConvTranspose(x, w)",
        Operation.CONV_TRANSPOSE,
        (0,),
        1,
        96,
    ),
    "ConvTranspose in groups": (
        f"{IMAGE} x",
        "float[2,1,1,1] w = {1,2}",
        "y = ConvTranspose <group = 2> (x, w)",
        Operation.CONV_TRANSPOSE,
        (0,),
        None,
        32,
    ),
    "Gemm": ("float[n,2] x", "float[2,3] w = {1,2,3,4,5,6}", "y = Gemm(x, w)", Operation.LINEAR, (0,), 1, 6),
    "Gemm transB": (
        "float[n,2] x",
        "float[3,2] w = {1,2,3,4,5,6}",
        "y = Gemm <transB = 1> (x, w)",
        Operation.LINEAR,
        (0,),
        0,
        6,
    ),
    "MatMul, weight right": (
        "float[n,5,2] x",
        "float[2,3] w = {1,2,3,4,5,6}",
        "y = MatMul(x, w)",
        Operation.LINEAR,
        (0,),
        -1,
        30,
    ),
    "MatMul, weight left": (
        "float[n,2,5] x",
        "float[3,2] w = {1,2,3,4,5,6}",
        "y = MatMul(w, x)",
        Operation.LINEAR,
        (1,),
        -2,
        30,
    ),
    "MatMul by a vector": ("float[n,2] x", "float[2] w = {1,2}", "y = MatMul(x, w)", Operation.LINEAR, (0,), None, 2),
}


@pytest.mark.parametrize("opset", [13, 18, 22])
@pytest.mark.parametrize(
    ("inputs", "constant", "node", "operation", "operands", "axis", "macs"), WEIGHTED.values(), ids=WEIGHTED.keys()
)
def test_weighted_operations(
    tmp_path: Path,
    opset: int,
    inputs: str,
    constant: str,
    node: str,
    operation: Operation,
    operands: tuple[int, ...],
    axis: int | None,
    macs: int,
) -> None:
    (found,) = found_in(tmp_path, f"g ({inputs}) => (y) <{constant}> {{ {node} }}", opset)
    assert found.layer.op is operation
    assert found.operands == operands
    assert found.weight is not None
    assert found.weight[2] == axis
    assert found.layer.macs == macs
    assert found.layer.weight_bytes == 4 * found.weight[1].size


def edges(found: list[Found]) -> dict[str, tuple[int, ...]]:
    return {each.layer.op.value: each.operands for each in found}


def test_a_product_of_activations_has_two_edges_and_no_weight(tmp_path: Path) -> None:
    (found,) = found_in(tmp_path, "g (float[n,3,4] a, float[n,4,5] b) => (y) { [p] y = MatMul(a, b) }")
    assert found.layer.op is Operation.MATMUL
    assert found.layer.activations == ("p:0", "p:1")
    assert found.layer.weight is None
    assert found.layer.macs == 60
    assert found.layer.output_shape == (3, 5)


def test_matmul_and_its_bias_are_one_layer(tmp_path: Path) -> None:
    body = "g (float[n,5,2] x) => (y) <float[2,2] w = {1,2,3,4}, float[2] b = {1,2}> { p = MatMul(x, w) y = Add(p, b) }"
    assert [each.layer.op for each in found_in(tmp_path, body)] == [Operation.LINEAR]


VIEWS = {
    "Constant node": "w = Constant <value = float[2,2] {1,2,3,4}> () y = MatMul(x, w)",
    "Constant of floats": "w = Constant <value_floats = [1.0, 2.0]> () y = MatMul(x, w)",
    "Identity": "w = Identity(k) y = MatMul(x, w)",
    "Transpose": "w = Transpose <perm = [1, 0]> (k) y = MatMul(x, w)",
    "chain": "a = Identity(k) b = Transpose(a) w = Identity(b) y = MatMul(x, w)",
    "Split": "w, other = Split <axis = 1> (k2, s) y = MatMul(x, w)",
}


@pytest.mark.parametrize("nodes", VIEWS.values(), ids=VIEWS.keys())
def test_a_view_of_a_constant_is_a_weight(tmp_path: Path, nodes: str) -> None:
    constants = "float[2,2] k = {1,2,3,4}, float[2,4] k2 = {1,2,3,4,5,6,7,8}, int64[2] s = {2,2}"
    (found,) = found_in(tmp_path, f"g (float[n,2] x) => (y) <{constants}> {{ {nodes} }}")
    assert found.layer.op is Operation.LINEAR
    assert found.weight is not None


def test_a_transposed_weight_has_its_value_as_the_node_reads_it(tmp_path: Path) -> None:
    body = "g (float[n,2] x) => (y) <float[3,2] k = {1,2,3,4,5,6}> { w = Transpose(k) y = MatMul(x, w) }"
    (found,) = found_in(tmp_path, body)
    assert found.weight is not None
    assert found.weight[1].tolist() == [[1, 3, 5], [2, 4, 6]]
    assert found.layer.weight == "k"


ADDS = {
    "skip beside a convolution": ("c = Conv(x, w) y = Add(c, x)", (1,)),
    "convolution on the right": ("c = Conv(x, w) y = Add(x, c)", (0,)),
    "two convolutions: the later is fused": ("a = Conv(x, w) b = Conv(x, w) y = Add(b, a)", (1,)),
    "convolution read twice": ("c = Conv(x, w) z = Relu(c) y = Add(c, x)", (0, 1)),
    "neither from a layer": ("a = Relu(x) b = MaxPool <kernel_shape = [1, 1]> (x) y = Add(a, b)", (0, 1)),
    "element-wise functions of one tensor": ("a = Tanh(x) y = Add(a, x)", None),
    "a constant": ("y = Add(x, k)", None),
    "broadcast": ("a = GlobalAveragePool(x) y = Add(a, x)", None),
}


@pytest.mark.parametrize(("nodes", "operands"), ADDS.values(), ids=ADDS.keys())
def test_residual_adds(tmp_path: Path, nodes: str, operands: tuple[int, ...] | None) -> None:
    body = f"g ({IMAGE} x) => (y) <float[2,2,1,1] w = {{1,2,3,4}}, float[1] k = {{1}}> {{ {nodes} }}"
    assert edges(found_in(tmp_path, body)).get("Add") == operands


def test_an_add_of_unknown_rank_is_skipped_with_a_reason(tmp_path: Path) -> None:
    nodes = "a = Reshape(x, s) b = Softmax(a) y = Add(a, b)"
    finder = finder_of(tmp_path, f"g ({IMAGE} x, int64[k] s) => (float[n] y) {{ {nodes} p = GlobalAveragePool(x) }}")
    assert [each.layer.op for each in finder.find()] == [Operation.AVERAGE_POOL]
    assert "not known" in finder.skipped[0].reason


POOLS = {
    "AveragePool": ("AveragePool <kernel_shape = [2, 2]> (x)", True),
    "GlobalAveragePool": ("GlobalAveragePool(x)", True),
    "mean over all positions": ("ReduceMean <keepdims = 1> (x, hw)", True),
    "mean that drops the axes": ("ReduceMean <keepdims = 0> (x, hw)", False),
    "mean over channels": ("ReduceMean <keepdims = 1> (x, c)", False),
    "MaxPool": ("MaxPool <kernel_shape = [2, 2]> (x)", False),
}


@pytest.mark.parametrize(("node", "is_layer"), POOLS.values(), ids=POOLS.keys())
def test_average_pools(tmp_path: Path, node: str, is_layer: bool) -> None:
    constants = "int64[2] hw = {-1, -2}, int64[1] c = {1}"
    found = found_in(tmp_path, f"g ({IMAGE} x) => (y) <{constants}> {{ y = {node} }}")
    assert [each.layer.op for each in found] == ([Operation.AVERAGE_POOL] if is_layer else [])


def test_layers_inside_control_flow_are_skipped_with_a_reason(tmp_path: Path) -> None:
    body = f"""g (bool c, {IMAGE} x) => (y) <float[2,2,1,1] w = {{1,2,3,4}}> {{
        z = Conv(x, w)
        [choice] y = If (c) <then_branch = t () => ({IMAGE} a) {{ [inner] a = Conv(z, w) }},
                    else_branch = e () => ({IMAGE} b) {{ b = Relu(z) }}> }}"""
    finder = finder_of(tmp_path, body)
    assert len(finder.find()) == 1
    assert [(each.id, "If" in each.reason) for each in finder.skipped] == [("choice/inner", True)]


def test_integer_products_are_skipped_with_a_reason(tmp_path: Path) -> None:
    finder = finder_of(tmp_path, "g (int64[n,2] a, int64[2,2] b) => (y) { [p] y = MatMul(a, b) }")
    assert finder.find() == []
    assert [(each.id, "float32" in each.reason) for each in finder.skipped] == [("p", True)]


def test_unnamed_and_equally_named_nodes_get_names_of_their_own(tmp_path: Path) -> None:
    nodes = "[same] a = Conv(x, w) [same] b = Conv(a, w) [Conv_0] c = Conv(b, w) y = Conv(c, w)"
    found = found_in(tmp_path, f"g ({IMAGE} x) => (y) <float[2,2,1,1] w = {{1,2,3,4}}> {{ {nodes} }}")
    ids = [each.layer.id for each in found]
    assert ids == ["Conv_0_", "Conv_1", "Conv_0", "Conv_3"]
    assert len({each.layer.name for each in found}) == 4


SCOPED = {
    "weight's own name": ("layer1.0.conv1.weight", None, "layer1.0.conv1"),
    "weight's name before the scope": ("a.weight", "['', 'b', 'x']", "a"),
    "scope": ("val_1", "['', 'b', 'b.0', 'b.0.q', 'linear_1']", "b.0.q"),
    "node name": ("val_1", None, "node"),
    "only the ending": (".weight", None, "node"),
    "code is no scope": ("val_1", "__import__('os').getcwd()", "node"),
    "not a list": ("val_1", "{'a': 1}", "node"),
    "deeply nested": ("val_1", "[" * 5000, "node"),
    "hostile path": ("val_1", "['', '<script>', 'n']", "<script>"),
}


@pytest.mark.parametrize(("weight", "scopes", "name"), SCOPED.values(), ids=SCOPED.keys())
def test_a_layer_is_called_by_its_module_path(tmp_path: Path, weight: str, scopes: str | None, name: str) -> None:
    node = onnx.helper.make_node("MatMul", ["x", weight], ["y"], "node")
    if scopes is not None:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("x", floats, ["n", 2])],
        [onnx.helper.make_tensor_value_info("y", floats, ["n", 2])],
        [onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), weight)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    (found,) = finder_of_model(tmp_path, model).find()
    assert found.layer.name == name
    assert found.layer.id == "node"


def test_operations_without_weights_are_called_after_their_module(tmp_path: Path) -> None:
    text = (
        "g (float[n,3,3] a, float[n,3,3] b) => (y) { [p] c = MatMul(a, b) [q] d = MatMul(c, b) [r] y = MatMul(d, b) }"
    )
    model = onnx.shape_inference.infer_shapes(
        onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 18]>\n{text}')
    )
    for node, path in zip(model.graph.node, ("b.0", "b.0", "b.1"), strict=True):
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'b', {path!r}, 'n']")
    names = [each.layer.name for each in finder_of_model(tmp_path, model).find()]
    assert names == ["b.0.matmul", "b.0.matmul_1", "b.1.matmul"]


def test_a_long_chain_of_additions_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    chain = " ".join(f"t{index + 1} = Add(t{index}, t{index})" for index in range(3000))
    body = f"g ({IMAGE} x) => ({IMAGE} y) {{ t0 = Relu(x) {chain} p = GlobalAveragePool(x) y = Add(t3000, x) }}"
    assert [each.layer.op for each in found_in(tmp_path, body)] == [Operation.AVERAGE_POOL]
