"""Runs a command of the workers in a process of its own, since this package loads no tensor library."""

import subprocess
import sys
from collections.abc import Sequence

import typer

from service.cli.problems import read_settings
from service.embedded.server import worker_environment

MODULE = "workers.exports.command"


def run_worker_command(arguments: Sequence[str]) -> None:
    """Run it to its end; its output is ours, and so is its exit status where that is not 0."""
    command = [sys.executable, "-P", "-m", MODULE, *arguments]
    status = subprocess.run(command, check=False, env=worker_environment(read_settings())).returncode
    if status != 0:
        # killed by a signal: the status that a shell gives it
        raise typer.Exit(status if status > 0 else 128 - status)
