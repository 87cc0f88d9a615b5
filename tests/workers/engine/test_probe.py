"""What the sums of probes say: intervals, interactions, and where not to believe them."""

import math

import numpy as np
import pytest

from service.domain.results import Interval
from tests.workers.engine.probed import mse_of, probed, slopes_of
from workers.engine.probe import LARGE, beyond_linear, estimates, gram, interactions

DRAWS = 2000
# 95 % less four standard errors of a share over DRAWS draws is 0.9305
LEAST_COVERAGE = 0.93
N, D = 400, 8


def effects(*scales: float, seed: int = 1) -> np.ndarray:
    """Independent effects of layers on the outputs, (L, samples, D), of these sizes."""
    drawn = np.random.default_rng(seed).standard_normal((len(scales), N, D))
    return drawn * np.array(scales)[:, None, None]


def squares(samples: int, seed: int, skew: float = 0.0) -> np.ndarray:
    """Derivatives (1, samples, 1), squares of mean 1: chi-squared, times a log-normal of what samples differ by."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(samples) * np.exp(rng.normal(-(skew**2) / 2, skew, samples) / 2))[None, :, None]


@pytest.mark.parametrize(("samples", "skew"), [(30, 0.0), (100, 0.5), (500, 1.0)], ids=["few", "uneven", "very uneven"])
def test_the_interval_holds_the_true_mean(samples: int, skew: float) -> None:
    found = [estimates(probed(squares(samples, seed, skew)))["a"]["mse"] for seed in range(DRAWS)]
    assert np.mean([each.low <= 1.0 <= each.high for each in found]) >= LEAST_COVERAGE


@pytest.mark.parametrize(("samples", "share"), [(100, 0.92), (30, 0.91)])
def test_on_few_very_uneven_samples_the_interval_is_too_narrow_as_the_docs_say(samples: int, share: float) -> None:
    """docs/statistics.md quotes these shares."""
    found = [estimates(probed(squares(samples, seed, 1.0)))["a"]["mse"] for seed in range(DRAWS)]
    assert np.mean([each.low <= 1.0 <= each.high for each in found]) == pytest.approx(share, abs=0.015)


def test_an_interval_without_skewness_is_students() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = estimates(probed(np.sqrt(values)[None, :, None]))["a"]["mse"]
    half = 2.7764451 * values.std(ddof=1) / 5**0.5
    assert (found.value, found.samples) == (pytest.approx(3.0), 5)
    assert (found.low, found.high) == (pytest.approx(3.0 - half), pytest.approx(3.0 + half))


def test_the_kl_divergence_is_half_the_squares_and_the_loss_change_the_mean() -> None:
    slopes = np.array([[[2.0], [4.0]]])
    found = estimates(probed(slopes, kl=slopes, loss=np.array([[-1.0], [3.0]])))["a"]
    assert {name: each.value for name, each in found.items()} == {"mse": 10.0, "kl": 5.0, "loss_change": 1.0}
    assert found["kl"].high == pytest.approx(found["mse"].high / 2)


def test_only_what_was_probed_has_estimates() -> None:
    assert set(estimates(probed(squares(5, 0)))["a"]) == {"mse"}


def test_one_sample_has_no_interval() -> None:
    found = estimates(probed(np.array([[[3.0]]])))["a"]["mse"]
    assert (found.value, found.low, found.high) == (9.0, None, None)


def test_a_layer_without_effect_has_an_interval_of_zero() -> None:
    found = estimates(probed(np.zeros((1, 5, 1))))["a"]["mse"]
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


def test_a_layer_that_could_not_be_probed_has_the_reason_and_no_place_in_the_gram() -> None:
    sums = probed(slopes_of(effects(1, 1)), failures={"a": "no int8 kernel"})
    found = estimates(sums)["a"]["mse"]
    assert (found.value, found.method) == (None, "no int8 kernel")
    assert gram(sums, "mse").layers == ("b",)
    assert "a" not in beyond_linear(sums, {})
    with pytest.raises(ValueError, match="int8: layer a was not probed"):
        gram(sums, "mse").predict({"a"})


@pytest.mark.parametrize("sign", [-1.0, 1.0], ids=["cancel", "double"])
def test_interactions_see_that_two_layers_errors_cancel_or_double(sign: float) -> None:
    made = effects(1.0, 0.2, 1.0)
    made[2] = sign * made[0]
    found = gram(probed(slopes_of(made)), "mse")
    truth = mse_of(made, [0, 1, 2])
    assert found.predict("abc", interactions=False) == pytest.approx(2.04, rel=0.15)
    if sign > 0:
        assert truth == pytest.approx(4.04, rel=0.05)
        assert found.predict("abc") == pytest.approx(truth, rel=0.15)
    else:
        assert truth == pytest.approx(0.04, rel=0.05)
        # what is left of 2 − 2 hangs on what the shrinking keeps: 1 − (2 error / value)² of it
        assert found.predict("abc") < 0.15


def test_without_interactions_shrinking_is_no_worse_than_the_plain_sum_beyond_noise() -> None:
    """Over 60 networks of 20 layers without interactions: unshrunk, the noise of 190 pairs would be much worse."""
    plain, shrunk, raw = [], [], []
    for seed in range(60):
        made = effects(*np.linspace(0.5, 1.5, 20), seed=seed)
        found = gram(probed(slopes_of(made, seed=seed)), "mse")
        truth = math.log(np.square(np.linspace(0.5, 1.5, 20)).sum())
        letters = found.layers
        plain.append(abs(math.log(found.predict(letters, interactions=False)) - truth))
        shrunk.append(abs(math.log(found.predict(letters)) - truth))
        raw.append(abs(math.log(found.values.sum()) - truth))
    assert np.mean(shrunk) < 0.5 * np.mean(raw)
    assert np.mean(shrunk) < 0.1, "the goal for sets of layers"
    assert np.mean(plain) < np.mean(shrunk) < np.mean(plain) + 0.02


def test_entries_are_shrunk_by_their_own_standard_errors() -> None:
    made = effects(1.0, 1.0, 1.0)
    made[2] += 0.7 * made[0]
    slopes = slopes_of(made)
    found = gram(probed(slopes), "mse")
    for other in (1, 2):
        product = slopes[0, :, 0] * slopes[0, :, other]
        value, error = product.mean(), product.std(ddof=1) / N**0.5
        assert found.values[0, other] == pytest.approx(value)
        assert found.errors[0, other] == pytest.approx(error)
        assert found.shrunk[0, other] == pytest.approx(value * max(0.0, 1 - (2 * error / value) ** 2), abs=1e-12)
    assert found.shrunk[0, 1] == 0.0, "noise"
    assert 0.0 < found.shrunk[0, 2] < found.values[0, 2]
    np.testing.assert_array_equal(found.shrunk.diagonal(), found.values.diagonal())
    np.testing.assert_allclose(found.shrunk, found.shrunk.T)


def test_of_one_sample_no_interaction_is_believed() -> None:
    found = gram(probed(np.array([[[1.0, 2.0]]])), "mse")
    assert found.predict("ab") == found.predict("ab", interactions=False) == 5.0


def test_no_layer_in_int8_changes_nothing() -> None:
    assert gram(probed(slopes_of(effects(1, 1))), "mse").predict(()) == 0.0


def test_measured_layers_have_their_exact_values_in_predictions() -> None:
    found = gram(probed(slopes_of(effects(1.0, 1.0))), "mse")
    placed = found.with_measured({"b": 7.0})
    assert placed.predict({"b"}) == 7.0
    assert placed.predict({"a"}) == found.predict({"a"})
    assert placed.predict("ab") - found.predict("ab") == pytest.approx(7.0 - found.predict({"b"}))
    assert placed.errors[1, 1] == 0.0
    with pytest.raises(ValueError, match="measured: layer z was not probed"):
        found.with_measured({"z": 1.0})


def test_outputs_without_classes_have_no_kl_interactions() -> None:
    with pytest.raises(ValueError, match="measure: 'kl' was not probed"):
        gram(probed(slopes_of(effects(1.0))), "kl")


def interval(value: float, share: float = 0.05) -> Interval:
    return Interval(value=value, low=value * (1 - share), high=value * (1 + share), method="t", samples=N)


@pytest.mark.parametrize(
    ("factor", "share", "flagged"),
    [(1.2, 0.0, False), (2.0, 0.05, True), (0.4, 0.05, True), (2.0, 0.9, False)],
    ids=["near", "far above", "far below", "far, but the intervals overlap"],
)
def test_an_exact_value_shows_that_the_probe_is_wrong(factor: float, share: float, flagged: bool) -> None:
    sums = probed(slopes_of(effects(1.0, 1.0)))
    exact = factor * estimates(sums)["b"]["mse"].value
    assert beyond_linear(sums, {"b": interval(exact, share)}) == (frozenset("b") if flagged else frozenset())


def test_without_exact_values_a_large_error_is_not_believed() -> None:
    sums = probed(slopes_of(effects(1.0, 0.1)), variance=0.5 / LARGE)
    assert beyond_linear(sums, {}) == {"a"}


@pytest.mark.parametrize(("factor", "flagged"), [(1.2, False), (1.6, True)], ids=["it was right", "it was not"])
def test_an_exact_value_decides_about_a_large_error_though_the_intervals_overlap(factor: float, flagged: bool) -> None:
    sums = probed(slopes_of(effects(1.0)), variance=0.5 / LARGE)
    exact = factor * estimates(sums)["a"]["mse"].value
    assert beyond_linear(sums, {"a": interval(exact, 0.9)}) == (frozenset("a") if flagged else frozenset())


def test_an_effect_that_the_probe_cannot_see_at_all_lies_beyond_it() -> None:
    sums = probed(np.zeros((1, N, 1)))
    assert beyond_linear(sums, {"a": interval(1.0)}) == {"a"}
    assert beyond_linear(sums, {"a": interval(0.0)}) == frozenset()


def test_interactions_are_twice_the_gram_of_pairs_that_are_not_noise() -> None:
    effects = np.random.default_rng(0).standard_normal((3, 400, 4))
    effects[1] = effects[0]  # doubles
    found = gram(probed(slopes_of(effects)), "mse")
    pairs = interactions(found, "mse")
    assert pairs[0].layers == ("a", "b")
    assert pairs[0].value == pytest.approx(2 * found.values[0, 1])
    # with both in int8 there is that much beyond the sum
    both = found.predict({"a", "b"}) - found.predict({"a", "b"}, interactions=False)
    assert pairs[0].shrunk == pytest.approx(both)
    assert [abs(each.shrunk) for each in pairs] == sorted((abs(each.shrunk) for each in pairs), reverse=True)
    assert all(each.shrunk != 0 for each in pairs)
