import pytest

from service.domain.errors import InvalidInput
from service.domain.settings import MetricSettings
from workers.metrics.task_metric import TaskMetric, resolve_metric

OUTPUTS = ("logits", "boxes")


def resolved(name: str, *, has_labels: bool = True, output: str | None = None, **args: object) -> TaskMetric:
    settings = MetricSettings(name=name, args=args, output=output)
    return resolve_metric(settings, has_labels=has_labels, output_names=OUTPUTS)


@pytest.mark.parametrize(
    ("name", "measure", "higher_is_better", "unit"),
    [
        ("top1", "correct", True, "share of samples"),
        ("top5", "correct5", True, "share of samples"),
        ("agreement", "agreement", True, "share of samples"),
        ("mse", "mse", False, "squared output units"),
        ("sqnr", "mse", True, "dB"),
        ("cosine", "cosine", True, "cosine"),
        ("kl", "kl", False, "nats"),
    ],
)
def test_each_of_our_own_names_its_measure(name: str, measure: str, higher_is_better: bool, unit: str) -> None:
    found = resolved(name)
    assert (found.measure, found.higher_is_better, found.unit) == (measure, higher_is_better, unit)
    assert found.corpus is None


def test_any_other_name_is_a_class_of_torchmetrics() -> None:
    found = resolved("MulticlassF1Score", num_classes=3)
    assert found.corpus is not None
    assert found.corpus.args == {"num_classes": 3}
    assert (found.measure, found.higher_is_better, found.needs_labels) == (None, True, True)


def test_the_first_output_is_scored_unless_another_is_named() -> None:
    assert resolved("mse").output == "logits"
    assert resolved("mse", output="boxes").output == "boxes"


def test_an_output_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(InvalidInput, match="no output 'scores'; it has logits, boxes") as caught:
        resolved("mse", output="scores")
    assert caught.value.field == "metric.output"


def test_our_own_metrics_take_no_arguments() -> None:
    with pytest.raises(InvalidInput, match="top1 takes none") as caught:
        resolved("top1", k=3)
    assert caught.value.field == "metric.args"


@pytest.mark.parametrize("name", ["top1", "top5", "MeanSquaredError"])
def test_a_metric_of_labels_is_refused_without_them_and_told_what_goes(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} needs labels.*mse, sqnr, cosine, kl, agreement") as caught:
        resolved(name, has_labels=False)
    assert caught.value.field == "metric.name"


@pytest.mark.parametrize("name", ["mse", "sqnr", "cosine", "kl", "agreement"])
def test_a_metric_against_fp32_needs_no_labels(name: str) -> None:
    assert resolved(name, has_labels=False).name == name
