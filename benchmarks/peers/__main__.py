"""Other tools' sensitivity sweeps beside ours: ResNet-20, the same images, one run.

    python -m benchmarks.peers                   # all
    python -m benchmarks.peers nncf quark        # ours and these
    python -m benchmarks.peers --samples 128

Each tool runs in an environment of its own under build/peers, made at first use from benchmarks/peers/requirements.
Its cost is in plain fp32 evaluations of the same images by the same runtime in the same process: CPU time on one
processor, the evaluation's the median of six, three before the sweep and three after. Calibration is not counted.
"MSE" and "KL": Spearman's correlation of the tool's ranking with our exact tables, over so many ("of") convolutions and
linear layers.

A tool that cannot be installed or run is named with the reason, and the others go on.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scipy.stats import spearmanr

from benchmarks.networks import ROOT, here
from benchmarks.peers.measure import ROW, Row, Task

TOOLS = ("modelopt", "aimet", "nncf", "ppq", "quark")
NETWORK = "cifar10_resnet20"
ENVIRONMENTS = ROOT / "build" / "peers"
REQUIREMENTS = ROOT / "benchmarks" / "peers" / "requirements"
REFERENCES = {"MSE": "exact, one on, output MSE", "KL": "exact, one on, KL"}
COLUMNS = (
    f"{'tool':10s} {'measured':44s} {'layers':>6s} {'per layer':>9s} {'sweep':>6s} "
    f"{'MSE':>6s} {'KL':>6s} {'of':>3s}  version"
)
INSTALL_SECONDS, RUN_SECONDS = 1800, 1800


class Failed(Exception):
    """A command that did not do what it should; the text says why in one line."""


def called(command: list[str], *, seconds: int, log: Path) -> str:
    """What the command wrote to stdout; both of its streams go to ``log`` too. Raises Failed."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            cwd=ENVIRONMENTS,  # where some of the tools leave files behind
            env=variables,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"took more than {seconds} s") from None
    log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Failed(f"{said[-1] if said else f'ended with {done.returncode}'} (see {log.relative_to(ROOT)})")
    return done.stdout


def environment(tool: str) -> str:
    """The interpreter of the tool's environment, with just what its requirements pin; raises Failed."""
    folder, wanted = ENVIRONMENTS / tool, (REQUIREMENTS / f"{tool}.txt").read_text()
    python, installed = str(folder / "bin" / "python"), folder / "installed.txt"
    if installed.exists() and installed.read_text() == wanted:
        return python
    print(f"{tool}: installing into {folder.relative_to(ROOT)}", flush=True)
    log = ENVIRONMENTS / f"{tool}-install.log"
    called([sys.executable, "-m", "venv", "--clear", str(folder)], seconds=INSTALL_SECONDS, log=log)
    requirements = ["-r", str(REQUIREMENTS / f"{tool}.txt")]
    called([python, "-m", "pip", "install", "--quiet", *requirements], seconds=INSTALL_SECONDS, log=log)
    installed.write_text(wanted)
    return python


def rows(tool: str, python: str, task: Task) -> list[Row]:
    """What the tool's script printed; raises Failed."""
    command = [python, "-m", f"benchmarks.peers.{tool}", *task.arguments()]
    written = called(command, seconds=RUN_SECONDS, log=ENVIRONMENTS / f"{tool}.log")
    found = [Row(**json.loads(line.removeprefix(ROW))) for line in written.splitlines() if line.startswith(ROW)]
    if not found:
        raise Failed("measured nothing")
    return found


def agreement(scores: Mapping[str, float], reference: Mapping[str, float]) -> tuple[float, int]:
    """Spearman's correlation over the layers that both name, nan where it has no meaning, and how many these are."""
    common = sorted(scores.keys() & reference.keys())
    if len(common) < 3 or len({scores[each] for each in common}) == 1:
        return float("nan"), len(common)
    found = spearmanr([scores[each] for each in common], [reference[each] for each in common])
    return float(found.statistic), len(common)


def shown(row: Row, references: Mapping[str, Mapping[str, float]]) -> str:
    """A line of the table."""
    found = {name: agreement(row.scores, reference) for name, reference in references.items()}
    correlations = " ".join(f"{value:6.2f}" for value, _ in found.values())
    count = max((count for _, count in found.values()), default=0)
    return (
        f"{row.tool:10s} {row.measured:44s} {row.layers:6d} {row.evaluations / row.layers:9.2f} {row.evaluations:6.1f} "
        f"{correlations} {count:3d}  {row.version}"
    )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=f"only these: {', '.join(TOOLS)}")
    parser.add_argument("--samples", type=int, default=512, help="images (512)")
    arguments = parser.parse_args()
    unknown = set(arguments.tools) - set(TOOLS)
    if unknown:
        parser.error(f"TOOL: no {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    network = next((each for each in here() if each.name == NETWORK), None)
    if network is None:
        return
    task = Task(network.pt2, network.onnx, network.evaluation, network.calibration, arguments.samples)
    interpreters, failures = {}, {}
    for tool in arguments.tools or TOOLS:
        try:
            interpreters[tool] = environment(tool)
        except Failed as failed:
            failures[tool] = f"could not be installed: {failed}"
    print(
        f"{time.strftime('%Y-%m-%d')}, {NETWORK}, {arguments.samples} images, one thread of {os.cpu_count()}, "
        f"{platform.machine()}, costs in fp32 evaluations\n{COLUMNS}",
        flush=True,
    )
    ours = rows("ours", sys.executable, task)
    references = {
        name: next(each.scores for each in ours if each.measured == measured) for name, measured in REFERENCES.items()
    }
    for row in ours:
        print(shown(row, references), flush=True)
    for tool, python in interpreters.items():
        try:
            for row in rows(tool, python, task):
                print(shown(row, references), flush=True)
        except Failed as failed:
            failures[tool] = f"could not be run: {failed}"
    for tool, why in failures.items():
        print(f"{tool}: {why}", flush=True)


if __name__ == "__main__":
    main()
