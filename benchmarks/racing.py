"""Racing beside the exact sweep: what both cost in fp32 evaluations, and whether both decide the same.

    python -m benchmarks.racing             # everything, replayed
    python -m benchmarks.racing digits      # 10,000 augmented digits, top-1, a budget: 20 seeds
    python -m benchmarks.racing resnet20    # label-free metrics, the most sensitive quarter: 20 seeds
    python -m benchmarks.racing --real 2    # real sweeps, from upload to report, of so many seeds

Replayed: one exact table is measured, and what a race of each seed would measure is taken from it; costs are shares of
an fp32 evaluation, measured in the same process (benchmarks/replay.py), and hang on no other process of the machine.
Real: CPU time of one thread over all work units but preparing, calibrating and the report, each sweep with a database
and files of its own, against a plain fp32 pass over the same samples in the same process.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.engine import use_one_thread
from benchmarks.networks import Network, here
from benchmarks.replay import Replayed, Table
from benchmarks.sweeps import evaluation, sweep
from service.domain.layers import LAYER_PREFIX
from service.domain.settings import SweepMode

DIGITS = 10_000
SEEDS = 20
RESNET20 = 1017
DIVERGENCES = ("mse", "kl", "sqnr", "cosine")


def augmented(network: Network, samples: int) -> dict[str, Any]:
    """So many samples: those there are, shifted by up to a pixel to each side, with a little noise."""
    stored = np.load(network.evaluation)
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(stored["inputs"]), samples)
    inputs = stored["inputs"][picked].astype(np.float32)
    for index, (down, right) in enumerate(rng.integers(-1, 2, (samples, 2))):
        inputs[index] = np.roll(inputs[index], (down, right), axis=(-2, -1))
    noise = 0.05 * inputs.std() * rng.standard_normal(inputs.shape)
    return {"inputs": (inputs + noise).astype(np.float32), "labels": stored["labels"][picked]}


@dataclass(frozen=True)
class Found:
    """Of one seed. ``same``: the layers are exact's; ``tied``: they are but for ties that are named."""

    cost: float
    share: float
    same: bool
    tied: bool
    missed: int = 0
    intervals: int = 0


def summary(what: str, exact: float, found: list[Found]) -> str:
    """One line over all seeds."""
    costs, shares = [each.cost for each in found], [each.share for each in found]
    line = (
        f"{what}: exact {exact:.1f} fp32 evaluations; racing {np.mean(costs):.2f} on average "
        f"({min(costs):.2f} to {max(costs):.2f}), {100 * np.mean(shares):.0f} % of exact's; the same list in "
        f"{sum(each.same for each in found)} of {len(found)}, but for named ties in {sum(each.tied for each in found)}"
    )
    intervals = sum(each.intervals for each in found)
    if intervals:
        missed = sum(each.missed for each in found)
        line += f"; {missed} of {intervals} of the layers' intervals miss the exact value"
    return line


def but_for_ties(mine: set[str], theirs: set[str], ties: list[list[str]], apart: set[tuple[str, str]]) -> bool:
    """Whether the lists differ only by layers that are named as ties and that exact's intervals do not tell apart."""
    named = {(kept, other) for kept, *others in ties for other in others}
    swapped = {(kept, other) for kept in mine - theirs for other in theirs - mine}
    return len(mine) == len(theirs) and swapped <= named and not named & apart


def replayed(table: Table, label: str, most: int | None, asked: dict[str, Any]) -> None:
    """Many seeds on one table. ``most``: without a budget the race is for so many layers."""
    exact = table.exact(**asked)
    theirs = set(exact.decision.fallback[:most])
    apart = told_apart(exact)
    values = drops(exact)
    found = []
    for seed in range(SEEDS):
        raced = table.raced(seed, **asked)
        mine = set(raced.decision.fallback)
        ties = [list(each) for each in raced.decision.ties]
        mine_drops = drops(raced)
        missed = [not low <= values[layer][1] <= high for layer, (low, _, high) in mine_drops.items()]
        found.append(
            Found(
                raced.cost,
                raced.cost / exact.cost,
                same=mine == theirs,
                tied=but_for_ties(mine, theirs, ties, apart),
                missed=sum(missed),
                intervals=len(missed),
            )
        )
    print(summary(f"{label} (replayed)", exact.cost, found), flush=True)


def drops(swept: Replayed) -> dict[str, tuple[float, float, float]]:
    """Layer id → the bounds of its sensitivity's interval, its value between them; none without an interval."""
    board = swept.course.board(swept.shards)
    found = {}
    for layer in swept.samples:
        drop = board.sensitivity(LAYER_PREFIX + layer, SweepMode.ONE_ON).drop
        if drop.low is not None and drop.high is not None and drop.value is not None:
            found[layer] = (drop.low, drop.value, drop.high)
    return found


def told_apart(exact: Replayed) -> set[tuple[str, str]]:
    """Pairs of layers, either way round, whose intervals in the exact table do not overlap."""
    found = drops(exact)
    return {(a, b) for a in found for b in found if found[a][0] > found[b][2] or found[b][0] > found[a][2]}


def real(network: Network, label: str, most: int | None, data: dict[str, Any], seeds: int, asked: Any) -> None:
    """Whole sweeps of a few seeds."""
    calibration, one = network.calibration.read_bytes(), evaluation(network, data["inputs"])
    exact = sweep(network.pt2, data, calibration, **asked)
    ranked = sorted((each for each in exact.layers if each["rank"]), key=lambda each: each["rank"])
    theirs = {each["layer"]["id"] for each in ranked[:most]} if most else exact.fallback
    bounds = {each["layer"]["id"]: each["score"]["drop"] for each in ranked}
    apart = {(a, b) for a in bounds for b in bounds if a != b and disjoint(bounds[a], bounds[b])}
    found = []
    for seed in range(seeds):
        raced = sweep(network.pt2, data, calibration, method="racing", seed=seed, **asked)
        tied = but_for_ties(raced.fallback, theirs, raced.decision["ties"], apart)
        cost, share = raced.seconds / one, raced.seconds / exact.seconds
        found.append(Found(cost, share, raced.fallback == theirs, tied))
    print(summary(f"{label} (real sweeps)", exact.seconds / one, found), flush=True)


def disjoint(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether two intervals do not overlap."""
    return bool(one["low"] > other["high"] or other["low"] > one["high"])


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("digits", "resnet20"), help="only this")
    parser.add_argument("--real", type=int, metavar="SEEDS", help="real sweeps of so many seeds, nothing replayed")
    arguments = parser.parse_args()
    use_one_thread()
    networks = {each.name: each for each in here()}
    if arguments.what in (None, "resnet20") and "cifar10_resnet20" in networks:
        resnet = networks["cifar10_resnet20"]
        data = {"inputs": resnet.samples(RESNET20)}
        table = None if arguments.real else Table.of(resnet, data["inputs"], None)
        for metric in DIVERGENCES:
            asked: dict[str, Any] = {"metric": {"name": metric}}
            label = f"ResNet-20, {metric}, {len(data['inputs'])} samples, the top quarter"
            if table is None:
                real(resnet, label, QUARTER, data, arguments.real, asked)
            else:
                replayed(table, label, QUARTER, asked)
    if arguments.what in (None, "digits"):
        network, budget = networks["digits"], 0.01
        data = augmented(network, DIGITS)
        asked = {"metric": {"name": "top1"}, "budget": {"max_drop": budget}, "selection": {"algorithm": "greedy"}}
        label = f"digits, top-1, {DIGITS} samples, budget {budget}"
        if arguments.real:
            real(network, label, None, data, arguments.real, asked)
        else:
            replayed(Table.of(network, data["inputs"], data["labels"]), label, None, asked)


QUARTER = 8
"""Of ResNet-20's 30 layers."""

if __name__ == "__main__":
    main()
