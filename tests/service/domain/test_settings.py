from typing import Any

import pytest
from pydantic import ValidationError

from service.domain.settings import (
    CalibrationMethod,
    CalibrationSettings,
    Preprocessing,
    SelectionAlgorithm,
    SelectionSettings,
    SweepMethod,
    SweepMode,
    SweepSettings,
)


def sweep(**settings: Any) -> SweepSettings:
    return SweepSettings.model_validate({"model": "m", "dataset": "d", **settings})


def test_a_sweep_has_its_defaults_from_one_place() -> None:
    found = sweep()
    assert (found.mode, found.weights, found.fuse_bn, found.seed) == (SweepMode.ONE_ON, "per_channel", True, 0)
    assert (found.calibration.method, found.metric.name, found.algorithm) == ("max", "top1", "greedy")
    assert found.budget is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backend", "tflite"),
        ("mode", "two_on"),
        ("weights", "per_block"),
        ("budget", {"max_drop": -0.1}),
        ("budget", {"max_drop": float("nan")}),
        ("budget", {"max_drop": float("inf")}),
        ("calibration", {"method": "kl"}),
        ("calibration", {"method": "trt_legacy", "quantile": 0.5}),
        ("calibration", {"method": "trt_legacy", "cutoff": 0}),
        ("calibration", {"percentile": 50}),
        ("calibration", {"percentile": 100.5}),
        ("calibration", {"samples": 0}),
        ("seed", -1),
        ("seed", 2**32),
        ("fallback_precision", "int8"),
        ("samples", 0),
        ("shard_size", 0),
        ("colour", "red"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        sweep(**{field: value})


@pytest.mark.parametrize(
    "settings",
    [{"algorithm": "threshold"}, {"algorithm": "greedy", "threshold": 0.1}, {"threshold": 0.1}],
    ids=["missing", "with greedy", "with the default"],
)
def test_a_threshold_goes_with_its_algorithm_and_only_with_it(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give threshold with algorithm 'threshold', and only with it"):
        SelectionSettings(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"algorithm": "top_k"}, {"algorithm": "greedy", "top_k": 2}, {"top_k": 2}],
    ids=["missing", "with greedy", "with the default"],
)
def test_a_top_k_goes_with_its_algorithm_and_only_with_it(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give top_k with algorithm 'top_k', and only with it"):
        SelectionSettings(**settings)


def test_a_pattern_cannot_be_pinned_both_ways() -> None:
    with pytest.raises(ValidationError, match="'head' stands in both always_int8 and never_int8"):
        SelectionSettings(always_int8=("head", "stem"), never_int8=("head",))


@pytest.mark.parametrize(
    ("field", "value"),
    [("top_k", -1), ("cost", "flops"), ("groups", [[]]), ("holdout", -0.1), ("holdout", 1.0), ("always_int8", "head")],
)
def test_a_selection_outside_its_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"selection\.{field}"):
        sweep(selection={field: value})


def test_half_the_samples_are_held_out_unless_told() -> None:
    found = SelectionSettings()
    assert (found.holdout, found.cost, found.groups, found.always_int8) == (0.5, "layers", (), ())


@pytest.mark.parametrize(
    ("field", "value", "own"),
    [("percentile", 99.0, "percentile"), ("quantile", 0.99, "trt_legacy"), ("cutoff", 0.5, "trt_legacy")],
)
def test_a_parameter_of_another_calibration_method_is_refused_by_name(field: str, value: float, own: str) -> None:
    for method in CalibrationMethod:
        asked = {"method": method, field: value}
        if method == own:
            assert CalibrationSettings.model_validate(asked).parameters[field] == value
            continue
        with pytest.raises(ValidationError, match=f"{field}\n.*goes with method '{own}', and only with it") as caught:
            sweep(calibration=asked)
        assert caught.value.errors()[0]["loc"] == ("calibration", field)


def test_preprocessing_is_the_identity_until_something_is_asked_of_it() -> None:
    assert Preprocessing().is_identity
    assert not Preprocessing(scale=0.5).is_identity


def test_settings_come_back_from_json_as_they_were() -> None:
    found = sweep(budget={"max_drop": 0.1, "relative": True}, include=["layer*"], metric={"name": "kl"})
    assert SweepSettings.model_validate_json(found.model_dump_json()) == found


def test_a_cache_stands_alone_wherever_settings_are_kept_or_shown() -> None:
    settings = sweep(calibration={"cache": "cal_1"})
    document = settings.model_dump(mode="json")
    assert document["calibration"] == {"cache": "cal_1"}
    assert SweepSettings.model_validate(document) == settings
    assert sweep().model_dump(mode="json")["calibration"]["method"] == "max"


@pytest.mark.parametrize(
    ("field", "value"),
    [("method", "max"), ("method", "mse"), ("percentile", 99.99), ("dataset", "dat_1"), ("samples", 512)],
)
def test_what_a_cache_replaces_is_refused_beside_it_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"calibration.{field}\n.*calibration.cache has the ranges"):
        sweep(calibration={"cache": "cal_1", field: value})


def test_settings_with_and_without_a_cache_have_the_fields_schema() -> None:
    for mode in ("validation", "serialization"):
        assert set(CalibrationSettings.model_json_schema(mode=mode)["properties"]) >= {"cache", "method", "samples"}


def test_a_budget_is_searched_for_by_prediction_unless_a_race_or_greedy_was_asked_for() -> None:
    budget = {"max_drop": 0.01}
    asked = SweepSettings.model_validate({"model": "m", "dataset": "d", "budget": budget})
    assert (asked.algorithm, asked.predicts, asked.selection.holdout) == ("optimal", True, 0.5)
    raced = asked.model_copy(update={"method": SweepMethod.RACING})
    assert (raced.algorithm, raced.predicts) == ("greedy", False)
    along = asked.model_copy(update={"selection": SelectionSettings(algorithm=SelectionAlgorithm.GREEDY)})
    assert (along.selection_in_force.algorithm, along.predicts) == ("greedy", False)
