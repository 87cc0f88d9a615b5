"""From rows per sample to scores: the sign of a drop, what it is against, and which numbers are tested."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.domain.settings import MetricSettings, SweepMode
from workers.metrics import intervals
from workers.metrics.recorder import Recorder
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import TaskMetric, resolve_metric

RNG = np.random.default_rng(0)
SAMPLES, CLASSES = 200, 8
LABELS = RNG.integers(0, CLASSES, SAMPLES)
FP32 = (RNG.standard_normal((SAMPLES, CLASSES)) + 2.0 * np.eye(CLASSES)[LABELS]).astype(np.float32)
NOISE = RNG.standard_normal(FP32.shape).astype(np.float32)
VARIANTS = {
    "fp32": FP32,
    "fp32_repeated": FP32,
    "all_int8": FP32 + 1.0 * NOISE,
    "layer:a": FP32 + 0.8 * NOISE,
    "layer:b": FP32 + 0.01 * NOISE,
}
OWN = ("top1", "top5", "mse", "sqnr", "cosine", "kl", "agreement")


def task(name: str, **args: Any) -> TaskMetric:
    return resolve_metric(MetricSettings(name=name, args=args), has_labels=True, output_names=("logits",))


def measured(metric: TaskMetric, cuts: tuple[int, ...] = (60, 110), **broken: str) -> list[ShardResult]:
    shards = []
    for start, stop in zip((0, *cuts), (*cuts, SAMPLES), strict=True):
        recorder = Recorder(metric, [FP32[start:stop]], [LABELS[start:stop]])
        for name, output in VARIANTS.items():
            recorder.add(name, 0, output[start:stop])
        for name, reason in broken.items():
            recorder.fail(name.replace("layer_", "layer:"), reason)
        shards.append(recorder.result(tuple(VARIANTS)))
    return shards


def board(name: str, cuts: tuple[int, ...] = (60, 110), **args: Any) -> Scoreboard:
    metric = task(name, **args)
    return Scoreboard(measured(metric, cuts), metric)


def right(variant: str) -> Any:
    return (VARIANTS[variant].argmax(axis=1) == LABELS).astype(np.float64)


@pytest.mark.parametrize("name", [*OWN, "MulticlassF1Score", "MulticlassCalibrationError"])
def test_worse_is_a_positive_drop_whatever_the_metrics_direction(name: str) -> None:
    args = {"num_classes": CLASSES} if name.startswith("Multi") else {}
    found = board(name, **args)
    harmed, hardly = (found.score(variant).drop.value for variant in ("layer:a", "layer:b"))
    assert harmed is not None
    assert hardly is not None
    if name != "MulticlassCalibrationError":  # noise may well calibrate a network
        assert harmed > hardly
    if name != "sqnr":  # against fp32, which has no noise, it is −SQNR
        assert found.score("fp32_repeated").drop.value == 0


@pytest.mark.parametrize("name", [name for name in OWN if name != "sqnr"])
def test_the_drop_is_the_difference_of_the_metrics(name: str) -> None:
    found = board(name)
    scores = {each: found.score(each) for each in ("fp32", "layer:a")}
    fp32, variant = (scores[each].metric.value for each in ("fp32", "layer:a"))
    assert fp32 is not None
    assert variant is not None
    assert scores["layer:a"].drop.value == pytest.approx(abs(fp32 - variant))


def test_top1_is_the_share_of_right_answers_and_its_drop_is_paired() -> None:
    score = board("top1").score("layer:a")
    assert score.metric.value == right("layer:a").mean()
    assert score.drop == intervals.proportion_difference(right("fp32"), right("layer:a"))


def test_sharding_changes_no_number_of_per_sample_metrics() -> None:
    for name in OWN:
        assert board(name, (60, 110)).score("layer:a") == board(name, ()).score("layer:a")


def test_one_off_sensitivity_is_what_all_int8_loses_more_than_without_the_layer() -> None:
    found = board("top1")
    score = found.sensitivity("layer:a", SweepMode.ONE_OFF)
    assert score.drop == intervals.proportion_difference(right("layer:a"), right("all_int8"))
    assert score.metric == found.score("layer:a").metric


def test_one_on_sensitivity_is_the_drop_against_fp32() -> None:
    found = board("kl")
    assert found.sensitivity("layer:a", SweepMode.ONE_ON) == found.score("layer:a")


def test_sqnr_against_fp32_is_the_sqnr_turned_round_with_its_interval() -> None:
    score = board("sqnr").score("layer:a")
    metric, drop = score.metric, score.drop
    assert metric.value is not None
    assert metric.low is not None
    assert metric.high is not None
    assert (drop.value, drop.low, drop.high) == (-metric.value, -metric.high, -metric.low)
    power = 10 * np.log10(np.square(FP32.astype(float)).mean() / np.square(0.8 * NOISE.astype(float)).mean())
    assert metric.value == pytest.approx(power, abs=1e-4)


def test_sqnr_between_two_variants_is_in_decibels_of_their_noise() -> None:
    drop = board("sqnr").sensitivity("layer:a", SweepMode.ONE_OFF).drop
    assert drop.value == pytest.approx(20 * np.log10(1.0 / 0.8), abs=1e-4)


def test_fp32_has_no_sqnr_and_says_why() -> None:
    metric = board("sqnr").score("fp32").metric
    assert (metric.value, metric.method) == (None, "no noise at all: the outputs are identical")


def test_all_measures_stand_beside_the_metric() -> None:
    measures = board("top1").score("layer:a").measures
    assert set(measures) == {"mse", "cosine", "kl", "agreement", "top1", "top5", "cross_entropy", "sqnr_db"}
    assert measures["mse"].value == pytest.approx(np.square(0.8 * NOISE.astype(float)).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "tested"),
    [
        ("top1", True),
        ("top5", True),
        ("agreement", True),
        ("MulticlassF1Score", True),
        ("mse", False),
        ("kl", False),
        ("cosine", False),
        ("sqnr", False),
    ],
)
@pytest.mark.parametrize("mode", SweepMode)
def test_only_drops_of_a_task_metric_have_a_p_value(name: str, tested: bool, mode: SweepMode) -> None:
    args = {"num_classes": CLASSES} if name.startswith("Multi") else {}
    score = board(name, **args).sensitivity("layer:a", mode)
    assert (score.drop.p_value is not None) is tested
    assert score.metric.p_value is None
    assert [measure for measure, found in score.measures.items() if found.p_value is not None] == []


def test_a_share_over_positions_is_no_zero_or_one_and_goes_by_t() -> None:
    metric = task("top1")
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (30, 4))
    outputs = {name: rng.standard_normal((30, 3, 4)).astype(np.float32) for name in ("fp32", "layer:a")}
    recorder = Recorder(metric, [outputs["fp32"]], [labels])
    for name, output in outputs.items():
        recorder.add(name, 0, output)
    score = Scoreboard([recorder.result(tuple(outputs))], metric).score("layer:a")
    shares = {name: (output.argmax(axis=1) == labels).mean(axis=1) for name, output in outputs.items()}
    assert score.drop == intervals.mean_drop(shares["fp32"] - shares["layer:a"])
    assert (score.drop.method, score.metric.method) == ("t", "t")
    assert score.drop.p_value is not None


def test_a_corpus_metric_is_computed_over_all_shards_with_a_jackknife() -> None:
    score = board("MulticlassAUROC", (40, 80, 120, 160), num_classes=CLASSES).score("layer:a")
    whole = board("MulticlassAUROC", (), num_classes=CLASSES).score("layer:a")
    assert score.metric.value == pytest.approx(whole.metric.value, rel=1e-6)
    assert score.drop.method == "jackknife over 5 shards"
    assert score.drop.low is not None
    assert score.drop.value is not None
    assert score.drop.low < score.drop.value
    assert whole.drop.low is None
    assert whole.drop.method == "one shard has no interval"


def test_a_corpus_metric_that_the_samples_own_accuracy_equals() -> None:
    """Micro-averaged accuracy is top-1: the value is the same, by another way."""
    corpus = board("MulticlassAccuracy", num_classes=CLASSES, average="micro").score("layer:a")
    assert corpus.drop.value == pytest.approx(board("top1").score("layer:a").drop.value, abs=1e-6)


FAILED = "layer:a was not measured: no kernel"


@pytest.mark.parametrize("name", [*OWN, "MulticlassF1Score"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda found: found.score("layer:a"),
        lambda found: found.score("layer:b", against="layer:a"),
    ],
    ids=["the failed one", "against the failed one"],
)
def test_what_failed_has_no_numbers_but_its_reason(name: str, ask: Callable[[Scoreboard], Any]) -> None:
    metric = task(name, **({"num_classes": CLASSES} if name.startswith("Multi") else {}))
    found = Scoreboard(measured(metric, layer_a="no kernel"), metric)
    score = ask(found)
    assert (score.drop.value, score.drop.low, score.drop.high, score.drop.p_value) == (None, None, None, None)
    assert score.drop.method == FAILED
    assert "layer:a" not in found.variants
    assert found.failures == {"layer:a": "no kernel"}


def test_one_off_has_no_sensitivities_where_all_int8_failed() -> None:
    metric = task("top1")
    found = Scoreboard(measured(metric, all_int8="no kernel"), metric)
    score = found.sensitivity("layer:a", SweepMode.ONE_OFF)
    assert score.drop.value is None
    assert "all_int8 was not measured" in score.drop.method
    assert score.metric.value == right("layer:a").mean()
