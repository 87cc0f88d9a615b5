"""Bad graphs, each with exactly the finding that it deserves."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from tests.workers.exports.graphs import saved
from workers.exports.lint_rules import COSTS, Finding, Rule
from workers.exports.model_file import open_model
from workers.exports.qdq_lint import lint_qdq
from workers.models.onnx_names import name_nodes

CONSTANTS = """float s = {0.5}, float s2 = {0.25}, int8 z = {0}, float[2] ws = {0.5, 0.25}, int8[2] wz = {0, 0},
int8[2,2,1,1] w = {1,2,3,4}, float[2] b = {1,2}"""
CONV = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) f = DequantizeLinear<axis=0>(w, ws, wz)"


def lint(body: str, more: str = "") -> list[Finding]:

    text = f"""<ir_version: 8, opset_import: ["" : 18, "maker.example" : 1]>
    g (float[n,2,4,4] x, float t) => (float[n,2,4,4] y) <{CONSTANTS}{", " if more else ""}{more}> {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    name_nodes(model.graph)
    return list(lint_qdq(model, {}))


BAD = {
    "unsigned": (
        "q = QuantizeLinear(x, s, u) d = DequantizeLinear(q, s, u) f = DequantizeLinear<axis=0>(w, ws, wz) "
        "y = Conv(d, f)",
        "uint8 u = {0}",
        [(Rule.NOT_INT8, "QuantizeLinear_0")],
    ),
    "asymmetric": (
        "q = QuantizeLinear(x, s, u) d = DequantizeLinear(q, s, u) f = DequantizeLinear<axis=0>(w, ws, wz) "
        "y = Conv(d, f)",
        "int8 u = {3}",
        [(Rule.ASYMMETRIC, "QuantizeLinear_0")],
    ),
    "scale at run time": (
        "q = QuantizeLinear(x, t, z) d = DequantizeLinear(q, t, z) f = DequantizeLinear<axis=0>(w, ws, wz) "
        "y = Conv(d, f)",
        "",
        [(Rule.DYNAMIC_SCALE, "QuantizeLinear_0")],
    ),
    "scale of zero": (
        "q = QuantizeLinear(x, u, z) d = DequantizeLinear(q, u, z) f = DequantizeLinear<axis=0>(w, ws, wz) "
        "y = Conv(d, f)",
        "float u = {0}",
        [(Rule.BAD_SCALE, "QuantizeLinear_0")],
    ),
    "scales by channel on an activation": (
        "q = QuantizeLinear<axis=1>(x, ws, wz) d = DequantizeLinear<axis=1>(q, ws, wz) "
        "f = DequantizeLinear<axis=0>(w, ws, wz) y = Conv(d, f)",
        "",
        [(Rule.PER_CHANNEL_ACTIVATION, "QuantizeLinear_0")],
    ),
    "another scale back": (
        f"{CONV.replace('DequantizeLinear(q, s, z)', 'DequantizeLinear(q, s2, z)')} y = Conv(d, f)",
        "",
        [(Rule.MISMATCHED_PAIR, "DequantizeLinear_1")],
    ),
    "quantized twice with one scale": (
        f"{CONV} q2 = QuantizeLinear(x, s, z) d2 = DequantizeLinear(q2, s, z) a = Conv(d, f) e = Conv(d2, f) "
        "y = Sub(a, e)",
        "",
        [(Rule.REPEATED_PAIR, "QuantizeLinear_3")],
    ),
    "quantized with two scales": (
        f"{CONV} q2 = QuantizeLinear(x, s2, z) d2 = DequantizeLinear(q2, s2, z) a = Conv(d, f) e = Conv(d2, f) "
        "y = Sub(a, e)",
        "",
        [(Rule.SEVERAL_SCALES, "QuantizeLinear_3")],
    ),
    "quantized again": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) q2 = QuantizeLinear(d, s2, z) "
        "d2 = DequantizeLinear(q2, s2, z) f = DequantizeLinear<axis=0>(w, ws, wz) y = Conv(d2, f)",
        "",
        [(Rule.REQUANTIZE, "QuantizeLinear_2")],
    ),
    "one scale for a weight": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) f = DequantizeLinear(w, s, z) y = Conv(d, f)",
        "",
        [(Rule.PER_TENSOR_WEIGHT, "Conv_3")],
    ),
    "scales along the inputs of a weight": (
        f"{CONV.replace('axis=0', 'axis=1')} y = Conv(d, f)",
        "",
        [(Rule.WEIGHT_AXIS, "Conv_3")],
    ),
    "a weight in float32": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wq = QuantizeLinear<axis=0>(v, ws, wz) "
        "f = DequantizeLinear<axis=0>(wq, ws, wz) y = Conv(d, f)",
        "float[2,2,1,1] v = {1,2,3,4}",
        [(Rule.FLOAT_WEIGHT, "Conv_4")],
    ),
    "a bias in int32": (
        f"{CONV} bd = DequantizeLinear<axis=0>(i, ws, iz) y = Conv(d, f, bd)",
        "int32[2] i = {1,2}, int32[2] iz = {0,0}",
        [(Rule.QUANTIZED_BIAS, "Conv_4")],
    ),
    "a weight alone": (
        "f = DequantizeLinear<axis=0>(w, ws, wz) y = Conv(x, f)",
        "",
        [(Rule.HALF_QUANTIZED, "Conv_1")],
    ),
    "an input alone": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, v)",
        "float[2,2,1,1] v = {1,2,3,4}",
        [(Rule.HALF_QUANTIZED, "Conv_2")],
    ),
    "between a layer and its activation": (
        f"{CONV} c = Conv(d, f) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) y = Relu(cd)",
        "",
        [(Rule.SPLIT_FUSION, "Relu_6")],
    ),
    "between a layer and its batch norm": (
        f"{CONV} c = Conv(d, f) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) "
        "y = BatchNormalization(cd, b, b, b, b)",
        "",
        [(Rule.SPLIT_FUSION, "BatchNormalization_6")],
    ),
    "before a softmax": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Softmax(d)",
        "",
        [(Rule.NEEDLESS_PAIR, "Softmax_2")],
    ),
    "both branches of an addition": (
        f"{CONV} c = Conv(d, f) cq = QuantizeLinear(c, s2, z) cd = DequantizeLinear(cq, s2, z) y = Add(cd, d)",
        "",
        [(Rule.BOTH_BRANCHES, "Add_6")],
    ),
    "on an output": (
        f"{CONV} c = Conv(d, f) cq = QuantizeLinear(c, s, z) y = DequantizeLinear(cq, s, z)",
        "",
        [(Rule.OUTPUT_PAIR, "DequantizeLinear_5")],
    ),
    "branches with two scales": (
        f"{CONV} c = Relu(x) cq = QuantizeLinear(c, s2, z) cd = DequantizeLinear(cq, s2, z) j = Concat<axis=1>(d, cd) "
        "y = Sin(j)",
        "",
        [(Rule.REQUANTIZE, "Concat_6")],
    ),
    "a pool between two scales": (
        f"{CONV} a = Conv(d, f) p = MaxPool<kernel_shape=[1,1]>(x) pq = QuantizeLinear(p, s2, z) "
        "pd = DequantizeLinear(pq, s2, z) e = Conv(pd, f) y = Sub(a, e)",
        "",
        [(Rule.REQUANTIZE, "MaxPool_4")],
    ),
    "a plugin that gives out floating point": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) a = maker.example.Swirl(d) y = Sin(a)",
        "",
        [(Rule.PLUGIN_OUTPUT, "Swirl_2")],
    ),
    "no way in": (
        "a = Cast<to=3>(x) y = DequantizeLinear(a, s, z)",
        "",
        [(Rule.UNPAIRED, "DequantizeLinear_1"), (Rule.OUTPUT_PAIR, "DequantizeLinear_1")],
    ),
    "no way back": (
        "q = QuantizeLinear(x, s, z) y = Cast<to=1>(q)",
        "",
        [(Rule.UNPAIRED, "QuantizeLinear_0")],
    ),
}
GOOD = {
    "a layer and its activation": (f"{CONV} c = Conv(d, f, b) y = Relu(c)", ""),
    "a skip branch": (f"{CONV} c = Conv(d, f) y = Add(c, d)", ""),
    "both branches from elsewhere": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) r = Relu(x) rq = QuantizeLinear(r, s2, z) "
        "rd = DequantizeLinear(rq, s2, z) y = Add(d, rd)",
        "",
    ),
    "a branch that is read elsewhere too": (
        f"{CONV} c = Conv(d, f) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) a = Add(cd, d) e = Sin(c) "
        "y = Sub(a, e)",
        "",
    ),
    "an average pool": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = AveragePool<kernel_shape=[1,1]>(d)",
        "",
    ),
    "branches with one scale": (
        f"{CONV} c = Relu(x) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) j = Concat<axis=1>(d, cd) "
        "y = Sin(j)",
        "",
    ),
    "no pair at all": ("y = Relu(x)", ""),
    "a scale along the inputs of a transposed weight": (
        f"{CONV} y = ConvTranspose(d, f)",
        "",
    ),
    "one channel, one scale": (
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) f = DequantizeLinear(v, s, z) c = Conv(d, f) "
        "y = Concat<axis=1>(c, c)",
        "int8[1,2,1,1] v = {1,2}",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_graph_gives_exactly_its_finding(case: str) -> None:
    body, more, expected = BAD[case]
    found = lint(body, more)
    assert [(each.rule, each.node) for each in found] == expected
    assert all(each.why and each.tensor and each.cost for each in found)


@pytest.mark.parametrize("case", GOOD)
def test_a_good_graph_gives_none(case: str) -> None:
    assert lint(*GOOD[case]) == []


def test_every_rule_has_a_case_and_a_cost() -> None:
    assert {rule for _, _, expected in BAD.values() for rule, _ in expected} == set(Rule) == set(COSTS)


class Samples(CalibrationDataReader):
    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._rows = iter([{"x": generator.normal(size=(2, 2, 4, 4)).astype(np.float32)} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


def test_what_onnx_runtime_quantizes_is_found_wanting(tmp_path: Path) -> None:
    body = """g (float[n,2,4,4] x) => (float[n,2,4,4] y)
    <float[2,2,1,1] w = {1,2,3,4}, float[2,2,1,1] v = {4,3,2,-9}, float[2] b = {1,2}>
    { [first] a = Conv(x, w, b) [act] r = Sigmoid(a) [last] y = Conv(r, v) }"""
    target = tmp_path / "static.onnx"
    quantize_static(
        saved(tmp_path, body), target, Samples(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8
    )
    opened = open_model(target)
    rules = {each.rule for each in lint_qdq(opened.model, opened.weights)}
    assert rules >= {Rule.NOT_INT8, Rule.PER_TENSOR_WEIGHT, Rule.QUANTIZED_BIAS, Rule.SPLIT_FUSION, Rule.OUTPUT_PAIR}
