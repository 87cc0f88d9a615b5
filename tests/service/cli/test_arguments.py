"""The command line's own errors: one clear line and exit status 2."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli.root import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("QUANTSIEVE_URL", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.onnx", "nowhere.npz"], "error: MODEL: there is no file nowhere.onnx"),
        (["run", __file__, "nowhere.npz"], "error: DATA: there is no file nowhere.npz"),
        (["run", __file__, __file__, "--max-drop", "-1"], "error: budget.max_drop: -1.0 is wrong"),
        (["sweep", "submit", "mdl_1", "nowhere.npz"], "error: DATA: there is no file nowhere.npz"),
        (["sweep", "status", "swp_1"], "http://127.0.0.1:9"),
    ],
)
def test_an_error_is_one_line_and_exit_status_2(arguments: list[str], message: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unknown_mode_is_refused_with_the_right_ones() -> None:
    result = runner.invoke(app, ["run", "m", "d", "--mode", "sideways"])
    assert result.exit_code == 2
    assert "one_on" in result.stderr


def test_a_wrong_setting_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_PORT", "many")
    result = runner.invoke(app, ["sweep", "status", "swp_1"])
    assert result.exit_code == 2
    assert "QUANTSIEVE_PORT: 'many' is wrong" in result.stderr


def test_a_provider_that_is_none_is_named_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_ONNXRUNTIME_PROVIDER", "rocm")
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "QUANTSIEVE_ONNXRUNTIME_PROVIDER: 'rocm' is wrong: Input should be 'cuda' or 'tensorrt'" in result.stderr


@pytest.mark.parametrize("command", [[], ["serve"], ["run"], ["sweep"], ["sweep", "submit"], ["worker"], ["doctor"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_doctor_names_brokers_database_files_disk_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    for part in ("broker valkey", "broker filesystem", "database", "files", "disk", "server"):
        assert part in result.stdout
    assert "on cpu · by CPUExecutionProvider · onnx " in result.stdout or "by CPUExecutionProvider, " in result.stdout


def test_doctor_names_a_plugin_library_that_is_left_out_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_CUSTOM_OP_LIBRARIES", "/nowhere/ops.so")
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if "plugins onnxruntime" in line]
    assert "no" in row.split("│")[2]
    assert "/nowhere/ops.so · left out: it cannot be read: No such file or directory" in row


def test_a_wrong_place_for_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTSIEVE_BLOB_URL", "gs://bucket")
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "QUANTSIEVE_BLOB_URL: 'gs://bucket' is wrong" in result.stderr
    assert "s3://bucket/prefix" in result.stderr
