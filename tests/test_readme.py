"""README.md and docs/ say what the repository holds."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.cli.connection import KEY_VARIABLE, URL_VARIABLE, own_server
from service.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])


@pytest.mark.parametrize("name", ["curl.sh", "cache.sh"])
def test_the_readme_shows_the_scripts_as_they_are(name: str) -> None:
    assert f"```bash\n{(ROOT / 'examples' / name).read_text()}```" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([\w.]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([\w.]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert named
    assert named <= targets


def test_every_setting_of_the_readme_exists() -> None:
    named = set(re.findall(r"QUANTSIEVE_([A-Z0-9_]+)", (ROOT / "README.md").read_text()))
    assert named
    of_the_client = {each.removeprefix("QUANTSIEVE_") for each in (URL_VARIABLE, KEY_VARIABLE)}
    assert named <= {name.upper() for name in Settings.model_fields} | of_the_client


@dataclass(frozen=True)
class Running:
    """A running service, and the home of the user who started it, where the key lies."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """That user's."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("QUANTSIEVE_")}
        return {**own, "HOME": str(self.home)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service as `make serve` starts it, on another port."""
    home = tmp_path_factory.mktemp("home")
    with own_server(Settings(data_dir=home / ".local" / "share" / "quantsieve")) as connection:
        yield Running(connection.url, home)


@dataclass(frozen=True)
class Ran:
    """What a script said, and the folder that it ran in."""

    said: str
    folder: Path


def script(name: str, folder: Path, service: Running) -> Ran:
    """A script of examples/, run in the folder."""
    command = [shutil.which("bash") or "bash", str(ROOT / "examples" / name)]
    environment = {**service.environment, "API": service.url}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return Ran(done.stdout, folder)


@pytest.fixture(scope="module")
def curled(service: Running, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    return script("curl.sh", folder, service)


def test_the_curl_example_runs_as_written(curled: Ran) -> None:
    assert "succeeded" in curled.said
    assert "block6.pointwise" in curled.said
    assert (curled.folder / "report.html").read_text().startswith("<!doctype html>")


def test_the_question_of_the_curl_example_is_measured(curled: Ran) -> None:
    (asked,) = json.loads(curled.said.strip().splitlines()[-1])["items"]
    assert (asked["state"], asked["answer"], asked["cost"]) == ("done", "verified", "weight_bytes")
    assert asked["measured"]["samples"] == 384


def test_the_cache_example_runs_as_written_and_the_cache_comes_back(curled: Ran, service: Running) -> None:
    ran = script("cache.sh", curled.folder, service)
    assert ran.said.count("succeeded") == 3
    assert "block6.pointwise" in ran.said
    assert (ran.folder / "back.cache").read_bytes() == (ran.folder / "calibration.cache").read_bytes()


def test_the_commands_on_files_run_as_written(curled: Ran, service: Running) -> None:
    shutil.copy(ROOT / "examples" / "digits" / "digits.onnx", curled.folder / "model.onnx")
    written = re.findall(r"^quantsieve ((?:convert|lint-qdq|run) .+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [each.split()[0] for each in written] == ["convert", "lint-qdq", "convert", "run"]
    for each in written:
        command = [sys.executable, "-c", "from service.cli.root import main; main()", *shlex.split(each)]
        environment = {**service.environment, "QUANTSIEVE_URL": service.url, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=curled.folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{each}: {done.stdout}{done.stderr}"
    assert (curled.folder / "back.cache").read_bytes() == (curled.folder / "calibration.cache").read_bytes()
    assert (curled.folder / "quantsieve-out" / "mixed.onnx").exists()


def test_the_python_example_runs_as_written(service: Running, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert "http://127.0.0.1:8080" in block
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program = block.replace("http://127.0.0.1:8080", service.url)
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tmp_path, env=service.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 10_000
