"""Batch norms are folded exactly, and left alone where folding would change something else."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from workers.models.onnx_batch_norm import fold_batch_norms

NORM = "float[2] g = {1.5, -0.5}, float[2] b = {0.1, 0.2}, float[2] m = {0.3, -0.4}, float[2] v = {2.0, 0.5}"
MAKERS = {
    "Conv": ("float[n,2,4,4] x", "float[2,2,1,1] w = {1, 2, 3, 4}", "c = Conv(x, w)"),
    "Conv with bias": ("float[n,2,4,4] x", "float[2,2,1,1] w = {1, 2, 3, 4}, float[2] k = {1, 2}", "c = Conv(x, w, k)"),
    "ConvTranspose": ("float[n,2,4,4] x", "float[2,2,1,1] w = {1, 2, 3, 4}", "c = ConvTranspose(x, w)"),
    "Gemm": ("float[n,2] x", "float[2,2] w = {1, 2, 3, 4}", "c = Gemm(x, w)"),
    "Gemm transB": ("float[n,2] x", "float[2,2] w = {1, 2, 3, 4}", "c = Gemm <transB = 1> (x, w)"),
}


def parsed(inputs: str, constants: str, nodes: str, outputs: str = "float[n,...] y") -> onnx.ModelProto:
    rank = "n,2,4,4" if "4,4" in inputs else "n,2"
    outputs = outputs.replace("n,...", rank)
    text = f'<ir_version: 8, opset_import: ["" : 18]> net ({inputs}) => ({outputs}) <{constants}, {NORM}> {{ {nodes} }}'
    return onnx.parser.parse_model(text)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(("inputs", "constants", "maker"), MAKERS.values(), ids=MAKERS.keys())
def test_folding_keeps_the_outputs(inputs: str, constants: str, maker: str) -> None:
    model = parsed(inputs, constants, f"{maker} y = BatchNormalization(c, g, b, m, v)")
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4) if "4,4" in inputs else (3, 2)).astype(np.float32)
    before = run(model, x)
    assert fold_batch_norms(model.graph) == 1
    assert [node.op_type for node in model.graph.node] == [maker.split(" = ")[1].split("(")[0].split()[0]]
    # one float32 rounding of weight and bias
    np.testing.assert_allclose(run(model, x), before, rtol=1e-5, atol=1e-5)
    assert fold_batch_norms(model.graph) == 0


KEPT = {
    "output read elsewhere": "c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) z = Relu(c)",
    "shared weight": "c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) z = Conv(x, w)",
    "read inside a branch": "c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) t = Constant <value = bool {1}> () "
    "z = If (t) <then_branch = p () => (float[n,2,4,4] q) { q = Relu(c) },"
    " else_branch = r () => (float[n,2,4,4] s) { s = Identity(x) }>",
}


@pytest.mark.parametrize("nodes", KEPT.values(), ids=KEPT.keys())
def test_a_norm_stays_where_folding_would_change_another_reader(nodes: str) -> None:
    outputs = "float[n,2,4,4] y, float[n,2,4,4] z"
    model = parsed("float[n,2,4,4] x", "float[2,2,1,1] w = {1, 2, 3, 4}", nodes, outputs)
    assert fold_batch_norms(model.graph) == 0


def test_the_new_bias_takes_no_name_in_use(tmp_path: Path) -> None:
    nodes = "w_folded_bias = Relu(x) c = Conv(w_folded_bias, w) y = BatchNormalization(c, g, b, m, v)"
    model = parsed("float[n,2,4,4] x", "float[2,2,1,1] w = {1, 2, 3, 4}", nodes)
    assert fold_batch_norms(model.graph) == 1
    onnx.checker.check_model(model)
