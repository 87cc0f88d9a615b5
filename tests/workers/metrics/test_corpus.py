"""Metrics of a whole set: shards merged are one pass, and what torchmetrics cannot do is said at once."""

import contextlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors import InvalidInput, SweepFailure
from workers.metrics.corpus import open_corpus_metric

SAMPLES = 60
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, SAMPLES)
SCORES = (RNG.standard_normal((SAMPLES, 3)) + 2 * np.eye(3)[LABELS]).astype(np.float32)
NUMBERS = RNG.standard_normal(SAMPLES).astype(np.float32)
ESTIMATES = (NUMBERS + 0.5 * RNG.standard_normal(SAMPLES)).astype(np.float32)
MASKS = RNG.integers(0, 3, (SAMPLES, 4, 4))
MASK_SCORES = (RNG.standard_normal((SAMPLES, 3, 4, 4))).astype(np.float32)

CLASSES = {"num_classes": 3}
CLASSIFICATION = (
    "MulticlassAccuracy",
    "MulticlassF1Score",
    "MulticlassAUROC",
    "MulticlassAveragePrecision",
    "MulticlassCohenKappa",
    "MulticlassMatthewsCorrCoef",
    "MulticlassCalibrationError",
    "MulticlassJaccardIndex",
    "MulticlassHingeLoss",
    "MulticlassPrecision",
)
REGRESSION = (
    "MeanSquaredError",
    "MeanAbsoluteError",
    "R2Score",
    "SpearmanCorrCoef",
    "ConcordanceCorrCoef",
    "ExplainedVariance",
    "MeanAbsolutePercentageError",
)
CASES = {
    **{name: (name, CLASSES, SCORES, LABELS) for name in CLASSIFICATION},
    **{name: (name, {}, ESTIMATES, NUMBERS) for name in REGRESSION},
    "Accuracy by task": ("Accuracy", {"task": "multiclass", "num_classes": 3, "top_k": 2}, SCORES, LABELS),
    "AUROC in bins": ("MulticlassAUROC", {**CLASSES, "thresholds": 20}, SCORES, LABELS),
    "PSNR": ("PeakSignalNoiseRatio", {"data_range": 4.0}, ESTIMATES, NUMBERS),
    "RMSE": ("MeanSquaredError", {"squared": False}, ESTIMATES, NUMBERS),
    "segmentation": ("MulticlassJaccardIndex", {**CLASSES, "average": "macro"}, MASK_SCORES, MASKS),
    "cosine of rows": ("CosineSimilarity", {"reduction": "mean"}, SCORES, SCORES[::-1].copy()),
}


def open_metric(name: str, args: dict[str, Any]) -> Any:
    return open_corpus_metric(name, args, own=("top1", "mse"))


def shards(metric: Any, predictions: Any, targets: Any, cuts: tuple[int, ...], batch: int = 7) -> list[Any]:
    found = []
    for start, stop in zip((0, *cuts), (*cuts, len(targets)), strict=True):
        state = metric.new_state()
        for first in range(start, stop, batch):
            rows = slice(first, min(first + batch, stop))
            state.update(predictions[rows], targets[rows])
        found.append(state.arrays())
    return found


@pytest.mark.parametrize("cuts", [(), (20, 40), (3, 10, 53)], ids=["one shard", "equal shards", "unequal shards"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_merged_shards_are_one_pass(case: str, cuts: tuple[int, ...]) -> None:
    name, args, predictions, targets = CASES[case]
    metric = open_metric(name, args)
    one = metric.kind(**args)
    one.update(torch.from_numpy(predictions), torch.from_numpy(targets))
    merged = metric.compute(shards(metric, predictions, targets, cuts))
    assert merged == pytest.approx(float(one.compute()), rel=2e-6), "sums in float32, in another order"


def test_the_state_of_a_shard_is_what_may_be_stored() -> None:
    metric = open_metric("MulticlassAUROC", CLASSES)
    (state,) = shards(metric, SCORES, LABELS, ())
    assert {name: array.shape for name, array in state.items()} == {"preds": (60, 3), "target": (60,)}
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in state.values())


def test_whether_more_is_better_is_what_torchmetrics_says() -> None:
    assert open_metric("R2Score", {}).higher_is_better is True
    assert open_metric("MeanSquaredError", {}).higher_is_better is False


@pytest.mark.parametrize(
    "name",
    ["Acuracy", "top7", "Metric", "os.system", "__class__", "functional", "torchmetrics.Accuracy", "", "F1 Score"],
)
def test_an_unknown_class_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"metric\.name.*top1, mse.*torchmetrics") as caught:
        open_metric(name, {})
    assert caught.value.field == "metric.name"
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("MulticlassAccuracy", {"num_clases": 3}, "has no argument 'num_clases'; it takes .*num_classes"),
        ("Accuracy", {"task": "multiclass", "classes": 3}, "has no argument 'classes'; it takes .*num_classes"),
        ("MulticlassAccuracy", {}, "num_classes"),
        ("MulticlassAccuracy", {"num_classes": 1}, "num_classes"),
        ("MulticlassAccuracy", {"num_classes": "three"}, "cannot be made"),
        ("Accuracy", {"task": 3}, "cannot be made"),
        ("Accuracy", {"task": "ternary"}, "ternary"),
        ("R2Score", {"compute_on_cpu": True}, "has no argument 'compute_on_cpu'"),
        ("BootStrapper", {"base_metric": "Accuracy"}, "cannot be made"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_would_be_right(name: str, args: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=rf"metric\.args: {name}.*{says}") as caught:
        open_metric(name, args)
    assert caught.value.field == "metric.args"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-2, 2)
    | st.sampled_from(["macro", "none", "multiclass"]),
    lambda each: st.lists(each, max_size=2),
    max_leaves=3,
)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["MulticlassF1Score", "AUROC", "FBetaScore", "MeanSquaredError", "PeakSignalNoiseRatio"]),
    args=st.dictionaries(
        st.sampled_from(["num_classes", "task", "average", "thresholds", "beta", "num_outputs", "data_range", "top_k"]),
        JSON,
        max_size=4,
    ),
)
def test_arguments_of_any_kind_make_a_metric_or_a_clear_refusal(name: str, args: dict[str, Any]) -> None:
    with warnings.catch_warnings(), contextlib.suppress(InvalidInput):
        warnings.simplefilter("ignore")
        open_metric(name, args)


@pytest.mark.parametrize("name", ["MulticlassConfusionMatrix", "MulticlassROC", "MulticlassSpecificity"])
def test_a_metric_of_which_neither_more_nor_less_is_better_cannot_rank(name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"torchmetrics does not say whether more of {name} is better"):
        open_metric(name, CLASSES)


def test_a_metric_that_torchmetrics_merges_wrongly_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot merge NormalizedRootMeanSquaredError"):
        open_metric("NormalizedRootMeanSquaredError", {})


@pytest.mark.parametrize(
    ("name", "args", "predictions", "targets"),
    [
        ("MulticlassAccuracy", CLASSES, SCORES, MASKS),
        ("MulticlassAccuracy", {"num_classes": 2}, SCORES, LABELS),
        ("MeanSquaredError", {}, SCORES, NUMBERS),
        ("RetrievalMAP", {}, ESTIMATES, LABELS),
        ("CharErrorRate", {}, ESTIMATES, NUMBERS),
    ],
    ids=["masks for labels", "too few classes", "another shape", "no index", "words"],
)
def test_arrays_that_a_metric_does_not_take_are_named(name: str, args: Any, predictions: Any, targets: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"metric\.name: {name} does not take predictions \({SAMPLES}.*targets"):
        open_metric(name, args).new_state().update(predictions, targets)


def test_a_metric_of_several_numbers_cannot_rank() -> None:
    metric = open_metric("MulticlassF1Score", {**CLASSES, "average": "none"})
    with pytest.raises(SweepFailure, match="MulticlassF1Score gives 3 numbers; to rank layers it has to give one"):
        metric.compute(shards(metric, SCORES, LABELS, (20,)))


def test_a_metric_that_is_not_defined_on_the_data_is_nan() -> None:
    metric = open_metric("PeakSignalNoiseRatio", {"data_range": 0.0})
    assert np.isnan(metric.compute(shards(metric, NUMBERS, NUMBERS, (30,))))
