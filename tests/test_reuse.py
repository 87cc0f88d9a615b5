"""Results are found again by content: another question about the same measurements measures nothing."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.cli.connection import own_server
from service.client import Client
from service.domain.settings import (
    Budget,
    CalibrationSettings,
    MetricSettings,
    SelectionAlgorithm,
    SelectionSettings,
    SweepSettings,
)
from service.settings import Settings

DIGITS = Path(__file__).parent.parent / "examples" / "digits"


def report_of(client: Client, ids: dict[str, str], **settings: Any) -> dict[str, Any]:
    # along the ranking: with or without a budget all samples are in the table
    selection = SelectionSettings(algorithm=SelectionAlgorithm.GREEDY)
    asked: dict[str, Any] = {"metric": MetricSettings(name="top1"), "budget": Budget(max_drop=0.01)}
    asked |= {"selection": selection, **settings}
    calibration = CalibrationSettings(dataset=ids["calibration"])
    created = client.create_sweep(
        SweepSettings(model=ids["model"], dataset=ids["dataset"], samples=200, calibration=calibration, **asked)
    )
    final = client.wait(created["id"], lambda document: None)
    assert final["state"] == "succeeded", final["problem"]
    report: dict[str, Any] = json.loads(client.report(created["id"], "json"))
    return {**report, "sweep": created}


def measured(database: Path, sweep_id: str) -> tuple[int, int]:
    """How many measurements the sweep made itself, and how many it has."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "select result from work_units where sweep_id = ? and kind in ('measure', 'verify')", (sweep_id,)
        ).fetchall()
    results = [json.loads(each) for (each,) in rows]
    return sum(each["variants"] - each["found"] for each in results), sum(each["variants"] for each in results)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path]]:
    folder = tmp_path_factory.mktemp("service")
    with own_server(Settings(data_dir=folder)) as connection:
        (database,) = folder.rglob("*.db")
        yield connection.client, database


@pytest.mark.parametrize("model", ["digits.pt2", "digits.onnx"])
def test_a_repeated_sweep_measures_nothing(server: tuple[Client, Path], model: str) -> None:
    client, database = server
    ids = {
        "model": client.wait_ready(client.upload_model(DIGITS / model))["id"],
        "dataset": client.wait_ready(client.upload_dataset(DIGITS / "eval.npz"))["id"],
        "calibration": client.wait_ready(client.upload_dataset(DIGITS / "calib.npz"))["id"],
    }
    first = report_of(client, ids)
    again = report_of(client, ids)
    by_kl = report_of(client, ids, metric=MetricSettings(name="kl"), budget=None)
    wider = report_of(client, ids, budget=Budget(max_drop=0.2))
    finer = report_of(client, ids, weights="per_tensor")
    made, total = measured(database, first["sweep"]["id"])
    assert made > 0.9 * total > 100, "verification finds fp32, nothing else"
    for each in (again, by_kl, wider):
        assert measured(database, each["sweep"]["id"])[0] == 0
        assert "results-reused" in {warning["code"] for warning in each["warnings"]}
    assert again["layers"] == first["layers"]
    assert again["decision"] == first["decision"]
    for ours, theirs in zip(by_kl["layers"], first["layers"], strict=True):
        assert ours["score"]["measures"] == theirs["score"]["measures"]
    made, total = measured(database, finer["sweep"]["id"])
    assert made > 0.9 * total, "other weights are other measurements"
