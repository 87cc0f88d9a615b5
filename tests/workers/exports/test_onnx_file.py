"""Files of a graph whose weights are apart: one, or two, and nothing half written."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.domain.errors import InvalidInput
from tests.workers.exports.graphs import opened, ranges, run, saved
from workers.exports.model_file import open_model
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_onnx import QdqExport, export_qdq

BODY = """g (float[n,2] x) => (float[n,3] y) <float[2,3] w = {1,2,3,4,5,6}, float[3,3] v = {1,2,3,4,5,6,7,8,9}>
{ [first] a = MatMul(x, w) [second] y = MatMul(a, v) }"""


@pytest.fixture
def export(tmp_path: Path) -> QdqExport:
    program, found = opened(saved(tmp_path, BODY))
    return export_qdq(program, found, ranges(found, 20.0), fallback={"second"})


def test_large_weights_lie_beside_the_model_and_run_the_same(tmp_path: Path, export: QdqExport) -> None:
    (one,) = write_onnx(tmp_path / "one.onnx", export.model, export.weights)
    two = write_onnx(tmp_path / "two.onnx", export.model, export.weights, most_in_one_file=10)
    assert [each.name for each in two] == ["two.onnx", "two.onnx.data"]
    assert onnx.load(two[0]).graph.node == onnx.load(one).graph.node
    entries = [
        entry
        for each in onnx.load(two[0], load_external_data=False).graph.initializer
        for entry in each.external_data
        if entry.key == "offset"
    ]
    assert len(entries) > 1
    assert all(int(each.value) % 64 == 0 for each in entries)
    x = np.float32([[1, 2]])
    np.testing.assert_array_equal(run(two[0], x=x)["y"], run(one, x=x)["y"])
    assert open_model(two[0]).model.graph.initializer[0].name == export.model.graph.initializer[0].name


def test_a_graph_that_is_not_valid_leaves_the_older_file_alone(tmp_path: Path, export: QdqExport) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"before")
    export.model.graph.node[-1].input[0] = "nowhere"
    with pytest.raises(InvalidInput, match="checker refuses the result"):
        write_onnx(target, export.model, export.weights)
    assert target.read_bytes() == b"before"
    assert {each.name for each in tmp_path.iterdir()} == {"m.onnx", "out.onnx"}


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, export: QdqExport) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere/out\.onnx cannot be written"):
        write_onnx(tmp_path / "nowhere" / "out.onnx", export.model, export.weights)
