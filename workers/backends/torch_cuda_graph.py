"""Small batches on a CUDA device: the plan of a batch recorded as one CUDA graph, replayed for the batches after it.

Launching a kernel for few samples takes longer than the kernel runs (docs/benchmarks.md). A graph launches all of them
at once, and they are the same kernels on the same numbers.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from service.domain.errors import first_line
from workers.backends.torch_tree import Failed, Inputs, Outputs, TorchTree

log = logging.getLogger(__name__)

MOST_SAMPLES = 32
"""Larger batches keep the device busy by themselves (docs/benchmarks.md)."""

FEWEST_BATCHES = 8
"""Recording takes about two batches' time."""

MOST_BYTES = 2**26
"""Of all variants' outputs, which a graph holds at once."""


@dataclass(frozen=True)
class _Graph:
    """``inputs`` are read where they lie; a replay writes ``outputs``, by variant's position."""

    replay: torch.cuda.CUDAGraph
    inputs: Inputs
    outputs: tuple[tuple[int, Outputs], ...]


class RepeatedRuns:
    """Runs the same variants on batch after batch. The ranges must stay as they are meanwhile.

    The outputs of a batch are to be read before the next one runs.
    """

    def __init__(self, tree: TorchTree, variants: Sequence[int], *, batches: int) -> None:
        self._tree = tree
        self._variants = variants
        self._worthwhile = batches >= FEWEST_BATCHES and len(variants) > 0
        self._seen: object = None
        self._graph: _Graph | None = None

    def run(self, inputs: Inputs) -> Iterator[tuple[int, Outputs | Failed]]:
        """As TorchTree.run, the first batch of a shape always by calls: it settles which kernels run."""
        shapes = {name: each.shape for name, each in inputs.items()}
        if self._worthwhile and shapes == self._seen and self._graph is None:
            self._graph = self._record(inputs)
            self._worthwhile = self._graph is not None
        if self._graph is None or shapes != self._seen:
            yield from self._by_calls(inputs, shapes)
            return
        for name, each in self._graph.inputs.items():
            each.copy_(inputs[name])
        self._graph.replay.replay()
        yield from self._graph.outputs

    def _by_calls(self, inputs: Inputs, shapes: object) -> Iterator[tuple[int, Outputs | Failed]]:
        size = 0
        for position, outputs in self._tree.run(inputs, self._variants):
            size += MOST_BYTES + 1 if isinstance(outputs, Failed) else sum(each.nbytes for each in outputs)
            yield position, outputs
        on_cuda = all(each.is_cuda for each in inputs.values())
        samples = max((len(each) for each in inputs.values() if each.ndim), default=0)
        self._worthwhile &= on_cuda and samples <= MOST_SAMPLES and size <= MOST_BYTES
        if self._graph is None:
            self._seen = shapes

    def _record(self, inputs: Inputs) -> _Graph | None:
        """None where the model has operations that cannot be recorded, or where there is no room for a graph."""
        graph, held = torch.cuda.CUDAGraph(), {name: each.clone() for name, each in inputs.items()}
        outputs: list[tuple[int, Outputs]] = []
        try:
            # other threads of the process may use the device meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                for position, found in self._tree.run(held, self._variants):
                    if isinstance(found, Failed):
                        raise RuntimeError(found.reason)
                    outputs.append((position, found))
        except RuntimeError as error:
            log.info("batches run without a CUDA graph: %s", first_line(error))
            return None
        return _Graph(graph, held, tuple(outputs))
