"""A question to a decided sweep that workers measure the answer of: through HTTP, the client and the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.root import app
from service.client import Client
from service.domain.selections import SelectionQuestion
from service.domain.settings import Budget, SelectionSettings
from tests.live_service import LiveService, live_service

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
WEAK = "block6.pointwise"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with live_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def sweep_id(service: LiveService) -> str:
    """Of six layers of the digits network, on 256 samples; a budget that all of them in int8 keep."""
    model, data, calibration = (
        service.ready(noun, (DIGITS / name).read_bytes())
        for noun, name in (("models", "digits.onnx"), ("datasets", "eval.npz"), ("datasets", "calib.npz"))
    )
    done = service.sweep(
        model=model,
        dataset=data,
        backend="onnxruntime",
        metric={"name": "top1"},
        include=["block4.*", "block5.*", "block6.*"],
        samples=256,
        budget={"max_drop": 0.5},
        calibration={"dataset": calibration},
    )
    assert done["state"] == "succeeded", done["problem"]
    return str(done["id"])


def test_an_estimate_becomes_a_decision(service: LiveService, sweep_id: str) -> None:
    before = service.http.get(f"/v1/sweeps/{sweep_id}").json()
    with Client(str(service.http.base_url), key=service.key) as client:
        asked = client.select(
            sweep_id,
            SelectionQuestion(
                budget=Budget(max_drop=0.06), selection=SelectionSettings(cost="weight_bytes"), verify=True
            ),
        )
        assert (asked["state"], asked["result"]["state"]) == ("queued", "predicted")
        seen: list[float] = []
        done = client.wait_selected(asked, lambda each: seen.append(each["progress"]["fraction"]), timeout=60)
    found = done["result"]
    assert (done["state"], found["state"], found["status"]) == ("done", "verified", "met")
    assert any(WEAK in name for name in found["fallback_names"])
    assert found["measured"]["samples"] == 128
    assert found["measured"]["high"] <= 0.06
    assert found["all_int8"]["drop"]["value"] > found["measured"]["value"]
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert service.http.get(f"/v1/sweeps/{sweep_id}").json() == before
    (row,) = service.http.get(f"/v1/sweeps/{sweep_id}/selections").json()["items"]
    assert (row["state"], row["answer"], row["floating"]) == ("done", "verified", len(found["fallback"]))


def test_the_command_line_asks_and_waits(service: LiveService, sweep_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_KEY", service.key)
    command = ["sweep", "select", sweep_id, "--max-drop", "0.06", "--never-int8", "*stem*", "--verify"]
    refused = CliRunner().invoke(app, [*command, "--url", str(service.http.base_url)])
    assert refused.exit_code == 2
    assert "selection.never_int8" in refused.output
    command[command.index("*stem*")] = "block5.depthwise"
    shown = CliRunner().invoke(app, [*command, "--url", str(service.http.base_url)])
    assert shown.exit_code == 0, shown.output
    assert "The budget is met" in shown.output
    assert "Verified drop: " in shown.output
    assert "that of this one question" in " ".join(shown.output.split())
