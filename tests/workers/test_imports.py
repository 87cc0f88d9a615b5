"""What a worker's processes load: a runtime costs seconds, and is wanted in one process only."""

import subprocess
import sys

import pytest

RUNTIMES = {"torch", "onnxruntime", "tensorrt"}


@pytest.mark.parametrize(
    "module",
    ["workers.celery_app", "workers.tasks", "workers.sandboxed", "workers.sandbox.model", "workers.sandbox.names"],
)
def test_nothing_of_a_worker_loads_a_runtime_before_a_file_wants_it(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not RUNTIMES & set(loaded)


def test_a_template_loads_only_the_runtime_of_the_kind_that_is_opened() -> None:
    code = "import sys; from workers.sandboxed import _load; _load('onnxruntime'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert RUNTIMES & set(loaded) == {"onnxruntime"}
