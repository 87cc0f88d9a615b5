"""A sweep of a model with a real custom operator: its table, its files, and what they are found again by."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.domain.states import ResourceState, SweepState
from service.inspection.calibration_cache import read_cache
from service.store import sweeps, units
from service.store.tables import UnitRow
from tests.workers.installation import Installation, npz_bytes
from tests.workers.plugins import LAYERS, PLUGIN_EDGES, library, model_bytes, other_library, samples
from workers.models.onnx_libraries import content_of

DATA = npz_bytes(x=samples())


@contextmanager
def with_libraries(installation: Installation, *libraries: Path) -> Iterator[Installation]:
    """A worker on the same database whose operator set these libraries."""
    settings = installation.context.settings.model_copy(update={"custom_op_libraries": libraries})
    made = Installation(type(installation.context).open(settings, "wrk_plugins"))
    yield made
    made.context.database.close()


@pytest.fixture
def equipped(installation: Installation) -> Iterator[Installation]:
    with with_libraries(installation, library()) as made:
        yield made


def asked(at: Installation, **settings: Any) -> str:
    """The id of a sweep on the network and its samples."""
    model, dataset = at.model(model_bytes()), at.dataset(DATA)
    return at.sweep(**{"model": model, "dataset": dataset, "budget": {"max_drop": 100.0}, **settings})


def swept(at: Installation, **settings: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The report, and the files."""
    sweep_id = asked(at, **settings)
    at.run_until()
    assert at.state(sweep_id) is SweepState.SUCCEEDED, at.row(sweep_id).problem
    with at.context.database.read() as session:
        rows = sweeps.artifacts(session, sweep_id)
    return at.report(sweep_id), {row.name: at.context.blobs.read(row.sha256) for row in rows}


def outputs(model: bytes, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.register_custom_ops_library(str(library()))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["scores"], {"x": x})[0]
    return found


@pytest.mark.parametrize("mode", ["one_on", "one_off"])
def test_the_plugin_is_a_layer_of_the_table_with_ranges_before_and_behind_it(equipped: Installation, mode: str) -> None:
    report, files = swept(equipped, mode=mode)
    rows = {each["layer"]["id"]: each for each in report["layers"]}
    assert tuple(rows) == LAYERS
    plugin = rows["split"]
    assert plugin["layer"]["op"] == "Plugin"
    assert plugin["score"]["metric"]["value"] > 0
    h = samples() @ np.array([[1, 0.5, 0, 0], [0, 1, 0, -0.25], [0, 0, 1, 0], [0, 0.75, 0, 1], [1, -1, 1, -1]]).T
    wanted = [np.abs(each).max() for each in (h, np.minimum(h, 0), np.maximum(h, 0))]
    assert plugin["amax"] == pytest.approx(dict(zip(PLUGIN_EDGES, wanted, strict=True)), rel=1e-6)
    assert report["environment"]["libraries"] == {content_of(library()): library().name}
    assert "split,split,Plugin" in files["layers.csv"].decode()


@pytest.mark.parametrize("exclude", [[], ["sum"]], ids=["all in int8", "a float layer behind it"])
def test_the_file_that_deploys_has_pairs_around_the_plugin_and_computes_what_was_measured(
    equipped: Installation, exclude: list[str]
) -> None:
    report, files = swept(equipped, exclude=exclude)
    model = onnx.load_from_string(files["mixed.onnx"])
    makers = {name: node for node in model.graph.node for name in node.output}
    (plugin,) = [node for node in model.graph.node if node.op_type == "NegPos"]
    assert makers[plugin.input[0]].op_type == "DequantizeLinear"
    for output in plugin.output:
        assert [node.op_type for node in model.graph.node if output in node.input] == ["QuantizeLinear"]
    checks = json.loads(files["mixed.json"])
    assert checks["lint"] == checks["rescaled"] == []
    assert checks["compared"]["simulated"]["scores"] < 1e-6
    assert checks["compared"]["fused"]["scores"] < 1e-2
    x = np.load(io.BytesIO(DATA))["x"]
    mse = np.square(outputs(files["mixed.onnx"], x) - outputs(model_bytes(), x)).mean()
    assert mse == pytest.approx(report["decision"]["chosen"]["score"]["metric"]["value"], rel=1e-4)


def test_a_plugin_that_stays_float_has_no_pairs_of_its_own(equipped: Installation) -> None:
    _, files = swept(equipped, exclude=["split"])
    model = onnx.load_from_string(files["mixed.onnx"])
    makers = {name: node for node in model.graph.node for name in node.output}
    (plugin,) = [node for node in model.graph.node if node.op_type == "NegPos"]
    assert makers[plugin.input[0]].op_type == "Gemm"
    assert json.loads(files["mixed.json"])["compared"]["simulated"]["scores"] < 1e-6


def test_the_calibration_cache_holds_the_scales_of_the_plugins_outputs(equipped: Installation) -> None:
    report, files = swept(equipped)
    (amax,) = [each["amax"] for each in report["layers"] if each["layer"]["id"] == "split"]
    entries = {each.tensor: each.amax for each in read_cache(files["calibration.cache"]).entries}
    assert entries["h"] == pytest.approx(amax["split:0"])
    assert entries["negative"] == pytest.approx(amax["split=>0"])
    assert entries["positive"] == pytest.approx(amax["split=>1"])
    assert set(entries) == {"x", "h", "negative", "positive", "l", "r", "s"}, "the graph's own names, and no others"


def test_so_it_does_where_they_are_outputs_of_the_graph(equipped: Installation) -> None:
    body = """g (float[N,4] x) => (float[N,3] scores, float[N,3] positive)
    <float[4,3] w = {1,2,3,4,5,6,7,8,9,1,2,3}>
    { [fc] h = MatMul(x, w) [split] scores, positive = ai.onnx.contrib.NegPos(h) }"""
    _, files = swept(equipped, model=equipped.model(model_bytes(body)), metric={"name": "mse", "output": "scores"})
    entries = {each.tensor for each in read_cache(files["calibration.cache"]).entries}
    assert entries == {"x", "h", "scores", "positive"}
    model = onnx.load_from_string(files["mixed.onnx"])
    (plugin,) = [node for node in model.graph.node if node.op_type == "NegPos"]
    assert list(plugin.output) == ["scores", "positive"], "no pair stands at an output of the graph"


def test_an_upload_is_rejected_where_no_library_is_set_with_the_operator_and_the_setting(
    installation: Installation,
) -> None:
    model = installation.model(model_bytes())
    installation.step()
    row = installation.resource(model)
    assert row.state == ResourceState.REJECTED
    assert row.problem is not None
    assert "operator ai.onnx.contrib::NegPos (node 'split')" in row.problem
    assert "QUANTSIEVE_CUSTOM_OP_LIBRARIES" in row.problem


def test_the_same_operators_from_a_file_of_other_content_are_measured_anew(
    equipped: Installation, tmp_path: Path
) -> None:
    sweep = {"model": equipped.model(model_bytes()), "dataset": equipped.dataset(DATA), "budget": None}
    first = equipped.sweep(**sweep)
    equipped.run_until()
    again = equipped.sweep(**sweep)
    equipped.run_until()
    with with_libraries(equipped, other_library(tmp_path)) as other:
        third = other.sweep(**sweep)
        other.run_until()
        assert other.state(third) is SweepState.SUCCEEDED, other.row(third).problem
    keys = [content_keys(equipped, each) for each in (first, again, third)]
    assert keys[0] == keys[1]
    assert keys[0].isdisjoint(keys[2])
    assert all(keys)
    assert reused(equipped, again) == (len(LAYERS) + 3) * 3
    assert reused(equipped, third) == 0


def content_keys(at: Installation, sweep_id: str) -> set[str]:
    """Of what was calibrated and measured."""
    with at.context.database.read() as session:
        rows = session.query(UnitRow).filter_by(sweep_id=sweep_id)
        return {row.content_key for row in rows if row.content_key is not None}


def reused(at: Installation, sweep_id: str) -> int:
    """Measurements that were found."""
    with at.context.database.read() as session:
        rows = session.query(UnitRow).filter_by(sweep_id=sweep_id, kind="measure")
        return sum(row.result["found"] for row in rows)


def test_a_worker_with_other_libraries_does_not_add_to_a_table(equipped: Installation, tmp_path: Path) -> None:
    sweep_id = asked(equipped)
    lease = equipped.run_until(units.UnitKind.MEASURE)
    assert lease is not None
    with with_libraries(equipped, other_library(tmp_path)) as other:
        other.run(lease)
    row = equipped.row(sweep_id)
    assert (row.state, row.problem_code) == (SweepState.FAILED, "libraries-differ")
    assert "install the same files on every worker" in str(row.problem)


def test_a_worker_without_libraries_ends_the_sweep_with_the_operator_and_the_setting(equipped: Installation) -> None:
    sweep_id = asked(equipped)
    lease = equipped.run_until(units.UnitKind.MEASURE)
    assert lease is not None
    with with_libraries(equipped) as other:
        other.run(lease)
    row = equipped.row(sweep_id)
    assert row.state == SweepState.FAILED
    assert "NegPos" in str(row.problem)
    assert "QUANTSIEVE_CUSTOM_OP_LIBRARIES" in str(row.problem)


def test_probes_end_with_the_plugins_name(equipped: Installation) -> None:
    sweep_id = asked(equipped, method="probe")
    equipped.run_until()
    row = equipped.row(sweep_id)
    assert row.state == SweepState.FAILED
    assert "ai.onnx.contrib::NegPos (node 'split') is a plugin" in str(row.problem)
