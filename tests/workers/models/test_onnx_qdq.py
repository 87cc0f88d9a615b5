"""The graph of a variant: which edges change, which do not."""

from pathlib import Path

import numpy as np
import onnx

from workers.models.onnx_graph import OnnxProgram, read_onnx
from workers.models.onnx_layers import Found, LayerFinder
from workers.models.onnx_qdq import insert_qdq, quantized_weight

SIBLINGS = """g (float[n,2,4,4] x) => (float[n,2,4,4] y, float[n,2,4,4] z) <float[2,2,1,1] w = {1,2,3,4}>
{ [first] y = Conv(x, w) [second] z = Conv(x, w) }"""


def opened(folder: Path, body: str) -> tuple[OnnxProgram, list[Found]]:
    path = folder / "m.onnx"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{body}'), path)
    program = read_onnx(path, fuse_bn=True)
    return program, LayerFinder(program).find()


def test_a_sibling_keeps_the_tensor_and_the_shared_weight(tmp_path: Path) -> None:
    program, found = opened(tmp_path, SIBLINGS)
    before = program.skeleton.SerializeToString()
    made = insert_qdq(program.skeleton, found[1:], {"second:0": 127.0})
    nodes = {node.name: node for node in made.model.graph.node}
    assert list(nodes["first"].input) == ["x", "w"]
    assert list(nodes["second"].input) == ["int8/second/0_dq", "int8/second/weight"]
    assert made.weights == {"int8/second/weight": "second"}
    assert program.skeleton.SerializeToString() == before


def test_no_layer_in_int8_is_the_graph_itself(tmp_path: Path) -> None:
    program, _ = opened(tmp_path, SIBLINGS)
    assert insert_qdq(program.skeleton, [], {}).model == program.skeleton


def test_both_edges_of_a_square_are_quantized_apart(tmp_path: Path) -> None:
    program, found = opened(tmp_path, "g (float[n,3,3] x) => (float[n,3,3] y) { [sq] y = MatMul(x, x) }")
    made = insert_qdq(program.skeleton, found, {"sq:0": 1.0, "sq:1": 2.0})
    scales = {each.name: onnx.numpy_helper.to_array(each) for each in made.model.graph.initializer}
    assert scales["int8/sq/0_scale"] == np.float32(1 / 127)
    assert scales["int8/sq/1_scale"] == np.float32(2 / 127)
    assert scales["int8/sq/0_zero"].dtype == np.int8


def test_new_names_avoid_those_in_use(tmp_path: Path) -> None:
    program, found = opened(tmp_path, SIBLINGS.replace("[first] y", "[first] y").replace("x", '"int8/second/0_q"'))
    made = insert_qdq(program.skeleton, found, {"first:0": 1.0, "second:0": 1.0})
    outputs = [name for node in made.model.graph.node for name in node.output]
    assert len(outputs) == len(set(outputs))
    assert "int8/second/0_q" not in outputs


def test_weights_are_quantized_per_output_channel_or_as_one(tmp_path: Path) -> None:
    body = "g (float[n,2] x) => (float[n,2] y) <float[2,2] w = {127, 0.3, -63.4, 1.27}> { y = MatMul(x, w) }"
    _, (found,) = opened(tmp_path, body)
    # columns are the output channels: scales 1 and 0.01
    np.testing.assert_allclose(quantized_weight(found, per_channel=True), [[127, 0.3], [-63, 1.27]], rtol=1e-6)
    np.testing.assert_allclose(quantized_weight(found, per_channel=False), [[127, 0], [-63, 1]], rtol=1e-6)
