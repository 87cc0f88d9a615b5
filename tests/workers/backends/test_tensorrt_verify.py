"""``quantsieve doctor --tensorrt``: what it finds where engines are right, wrong, or cannot be built at all."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.workers.backends.test_tensorrt_backend import RuntimeMaker
from workers.backends.tensorrt.verify import verify


def checks(tmp_path, maker: RuntimeMaker, **settings: bool) -> dict[str, object]:
    found = verify(lambda device: maker, tmp_path, device="cuda:0", **({"implicit": False} | settings))
    return {each.variant: each for each in found}


def test_engines_that_compute_fake_quantization_pass(tmp_path) -> None:
    found = checks(tmp_path, RuntimeMaker())
    assert set(found) == {"fp32", "all_int8", "conv1", "conv2", "add", "pool", "fc"}
    assert all(each.good for each in found.values()), found


def test_a_conv_that_is_not_realised_fails_and_an_add_does_not(tmp_path) -> None:
    found = checks(tmp_path, RuntimeMaker(ignored=frozenset({"conv1", "add"})))
    assert not found["conv1"].good
    assert found["add"].good
    assert all(found[each].found.startswith("not realised: ") for each in ("conv1", "add", "all_int8"))
    assert not found["all_int8"].good
    assert found["fc"].good


def test_a_build_that_fails_fails_for_every_operation(tmp_path) -> None:
    found = checks(tmp_path, RuntimeMaker(broken=frozenset({"add"})))
    assert not found["add"].good
    assert found["add"].found == "build failed: no tactic"


def test_int8_that_tensorrt_ignores_beside_the_graph_is_found_out(tmp_path) -> None:
    """The engines here run the graph alone, so that nothing of it is in int8."""
    found = checks(tmp_path, RuntimeMaker(), implicit=True)
    assert found["fp32"].good
    assert not found["conv1"].good


def test_an_engine_that_computes_something_else_fails(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tests.workers.backends.test_tensorrt_backend.RuntimeEngine.run", wrong)
    assert not checks(tmp_path, RuntimeMaker())["fp32"].good


def wrong(engine, feeds):
    import onnxruntime

    session = onnxruntime.InferenceSession(engine.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return {"y": session.run(["y"], dict(feeds))[0] * 1.01}


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is here")
def test_without_tensorrt_the_doctor_says_so_and_fails(tmp_path) -> None:
    environment = os.environ | {"QUANTSIEVE_DATA_DIR": str(tmp_path), "COLUMNS": "200"}
    command = [sys.executable, "-c", "from service.cli import main; main()", "doctor", "--tensorrt"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stderr
    assert "the package tensorrt is not installed; install quantsieve[gpu,tensorrt]" in done.stdout


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is here")
def test_the_worker_answers_in_one_line_of_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers.main", "--verify-tensorrt"], capture_output=True, text=True, check=True
    )
    (found,) = json.loads(done.stdout)
    assert found["good"] is False
