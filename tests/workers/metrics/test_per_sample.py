"""Each measure against its definition, written out sample by sample in float64."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cosine as cosine_distance
from scipy.special import log_softmax
from scipy.stats import entropy

from workers.metrics.per_sample import against_labels, against_reference, is_distribution, scored

SHAPES = {"class scores": (6, 10), "segmentation map": (3, 4, 5, 2), "two classes": (7, 2)}


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compared(reference: Any, variant: Any) -> dict[str, Any]:
    distribution = is_distribution(reference)
    return against_reference(scored(reference, distribution=distribution), scored(variant, distribution=distribution))


def labelled(output: Any, labels: Any) -> dict[str, Any]:
    return against_labels(scored(output, distribution=is_distribution(output)), np.asarray(labels))


def positions(sample: Any) -> Any:
    """(C, ...) → one row of class scores per position."""
    return np.moveaxis(sample.astype(np.float64), 0, -1).reshape(-1, sample.shape[0])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_measures_against_fp32_equal_their_definitions(shape: tuple[int, ...]) -> None:
    reference, variant = random(*shape), random(*shape, seed=1)
    found = compared(reference, variant)
    for sample, (a, b) in enumerate(zip(reference, variant, strict=True)):
        ref, out = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
        kl = [
            entropy(np.exp(log_softmax(p)), np.exp(log_softmax(q)))
            for p, q in zip(positions(a), positions(b), strict=True)
        ]
        same = [p.argmax() == q.argmax() for p, q in zip(positions(a), positions(b), strict=True)]
        assert found["mse"][sample] == pytest.approx(sum((out - ref) ** 2) / len(ref), rel=1e-12)
        assert found["signal"][sample] == pytest.approx(sum(ref**2) / len(ref), rel=1e-12)
        assert found["cosine"][sample] == pytest.approx(1 - cosine_distance(ref, out), rel=1e-10)
        assert found["kl"][sample] == pytest.approx(np.mean(kl), rel=1e-10)
        assert found["agreement"][sample] == np.mean(same)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_measures_against_labels_equal_their_definitions(shape: tuple[int, ...]) -> None:
    output = random(*shape)
    labels = np.random.default_rng(2).integers(0, shape[1], (shape[0], *shape[2:]))
    found = labelled(output, labels)
    for sample, scores in enumerate(output):
        rows, own = positions(scores), labels[sample].ravel()
        best = [np.argsort(-row, kind="stable") for row in rows]
        assert found["correct"][sample] == np.mean([order[0] == each for order, each in zip(best, own, strict=True)])
        if shape[1] > 5:
            inside = [each in order[:5] for order, each in zip(best, own, strict=True)]
            assert found["correct5"][sample] == np.mean(inside)
        loss = [-log_softmax(row)[each] for row, each in zip(rows, own, strict=True)]
        assert found["cross_entropy"][sample] == pytest.approx(np.mean(loss), rel=1e-10)


def test_identical_outputs_differ_in_nothing() -> None:
    output = random(5, 4)
    found = compared(output, output.copy())
    assert found["mse"].tolist() == found["kl"].tolist() == [0.0] * 5
    assert found["agreement"].tolist() == [1.0] * 5
    assert found["cosine"] == pytest.approx(1.0, abs=1e-15)
    assert (found["cosine"] <= 1.0).all()


def test_differences_below_float32s_precision_are_seen() -> None:
    reference = np.array([[1.0, 2.0]])
    assert compared(reference, reference + 1e-9)["mse"] == pytest.approx(1e-18, rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "label", "right"),
    [([1, 1, 0], 0, 1.0), ([1, 1, 0], 1, 0.0), ([0, 0, 0], 0, 1.0), ([0, 0, 0], 2, 0.0)],
    ids=["tied, lower class", "tied, higher class", "all equal, first class", "all equal, last class"],
)
def test_of_equal_scores_the_lower_class_wins_as_in_arg_max(scores: list[float], label: int, right: float) -> None:
    output = np.array([scores], dtype=np.float32)
    assert float(output.argmax(axis=1)[0] == label) == right
    assert labelled(output, [label])["correct"].tolist() == [right]


def test_a_tie_over_the_fifth_place_goes_to_the_lower_class() -> None:
    output = np.zeros((1, 8), dtype=np.float32)
    assert [labelled(output, [label])["correct5"][0] for label in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]


def test_scores_too_close_for_their_softmax_still_have_an_order() -> None:
    output = np.array([[1e-20, 2e-20]], dtype=np.float32)
    assert labelled(output, [1])["correct"].tolist() == [1.0]
    assert compared(output, output[:, ::-1].copy())["agreement"].tolist() == [0.0]


@pytest.mark.parametrize("label", [-1, -100, 3, 255])
def test_a_label_outside_the_classes_is_never_right_and_costs_nothing(label: int) -> None:
    found = labelled(random(1, 3), [label])
    assert found["correct"].tolist() == [0.0]
    assert found["cross_entropy"].tolist() == [0.0]


def test_five_classes_have_no_top5() -> None:
    assert "correct5" not in labelled(random(2, 5), [0, 1])
    assert "correct5" in labelled(random(2, 6), [0, 1])


@pytest.mark.parametrize(
    "output",
    [random(4, 1), random(4), np.arange(8, dtype=np.int64).reshape(4, 2)],
    ids=["one class", "a number per sample", "integers"],
)
def test_what_holds_no_class_scores_has_no_class_measures(output: Any) -> None:
    assert set(compared(output, output)) == {"mse", "signal", "cosine"}
    assert labelled(output, [0, 0, 0, 0]) == {}


@pytest.mark.parametrize(
    "labels",
    [np.zeros(4), np.zeros((4, 1), dtype=np.int64), np.zeros((4, 3), dtype=np.int64)],
    ids=["floating point", "a column", "one-hot"],
)
def test_labels_of_another_shape_or_type_are_not_guessed_at(labels: Any) -> None:
    assert labelled(random(4, 3), labels) == {}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint64])
def test_labels_may_be_any_integers(dtype: Any) -> None:
    output = random(3, 4)
    assert labelled(output, output.argmax(axis=1).astype(dtype))["correct"].tolist() == [1.0] * 3


def test_probabilities_are_taken_as_they_are_and_not_put_through_a_softmax_again() -> None:
    logits = random(4, 3), random(4, 3, seed=1)
    probabilities = [np.exp(log_softmax(each.astype(np.float64), axis=1)) for each in logits]
    assert is_distribution(probabilities[0])
    assert not is_distribution(logits[0])
    assert compared(*probabilities)["kl"] == pytest.approx(compared(*logits)["kl"], rel=1e-6)


def test_probabilities_of_zero_keep_the_divergence_finite() -> None:
    reference, variant = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    kl = compared(reference, variant)["kl"]
    assert kl[0] == 0.0
    assert 100 < kl[1] < math.inf


def test_large_logits_do_not_overflow() -> None:
    reference = np.array([[3e38, -3e38]], dtype=np.float32)
    found = compared(reference, -reference)
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["cosine"].tolist() == [-1.0]


@pytest.mark.parametrize(
    ("reference", "variant", "expected"),
    [
        ([0, 0], [0, 0], 1.0),
        ([0, 0], [1, 0], 0.0),
        ([1, 0], [0, 0], 0.0),
        ([1, 0], [0, 1], 0.0),
        ([1, 2], [-1, -2], -1.0),
    ],
    ids=["both zero", "fp32 zero", "variant zero", "orthogonal", "opposite"],
)
def test_the_cosine_of_special_vectors(reference: list[float], variant: list[float], expected: float) -> None:
    found = compared(np.array([reference], dtype=np.float32), np.array([variant], dtype=np.float32))
    assert found["cosine"][0] == pytest.approx(expected, abs=1e-15)
