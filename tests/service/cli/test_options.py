"""The options of a sweep: what they become, and how a wrong one is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.cli.options import default_options
from service.domain.errors import InvalidInput
from service.domain.settings import (
    BackendName,
    Budget,
    CalibrationMethod,
    CalibrationSettings,
    MetricSettings,
    Quantization,
    SelectionSettings,
    SweepMode,
    SweepSettings,
)


def settings_of(**given: Any) -> SweepSettings:
    return replace(default_options(), **given).settings(model="mdl_1", dataset="dat_1", calibration=None)


def test_without_options_the_defaults_are_those_of_the_service() -> None:
    assert settings_of() == SweepSettings(model="mdl_1", dataset="dat_1")


def test_each_option_reaches_its_setting() -> None:
    settings = settings_of(
        metric="Accuracy",
        metric_args='{"task": "multiclass"}',
        output="logits",
        max_drop=0.01,
        relative=True,
        backend=BackendName.TORCH,
        mode=SweepMode.ONE_OFF,
        percentile=99.9,
        calibration_samples=64,
        include=["conv*"],
        exclude=["fc"],
        threshold=0.5,
        samples=100,
        seed=7,
        fuse_bn=False,
        fallback_precision="fp16",
        quantization=Quantization.IMPLICIT,
    )
    assert settings == SweepSettings(
        model="mdl_1",
        dataset="dat_1",
        metric=MetricSettings(name="Accuracy", args={"task": "multiclass"}, output="logits"),
        budget=Budget(max_drop=0.01, relative=True),
        backend=BackendName.TORCH,
        mode=SweepMode.ONE_OFF,
        calibration=CalibrationSettings(method="percentile", percentile=99.9, samples=64),
        include=("conv*",),
        exclude=("fc",),
        selection=SelectionSettings(algorithm="threshold", threshold=0.5),
        samples=100,
        seed=7,
        fuse_bn=False,
        fallback_precision="fp16",
        quantization="implicit",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"calibration": CalibrationMethod.ENTROPY}, CalibrationSettings(method="entropy")),
        ({"percentile": 99.0}, CalibrationSettings(method="percentile", percentile=99.0)),
        ({"quantile": 0.99, "cutoff": 0.8}, CalibrationSettings(method="trt_legacy", quantile=0.99, cutoff=0.8)),
    ],
)
def test_a_calibration_methods_parameter_names_the_method(given: dict[str, Any], expected: CalibrationSettings) -> None:
    assert settings_of(**given).calibration == expected


def test_a_calibration_cache_stands_in_place_of_a_method() -> None:
    options = replace(default_options(), calibration_cache="net.cache")
    options.check()
    settings = options.settings(model="mdl_1", dataset="dat_1", cache="cal_1")
    assert settings.calibration == CalibrationSettings(cache="cal_1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"calibration_cache": "c", "calibration": CalibrationMethod.MAX}, r"calibration.method: .*has the ranges"),
        ({"calibration_cache": "c", "calibration_samples": 9}, r"calibration.samples: 9 is wrong: .*has the ranges"),
        ({"calibration_cache": "c", "calibration_data": "d"}, r"calibration.dataset: .*has the ranges"),
        ({"max_drop": -1.0}, r"budget.max_drop: -1.0 is wrong: .*greater than or equal to 0"),
        ({"calibration": "kl"}, r"calibration.method: 'kl' is wrong: .*'max', 'percentile', .*'entropy'"),
        ({"calibration": "max", "quantile": 0.9}, r"calibration.quantile: 0.9 is wrong: .*method 'trt_legacy'"),
        ({"percentile": 20.0}, r"calibration.percentile: 20.0 is wrong: .*greater than 50"),
        ({"samples": 0}, r"samples: 0 is wrong"),
        ({"fallback_precision": "int8"}, r"fallback_precision: 'int8' is wrong: .*'fp32'.* or .*'fp16'"),
        ({"metric_args": "[1]"}, r"--metric-args: \[1\] is not a JSON object"),
        ({"preprocessing": "{"}, r"--preprocessing: not JSON"),
        ({"preprocessing": '{"layout": "HWC"}'}, r"preprocessing.layout: 'HWC' is wrong: .*'NCHW' or 'NHWC'"),
        ({"preprocessing": "@/nowhere.json"}, r"--preprocessing: /nowhere.json cannot be read"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        replace(default_options(), **given).check()


def test_preprocessing_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"layout": "NHWC"}')
    parsed = replace(default_options(), preprocessing=f"@{path}").parsed_preprocessing()
    assert parsed is not None
    assert parsed.layout == "NHWC"
