"""What ``prepare`` found out and every later phase works by."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.domain.costs import CostModel
from service.domain.layers import LAYER_PREFIX, Frozen, Layer, SkippedOperation, TensorSpec, Variant, controls
from service.domain.results import FoldingDifference
from service.domain.settings import SweepMethod, SweepMode, SweepSettings


class Shard(Frozen):
    """A stretch of the shuffled samples: positions ``start`` to ``stop`` (exclusive)."""

    start: int
    stop: int


class Plan(Frozen):
    """Layers to measure, samples to measure on, and how they are cut.

    ``excluded``: layer id → why it stays in floating point throughout. ``samples`` is the number drawn out of
    ``population``; the order is a permutation by ``seed``, the same on every worker. ``held_out``: so many of the
    shards, the last ones, are for verifying lists only; the table and the choice never see their samples.
    ``calibration_samples`` 0: a cache has the ranges. ``cost_per_layer``: as the opened model declares it.
    ``shards_in_table``: how many units' results the stored table holds.
    """

    layers: tuple[Layer, ...]
    excluded: dict[str, str]
    skipped: tuple[SkippedOperation, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    folded_batch_norms: int
    folding_difference: FoldingDifference | None = None
    population: int
    samples: int
    seed: int
    shards: tuple[Shard, ...]
    held_out: int = 0
    batch_size: int
    calibration_samples: int
    calibration_shards: tuple[Shard, ...] = ()
    has_labels: bool
    costs: CostModel = CostModel(layers=())
    cost_per_layer: bool = False
    shards_in_table: int = 0

    def order(self) -> npt.NDArray[np.int64]:
        """Indices of the samples in the order in which shards take them, shape (samples,)."""
        return np.random.default_rng(self.seed).permutation(self.population)[: self.samples]

    @property
    def searched(self) -> range:
        """The shards (by number) that the table is measured on."""
        return range(len(self.shards) - self.held_out)

    @property
    def held_out_samples(self) -> int:
        """How many samples are held out."""
        return sum(each.stop - each.start for each in self.shards[len(self.searched) :])

    def shard_sizes(self) -> tuple[int, ...]:
        """How many samples each shard holds."""
        return tuple(each.stop - each.start for each in self.shards)

    def active(self, failed: dict[str, str]) -> tuple[Layer, ...]:
        """The layers that can be in int8: neither excluded nor failed."""
        return tuple(each for each in self.layers if each.id not in self.excluded and each.id not in failed)

    def shard_of(self, ordinal: int) -> int:
        """The shard that a unit works on; where there are layer groups each has a unit for every shard, in turn."""
        return ordinal % len(self.shards)

    def by_layer(self, settings: SweepSettings) -> bool:
        """Whether units are cut by layer group too.

        A race and probes measure few layers each time, so that there is nothing to cut.
        """
        return self.cost_per_layer and settings.method is SweepMethod.EXACT

    def layers_first(self, settings: SweepSettings) -> bool:
        """Whether layers are measured untried, and then the controls, without those that failed.

        Trying a layer that is costly to prepare would cost as much as measuring it.
        """
        return self.by_layer(settings) and settings.mode is SweepMode.ONE_ON


def layer_variants(layers: tuple[Layer, ...], mode: SweepMode) -> tuple[Variant, ...]:
    """One variant for each layer: it alone in int8, or it alone in floating point."""
    every = frozenset(layer.id for layer in layers)
    one = {layer.id: frozenset({layer.id}) for layer in layers}
    return tuple(
        Variant(name=LAYER_PREFIX + layer_id, int8=own if mode is SweepMode.ONE_ON else every - own)
        for layer_id, own in one.items()
    )


def sweep_variants(layers: tuple[Layer, ...], mode: SweepMode) -> tuple[Variant, ...]:
    """The controls and one variant for each layer."""
    return (*controls(layer.id for layer in layers), *layer_variants(layers, mode))


GROUP_SIZE = 8
"""Variants of one unit where each costs more to prepare than to run: few enough to share out and to lose."""
CONTROLS_ROUND = 1
"""Of the measure units with the controls, where the layers come first."""


def layer_groups(variants: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Variants (names), in order, as the units take them."""
    return tuple(tuple(variants[start : start + GROUP_SIZE]) for start in range(0, len(variants), GROUP_SIZE))


MERGE_ROUND = 1
"""Of the calibrate unit that adds up what those of round 0 have counted (where there are several), or reads a cache."""
CALIBRATION_SHARD = 512
"""Samples at least: each shard runs the first batch too, and opens the model."""


def cut_calibration(samples: int, batch_size: int) -> tuple[Shard, ...]:
    """Cut the calibration samples where a batch ends, so that each is in the batch that one pass would put it in."""
    size = -(-CALIBRATION_SHARD // batch_size) * batch_size
    return tuple(Shard(start=start, stop=min(start + size, samples)) for start in range(0, samples, size))


MIN_SHARDS = 8
TARGET_SHARDS = 64
SMALLEST_SHARD = 128
LARGEST_SHARD_BYTES = 256 * 2**20


def cut_shards(samples: int, size: int | None, *, bytes_of_sample: int = 0) -> tuple[Shard, ...]:
    """Cut the samples into shards of equal size but for the last.

    By default about 64 shards of at least 128 samples (below that the cost of opening sessions dominates), but at
    least 8 where the samples allow: corpus metrics take their interval from the spread between shards. A worker holds
    one shard's inputs in memory, so that no shard is larger than 256 MiB, whatever was asked for.
    """
    if size is None:
        size = max(SMALLEST_SHARD, -(-samples // TARGET_SHARDS))
        size = min(size, max(1, -(-samples // MIN_SHARDS)))
    if bytes_of_sample:
        size = min(size, max(1, LARGEST_SHARD_BYTES // bytes_of_sample))
    return tuple(Shard(start=start, stop=min(start + size, samples)) for start in range(0, samples, size))


def after(shards: Sequence[Shard], start: int) -> tuple[Shard, ...]:
    """The same shards, so many samples further on."""
    return tuple(Shard(start=each.start + start, stop=each.stop + start) for each in shards)


def shards_of(sizes: Sequence[int]) -> tuple[Shard, ...]:
    """Shards of these sizes, one after another."""
    stops = np.cumsum(sizes)
    return tuple(Shard(start=int(stop - size), stop=int(stop)) for size, stop in zip(sizes, stops, strict=True))
