import numpy as np
import pytest

from service.domain.layers import ALL_INT8, FP32, FP32_REPEATED
from service.domain.results import Interval, VariantScore
from tests.workers.installation import Installation, npz_bytes
from workers.sweep.warnings import probe_warnings, result_warnings


def interval(value: float, half: float = 0.01) -> Interval:
    return Interval(value=value, low=value - half, high=value + half, method="t", samples=100)


def score(variant: str, metric: float, drop: float = 0.1, mse: float = 0.0) -> VariantScore:
    return VariantScore(
        variant=variant, metric=interval(metric), drop=interval(drop), measures={"mse": interval(mse, 0.0)}
    )


def controls(fp32: float = 0.9, repeated_mse: float = 0.0, int8_drop: float = 0.1) -> dict[str, VariantScore]:
    return {
        FP32: score(FP32, fp32, 0.0),
        FP32_REPEATED: score(FP32_REPEATED, fp32, 0.0, repeated_mse),
        ALL_INT8: score(ALL_INT8, fp32, int8_drop, 0.1),
    }


def codes(found: list[dict[str, str]]) -> list[str]:
    return [each["code"] for each in found]


def balanced(classes: int) -> dict[str, object]:
    return {"class_counts": {str(each): 10 for each in range(classes)}}


@pytest.mark.parametrize(
    ("classes", "metric", "fp32", "warned"),
    [
        (10, "top1", 0.12, True),
        (10, "top1", 0.19, True),
        (10, "top1", 0.25, False),
        (2, "top1", 0.52, True),
        (2, "top1", 0.8, False),  # twice the chance would be 1.0: no binary model could reach it
        (1000, "top1", 0.0015, True),
        (1000, "top1", 0.03, False),  # poor, and thirty times chance
        (10, "top5", 0.55, True),
        (10, "top5", 0.95, False),
        (5, "top5", 1.0, False),  # five guesses are always right
        (10, "mse", 0.1, False),
    ],
)
def test_an_fp32_metric_that_looks_like_chance_is_warned_of(
    classes: int, metric: str, fp32: float, warned: bool
) -> None:
    found = codes(result_warnings(controls(fp32), balanced(classes), metric))
    assert found == (["fp32-looks-like-chance"] if warned else [])


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    counts = {"class_counts": {"0": 90, "1": 10}}
    (warning,) = result_warnings(controls(0.91), counts, "top1")
    assert warning["message"].startswith("the fp32 top1 of 0.91 is hardly better than chance (0.9): the preprocessing")


def test_without_labels_nothing_is_said_of_chance() -> None:
    assert result_warnings(controls(0.01), {"class_counts": {}}, "top1") == []


def test_an_fp32_that_does_not_repeat_is_warned_of() -> None:
    assert codes(result_warnings(controls(repeated_mse=1e-9), {}, "mse")) == ["not-deterministic"]


def test_an_int8_that_does_no_harm_is_warned_of() -> None:
    assert codes(result_warnings(controls(int8_drop=-0.02), {}, "mse")) == ["nothing-to-find"]


def report_codes(installation: Installation, **settings: object) -> list[str]:
    sweep_id = installation.sweep(**settings)
    installation.run_until()
    return codes(installation.report(sweep_id)["warnings"])


OWN = "calibrated-on-evaluation-set"


def test_calibration_on_the_evaluation_set_is_warned_of_in_the_report(installation: Installation) -> None:
    assert OWN in report_codes(installation)


def test_the_same_samples_under_another_preprocessing_are_the_evaluation_set_too(installation: Installation) -> None:
    assert OWN in report_codes(installation, calibration={"dataset": installation.dataset(scale=0.5)})


def test_calibration_on_other_samples_is_not_warned_of(installation: Installation) -> None:
    other = installation.dataset(npz_bytes(seed=1))
    assert OWN not in report_codes(installation, calibration={"dataset": other})


def test_wrong_preprocessing_is_warned_of_in_the_report(installation: Installation) -> None:
    random = np.random.default_rng(0)
    shuffled = npz_bytes(x=random.normal(size=(300, 4)).astype(np.float32), labels=random.integers(3, size=300))
    found = report_codes(installation, dataset=installation.dataset(shuffled), metric={"name": "top1"})
    assert "fp32-looks-like-chance" in found


@pytest.mark.parametrize(
    ("predicted", "measured", "warned"), [(1.0, 1.2, False), (1.0, 1.4, True), (1.0, 0.7, True), (0.0, 1.0, True)]
)
def test_probes_that_miss_all_layers_in_int8_are_told(predicted: float, measured: float, warned: bool) -> None:
    assert codes(probe_warnings(predicted, measured)) == (["probe-not-linear"] if warned else [])
