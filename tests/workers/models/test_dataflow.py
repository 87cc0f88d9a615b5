"""Boundaries and groups of layers, from steps alone and from both formats of real networks."""

from pathlib import Path

import onnx
import pytest

from service.domain.costs import CostModel
from service.domain.layers import Layer, Operation
from service.domain.settings import BackendName
from tests.real_data import FOLDER, needs_data
from workers.backends.onnxruntime import OnnxRuntimeBackend
from workers.backends.protocol import OpenedModel, OpenSettings
from workers.backends.torch_fake_quant import TorchBackend
from workers.models.dataflow import Step, cost_model


def layer(name: str, op: Operation = Operation.CONV, *, weights: int = 0, macs: int | None = None) -> Layer:
    activations = (f"{name}:0",)
    return Layer(
        id=name, name=name, op=op, activations=activations, weight_bytes=4 * weights, macs=macs, output_shape=(2, 3)
    )


def conv(name: str, reads: str, op: Operation = Operation.CONV) -> Step:
    return Step((reads,), (f"{name}_out",), layer(name, op), (reads,))


def through(reads: str, makes: str) -> Step:
    return Step((reads,), (makes,), passes=True)


def boundaries(model: CostModel) -> set[tuple[str, str, int]]:
    return {(each.source, each.target, each.elements) for each in model.boundaries}


def groups(model: CostModel) -> set[tuple[str, tuple[str, ...]]]:
    return {(each.reason, each.layers) for each in model.groups}


class TestBoundaries:
    def test_a_tensor_that_one_layer_makes_and_another_quantizes_is_one(self) -> None:
        model = cost_model([conv("a", "x"), conv("b", "a_out")], {"a_out": 24})
        assert boundaries(model) == {("a", "b", 24)}

    def test_the_size_is_that_of_the_tensor_that_is_read_else_of_the_one_that_was_made(self) -> None:
        steps = [conv("a", "x"), through("a_out", "pooled"), conv("b", "pooled")]
        assert boundaries(cost_model(steps, {"a_out": 24, "pooled": 6})) == {("a", "b", 6)}
        assert boundaries(cost_model(steps, {})) == {("a", "b", 6)}  # 2 x 3

    def test_nothing_in_int8_comes_out_of_a_softmax(self) -> None:
        steps = [conv("a", "x"), Step(("a_out",), ("softmax",)), conv("b", "softmax")]
        assert boundaries(cost_model(steps, {})) == set()

    def test_an_operand_that_is_added_as_it_comes_from_the_kernel_is_none(self) -> None:
        addition = Step(("a_out", "x"), ("sum",), layer("add", Operation.ADD), ("x",))
        assert boundaries(cost_model([conv("a", "x"), addition], {})) == set()


class TestGroups:
    def test_linear_layers_that_read_one_tensor_are_one_product(self) -> None:
        linear = [conv(each, "x", Operation.LINEAR) for each in ("q", "k", "v")]
        assert groups(cost_model(linear, {})) == {("shared_input", ("q", "k", "v"))}

    def test_convolutions_that_read_one_tensor_are_none(self) -> None:
        assert groups(cost_model([conv("a", "x"), conv("b", "x")], {})) == set()

    def test_a_residual_addition_is_one_kernel_with_the_layer_that_it_is_added_to(self) -> None:
        steps = [
            conv("a", "x"),
            through("a_out", "folded"),
            Step(("folded", "x"), ("sum",), layer("add", Operation.ADD), ("x",)),
        ]
        assert groups(cost_model(steps, {})) == {("residual_add", ("a", "add"))}

    def test_an_addition_of_two_quantized_operands_stands_alone(self) -> None:
        both = Step(("a_out", "x"), ("sum",), layer("add", Operation.ADD), ("a_out", "x"))
        assert groups(cost_model([conv("a", "x"), both], {})) == set()

    @pytest.mark.parametrize("reader", ["joined", "reshaped"])
    def test_the_branches_of_a_concatenation_that_is_read_quantized_are_one(self, reader: str) -> None:
        join = Step(("a_out", "b_out"), ("joined",), joins=True)
        steps = [conv("a", "x"), conv("b", "x"), join, through("joined", "reshaped"), conv("c", reader)]
        assert groups(cost_model(steps, {})) == {("concat", ("a", "b"))}

    def test_the_branches_of_one_that_is_not_read_quantized_are_free(self) -> None:
        join = Step(("a_out", "b_out"), ("joined",), joins=True)
        assert groups(cost_model([conv("a", "x"), conv("b", "x"), join], {})) == set()


def test_costs_are_those_of_the_layers() -> None:
    step = Step(("x",), ("y",), layer("a", weights=10, macs=90), ("x",))
    (found,) = cost_model([step], {}).layers
    assert (found.layer, found.weights, found.macs, found.latency) == ("a", 10, 90, {})


DIGITS = Path(__file__).parents[3] / "examples" / "digits"


def opened(path: Path, backend: BackendName) -> OpenedModel:
    made = TorchBackend() if backend is BackendName.TORCH else OnnxRuntimeBackend()
    return made.open(path, OpenSettings())


def by_name(model: OpenedModel) -> tuple[set[tuple[str, tuple[str, ...]]], set[tuple[str, str, int]]]:
    names = {each.id: each.name for each in model.facts.layers}
    found = model.facts.costs
    return (
        {(each.reason, tuple(names[layer] for layer in each.layers)) for each in found.groups},
        {(names[each.source], names[each.target], each.elements) for each in found.boundaries},
    )


@needs_data
@pytest.mark.parametrize("network", ["cifar10_resnet20", "kws_transformer"])
def test_both_formats_of_a_network_hang_together_alike(network: str) -> None:
    ours = by_name(opened(FOLDER / network / "model.pt2", BackendName.TORCH))
    assert ours == by_name(opened(FOLDER / network / "model.onnx", BackendName.ONNXRUNTIME))
    assert len(ours[0]) > 8


def test_both_formats_of_the_digits_hang_together_alike() -> None:
    ours_groups, ours = by_name(opened(DIGITS / "digits.pt2", BackendName.TORCH))
    groups_, found = by_name(opened(DIGITS / "digits.onnx", BackendName.ONNXRUNTIME))
    # the ONNX file was not written by torch's exporter, and its pool has a name of its own
    assert ours == {tuple("pool.avg_pool" if part == "pool.averagepool" else part for part in each) for each in found}
    assert ours_groups == groups_
    assert groups_ == {("residual_add", (f"block{n}.pointwise", f"block{n}.add")) for n in (1, 3, 4, 6)}
    assert ("stem", "block1.depthwise", 24 * 16 * 16) in found


@needs_data
@pytest.mark.parametrize("network", ["cifar10_resnet20", "kws_transformer"])
def test_both_formats_of_a_network_cost_the_same(network: str) -> None:
    def costs(file: str, backend: BackendName) -> list[tuple[str, int | None, int]]:
        facts = opened(FOLDER / network / file, backend).facts
        names = {each.id: each.name for each in facts.layers}
        return [(names[each.layer], each.macs, each.weights) for each in facts.costs.layers]

    assert costs("model.pt2", BackendName.TORCH) == costs("model.onnx", BackendName.ONNXRUNTIME)


@needs_data
def test_the_residual_network_is_not_one_group_and_attention_has_its_three() -> None:
    residual, _ = by_name(opened(FOLDER / "cifar10_resnet20" / "model.onnx", BackendName.ONNXRUNTIME))
    assert {len(layers) for _, layers in residual} == {2}
    attention, _ = by_name(opened(FOLDER / "kws_transformer" / "model.onnx", BackendName.ONNXRUNTIME))
    assert ("shared_input", ("b.0.q", "b.0.k", "b.0.v")) in attention


def test_a_concatenation_in_a_file(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]>
    g (float[n,2,4,4] x) => (float[n,1,4,4] y)
    <float[2,2,1,1] w = {1,2,3,4}, float[1,4,1,1] v = {1,2,3,4}>
    { [a] p = Conv(x, w) [b] q = Conv(x, w) c = Concat <axis = 1> (p, q) r = Relu(c) [last] y = Conv(r, v) }"""
    onnx.save(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)), tmp_path / "m.onnx")
    found = opened(tmp_path / "m.onnx", BackendName.ONNXRUNTIME).facts.costs
    assert groups(found) == {("concat", ("a", "b"))}
    assert boundaries(found) == {("a", "last", 64), ("b", "last", 64)}
