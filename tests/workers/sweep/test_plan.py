import itertools

import numpy as np
import pytest

from service.domain.costs import CostModel
from service.domain.layers import Layer, Operation
from service.domain.settings import SweepMode
from workers.sweep.plan import Plan, cut_shards, layer_variants, sweep_variants


def layer(name: str) -> Layer:
    return Layer(id=f"node_{name}", name=name, op=Operation.CONV, activations=(f"node_{name}:0",))


LAYERS = (layer("a"), layer("b"), layer("c"))


@pytest.mark.parametrize("samples", [1, 7, 128, 1017, 10_000, 1_000_001])
@pytest.mark.parametrize("size", [None, 1, 100])
def test_shards_hold_every_sample_once(samples: int, size: int | None) -> None:
    if samples > 10_000 and size is not None and size < 100:
        pytest.skip("a million shards prove nothing more")
    shards = cut_shards(samples, size)
    assert shards[0].start == 0
    assert shards[-1].stop == samples
    assert all(a.stop == b.start for a, b in itertools.pairwise(shards))
    assert all(each.stop > each.start for each in shards)


def test_a_small_set_still_gives_eight_shards_for_corpus_intervals() -> None:
    assert len(cut_shards(236, None)) == 8


def test_a_large_set_is_cut_into_about_64_shards() -> None:
    assert len(cut_shards(10_000, None)) == 64


def test_one_on_has_one_layer_in_int8_in_each_variant() -> None:
    variants = layer_variants(LAYERS, SweepMode.ONE_ON)
    assert [set(each.int8) for each in variants] == [{"node_a"}, {"node_b"}, {"node_c"}]


def test_one_off_has_one_layer_in_floating_point_in_each_variant() -> None:
    variants = layer_variants(LAYERS, SweepMode.ONE_OFF)
    assert [set(each.int8) for each in variants] == [{"node_b", "node_c"}, {"node_a", "node_c"}, {"node_a", "node_b"}]


def test_the_controls_come_first() -> None:
    names = [each.name for each in sweep_variants(LAYERS, SweepMode.ONE_ON)]
    assert names == ["fp32", "fp32_repeated", "all_int8", "layer:node_a", "layer:node_b", "layer:node_c"]


def plan(**changes: object) -> Plan:
    base = Plan(
        layers=LAYERS,
        excluded={"node_b": "excluded by 'b'"},
        skipped=(),
        inputs=(),
        outputs=(),
        folded_batch_norms=0,
        population=100,
        samples=40,
        seed=3,
        shards=cut_shards(40, 10),
        batch_size=8,
        calibration_samples=10,
        has_labels=True,
    )
    return base.model_copy(update=changes)


def test_the_order_is_a_draw_without_repeats_that_the_seed_fixes() -> None:
    order = plan().order()
    assert len(np.unique(order)) == 40
    assert order.max() < 100
    assert np.array_equal(order, plan().order())
    assert not np.array_equal(order, plan(seed=4).order())


def test_excluded_and_failed_layers_are_not_active() -> None:
    assert [each.id for each in plan().active({"node_c": "no range"})] == ["node_a"]


def test_a_plan_survives_json() -> None:
    assert Plan.model_validate(plan().model_dump(mode="json")) == plan()


@pytest.mark.parametrize("samples", [1_000, 50_000, 1_000_000])
@pytest.mark.parametrize("asked", [None, 10_000])
def test_a_shard_fits_into_memory_whatever_the_number_of_samples(samples: int, asked: int | None) -> None:
    image = 3 * 224 * 224 * 4
    shards = cut_shards(samples, asked, bytes_of_sample=image)
    assert max(each.stop - each.start for each in shards) * image <= 256 * 2**20
    assert shards[-1].stop == samples


def test_a_plan_that_was_stored_without_costs_still_loads() -> None:
    stored = plan().model_dump(mode="json", exclude={"costs"})
    assert Plan.model_validate(stored) == plan(costs=CostModel(layers=()))
