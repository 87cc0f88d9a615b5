"""Outputs go in by variant and batch, in any order; rows per sample come out, in the order of the samples."""

from typing import Any

import numpy as np
import pytest

from service.domain.errors import InvalidInput, SweepFailure
from service.domain.settings import MetricSettings
from workers.metrics.recorder import Recorder
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import TaskMetric, resolve_metric

RNG = np.random.default_rng(0)
SIZES = (4, 4, 2)
FP32 = [RNG.standard_normal((size, 3)).astype(np.float32) for size in SIZES]
WORSE = [each + 0.5 * RNG.standard_normal(each.shape).astype(np.float32) for each in FP32]
LABELS: list[Any] = [each.argmax(axis=1) for each in FP32]
CLASS_MEASURES = {"mse", "signal", "cosine", "kl", "agreement"}


def metric(name: str = "mse", **args: Any) -> TaskMetric:
    settings = MetricSettings(name=name, args=args)
    return resolve_metric(settings, has_labels=True, output_names=("logits",))


def filled(recorder: Recorder, **outputs: list[Any]) -> ShardResult:
    for variant, batches in outputs.items():
        for batch, output in enumerate(batches):
            recorder.add(variant, batch, output)
    return recorder.result(tuple(outputs))


def test_each_sample_is_compared_with_fp32s_same_sample() -> None:
    found = filled(Recorder(metric(), FP32, None), fp32=FP32, worse=WORSE)
    expected = np.concatenate([np.square(a.astype(float) - b).mean(axis=1) for a, b in zip(WORSE, FP32, strict=True)])
    assert found.measures["mse"][0].tolist() == [0.0] * sum(SIZES)
    assert found.measures["mse"][1] == pytest.approx(expected)


def test_every_measure_is_recorded_whatever_the_metric_is() -> None:
    assert set(filled(Recorder(metric("mse"), FP32, None), fp32=FP32).measures) == CLASS_MEASURES
    labelled = filled(Recorder(metric("kl"), FP32, LABELS), fp32=FP32)
    assert set(labelled.measures) == CLASS_MEASURES | {"correct", "cross_entropy"}
    assert labelled.measures["correct"].tolist() == [[1.0] * sum(SIZES)]


def test_the_order_in_which_outputs_arrive_does_not_matter() -> None:
    straight = filled(Recorder(metric("top1"), FP32, LABELS), fp32=FP32, worse=WORSE)
    recorder = Recorder(metric("top1"), FP32, LABELS)
    for batch in (2, 0, 1):
        recorder.add("worse", batch, WORSE[batch])
        recorder.add("fp32", batch, FP32[batch])
    assert recorder.result(("fp32", "worse")).to_bytes() == straight.to_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_variant_whose_output_is_not_finite_has_failed_and_no_other(bad: float) -> None:
    broken = [each.copy() for each in WORSE]
    broken[1][2, 0] = bad
    found = filled(Recorder(metric("top1"), FP32, LABELS), fp32=FP32, broken=broken, worse=WORSE)
    assert found.failures == {"broken": "its output holds NaN or infinite values"}
    assert np.isnan(found.measures["correct"][1]).all()
    assert np.isfinite(found.measures["correct"][[0, 2]]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_fp32_output_that_is_not_finite_fails_the_sweep_and_names_the_output(bad: float) -> None:
    reference = [FP32[0], np.full_like(FP32[1], bad)]
    with pytest.raises(SweepFailure, match="the fp32 output 'logits' holds NaN or infinite values") as caught:
        Recorder(metric(), reference, None)
    assert caught.value.code == "fp32-not-finite"


def test_a_variant_that_did_not_run_keeps_its_first_reason() -> None:
    recorder = Recorder(metric(), FP32, None)
    recorder.add("a", 0, WORSE[0])
    recorder.fail("a", "out of memory")
    recorder.fail("a", "again")
    assert filled(recorder, fp32=FP32).failures == {}
    assert recorder.result(("fp32", "a")).failures == {"a": "out of memory"}


def test_a_result_may_hold_failures_only() -> None:
    recorder = Recorder(metric("top1"), FP32, LABELS)
    recorder.fail("a", "no kernel")
    found = recorder.result(("a",))
    assert found.failures == {"a": "no kernel"}
    assert set(found.measures) == CLASS_MEASURES | {"correct", "cross_entropy"}
    assert all(rows.shape == (1, sum(SIZES)) and np.isnan(rows).all() for rows in found.measures.values())


@pytest.mark.parametrize(
    ("name", "reference", "labels"),
    [
        ("top1", np.ones((2, 1), dtype=np.float32), np.zeros(2, dtype=np.int64)),
        ("top5", np.eye(5, dtype=np.float32), np.zeros(5, dtype=np.int64)),
        ("top1", np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)),
        ("kl", np.ones((2, 1), dtype=np.float32), None),
    ],
    ids=["one class", "five classes", "labels in floating point", "KL of one class"],
)
def test_a_metric_that_the_output_does_not_give_fails_the_sweep(name: str, reference: Any, labels: Any) -> None:
    recorder = Recorder(metric(name), [reference], [labels])
    with pytest.raises(SweepFailure, match=f"metric.name: {name} needs .*'logits'.*class scores of shape") as caught:
        recorder.add("fp32", 0, reference)
    assert caught.value.code == "metric-not-applicable"


def test_probabilities_are_recognised_over_the_whole_shard() -> None:
    """A batch of logits that happens to look like probabilities is no reason to treat it so."""
    chance = np.array([[0.25, 0.75, 0.0]], dtype=np.float32)
    logits = np.array([[5.0, 1.0, -2.0]], dtype=np.float32)
    other = np.array([[0.5, 0.5, 0.0]], dtype=np.float32)
    mixed = filled(Recorder(metric("kl"), [chance, logits], None), a=[other, logits])
    alone = filled(Recorder(metric("kl"), [chance], None), a=[other])
    softmax = [np.exp(each) / np.exp(each).sum() for each in (chance, other)]
    assert mixed.measures["kl"][0, 0] == pytest.approx((softmax[0] * np.log(softmax[0] / softmax[1])).sum(), rel=1e-5)
    assert alone.measures["kl"][0, 0] == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5), rel=1e-6)


@pytest.mark.parametrize("name", ["MulticlassAccuracy", "MulticlassAUROC"], ids=["counts", "grows with the samples"])
def test_a_corpus_metric_has_a_state_for_each_variant(name: str) -> None:
    task = metric(name, num_classes=3)
    recorder = Recorder(task, FP32, LABELS)
    recorder.add("broken", 0, np.full((4, 3), np.nan, dtype=np.float32))
    found = ShardResult.from_bytes(filled(recorder, fp32=FP32, broken=[], worse=WORSE).to_bytes())
    assert task.corpus is not None
    values = [task.corpus.compute([{name: rows[row] for name, rows in found.states.items()}]) for row in (0, 2)]
    direct = task.corpus.kind(num_classes=3)
    import torch

    direct.update(torch.from_numpy(np.concatenate(WORSE)), torch.from_numpy(np.concatenate(LABELS)))
    assert values == [1.0, pytest.approx(float(direct.compute()))]
    assert found.failures.keys() == {"broken"}


def test_labels_that_a_corpus_metric_does_not_take_are_named() -> None:
    recorder = Recorder(metric("MulticlassAccuracy", num_classes=2), FP32, LABELS)
    with pytest.raises(InvalidInput, match="MulticlassAccuracy does not take predictions"):
        recorder.add("fp32", 0, FP32[0])
