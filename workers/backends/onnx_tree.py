"""Runs many variants of an ONNX graph so that each starts where it first differs from a trunk.

There are two trunks: fp32, and all layers of any variant in int8. A trunk is run once, piece by piece from cut to cut.
A variant is one session over the rest of the graph, from the cut before the first layer in which it differs from the
trunk that it shares more with. So one-on and one-off cost about half of the naive loop, and only one boundary lies in
what a variant runs: every boundary costs the runtime a change of layout and lost fusions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from service.domain.errors import first_line
from service.domain.layers import Variant
from workers.backends.protocol import Evaluated, Tensors

if TYPE_CHECKING:
    from workers.models.onnx_cuts import Cuts

HELD_BYTES = 256 * 2**20
"""Of a trunk's tensors at one cut, for all batches that go through the sessions together."""

Feeds = dict[str, Any]


class Runner(Protocol):
    """What the tree needs of an opened model."""

    def piece_session(self, piece: Any, int8: frozenset[str]) -> Any:
        """A session over a piece of the graph with these of its layers in int8."""

    def run_variant(self, session: Any, variant: Variant, index: int, batch: Tensors, feeds: Feeds) -> Evaluated:
        """One variant's outputs; outputs that the session does not make are among the feeds."""

    def feeds(self, batch: Tensors) -> Feeds:
        """A batch as the whole graph takes it."""

    errors: tuple[type[Exception], ...]


@dataclass(frozen=True)
class _Branch:
    """A variant and the cut that it starts from."""

    variant: Variant
    cut: int


class OnnxTree:
    """Plans over one graph. ``layers``: (layer id, its node, its cost) in topological order."""

    def __init__(self, cuts: "Cuts", layers: Sequence[tuple[str, str, float]], *, segments: int | None) -> None:
        self._cuts = cuts
        self._order = [layer for layer, _, _ in layers]
        starts = [cuts.position(node) for _, node, _ in layers]
        possible = [
            (start, cost) for start, (_, _, cost) in zip(starts, layers, strict=True) if start and cuts.possible(start)
        ]
        allowed = [0, *(start for start, _ in possible)]
        if segments is not None:
            first = sum(cost for _, _, cost in layers) - sum(cost for _, cost in possible)
            allowed = spread(allowed, [first, *(cost for _, cost in possible)], segments)
        self._cut_of = {
            layer: max(cut for cut in allowed if cut <= start) for layer, start in zip(self._order, starts, strict=True)
        }

    @property
    def segments(self) -> int:
        """Into how many segments the graph is cut, 1 where every variant runs it whole."""
        return len({0, *self._cut_of.values()})

    def evaluate(self, runner: Runner, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Iterator[Evaluated]:
        """Each variant on each batch."""
        for trunk, branches in self._plan(variants):
            widest = max((self._cuts.bytes_of_sample(each.cut) for each in branches if each.cut), default=0)
            for group in _groups(batches, widest):
                yield from _Trunk(self._cuts, runner, trunk, group, batches).run(branches)

    def _plan(self, variants: Sequence[Variant]) -> list[tuple[frozenset[str], list[_Branch]]]:
        fp32: frozenset[str] = frozenset()
        every = fp32.union(*(each.int8 for each in variants))
        plan: dict[frozenset[str], list[_Branch]] = {fp32: [], every: []}
        for variant in variants:
            cut, trunk = max(
                ((self._first_difference(variant.int8, trunk), trunk) for trunk in (fp32, every)),
                key=lambda found: (found[0], not found[1]),
            )
            plan[trunk].append(_Branch(variant, cut))
        return [(trunk, sorted(branches, key=lambda each: each.cut)) for trunk, branches in plan.items() if branches]

    def _first_difference(self, int8: frozenset[str], trunk: frozenset[str]) -> int:
        """The cut to start from; what equals the trunk runs whole, as a control must."""
        differing = [layer for layer in self._order if (layer in int8) != (layer in trunk)]
        return self._cut_of[differing[0]] if differing else 0


class _Trunk:
    """One trunk's tensors for a group of batches, moved on from cut to cut."""

    def __init__(
        self,
        cuts: "Cuts",
        runner: Runner,
        int8: frozenset[str],
        group: Sequence[int],
        batches: Sequence[Tensors],
    ) -> None:
        self._cuts, self._runner, self._int8, self._group, self._batches = cuts, runner, int8, group, batches
        self._at = 0
        self._held: dict[int, Feeds] = {index: runner.feeds(batches[index]) for index in group}
        self._broken = False

    def run(self, branches: Sequence[_Branch]) -> Iterator[Evaluated]:
        """Every branch, in the order of the cuts that they start from."""
        for branch in branches:
            self._move_to(branch.cut)
            yield from self._branch(branch.variant, branch.cut)

    def _branch(self, variant: Variant, cut: int) -> Iterator[Evaluated]:
        whole = self._broken
        try:
            session = self._runner.piece_session(self._cuts.piece(0 if whole else cut), variant.int8)
        except self._runner.errors as error:
            reason = f"its session cannot be made: {first_line(error)}"
            for index in self._group:
                yield Evaluated(variant, index, None, reason)
            return
        for index in self._group:
            feeds = self._runner.feeds(self._batches[index]) if whole else self._held[index]
            yield self._runner.run_variant(session, variant, index, self._batches[index], feeds)

    def _move_to(self, cut: int) -> None:
        """Where the trunk itself cannot run, variants run the whole graph from then on and show why themselves."""
        if cut == self._at or self._broken:
            return
        try:
            session = self._runner.piece_session(self._cuts.piece(self._at, cut), self._int8)
            made = [each.name for each in session.get_outputs()]
            crossing = self._cuts.crossing(cut)
            for index in self._group:
                held = self._held[index]
                tensors = dict(zip(made, run(session, held, made), strict=True))
                self._held[index] = {name: tensors[name] if name in tensors else held[name] for name in crossing}
            self._at = cut
        except self._runner.errors:
            self._broken = True
            self._held.clear()


def spread(cuts: Sequence[int], weights: Sequence[float], most: int) -> list[int]:
    """At most ``most`` of the cuts (in order), the first of them 0, so that between two lies about the same weight.

    ``weights``: what lies between a cut and the next.
    """
    if len(cuts) <= most:
        return list(cuts)
    total, passed, chosen = sum(weights) or 1.0, 0.0, [cuts[0]]
    for cut, weight in zip(cuts[1:], weights, strict=False):
        passed += weight
        if len(chosen) < most and passed >= total * len(chosen) / most:
            chosen.append(cut)
    return chosen


def run(session: Any, feeds: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
    """The session's outputs; of the feeds it takes those that it knows."""
    needed = {each.name: feeds[each.name] for each in session.get_inputs()}
    found: list[Any] = session.run(list(outputs), needed)
    return found


def _groups(batches: Sequence[Tensors], bytes_of_sample: int) -> list[list[int]]:
    """Batches that go through the sessions together, so that what a trunk holds for them stays bounded."""
    groups: list[list[int]] = []
    held = 0
    for index, batch in enumerate(batches):
        size = len(next(iter(batch.values()))) * bytes_of_sample
        if not groups or held + size > HELD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(index)
        held += size
    return groups


def all_finite(outputs: Tensors) -> bool:
    """Whether no floating-point output holds NaN or infinite values."""
    return all(bool(np.isfinite(each).all()) for each in outputs.values() if each.dtype.kind == "f")
