"""The form of a graph that ONNX Runtime has integer kernels for, by what the runtime makes of it."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.workers.exports.graphs import opened, ranges, saved
from workers.exports.integer_form import IntegerForm, integer_form, tensors_behind
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_onnx import export_qdq

RESIDUAL = """g (float[n,2,8,8] x) => (float[n,3] y)
<float[2,2,3,3] w, float[2,2,3,3] v, float[3,2] f> {
  [first] a = Conv <pads = [1,1,1,1]> (x, w)
  [relu] b = Relu(a)
  [second] c = Conv <pads = [1,1,1,1]> (b, v)
  [skip] d = Add(c, b)
  [clip] e = Relu(d)
  [pool] p = GlobalAveragePool(e)
  [flat] q = Flatten(p)
  [head] y = Gemm <transB = 1> (q, f)
}"""
MAX_POOLED = """g (float[n,2,8,8] x) => (float[n,2,4,4] y)
<float[2,2,1,1] w, float[2,2,1,1] v> {
  [first] a = Conv(x, w)
  [pool] p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)
  [last] y = Conv(p, v)
}"""
EARLY_READER = """g (float[n,2,8,8] x) => (float[n,2,8,8] y)
<float[2,2,1,1] w> {
  [other] s = Sigmoid(x)
  [first] a = Conv(x, w)
  [gate] y = Mul(a, s)
}"""


def filled(path: Path) -> Path:
    """What the text only declares are weights; they get values."""
    model = onnx.load(path)
    generator = np.random.default_rng(0)
    for each in model.graph.value_info:
        shape = tuple(size.dim_value for size in each.type.tensor_type.shape.dim)
        values = generator.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, each.name))
    del model.graph.value_info[:]
    onnx.save(model, path)
    return path


def made(folder: Path, body: str, fallback: tuple[str, ...] = ()) -> IntegerForm:
    program, found = opened(filled(saved(folder, body)))
    behind = dict.fromkeys(tensors_behind(program.skeleton.graph, found), 6.0)
    return integer_form(export_qdq(program, found, ranges(found), fallback=fallback), found, behind)


def kernels(folder: Path, form: IntegerForm) -> Counter[str]:
    """The operators that ONNX Runtime runs."""
    (path,) = write_onnx(folder / "form.onnx", form.model, form.weights)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def test_a_residual_network_runs_in_integer_kernels_from_end_to_end(tmp_path: Path) -> None:
    found = kernels(tmp_path, made(tmp_path, RESIDUAL))
    assert {"QLinearConv": 2, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}.items() <= found.items()
    assert not found.keys() & {"Conv", "FusedConv", "Add", "Relu", "GlobalAveragePool", "Gemm"}
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)  # the input's and the output's


def test_the_graph_as_it_deploys_does_not(tmp_path: Path) -> None:
    program, found = opened(filled(saved(tmp_path, RESIDUAL)))
    export = export_qdq(program, found, ranges(found))
    assert kernels(tmp_path, IntegerForm(export.model, export.weights))["QLinearConv"] == 0


def test_a_pool_by_maximum_stays_in_integers(tmp_path: Path) -> None:
    found = kernels(tmp_path, made(tmp_path, MAX_POOLED))
    assert found["MaxPool"] + found["NhwcMaxPool"] == 1
    assert (found["QLinearConv"], found["QuantizeLinear"], found["DequantizeLinear"]) == (2, 1, 1)


def test_a_pair_stands_before_all_that_read_it(tmp_path: Path) -> None:
    form = made(tmp_path, EARLY_READER)
    write_onnx(tmp_path / "form.onnx", form.model, form.weights)  # the checker wants nodes in order
    (sigmoid,) = (node for node in form.model.graph.node if node.op_type == "Sigmoid")
    assert sigmoid.input[0] != "x"


def test_layers_in_floating_point_have_no_quantizer_behind_them(tmp_path: Path) -> None:
    found = kernels(tmp_path, made(tmp_path, RESIDUAL, fallback=("second", "skip")))
    assert found["QLinearConv"] == 1
    assert found["QLinearAdd"] == 0


@pytest.mark.parametrize(("body", "shape"), [(RESIDUAL, (4, 2, 8, 8)), (MAX_POOLED, (4, 2, 8, 8))])
def test_it_computes_the_same_network(tmp_path: Path, body: str, shape: tuple[int, ...]) -> None:
    path = filled(saved(tmp_path, body))
    feeds = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    program, found = opened(path)
    behind = dict.fromkeys(tensors_behind(program.skeleton.graph, found), 30.0)
    form = integer_form(export_qdq(program, found, ranges(found, 30.0)), found, behind)
    (written,) = write_onnx(tmp_path / "form.onnx", form.model, form.weights)
    expected, given = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for each in (path, written)
    )
    # 30 / 127 is coarse for these values: the test is that nothing is wired wrongly
    assert np.corrcoef(expected.ravel(), given.ravel())[0, 1] > 0.97
