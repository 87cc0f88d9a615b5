"""``quantsieve convert``: a TensorRT calibration cache to a Q/DQ model, and back."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.worker_command import run_worker_command


def convert(
    model: Annotated[Path, typer.Argument(help="A float32 ONNX model; with --to-cache, a Q/DQ one.", metavar="MODEL")],
    cache: Annotated[
        Path | None, typer.Argument(help="The calibration cache of that model.", metavar="CACHE", show_default=False)
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    to_cache: Annotated[
        Path | None, typer.Option(help="Convert the other way: write the activation scales to this cache.")
    ] = None,
    algorithm: Annotated[str | None, typer.Option(help="With --to-cache, e.g. MinMaxCalibration.")] = None,
    tensorrt_version: Annotated[str | None, typer.Option(help="With --to-cache, the digits, e.g. 100300.")] = None,
    transposed_axis: Annotated[int | None, typer.Option(help="Axis of ConvTranspose weight scales: 0 or 1.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Layers that stay in floating point are float16.")] = False,
) -> None:
    """Turn a calibration cache (TensorRT <= 10) into explicit Q/DQ, as TensorRT 11 needs it, or back."""
    given = {
        "--to-cache": to_cache,
        "--algorithm": algorithm,
        "--tensorrt-version": tensorrt_version,
        "--transposed-axis": transposed_axis,
    }
    options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    files = [str(each) for each in (model, cache) if each is not None]
    run_worker_command(["convert", f"--output={output}", *options, *(["--half"] if half else []), "--", *files])
