"""README.md and docs/ say what the repository holds."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cli.connection import own_server
from service.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])


def test_the_readme_shows_the_curl_example_as_it_is() -> None:
    assert f"```bash\n{(ROOT / 'examples' / 'curl.sh').read_text()}```" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([\w.]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([\w.]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert named
    assert named <= targets


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running service, as `make serve` starts it."""
    with own_server(Settings(data_dir=tmp_path_factory.mktemp("service"))) as connection:
        yield connection.url


def test_the_curl_example_runs_as_written(service: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = [shutil.which("bash") or "bash", str(ROOT / "examples" / "curl.sh")]
    done = subprocess.run(
        script, cwd=tmp_path, env={**os.environ, "API": service}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "block6.pointwise" in done.stdout
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_the_python_example_runs_as_written(service: str, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert "http://127.0.0.1:8080" in block
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program = block.replace("http://127.0.0.1:8080", service)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 10_000
