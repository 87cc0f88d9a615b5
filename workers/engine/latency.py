"""From kernels' times to layers' latencies: medians over runs, and what is nobody's."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.domain.costs import CostModel, LayerCost, Precision, TimedGraph
from service.domain.results import Interval
from workers.metrics.intervals import median, undefined

Floats = npt.NDArray[np.float64]

NO_KERNEL = "no kernel of it was found in the graph that ran"


@dataclass(frozen=True)
class TimedKernel:
    """A kernel and whose it is. ``seconds``: one for each run, shape (runs,).

    ``layers``: ids of those that it computes, to the first of which its time goes. ``beside``: operators in it that are
    no part of a layer. ``converts``: it quantizes or dequantizes; ``tensor``: what, where that is known.
    ``floating``: it computes in floating point.
    """

    operator: str
    seconds: Floats
    layers: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    converts: bool = False
    tensor: str | None = None
    floating: bool = True


@dataclass(frozen=True)
class TimedRuns:
    """One graph, with all or none of its layers in int8. ``wall``: seconds of each run, shape (runs,)."""

    precision: Precision
    kernels: tuple[TimedKernel, ...]
    wall: Floats
    samples: int


def measured(costs: CostModel, names: Mapping[str, str], runs: Sequence[TimedRuns]) -> CostModel:
    """``costs`` with the latencies of its layers by these graphs, one for each precision. ``names``: layer → its name.

    Boundaries stay as they are. A note says how many layers did not run in int8 where they were meant to.
    """
    latencies = {each.precision: layer_latencies(each, names) for each in runs}

    def timed(cost: LayerCost) -> LayerCost:
        found = {key: each[cost.layer] for key, each in latencies.items() if cost.layer in each}
        return cost.model_copy(update={"latency": found})

    floating = [layer for each in runs if each.precision is Precision.INT8 for layer in in_floating_point(each)]
    note = (
        f"{len(floating)} of {len(names)} layers have no integer kernel here: their int8 latency is that of the "
        "floating-point one, between quantizers where there are any; for example "
    )
    notes = [note + ", ".join(names[layer] for layer in floating[:5])] if floating else []
    return costs.model_copy(
        update={
            "layers": tuple(timed(each) for each in costs.layers),
            "batch_size": runs[0].samples,
            "timed": tuple(timed_graph(each) for each in runs),
            "notes": (*costs.notes, *notes),
        }
    )


def layer_latencies(runs: TimedRuns, names: Mapping[str, str]) -> dict[str, Interval]:
    """Layer → seconds per sample, the median over runs; ``names``: layer → its name, for what is said of others.

    ``method`` says what else the number holds. A layer within another's kernel has 0, and one without a kernel no
    number. One that is meant to be in int8 and is computed in floating point has the time that this takes.
    """
    own: dict[str, list[TimedKernel]] = defaultdict(list)
    within: dict[str, str] = {}
    for kernel in runs.kernels:
        if kernel.layers:
            own[kernel.layers[0]].append(kernel)
            within |= dict.fromkeys(kernel.layers[1:], kernel.layers[0])
    return {layer: _latency(own[layer], within.get(layer), names, runs) for layer in names}


def _latency(kernels: Sequence[TimedKernel], host: str | None, names: Mapping[str, str], runs: TimedRuns) -> Interval:
    count = len(runs.wall)
    if not kernels and host is not None:
        return Interval(value=0.0, low=0.0, high=0.0, method=f"within the kernel of {names[host]}", samples=count)
    if not kernels:
        return undefined(NO_KERNEL, count)
    seconds = np.sum([each.seconds for each in kernels], axis=0)  # (runs,)
    found = median(seconds / runs.samples)
    return found.model_copy(update={"method": "; ".join([found.method, *_remarks(kernels, names, runs.precision)])})


def _remarks(kernels: Sequence[TimedKernel], names: Mapping[str, str], precision: Precision) -> Iterable[str]:
    others = dict.fromkeys(names[layer] for each in kernels for layer in each.layers[1:])
    if others:
        yield f"with {', '.join(others)}"
    beside = dict.fromkeys(operator for each in kernels for operator in each.beside)
    if beside:
        yield f"with {', '.join(beside)}"
    if precision is Precision.INT8 and kernels[0].floating:
        yield f"computed in floating point ({kernels[0].operator})"


def in_floating_point(runs: TimedRuns) -> tuple[str, ...]:
    """The layers whose first kernel computes in floating point."""
    first: dict[str, bool] = {}
    for kernel in runs.kernels:
        for layer in kernel.layers[:1]:
            first.setdefault(layer, kernel.floating)
    return tuple(layer for layer, floating in first.items() if floating)


def timed_graph(runs: TimedRuns) -> TimedGraph:
    """Where the time went, over all runs together.

    Where something else takes the processor now and then, it is charged to whichever kernel was running: the shares add
    up, while medians of kernels, which hardly see it, add up to less than the median of whole runs.
    """
    total = float(runs.wall.sum())
    layers = conversions = 0.0
    other: dict[str, float] = defaultdict(float)
    for kernel in runs.kernels:
        share = float(kernel.seconds.sum()) / total
        if kernel.layers:
            layers += share
        elif kernel.converts:
            conversions += share
        else:
            other[kernel.operator] += share
    return TimedGraph(
        precision=runs.precision,
        wall=median(runs.wall / runs.samples),
        layers=layers,
        conversions=conversions,
        other=dict(sorted(other.items(), key=lambda each: -each[1])),
        outside=1.0 - layers - conversions - sum(other.values()),
    )


def conversion_latencies(runs: TimedRuns) -> dict[str, float]:
    """Tensor → seconds per sample of one conversion, where both directions were timed: the mean of the two.

    A stretch of layers in one precision is entered and left, so that each way is paid about as often.
    """
    ways: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for kernel in runs.kernels:
        if kernel.converts and kernel.tensor is not None:
            ways[kernel.tensor][kernel.operator].append(float(np.median(kernel.seconds)) / runs.samples)
    return {
        tensor: float(np.mean([np.mean(each) for each in found.values()]))
        for tensor, found in ways.items()
        if len(found) == 2
    }
