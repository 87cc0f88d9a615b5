"""The commands over model files: ``python -m workers.exports.command convert|lint-qdq``.

Exit status 0: done; 1: the linter found violations; 2: an error, in one line on standard error.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from service.domain.caches import CacheAlgorithm
from service.domain.conversion import DEFAULT_VERSION
from service.domain.errors import InvalidInput, QuantsieveError
from service.inspection.calibration_cache import CalibrationCache, read_cache, write_cache
from service.settings import Settings

if TYPE_CHECKING:
    from workers.exports.lint_rules import Finding

PIPE_WIDTH = 160
EXIT_VIOLATIONS = 1
EXIT_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(arguments)
    run = {"convert": _convert, "lint-qdq": _lint}[options.command]
    try:
        return run(options)
    except QuantsieveError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quantsieve", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    convert = commands.add_parser("convert", help="a calibration cache to a Q/DQ graph, or back")
    convert.add_argument("model", type=Path)
    convert.add_argument("cache", type=Path, nargs="?")
    convert.add_argument("-o", "--output", type=Path, required=True)
    convert.add_argument("--to-cache", type=Path)
    convert.add_argument("--algorithm", type=CacheAlgorithm, default=CacheAlgorithm.ENTROPY_2)
    convert.add_argument("--tensorrt-version", default=DEFAULT_VERSION)
    convert.add_argument("--transposed-axis", type=int, choices=(0, 1), default=1)
    convert.add_argument("--half", action="store_true")
    lint = commands.add_parser("lint-qdq", help="what an engine will not fuse or support")
    lint.add_argument("model", type=Path)
    lint.add_argument("--json", action="store_true")
    return parser


def _convert(options: argparse.Namespace) -> int:
    if (options.cache is None) == (options.to_cache is None):
        raise InvalidInput("CACHE: give either a cache to read or, for a Q/DQ model, --to-cache with one to write")
    return _to_cache(options) if options.cache is None else _from_cache(options)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


def _cache(path: Path) -> CalibrationCache:
    data = _read(_existing(path, "CACHE"))
    try:
        return read_cache(data)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def _existing(path: Path, parameter: str) -> Path:
    if not path.is_file():
        raise InvalidInput(f"{parameter}: there is no file {path}")
    return path


def _from_cache(options: argparse.Namespace) -> int:
    from workers.exports.conversion import to_qdq
    from workers.exports.onnx_file import write_onnx
    from workers.exports.qdq_onnx import QdqSettings

    path = _existing(options.model, "MODEL")
    cache = _cache(options.cache)
    settings = QdqSettings(transposed_axis=options.transposed_axis, half_fallback=options.half)
    made = to_qdq(path, cache, settings, libraries=Settings().custom_op_libraries)
    files = write_onnx(options.output, made.export.model, made.export.weights)
    print(f"{len(made.export.int8)} layers in int8, {len(made.ranges.left_float)} left in floating point")
    for left in made.ranges.left_float:
        print(f"  {left.name}: {left.reason}")
    for rescaled in made.export.rescaled:
        others = ", ".join(rescaled.shared_with)
        print(f"  {rescaled.edge}: range {rescaled.before:.6g} became {rescaled.amax:.6g}, one scale with {others}")
    for renamed in made.ranges.renamed:
        print(f"  {renamed.tensor}: its scale stands under {renamed.entry}, the name before its batch norm was folded")
    for kept in made.export.kept_float32:
        print(f"  {kept.layer}: float32, not float16: {kept.reason}")
    unused = made.ranges.unused
    if unused:
        print(
            f"{len(unused)} entries of the cache belong to no quantized input: {', '.join(unused[:8])}"
            + (", …" if len(unused) > 8 else "")
        )
    print("wrote " + ", ".join(str(file) for file in files))
    return 0


def _to_cache(options: argparse.Namespace) -> int:
    from workers.exports.model_file import open_model
    from workers.exports.onnx_file import write_onnx
    from workers.exports.to_cache import to_cache

    opened = open_model(_existing(options.model, "MODEL"))
    made = to_cache(opened.model, opened.weights, version=options.tensorrt_version, algorithm=options.algorithm)
    files = write_onnx(options.output, made.model, made.weights)
    try:
        options.to_cache.write_bytes(write_cache(made.cache))
    except OSError as error:
        raise InvalidInput(f"{options.to_cache} cannot be written: {error.strerror}") from error
    for each in made.several_scales:
        dropped = ", ".join(f"{scale:.6g}" for scale in each.dropped)
        print(f"  {each.tensor}: it had several scales; {each.kept:.6g} was kept, {dropped} dropped")
    print(f"{len(made.cache.entries)} scales in {options.to_cache}")
    print("wrote " + ", ".join(str(file) for file in files))
    return 0


def _lint(options: argparse.Namespace) -> int:
    from workers.exports.model_file import open_model
    from workers.exports.qdq_lint import lint_qdq

    opened = open_model(_existing(options.model, "MODEL"))
    findings = lint_qdq(opened.model, opened.weights)
    if options.json:
        rows = [
            {"rule": each.rule.value, "node": each.node, "tensor": each.tensor, "why": each.why, "cost": each.cost}
            for each in findings
        ]
        print(json.dumps(rows, indent=2))
    else:
        _show(findings)
    return EXIT_VIOLATIONS if findings else 0


def _show(findings: "Sequence[Finding]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not findings:
        print("no violations")
        return
    console = Console()
    console = console if console.is_terminal else Console(width=PIPE_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("rule", "node", "why", "cost"):
        table.add_column(heading, overflow="fold")
    for each in findings:  # names are untrusted text: never markup
        table.add_row(each.rule.value, Text(each.node), Text(each.why), each.cost)
    console.print(table)
    console.print(f"{len(findings)} violations")


if __name__ == "__main__":
    sys.exit(main())
