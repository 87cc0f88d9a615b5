"""The wheel holds all it needs: installed outside the checkout, the server starts and builds its own schema."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel, and nothing else of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "target")]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "target"


def test_serve_works_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUANTSIEVE_")}
    environment["PYTHONPATH"] = str(installed)
    script = "import service, sys; print(service.__file__, file=sys.stderr); from service.cli import main; main()"
    command = [sys.executable, "-P", "-c", script, "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    errors = tmp_path / "errors"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "serving at" in line, errors.read_text()
        assert errors.read_text().splitlines()[0] == str(installed / "service" / "__init__.py")
        url = line.split()[-1]
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/openapi.json").status_code == 200
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    with sqlite3.connect(tmp_path / "data" / "quantsieve.db") as database:
        tables = {row[0] for row in database.execute("select name from sqlite_master where type = 'table'")}
    assert {"alembic_version", "sweeps", "work_units"} <= tables
