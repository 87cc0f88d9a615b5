"""``quantsieve lint-qdq``: what an engine will not fuse, not support, or pay for in a Q/DQ model."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.worker_command import run_worker_command


def lint_qdq(
    model: Annotated[Path, typer.Argument(help="A Q/DQ model, from whatever tool.", metavar="MODEL")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the violations as JSON.")] = False,
) -> None:
    """Name each Q/DQ placement that costs speed or accuracy in TensorRT; exit status 1 where there is one."""
    run_worker_command(["lint-qdq", *(["--json"] if as_json else []), "--", str(model)])
