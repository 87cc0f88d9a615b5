"""What the nodes of graphs that ONNX Runtime optimized compute, on hand-made graphs and on real ones."""

import onnx
import pytest

from service.domain.layers import Layer, Operation
from workers.models.onnx_kernels import Owner, Role, computes_in_integers, kernel_owners
from workers.models.onnx_layers import Found

GIVEN = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n,2,4,4] x) => (float[n,2,4,4] y, float[n,2,4,4] z)
<float[2,2,1,1] w = {1,2,3,4}, float[2,1,1] bias = {1,2}> {
  [one] a = Conv(x, w) [act] b = Relu(a) [two] c = Conv(b, w) [join] d = Add(c, x) [end] y = Relu(d)
  [soft] s = Softmax(y) [third] m = Conv(s, w) [biased] z = Add(m, bias)
}"""


def found(*names: str) -> list[Found]:
    operations = {"join": Operation.ADD}
    return [
        Found(
            Layer(
                id=name,
                name=name,
                op=operations.get(name, Operation.CONV),
                activations=(),
                macs=0 if name == "join" else 9,
            ),
            node=name,
            operands=(0,),
        )
        for name in names
    ]


def graph(nodes: str, given: str = GIVEN) -> onnx.GraphProto:
    head, _, _ = given.partition("{\n")
    return onnx.parser.parse_model(f"{head} {{ {nodes} }}").graph


def owners(nodes: str, *layers: str) -> dict[str, Owner]:
    return kernel_owners(onnx.parser.parse_model(GIVEN).graph, graph(nodes), found(*layers))


@pytest.mark.parametrize(
    "nodes",
    [
        "[any] b = FusedConv(x, w)",
        "[one] fresh = Conv(x, w)",
        "[one_token_12] fresh = Conv(x, w)",
        '[b_nchwc] reorder = com.microsoft.nchwc.Conv <activation = "Relu"> (x, w)',
        "[b_nchwc_token_3] reorder = com.microsoft.nchwc.Conv (x, w)",
    ],
    ids=["by its tensor", "by its name", "by its name with a number", "in blocks", "in blocks, with a number"],
)
def test_a_node_is_found_under_another_name(nodes: str) -> None:
    (owner,) = owners(nodes, "one").values()
    assert owner == Owner(Role.LAYER, ("one",))


def test_a_fused_addition_belongs_to_the_kernel_behind_whose_name_it_was_fused() -> None:
    nodes = """[b_nchwc] r0 = com.microsoft.nchwc.Conv <activation = "Relu"> (x, w)
    [c_nchwc] r1 = com.microsoft.nchwc.Conv <activation = "Relu"> (r0, w, bias, x) [reorder] y = ReorderOutput(r1)"""
    found_ = owners(nodes, "one", "two", "join")
    assert found_["b_nchwc"].layers == ("one",)
    assert found_["c_nchwc"].layers == ("two", "join")
    assert found_["reorder"].role is Role.OTHER


def test_what_is_fused_with_a_layer_and_is_no_part_of_it_is_told() -> None:
    found_ = owners("[two] c = Conv(x, w) [k] s = AddSoftmax(c, x)", "two", "join")
    assert found_["k"] == Owner(Role.LAYER, ("join",), ("Softmax",))


def test_an_activation_or_a_bias_that_runs_alone_is_part_of_the_layer_before() -> None:
    nodes = "[one] a = Conv(x, w) [act] b = Relu(a) [third] m = Conv(s, w) [biased] z = Add(m, bias)"
    found_ = owners(nodes, "one", "third")
    assert found_["act"].layers == ("one",)
    assert found_["biased"].layers == ("third",)


def test_an_activation_of_a_tensor_that_others_read_too_is_nobodys() -> None:
    found_ = owners("[one] a = Conv(x, w) [act] b = Relu(a) [other] o = Abs(a)", "one")
    assert found_["act"].role is Role.OTHER


def test_a_layer_is_counted_once() -> None:
    found_ = owners("[one] a1 = Conv(x, w) [one_token_1] a2 = Conv(x, w)", "one")
    assert [each.layers for each in found_.values()] == [("one",), ()]


def test_a_conversion_names_the_activation_and_a_weight_is_none() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[n,4] x) => (float[n,4] y)
    <float s = {0.5}, int8 zero = {0}, int8[4,4] w8 = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}> {
      [q] a = QuantizeLinear(x, s, zero) [dq] b = DequantizeLinear(a, s, zero)
      [wdq] w = DequantizeLinear(w8, s, zero) [fc] y = MatMul(b, w)
    }"""
    given = onnx.parser.parse_model(text).graph
    nodes = """[q] a2 = QuantizeLinear(x, s, zero) [dq_token_1] b2 = DequantizeLinear(a2, s, zero)
    [wdq] w = DequantizeLinear(w8, s, zero) [fc] y = MatMul(b2, w)"""
    found_ = kernel_owners(given, graph(nodes, text), found("fc"))
    assert found_["q"] == Owner(Role.QUANTIZE, tensor="x")
    assert found_["dq_token_1"] == Owner(Role.DEQUANTIZE, tensor="x")
    assert found_["wdq"] == Owner(Role.OTHER)
    assert found_["fc"] == Owner(Role.LAYER, ("fc",))


@pytest.mark.parametrize(
    ("operator", "integers"),
    [
        ("QLinearConv", True),
        ("QGemm", True),
        ("MatMulIntegerToFloat", True),
        ("ConvInteger", True),
        ("Conv", False),
        ("FusedConv", False),
        ("QuantizeLinear", False),
    ],
)
def test_integer_kernels_are_known_by_their_operators(operator: str, integers: bool) -> None:
    assert computes_in_integers(operator) is integers
