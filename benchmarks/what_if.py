"""What the search behind a question of 1,000 groups costs within a request, and how long it holds up an event loop.

``python -m benchmarks.what_if [pairs ...]``: one line for each number of interacting pairs. The problem is a chain with
a conversion between all neighbours; losses and costs are log-normal, interactions of both signs.
"""

import asyncio
import sys
import threading
import time

import numpy as np

from service.selection.curve import NothingKept, quick_curve
from service.selection.groups import MergedGroup
from service.selection.problem import GroupConversion, GroupInteraction, Problem

GROUPS = 1_000
PAIRS = (0, 500, 5_000, 15_000, 100_000)
LOOK_SECONDS = 0.005


def main() -> None:
    """Print the table."""
    for pairs in [int(each) for each in sys.argv[1:]] or PAIRS:
        asked = chain(pairs)
        found: list[tuple[int, float, float]] = []
        search = threading.Thread(target=lambda asked=asked, found=found: found.append(timed(asked)))
        search.start()
        late = asyncio.run(lateness(search))
        candidates, processor, wall = found[0]
        print(
            f"{pairs:>7,} pairs: {candidates} candidates, {processor:.1f} s of processor, {wall:.1f} s; an event loop "
            f"beside it late by {1e3 * np.median(late):.1f} ms (median), {1e3 * np.quantile(late, 0.99):.0f} ms (99 %)",
            flush=True,
        )


def timed(asked: Problem) -> tuple[int, float, float]:
    """Candidates, and the seconds that they took: of the processor, and by the clock."""
    processor, wall = time.thread_time(), time.perf_counter()
    candidates, _ = quick_curve(asked, NothingKept())
    return len(candidates), time.thread_time() - processor, time.perf_counter() - wall


async def lateness(search: threading.Thread) -> list[float]:
    """How much later than asked for the loop goes on, in seconds, until the search has ended."""
    late, before = [], time.perf_counter()
    while search.is_alive():
        await asyncio.sleep(LOOK_SECONDS)
        now = time.perf_counter()
        late.append(now - before - LOOK_SECONDS)
        before = now
    return late


def chain(pairs: int) -> Problem:
    """The problem with so many interactions."""
    draw = np.random.default_rng(0)
    losses, costs = draw.lognormal(0, 2, GROUPS), draw.lognormal(0, 1, GROUPS)
    place = draw.choice(GROUPS * (GROUPS - 1) // 2, pairs, replace=False)
    first, second = (each[place] for each in np.triu_indices(GROUPS, 1))
    values = draw.normal(0, 0.02, pairs) * np.sqrt(losses[first] * losses[second])
    return Problem(
        groups=tuple(MergedGroup(layers=(f"g{each}",), floating=None) for each in range(GROUPS)),
        base=0.0,
        costs=costs,
        losses=losses,
        conversions=tuple(GroupConversion(each, (each + 1,), 0.2) for each in range(GROUPS - 1)),
        interactions=tuple(
            GroupInteraction(int(one), int(other), float(value))
            for one, other, value in zip(first, second, values, strict=True)
        ),
    )


if __name__ == "__main__":
    main()
