"""The options that describe a sweep, shared by ``run`` and ``sweep submit``."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer
from pydantic import TypeAdapter, ValidationError

from service.domain.errors import InvalidInput
from service.domain.scheduling import DeviceKind, Priority
from service.domain.settings import (
    METHOD_OF,
    BackendName,
    CalibrationMethod,
    Preprocessing,
    Quantization,
    SweepMethod,
    SweepMode,
    SweepSettings,
    WeightGranularity,
)

T = TypeVar("T")
PLACEHOLDER = "to-be-uploaded"


@dataclass(frozen=True)
class SweepOptions:
    """One sweep, as it stands on the command line. Defaults that are None are the service's own."""

    metric: Annotated[str, typer.Option(help="top1, top5, mse, sqnr, cosine, kl, agreement, or a torchmetrics class.")]
    metric_args: Annotated[str | None, typer.Option(help="Arguments of a torchmetrics class: JSON, or @file.")]
    output: Annotated[str | None, typer.Option(help="The output that is scored, by name.  [default: the first]")]
    max_drop: Annotated[float | None, typer.Option(help="The budget: how far the metric may drop, e.g. 0.01.")]
    relative: Annotated[bool, typer.Option("--relative", help="The budget is a share of the fp32 value.")]
    backend: Annotated[BackendName | None, typer.Option(help="The runtime that measures.")]
    method: Annotated[SweepMethod | None, typer.Option(help="How layers are scored.")]
    mode: Annotated[SweepMode | None, typer.Option(help="One layer in int8, or all but one.")]
    weights: Annotated[WeightGranularity | None, typer.Option(help="How weights are scaled.")]
    quantization: Annotated[Quantization | None, typer.Option(help="With --backend tensorrt: Q/DQ, or scales beside.")]
    calibration_data: Annotated[
        str | None, typer.Option(help="Calibration set: a file, or a dataset's id.  [default: the evaluation set]")
    ]
    calibration: Annotated[CalibrationMethod | None, typer.Option(help="How activation ranges are found.")]
    percentile: Annotated[float | None, typer.Option(help="With --calibration percentile, e.g. 99.99.")]
    quantile: Annotated[float | None, typer.Option(help="With --calibration trt_legacy, e.g. 0.9999.")]
    cutoff: Annotated[float | None, typer.Option(help="With --calibration trt_legacy, a share of the maximum.")]
    calibration_samples: Annotated[int | None, typer.Option(help="How many samples calibrate.")]
    calibration_cache: Annotated[
        str | None,
        typer.Option(help="TensorRT calibration cache with the ranges, instead of calibrating: a file, or its id."),
    ]
    include: Annotated[list[str] | None, typer.Option(help="Only layers that match this pattern; repeatable.")]
    exclude: Annotated[list[str] | None, typer.Option(help="No layers that match this pattern; repeatable.")]
    threshold: Annotated[
        float | None, typer.Option(help="Fall back all layers more sensitive than this, instead of a search.")
    ]
    priority: Annotated[Priority | None, typer.Option(help="The share of the workers beside your other sweeps.")]
    device: Annotated[DeviceKind | None, typer.Option(help="Only workers with this kind of device take it.")]
    samples: Annotated[int | None, typer.Option(help="Use only this many samples of the evaluation set.")]
    seed: Annotated[int | None, typer.Option(help="Seed of all that is drawn.")]
    fuse_bn: Annotated[bool, typer.Option("--fuse-bn/--no-fuse-bn", help="Fold BatchNorm into its convolution first.")]
    fallback_precision: Annotated[
        Literal["fp32", "fp16"] | None, typer.Option(help="Of the layers in mixed.onnx that are not int8.")
    ]
    preprocessing: Annotated[
        str | None, typer.Option(help='How stored samples become inputs: JSON or @file, e.g. {"layout": "NHWC"}.')
    ]

    def settings(
        self, *, model: str, dataset: str, calibration: str | None = None, cache: str | None = None
    ) -> SweepSettings:
        """The sweep's settings for these resources; raises InvalidInput that names the option.

        ``calibration``: the id of the calibration set; ``cache``: of the calibration cache.
        """
        document: dict[str, Any] = {
            "model": model,
            "dataset": dataset,
            "backend": self.backend,
            "method": self.method,
            "mode": self.mode,
            "weights": self.weights,
            "quantization": self.quantization,
            "calibration": _given(
                cache=cache,
                method=self.calibration or self._calibration_by_parameter(),
                percentile=self.percentile,
                quantile=self.quantile,
                cutoff=self.cutoff,
                dataset=calibration,
                samples=self.calibration_samples,
            ),
            "metric": _given(name=self.metric, args=parse_json(self.metric_args, "--metric-args"), output=self.output),
            "include": self.include or (),
            "exclude": self.exclude or (),
            "budget": None if self.max_drop is None else {"max_drop": self.max_drop, "relative": self.relative},
            "selection": None if self.threshold is None else {"algorithm": "threshold", "threshold": self.threshold},
            "fuse_bn": self.fuse_bn,
            "fallback_precision": self.fallback_precision,
            "priority": self.priority,
            "device": self.device,
            "seed": self.seed,
            "samples": self.samples,
        }
        return validated(SweepSettings, _given(**document))

    def _calibration_by_parameter(self) -> CalibrationMethod | None:
        """The method that a given parameter goes with."""
        return next((method for name, method in METHOD_OF.items() if getattr(self, name) is not None), None)

    def check(self) -> None:
        """Raise InvalidInput before anything is uploaded."""
        given = {"calibration": self.calibration_data, "cache": self.calibration_cache}
        placed = {name: PLACEHOLDER for name, value in given.items() if value is not None}
        self.settings(model=PLACEHOLDER, dataset=PLACEHOLDER, **placed)
        self.parsed_preprocessing()

    def parsed_preprocessing(self) -> Preprocessing | None:
        """The preprocessing; None where none was given."""
        document = parse_json(self.preprocessing, "--preprocessing")
        return None if document is None else validated(Preprocessing, document, prefix="preprocessing.")


DEFAULTS: dict[str, Any] = {"metric": "top1", "relative": False, "fuse_bn": True}


def default_options() -> SweepOptions:
    """What a command line without options says."""
    values: dict[str, Any] = {each.name: DEFAULTS.get(each.name) for each in fields(SweepOptions)}
    return SweepOptions(**values)


def takes_sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is filled from one option per field of SweepOptions."""
    hints = get_type_hints(SweepOptions, include_extras=True)
    names = [each.name for each in fields(SweepOptions)]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name), annotation=hints[name])
        for name in names
    ]
    own_hints = get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=own_hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(inspect.signature(command).parameters.values())[1:]
    ]

    @wraps(command)
    def with_options(**given: Any) -> None:
        options = SweepOptions(**{name: given.pop(name) for name in names})
        command(options, **given)

    with_options.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in [*own, *added]}
    return with_options


def parse_json(text: str | None, option: str) -> dict[str, Any] | None:
    """A JSON object, written out or in the file after ``@``; None for None."""
    if text is None:
        return None
    try:
        content = Path(text[1:]).read_text() if text.startswith("@") else text
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{option}: {text[1:]} cannot be read: {error}", field=option) from None
    try:
        document = json.loads(content)
    except ValueError as error:
        raise InvalidInput(f"{option}: not JSON ({error}); give an object or @file", field=option) from None
    if not isinstance(document, dict):
        raise InvalidInput(f'{option}: {content.strip()[:60]} is not a JSON object such as {{"key": 1}}', field=option)
    return document


def validated(kind: type[T], document: dict[str, Any], *, prefix: str = "") -> T:
    """The typed value; raises InvalidInput with the first wrong field, its value, and what would be right."""
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    field = prefix + ".".join(str(part) for part in first["loc"])
    message = f"{field}: {first['input']!r} is wrong: {first['msg']}" if first["loc"] else first["msg"]
    raise InvalidInput(message, field=field)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
