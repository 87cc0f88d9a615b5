"""Probes of real graphs against the exact engine.

With as many probes as there are outputs, a power of two, the directions of a sample are all rows of a Hadamard matrix:
their mean is no estimate then, but the first-order value itself. Where all that follows a layer is linear, that is the
layer's exact error.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.domain.errors import InvalidInput
from service.domain.layers import Operation, Variant
from tests.workers.backends.ranges import calibrated
from tests.workers.models import torch_networks as networks
from workers.backends.protocol import OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel
from workers.data.binding import Batch
from workers.engine.probe import estimates, gram
from workers.engine.probe_settings import ProbeSettings
from workers.engine.probe_sums import ProbeSums
from workers.metrics.per_sample import against_labels, against_reference, scored


def opened(module: nn.Module, path: Path, *shape: int, dynamic: bool = True, seed: int = 0) -> tuple[TorchModel, Any]:
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    file = networks.save(module, (torch.from_numpy(x),), path / "m.pt2", dynamic=dynamic)
    model = TorchBackend().open(file, OpenSettings())
    assert isinstance(model, TorchModel)
    return calibrated(model, {model.facts.inputs[0].name: x}), x


def batches_of(model: TorchModel, x: Any, size: int, labels: Any = None, indices: Any = None) -> list[Batch]:
    name = model.facts.inputs[0].name
    indices = np.arange(len(x)) if indices is None else indices
    cuts = [slice(start, start + size) for start in range(0, len(x), size)]
    return [Batch({name: x[cut]}, None if labels is None else labels[cut], indices[cut]) for cut in cuts]


def probe(model: TorchModel, batches: list[Batch], **settings: Any) -> ProbeSums:
    output = model.facts.outputs[0].name
    return model.probe(batches, ProbeSettings(output, **settings))


def exact(model: TorchModel, x: Any, *sets: frozenset[str]) -> list[Any]:
    """The first output with each of these sets in int8, (n, ...)."""
    variants = [Variant(name=str(index), int8=each) for index, each in enumerate(sets)]
    found = {each.variant.name: each for each in model.evaluate([{model.facts.inputs[0].name: x}], variants)}
    return [next(iter((found[each.name].outputs or {}).values())) for each in variants]


def measures_alone(model: TorchModel, x: Any, measure: str) -> dict[str, float]:
    """Layer → the measure with it alone in int8."""
    ids = [each.id for each in model.facts.layers]
    reference, *outputs = (scored(each, distribution=False) for each in exact(model, x, frozenset(), *map(only, ids)))
    return {
        each: float(against_reference(reference, output)[measure].mean())
        for each, output in zip(ids, outputs, strict=True)
    }


def only(layer: str) -> frozenset[str]:
    return frozenset({layer})


def values(sums: ProbeSums, measure: str = "mse") -> dict[str, float]:
    return {layer: found[measure].value for layer, found in estimates(sums).items()}


class Chain(nn.Sequential):
    """Modules one after another, the result of each sample in one row of eight."""

    def forward(self, x: Tensor) -> Tensor:
        for each in self:
            x = each(x)
        return x.flatten(1)


class Grow(nn.Module):
    """A residual add between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x + self.a(x))  # type: ignore[no-any-return]


class Product(nn.Module):
    """A product of two activations, of which neither is constant."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x[:, :2], x[:, 2:].transpose(1, 2)).flatten(1)


LINEAR: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (Chain(nn.Linear(6, 5), nn.Linear(5, 8)), (5, 6)),
    "convolution": (Chain(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3)), (5, 2, 6, 6)),
    "grouped": (Chain(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 2, groups=8)), (5, 4, 4, 4)),
    "strided, one dimension": (Chain(nn.Conv1d(2, 4, 3, stride=2), nn.Conv1d(4, 4, 2)), (5, 2, 7)),
    "transposed": (Chain(nn.ConvTranspose2d(2, 4, 3), nn.Conv2d(4, 2, 3)), (5, 2, 2, 2)),
    "transposed, grouped": (Chain(nn.ConvTranspose2d(4, 8, 2, groups=2), nn.AvgPool2d(3), nn.Flatten()), (5, 4, 2, 2)),
    "pool": (Chain(nn.AvgPool2d(2), nn.Conv2d(2, 2, 1)), (5, 2, 4, 4)),
    "residual add": (Grow(), (5, 6)),
    "matmul": (Product(), (5, 6, 3)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_of_a_linear_network_the_probe_is_exact(tmp_path: Path, name: str) -> None:
    module, shape = LINEAR[name]
    model, x = opened(module, tmp_path, *shape)
    expected = measures_alone(model, x, "mse")
    assert all(each > 0 for each in expected.values())
    (size,) = exact(model, x, frozenset())[0].shape[1:]
    sums = probe(model, batches_of(model, x, 5), probes=size)
    assert values(sums) == pytest.approx(expected, rel=1e-4)
    assert sums.constants == ()


def test_one_probe_is_right_on_average(tmp_path: Path) -> None:
    module, shape = LINEAR["linear"]
    model, x = opened(module, tmp_path, 1000, *shape[1:])
    found = estimates(probe(model, batches_of(model, x, 500), micro_batch=500))
    for layer, expected in measures_alone(model, x, "mse").items():
        interval = found[layer]["mse"]
        assert interval.value == pytest.approx(expected, rel=0.15)
        assert interval.low < expected < interval.high


def test_kl_and_loss_change_are_those_of_the_exact_engine(tmp_path: Path) -> None:
    """To the second order of errors that are small here."""
    torch.manual_seed(0)
    model, x = opened(nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8)), tmp_path, 200, 12)
    labels = np.random.default_rng(0).integers(0, 8, 200)
    sums = probe(model, batches_of(model, x, 50, labels), probes=8, loss=True)
    assert values(sums, "kl") == pytest.approx(measures_alone(model, x, "kl"), rel=0.05)
    ids = [each.id for each in model.facts.layers]
    fp32, *losses = (
        against_labels(scored(each, distribution=False), labels)["cross_entropy"].mean()
        for each in exact(model, x, frozenset(), *map(only, ids))
    )
    assert values(sums, "loss_change") == pytest.approx(
        {layer: each - fp32 for layer, each in zip(ids, losses, strict=True)}, rel=0.05, abs=1e-6
    )


def test_an_output_of_probabilities_is_taken_as_such(tmp_path: Path) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 8)
    model, x = opened(nn.Sequential(linear, nn.Softmax(1)), tmp_path, 50, 12)
    scores, _ = opened(nn.Sequential(linear), tmp_path, 50, 12)
    found = probe(model, batches_of(model, x, 50), probes=8, distribution=True)
    expected = probe(scores, batches_of(scores, x, 50), probes=8)
    assert list(values(found, "kl").values()) == pytest.approx(list(values(expected, "kl").values()), rel=1e-3)


def test_the_loss_is_probed_only_when_asked_and_with_labels(tmp_path: Path) -> None:
    model, x = opened(nn.Sequential(nn.Linear(4, 8)), tmp_path, 6, 4)
    labels = np.arange(6)
    assert probe(model, batches_of(model, x, 6, labels)).loss is None
    assert probe(model, batches_of(model, x, 6), loss=True).loss is None
    assert probe(model, batches_of(model, x, 6, labels.astype(np.float32)), loss=True).loss is None
    assert probe(model, batches_of(model, x, 6, labels), loss=True).loss is not None


def test_an_output_that_is_no_class_scores_has_no_kl(tmp_path: Path) -> None:
    model, x = opened(nn.Sequential(nn.Linear(4, 1)), tmp_path, 6, 4)
    assert probe(model, batches_of(model, x, 6)).kl is None


def assert_close(one: ProbeSums, other: ProbeSums) -> None:
    assert one.samples == other.samples
    for name in ("mse", "kl"):
        for key, expected in vars(getattr(other, name)).items():
            scale = np.abs(expected).max()
            np.testing.assert_allclose(getattr(getattr(one, name), key), expected, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize(("size", "micro_batch"), [(10, 3), (4, 32), (1, 1)], ids=["micro", "batches", "one by one"])
def test_batches_do_not_change_what_is_probed(tmp_path: Path, size: int, micro_batch: int) -> None:
    model, x = opened(networks.ConvNet(), tmp_path, 10, 3, 8, 8)
    whole = probe(model, batches_of(model, x, 10))
    assert_close(probe(model, batches_of(model, x, size), micro_batch=micro_batch), whole)


def test_shards_in_any_order_add_up_to_the_whole(tmp_path: Path) -> None:
    model, x = opened(networks.ConvNet(), tmp_path, 12, 3, 8, 8)
    order = np.random.default_rng(0).permutation(12)
    shards = [probe(model, batches_of(model, x[part], 4, indices=part)) for part in (order[:4], order[4:])]
    assert_close(shards[1] + shards[0], probe(model, batches_of(model, x, 12)))


def test_the_same_samples_give_the_same_bits_and_the_sweep_sees_nothing_of_it(tmp_path: Path) -> None:
    model, x = opened(networks.ConvNet(), tmp_path, 6, 3, 8, 8)
    before = exact(model, x, frozenset({model.facts.layers[0].id}))[0]
    found = [probe(model, batches_of(model, x, 6)) for _ in range(2)]
    assert found[0].to_bytes() == found[1].to_bytes()
    np.testing.assert_array_equal(exact(model, x, frozenset({model.facts.layers[0].id}))[0], before)


def test_a_fixed_batch_is_filled_and_the_filling_is_not_counted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = networks.ConvNet()
    free, x = opened(module, tmp_path, 4, 3, 8, 8)
    fixed, _ = opened(module, tmp_path, 4, 3, 8, 8, dynamic=False)
    assert fixed.facts.batch_size == 4
    more = np.concatenate([x, x[:3] * 0.5])
    assert_close(probe(fixed, batches_of(fixed, more, 7)), probe(free, batches_of(free, more, 7)))


class TimeFirst(nn.Module):
    """Samples along the second axis, as recurrent code has them, and folded into the first of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        time = self.a(x.transpose(0, 1))  # (t, n, 4)
        folded = self.b(time.reshape(-1, 4))  # t · n rows, the samples taking turns
        return folded.reshape(time.shape).sum(0)


def test_samples_are_found_wherever_they_stand(tmp_path: Path) -> None:
    model, x = opened(TimeFirst(), tmp_path, 5, 2, 3)
    assert values(probe(model, batches_of(model, x, 5), probes=4)) == pytest.approx(
        measures_alone(model, x, "mse"), rel=1e-4
    )


class Mixing(nn.Module):
    """What a sample gives hangs on the others of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return y - y.mean(0)


def test_a_model_that_mixes_samples_is_refused(tmp_path: Path) -> None:
    model, x = opened(Mixing(), tmp_path, 6, 4)
    with pytest.raises(InvalidInput, match=r"layer linear mixes the samples of a batch.*method: exact") as caught:
        probe(model, batches_of(model, x, 6))
    assert caught.value.field == "method"


class Rounding(nn.Module):
    """One way through a rounding, another around it."""

    def __init__(self) -> None:
        super().__init__()
        self.lost, self.seen = nn.Linear(4, 8), nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(self.lost(x) * 50) + F.relu(self.seen(x))


def test_operations_without_derivative_are_constants_and_named(tmp_path: Path) -> None:
    model, x = opened(Rounding(), tmp_path, 6, 4)
    sums = probe(model, batches_of(model, x, 6))
    assert sums.constants == ("round_1",)
    found = values(sums)
    assert next(value for layer, value in found.items() if layer == "linear") == 0.0
    assert all(value > 0 for layer, value in found.items() if layer != "linear")


class Broken(nn.Module):
    """One weight is NaN at a place that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.nan = nn.Linear(4, 8), nn.Linear(4, 8)
        self.nan.weight.data[0, 0] = float("nan")

    def forward(self, x: Tensor) -> Tensor:
        return self.fine(x) + self.nan(x)[:, 1:].sum(1, keepdim=True)


def test_a_layer_that_cannot_run_in_int8_is_left_out_with_its_reason(tmp_path: Path) -> None:
    model, x = opened(Broken(), tmp_path, 6, 4)
    sums = probe(model, batches_of(model, x, 6))
    assert list(sums.failures.values()) == ["its weight holds NaN or infinite values"]
    (broken,) = sums.failures
    others = {layer: each for layer, each in values(sums).items() if layer != broken}
    assert values(sums)[broken] is None
    assert all(each is not None and each > 0 for each in others.values())


class Twins(nn.Module):
    """Two layers of equal weights on one input: in int8 their errors are the same, and they add or cancel."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.a, self.b, self.sign = nn.Linear(12, 8), nn.Linear(12, 8), sign
        self.b.load_state_dict(self.a.state_dict())
        self.c = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x) * self.sign + 0.1 * self.c(x)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["double", "cancel"])
def test_interactions_predict_sets_whose_errors_add_or_cancel_and_the_plain_sum_does_not(
    tmp_path: Path, sign: float
) -> None:
    torch.manual_seed(0)
    model, x = opened(Twins(sign), tmp_path, 300, 12)
    # the three weighted layers; the additions stay in fp32
    chosen = frozenset(each.id for each in model.facts.layers if each.op is Operation.LINEAR)
    assert len(chosen) == 3
    fp32, int8 = exact(model, x, frozenset(), chosen)
    truth = float(np.square(int8 - fp32).mean())
    found = gram(probe(model, batches_of(model, x, 300), probes=8), "mse")
    plain, paired = found.predict(chosen, interactions=False), found.predict(chosen)
    assert abs(paired - truth) < 0.1 * abs(plain - truth)
    assert abs(paired - truth) < 0.05 * plain


def test_what_cannot_be_probed_is_refused_with_the_field(tmp_path: Path) -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).argmax(1)

    model, x = opened(Classes(), tmp_path, 6, 4)
    with pytest.raises(InvalidInput, match=r"metric\.output: .* is int64.*method: exact") as caught:
        probe(model, batches_of(model, x, 6))
    assert caught.value.field == "metric.output"
    with pytest.raises(InvalidInput, match="no output 'logits'"):
        model.probe(batches_of(model, x, 6), ProbeSettings("logits"))


def test_at_least_one_batch_is_needed(tmp_path: Path) -> None:
    model, _ = opened(nn.Sequential(nn.Linear(4, 8)), tmp_path, 6, 4)
    with pytest.raises(ValueError, match="no batches"):
        probe(model, [])


@pytest.mark.parametrize("field", ["probes", "micro_batch"])
def test_settings_say_what_would_be_right(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: 0, at least 1"):
        ProbeSettings("y", **{field: 0})
