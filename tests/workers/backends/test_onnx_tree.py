"""The ONNX tree gives what one session over the whole graph for each variant gives, for any list of variants."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.domain.layers import Variant
from tests.real_data import MODELS, RESNET20, RealModel, needs_data
from tests.workers.backends.ranges import calibrated
from workers.backends import onnx_tree
from workers.backends.onnx_tree import spread
from workers.backends.onnxruntime import OnnxModel, OnnxRuntimeBackend
from workers.backends.protocol import OpenSettings
from workers.models.onnx_cuts import Cuts

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


def opened(path: Path, x: Any, **settings: Any) -> OnnxModel:
    model = OnnxRuntimeBackend().open(path, OpenSettings(**settings))
    assert isinstance(model, OnnxModel)
    return calibrated(model, {model.facts.inputs[0].name: x})


def naive(model: OnnxModel, batches: list[Any], variants: list[Variant]) -> dict[tuple[str, int], Any]:
    """The oracle: a session over the whole graph for each variant."""
    found: dict[tuple[str, int], Any] = {}
    for variant in variants:
        session = model.piece_session(model._program.skeleton, variant.int8)
        for index, batch in enumerate(batches):
            found[variant.name, index] = session.run(None, batch)[0]
    return found


def compare(model: OnnxModel, batches: list[Any], variants: list[Variant], tolerance: float) -> None:
    expected = naive(model, batches, variants)
    results = list(model.evaluate(batches, variants))
    assert len(results) == len(expected)
    for each in results:
        assert each.outputs is not None, each.failure
        values = expected[each.variant.name, each.batch]
        (found,) = each.outputs.values()
        # kernels chosen for a piece may sum in another order, and a value may round to the next level
        assert np.sqrt(((found - values) ** 2).mean() / (values**2).mean()) < tolerance, each.variant.name


def variants_of(ids: list[str]) -> list[Variant]:
    """Controls, one-on, one-off, nested, pairs and random sets."""
    every = frozenset(ids)
    sets = [frozenset[str](), every, *(frozenset({each}) for each in ids), *(every - {each} for each in ids)]
    sets += [frozenset(ids[:length]) for length in range(2, len(ids), 3)]
    sets += [frozenset(pair) for pair in itertools.islice(itertools.combinations(ids, 2), 0, 60, 7)]
    rng = np.random.default_rng(1)
    sets += [frozenset(each for each in ids if rng.random() < 0.5) for _ in range(6)]
    return [Variant(name=str(index), int8=int8) for index, int8 in enumerate(sets)]


@pytest.mark.parametrize("segments", [None, 1, 3])
@pytest.mark.parametrize("held_bytes", [onnx_tree.HELD_BYTES, 1], ids=["all batches", "batch by batch"])
def test_any_variants_are_those_of_the_naive_loop(
    segments: int | None, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_tree, "HELD_BYTES", held_bytes)
    x = np.load(DIGITS / "eval.npz")["inputs"][:24]
    model = opened(DIGITS / "digits.onnx", x, segments=segments)
    batches = [{"image": x[:16]}, {"image": x[16:]}]
    compare(model, batches, variants_of([each.id for each in model.facts.layers]), 1e-4)
    assert model._tree.segments == (segments or len(model.facts.layers))


@needs_data
@pytest.mark.parametrize("real", MODELS, ids=[each.folder for each in MODELS])
def test_real_networks_are_those_of_the_naive_loop(real: RealModel) -> None:
    x = np.load(real.evaluation)["inputs"][:64].astype(np.float32)
    model = opened(real.file("onnxruntime"), x)
    ids = [each.id for each in model.facts.layers][:: 12 if len(model.facts.layers) > 100 else 5]
    variants = [Variant(name=each, int8=frozenset({each})) for each in ids]
    compare(model, [{model.facts.inputs[0].name: x}], variants, 1e-4)


def test_a_trunk_that_cannot_run_leaves_each_variant_to_show_why() -> None:
    x = np.load(DIGITS / "eval.npz")["inputs"][:4]
    model = opened(DIGITS / "digits.onnx", x)
    ids = [each.id for each in model.facts.layers]
    plain = model.piece_session

    def sessions(piece: onnx.ModelProto, int8: frozenset[str]) -> Any:
        if ids[2] in int8:
            raise RuntimeError("no kernel")
        return plain(piece, int8)

    model.piece_session = sessions  # type: ignore[method-assign]
    every = frozenset(ids)
    variants = [Variant(name=each, int8=every - {each}) for each in ids]
    found = {each.variant.name: each for each in model.evaluate([{"image": x}], variants)}
    assert found[ids[2]].outputs is not None
    assert {found[each].failure for each in ids if each != ids[2]} == {"its session cannot be made: no kernel"}


def graph(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    return onnx.shape_inference.infer_shapes(model)


def test_a_cut_lists_what_crosses_and_a_piece_is_a_model() -> None:
    cuts = Cuts(
        graph(
            "g (float[N, 4] x) => (float[N, 4] y, float[N, 4] early) "
            "{ [a] early = Relu(x) [b] z = Add(early, x) [c] y = Sqrt(z) }"
        )
    )
    assert cuts.crossing(0) == ["x"]
    assert cuts.crossing(1) == ["x", "early"]
    assert cuts.crossing(2) == ["early", "z"]
    piece = cuts.piece(1, 2)
    assert [each.name for each in piece.graph.node] == ["b"]
    assert {each.name for each in piece.graph.input} == {"x", "early"}
    assert [each.name for each in piece.graph.output] == ["z"]
    onnx.checker.check_model(piece)
    assert [each.name for each in cuts.piece(2).graph.output] == ["y"]
    assert cuts.bytes_of_sample(2) == 32


def test_a_graph_with_control_flow_is_not_cut() -> None:
    branch = onnx.parser.parse_graph("b () => (float[N, 4] o) { o = Relu(x) }")
    model = graph("g (float[N, 4] x, bool c) => (float[N, 4] y) { [a] z = Relu(x) [b] y = Add(z, x) }")
    node = onnx.helper.make_node("If", ["c"], ["w"], name="if", then_branch=branch, else_branch=branch)
    model.graph.node.insert(1, node)
    cuts = Cuts(model)
    assert cuts.possible(0)
    assert not cuts.possible(1)


def test_segments_lie_about_the_same_weight_apart() -> None:
    assert spread([0, 1, 2, 3], [1, 1, 1, 1], 8) == [0, 1, 2, 3]
    assert spread([0, 1, 2, 3, 4, 5], [1] * 6, 3) == [0, 2, 4]
    assert spread([0, 1, 2, 3], [97, 1, 1, 1], 2) == [0, 1]
    assert spread([0, 1, 2], [1, 1, 1], 1) == [0]


@needs_data
def test_a_control_runs_the_whole_graph() -> None:
    x = np.load(RESNET20.evaluation)["inputs"][:8].astype(np.float32)
    model = opened(RESNET20.file("onnxruntime"), x)
    every = frozenset(each.id for each in model.facts.layers)
    for int8 in (frozenset[str](), every):
        (result,) = model.evaluate([{"input": x}], [Variant(name="control", int8=int8)])
        assert result.outputs is not None
        expected = model.piece_session(model._program.skeleton, int8).run(None, {"input": x})[0]
        np.testing.assert_array_equal(result.outputs["logits"], expected)
