"""Sweeps whose cost is per layer are cut by layer group: by TensorRT's backend, over engines that ONNX Runtime runs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from service.domain.layers import CONTROLS
from service.domain.settings import BackendName
from service.domain.states import SweepState, UnitKind, UnitState
from service.settings import Settings
from service.store import progress, sweeps, units
from tests.workers.backends.test_tensorrt_backend import RuntimeMaker
from tests.workers.in_process import InProcess
from tests.workers.installation import Installation, npz_bytes
from tests.workers.sweep.test_folding import Network, onnx_bytes
from workers.backends import registry
from workers.backends.tensorrt.backend import TensorRTBackend
from workers.context import WorkerContext
from workers.reconciler import reconcile
from workers.sandbox.policy import Policy
from workers.sweep import plan

LAYERS = 10
SAMPLES = 48


def chain() -> bytes:
    """Ten linear layers, one after another."""
    nodes = "\n".join(f"[fc{index}] h{index + 1} = MatMul (h{index}, w{index})" for index in range(LAYERS))
    text = f'<ir_version: 8, opset_import: ["" : 17]>\ng (float[N,4] h0) => (float[N,4] h{LAYERS}) {{\n{nodes}\n}}'
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    for index in range(LAYERS):
        weight, _ = np.linalg.qr(generator.normal(size=(4, 4)))
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
    return bytes(model.SerializeToString())


@pytest.fixture
def maker() -> RuntimeMaker:
    return RuntimeMaker()


@pytest.fixture
def tensorrt(
    migrated: Path, tmp_path: Path, maker: RuntimeMaker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """A worker whose TensorRT is this maker."""
    backend = TensorRTBackend(lambda device: maker, tmp_path / "engines")
    monkeypatch.setitem(registry.BACKENDS, BackendName.TENSORRT, lambda: backend)
    opens = InProcess(Policy.of(Settings()), ("tensorrt", "latency"))
    monkeypatch.setattr(WorkerContext, "sandbox", opens)
    shutil.copytree(migrated, tmp_path / "data")
    made = Installation.at(tmp_path / "data")
    yield made
    made.context.database.close()


def sweep(installation: Installation, **settings: Any) -> str:
    """One shard on TensorRT, unless told otherwise, and all layers in int8 as the answer."""
    x = np.random.default_rng(1).normal(size=(SAMPLES, 4)).astype(np.float32)
    asked: dict[str, Any] = {"backend": "tensorrt", "shard_size": None, "budget": {"max_drop": 100.0}, **settings}
    files = {"model": installation.model(chain()), "dataset": installation.dataset(npz_bytes(h0=x))}
    return installation.sweep(**{**files, **asked})


def measured(installation: Installation, sweep_id: str) -> list[tuple[int, int, tuple[str, ...], int]]:
    """Round, ordinal, layers or controls, and samples of each measure unit."""
    with installation.context.database.read() as session:
        rows = units.units_of(session, sweep_id, UnitKind.MEASURE)
        return [
            (
                row.round,
                row.ordinal,
                tuple(each.removeprefix("layer:") for each in row.payload["variants"]),
                row.payload["stop"] - row.payload["start"],
            )
            for row in rows
        ]


def finished(installation: Installation, sweep_id: str) -> dict[str, Any]:
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED, installation.row(sweep_id).problem
    return installation.report(sweep_id)


NAMES = tuple(f"fc{index}" for index in range(LAYERS))


def test_each_unit_has_some_layers_on_all_samples_and_the_controls_follow(tensorrt: Installation) -> None:
    sweep_id = sweep(tensorrt)
    tensorrt.run_until(UnitKind.SELECT)
    assert measured(tensorrt, sweep_id) == [
        (0, 0, NAMES[:8], SAMPLES),
        (0, 1, NAMES[8:], SAMPLES),
        (1, 0, CONTROLS, SAMPLES),
    ]


def test_each_engine_is_built_once(tensorrt: Installation, maker: RuntimeMaker) -> None:
    """Those of the layers, fp32, and all in int8: nothing is built only to see whether it can be."""
    finished(tensorrt, sweep(tensorrt))
    assert len(maker.requests) == LAYERS + 2
    assert len({each.model for each in maker.requests}) == LAYERS + 2


def test_the_table_is_that_of_a_sweep_that_is_not_cut_by_layer(tensorrt: Installation) -> None:
    by_layer, whole = (finished(tensorrt, sweep(tensorrt, backend=each)) for each in ("tensorrt", "onnxruntime"))
    for ours, theirs in zip(by_layer["layers"], whole["layers"], strict=True):
        assert ours["state"] == "measured"
        assert ours["score"]["metric"]["samples"] == SAMPLES
        assert ours["score"]["drop"]["value"] == pytest.approx(theirs["score"]["drop"]["value"], rel=1e-3)
    assert [each["rank"] for each in by_layer["layers"]] == [each["rank"] for each in whole["layers"]]
    assert set(by_layer["controls"]) == set(CONTROLS)
    assert by_layer["exported"]["simulated"]["within"] is True


def test_whatever_order_units_end_in_the_last_one_goes_on_and_the_table_is_whole(tensorrt: Installation) -> None:
    sweep_id = sweep(tensorrt, shard_size=16)
    leases = [tensorrt.run_until(UnitKind.MEASURE) for _ in range(6)]
    assert [each[1] for each in measured(tensorrt, sweep_id)] == list(range(6))
    for lease in reversed(leases):
        assert lease is not None
        assert {each[0] for each in measured(tensorrt, sweep_id)} == {0}
        tensorrt.run(lease)
    assert len(measured(tensorrt, sweep_id)) == 6 + 3
    report = finished(tensorrt, sweep_id)
    assert {each["score"]["metric"]["samples"] for each in report["layers"]} == {SAMPLES}
    assert {each["score"]["drop"]["samples"] for each in report["layers"]} == {SAMPLES}


def test_lists_are_verified_by_groups_too_and_the_decision_is_the_same(
    tensorrt: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "GROUP_SIZE", 1)
    budget = {"max_drop": 1e-4}
    sweep_id = sweep(tensorrt, budget=budget)
    ours = finished(tensorrt, sweep_id)["decision"]
    theirs = finished(tensorrt, sweep(tensorrt, backend="onnxruntime", budget=budget))["decision"]
    with tensorrt.context.database.read() as session:
        first = units.units_of(session, sweep_id, UnitKind.VERIFY, round_=1)
    assert [row.ordinal for row in first] == list(range(len(first)))
    assert {len(row.payload["variants"]) for row in first} == {1}
    assert len(first) > 2
    assert 0 < len(ours["fallback"]) < LAYERS
    assert ours["fallback"] == theirs["fallback"]
    drops = [[each["score"]["drop"]["value"] for each in one["measured"]] for one in (ours, theirs)]
    assert drops[0] == pytest.approx(drops[1], rel=1e-3)


def test_until_its_group_is_measured_a_layer_is_pending(tensorrt: Installation) -> None:
    sweep_id = sweep(tensorrt)
    lease = tensorrt.run_until(UnitKind.MEASURE)
    assert lease is not None
    tensorrt.run(lease)
    with tensorrt.context.database.read() as session:
        states = [each.state for each in sweeps.layers(session, sweeps.get(session, sweep_id))]
    assert states == ["measured"] * 8 + ["pending"] * 2


def test_a_layer_that_fails_alone_is_left_out_of_the_controls(tensorrt: Installation, maker: RuntimeMaker) -> None:
    maker.broken, maker.ignored = frozenset({"fc3"}), frozenset({"fc9"})
    sweep_id = sweep(tensorrt)
    report = finished(tensorrt, sweep_id)
    reasons = {each["layer"]["name"]: each["reason"] for each in report["layers"] if each["state"] == "failed"}
    assert reasons["fc3"] == "build failed: no tactic"
    assert reasons["fc9"].startswith("not realised: 'fc9' runs in floating point")
    assert len(reasons) == 2
    assert set(tensorrt.row(sweep_id).amax["failed"]) == {"fc3", "fc9"}
    assert report["controls"]["all_int8"]["metric"]["value"] > 0


def test_where_every_layer_fails_the_sweep_says_so(tensorrt: Installation, maker: RuntimeMaker) -> None:
    maker.broken = frozenset(NAMES)
    sweep_id = sweep(tensorrt)
    tensorrt.run_until()
    row = tensorrt.row(sweep_id)
    assert (row.state, row.problem_code) == (SweepState.FAILED, "no-layers")
    assert row.problem is not None
    assert "build failed: no tactic" in row.problem


def test_layers_that_are_taken_out_one_by_one_are_tried_before(tensorrt: Installation, maker: RuntimeMaker) -> None:
    """A layer that cannot be in int8 would break every variant that takes out another."""
    maker.broken = frozenset({"fc3"})
    sweep_id = sweep(tensorrt, mode="one_off")
    report = finished(tensorrt, sweep_id)
    assert measured(tensorrt, sweep_id)[0] == (0, 0, CONTROLS, SAMPLES)
    assert len(measured(tensorrt, sweep_id)) == 3
    assert {each["state"] for each in report["layers"] if each["layer"]["name"] != "fc3"} == {"measured"}


def test_how_far_the_sweep_is_never_runs_back(tensorrt: Installation) -> None:
    sweep_id = sweep(tensorrt)
    seen = [0.0]

    def look() -> None:
        with tensorrt.context.database.read() as session:
            seen.append(progress.of_sweep(session, tensorrt.row(sweep_id)).fraction)

    while (lease := tensorrt.claim()) is not None:
        with tensorrt.context.database.write() as session:
            units.heartbeat(session, lease, lease_seconds=60, progress=0.99)
        look()
        tensorrt.run(lease)
        look()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_corpus_metric_keeps_the_shards_that_its_interval_needs(tensorrt: Installation) -> None:
    x = np.random.default_rng(1).normal(size=(SAMPLES, 4)).astype(np.float32)
    labelled = tensorrt.dataset(npz_bytes(h0=x, labels=np.arange(SAMPLES) % 4))
    metric = {"name": "MulticlassAccuracy", "args": {"num_classes": 4}}
    sweep_id = sweep(tensorrt, dataset=labelled, metric=metric)
    tensorrt.run_until(UnitKind.SELECT)
    assert len(tensorrt.row(sweep_id).plan["shards"]) == 8


def test_a_variant_that_cannot_be_built_again_leaves_the_file_without_a_comparison(
    tensorrt: Installation, maker: RuntimeMaker, tmp_path: Path
) -> None:
    sweep_id = sweep(tensorrt)
    lease = tensorrt.run_until(UnitKind.REPORT)
    assert lease is not None
    shutil.rmtree(tmp_path / "engines")
    maker.broken = frozenset(NAMES)
    tensorrt.run(lease)
    assert tensorrt.report(sweep_id)["exported"] is None
    with tensorrt.context.database.read() as session:
        (row,) = [each for each in sweeps.artifacts(session, sweep_id) if each.name == "mixed.json"]
    checks = json.loads(tensorrt.context.blobs.read(row.sha256))
    assert (checks["made"], checks["metric"], checks["reason"]) == (True, None, "build failed: no tactic")


def test_engines_are_built_for_no_comparison_of_folded_batch_norms(tensorrt: Installation, maker: RuntimeMaker) -> None:
    x = np.random.default_rng(0).normal(size=(12, 3, 6, 6)).astype(np.float32)
    model = tensorrt.model(onnx_bytes(Network(0.0).eval()))
    sweep_id = sweep(tensorrt, model=model, dataset=tensorrt.dataset(npz_bytes(x=x)))
    tensorrt.run_until(UnitKind.CALIBRATE)
    assert 0 < tensorrt.row(sweep_id).plan["folding_difference"]["relative_rms"] < 1e-6
    assert maker.requests == []


def test_implicit_int8_is_refused_where_tensorrt_has_none_before_anything_is_measured(
    tensorrt: Installation, maker: RuntimeMaker
) -> None:
    maker.identity, maker.implicit = "GPU/11.4.0.106", False
    sweep_id = sweep(tensorrt, quantization="implicit")
    tensorrt.run_until()
    row = tensorrt.row(sweep_id)
    assert (row.state, row.phase, row.problem_code) == (SweepState.FAILED, "prepare", "invalid-input")
    assert row.problem is not None
    assert row.problem.startswith("quantization: TensorRT 11.4.0.106 of this worker has no implicit int8")


def test_implicit_and_explicit_results_are_never_taken_for_each_other(
    tensorrt: Installation, maker: RuntimeMaker
) -> None:
    """These engines run the graph alone, so that implicit int8 is not realised: found results would hide that."""
    finished(tensorrt, sweep(tensorrt))
    sweep_id = sweep(tensorrt, quantization="implicit")
    tensorrt.run_until()
    assert tensorrt.row(sweep_id).problem_code == "no-layers"
    assert maker.requests[-1].implicit is not None


def test_a_unit_that_was_lost_is_done_again_alone(tensorrt: Installation, maker: RuntimeMaker) -> None:
    sweep_id = sweep(tensorrt)
    first = tensorrt.run_until(UnitKind.MEASURE)
    second = tensorrt.claim()
    assert first is not None
    assert second is not None
    tensorrt.run(first)
    tensorrt.let_expire(second)
    reconcile(tensorrt.context)
    report = finished(tensorrt, sweep_id)
    assert {each["state"] for each in report["layers"]} == {"measured"}
    assert tensorrt.unit(first).attempts == 1
    assert tensorrt.unit_states(sweep_id)["measure"] == {UnitState.DONE}
    assert len(maker.requests) == LAYERS + 2
