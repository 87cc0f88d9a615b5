"""Decisions against the truth: what the rules claim, how often a claim is broken, and what it costs too much.

    python -m benchmarks.decisions              # the table
    python -m benchmarks.decisions digits       # of one network
    python -m benchmarks.decisions scale        # 1,000 groups: seconds, gap, and greedy's cost beside it

A population of samples stands for all unseen data: every configuration is run on all of it by the variant tree, so that
its true drop is known: of top-1 (digits), of agreement with fp32's answer (ResNet-20, whose top-1 int8 does not lower).
Each of 20 evaluation sets is drawn from it with replacement, half for the choice and half held out.

"claims": in how many of the 20 a rule says that its list is within the budget; "broken": how many of these lists are
beyond it on the population. "optimum": the cost of the cheapest configuration that is truly within, in per cent of that
of all layers in floating point; the best of all that any rule asked for and of those sampled: points of the
population's own Pareto curve, their neighbours, and random ones. "provable": of the cheapest whose drop so many
held-out samples could show to be within; what a proof costs, whoever searches. "extra": a list's cost above the
optimum, mean over the claims that hold (and over all). "measured": lists that a rule ran. Costs are MACs in floating
point and the elements that are converted.
"""

import argparse
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from benchmarks.decision_rules import RULES, Claim, Draw, Outcome, Rule, Task
from benchmarks.engine import CALIBRATION_SAMPLES, use_one_thread
from benchmarks.networks import DATA, Network, batches_of, here
from benchmarks.racing import augmented
from service.domain.costs import CostName
from service.domain.layers import Variant
from service.domain.settings import WeightGranularity
from service.selection.budget import Limit
from service.selection.candidates import Fallback, optimal_candidates
from service.selection.costs import prices
from service.selection.groups import MergedGroup, merged_groups
from service.selection.problem import GroupConversion, GroupInteraction, Problem
from service.selection.search.greedy import cheapest_along, greedy_path
from service.selection.search.optimal import Optimum, Solution
from service.selection.search.swaps import cheaper_neighbours
from tests.workers.backends.ranges import calibrated
from workers.backends.protocol import OpenSettings
from workers.backends.torch_fake_quant import TorchBackend, TorchModel
from workers.data.binding import Batch
from workers.engine.probe import gram, interactions
from workers.engine.probe_settings import ProbeSettings
from workers.metrics.intervals import proportion_difference
from workers.metrics.per_sample import Array, against_labels, against_reference, is_distribution, scored

DRAWS = 20
BATCH = 100
PROBED = 256
POINTS, NEIGHBOURS, RANDOM = 24, 3, 20
MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Setting:
    """``population`` samples; ``budgets``: drops of ``metric``; ``drawn``: an evaluation set, both parts together."""

    population: int
    metric: Literal["correct", "agreement"]
    budgets: tuple[float, ...]
    drawn: int
    weights: WeightGranularity


SETTINGS = {
    "digits": Setting(2000, "correct", (0.005, 0.01), 4000, WeightGranularity.PER_CHANNEL),
    "cifar10_resnet20": Setting(1000, "agreement", (0.02, 0.03), 4000, WeightGranularity.PER_TENSOR),
}


@dataclass(frozen=True, eq=False)
class Asked:
    """One rule with one evaluation set and one budget."""

    rule: str
    task: Task
    budget: float


class Population:
    """A network with the truth of every configuration that was asked for."""

    def __init__(self, network: Network, setting: Setting) -> None:
        inputs, self._labels = _samples(network, setting.population)
        self._samples, self._metric, self._held_out = len(inputs), setting.metric, setting.drawn // 2
        model = TorchBackend().open(network.pt2, OpenSettings(weights=setting.weights))
        assert isinstance(model, TorchModel)
        name = model.facts.inputs[0].name
        self._model = calibrated(model, {name: network.calibration_samples(CALIBRATION_SAMPLES)})
        self._batches = batches_of(model, inputs, BATCH)
        self._probe_batches = batches_of(model, network.calibration_samples(PROBED), 32)
        self.names = {each.id: each.name for each in model.facts.layers}
        self.outcomes: dict[Fallback, Outcome] = {}
        self._reference: list[Array] = []
        self.measure([tuple(sorted(self.names))])

    def measure(self, lists: Iterable[Fallback]) -> None:
        """Run those that are not known yet, in one pass of the variant tree."""
        new = [each for each in dict.fromkeys(lists) if each not in self.outcomes]
        variants = {
            str(place): Variant(name=str(place), int8=frozenset(self.names) - set(each))
            for place, each in enumerate(new)
        }
        rows = {name: (np.zeros(self._samples), np.zeros(self._samples)) for name in variants}
        for each in self._model.evaluate(self._batches, list(variants.values())):
            assert each.outputs is not None, each.failure
            output = next(iter(each.outputs.values()))
            if not self._reference:
                self._reference = [np.zeros(0)] * len(self._batches)
            if len(self._reference[each.batch]) == 0:
                self._reference[each.batch] = output
            where = slice(each.batch * BATCH, each.batch * BATCH + len(output))
            reference = scored(self._reference[each.batch], distribution=False)
            found = scored(output, distribution=False)
            correct, kl = rows[each.variant.name]
            measures = against_reference(reference, found) | against_labels(found, self._labels[where])
            correct[where], kl[where] = measures[self._metric], measures["kl"]
        for name, fallback in zip(variants, new, strict=True):
            self.outcomes[fallback] = Outcome(*rows[name])

    def task(self) -> Task:
        """On all of the population: groups, costs, and the interactions of probes on calibration samples."""
        facts, name = self._model.facts, self._model.facts.inputs[0].name
        start, probed = 0, []
        for each in self._probe_batches:
            probed.append(Batch(each, None, start + np.arange(len(each[name]))))
            start += len(each[name])
        asked = ProbeSettings(facts.outputs[0].name, distribution=is_distribution(self._reference[0]), micro_batch=32)
        sums = self._model.probe(probed, asked)
        alone = {layer: tuple(sorted(set(self.names) - {layer})) for layer in self.names}
        self.measure([*alone.values(), ()])
        return Task(
            groups=merged_groups(self.names, facts.costs.groups),
            prices=prices(facts.costs, CostName.MACS),
            interactions=interactions(gram(sums, "kl"), "kl"),
            alone=alone,
            names=self.names,
            draw=Draw(np.arange(self._samples), np.arange(self._samples)),
            outcomes=self.outcomes,
        )

    def drop(self, fallback: Fallback) -> float:
        """On all of the population."""
        reference = self.outcomes[tuple(sorted(self.names))]
        return float((reference.correct - self.outcomes[fallback].correct).mean())

    def bound(self, fallback: Fallback) -> float:
        """The upper confidence bound that a held-out part with the population's own shares would have."""
        reference = self.outcomes[tuple(sorted(self.names))].correct
        often = np.resize(np.arange(self._samples), self._held_out)
        found = proportion_difference(reference[often], self.outcomes[fallback].correct[often]).high
        assert found is not None
        return found


def _samples(network: Network, count: int) -> tuple[Array, Array]:
    if network.name == "digits":
        data = augmented(network, count)
        return data["inputs"], data["labels"]
    stored = np.load(DATA / "cifar10" / "eval_lossy10k_uint8.npz")
    images = stored["images"][:count].astype(np.float32) / 255
    inputs = (images - MEAN[:, None, None]) / SPREAD[:, None, None]
    return inputs.astype(np.float32), stored["labels"][:count]


def sampled(problem: Problem, random: int = RANDOM) -> list[Fallback]:
    """The curve of the population's own noise, neighbours of its points, and random configurations."""
    rng = np.random.default_rng(0)
    curve = [problem.configuration(each.fallback) for each in optimal_candidates(problem, points=POINTS)]
    near = [each for point in curve for each in cheaper_neighbours(problem, point, NEIGHBOURS)]
    far = [rng.random(len(problem.groups)) < share for share in np.linspace(0.05, 0.95, random)]
    return [problem.layers(each) for each in (*curve, *near, *far)]


def decided(population: Population, asked: Sequence[Asked]) -> list[Claim]:
    """All rules side by side, so that one pass measures what all of them ask for."""
    rules: list[Rule] = [RULES[each.rule](each.task, Limit(max_drop=each.budget)) for each in asked]
    claims: dict[int, Claim] = {}
    while len(claims) < len(rules):
        wanted: list[Fallback] = []
        for place, rule in enumerate(rules):
            if place in claims:
                continue
            try:
                wanted += next(rule)
            except StopIteration as ended:
                claims[place] = ended.value
        population.measure(wanted)
    return [claims[place] for place in range(len(rules))]


def compare(network: Network) -> None:
    """Print the rows of one network."""
    setting, start = SETTINGS[network.name], time.perf_counter()
    population = Population(network, setting)
    task = population.task()
    problem = task.interacting
    population.measure(sampled(problem))
    rng, asked = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = rng.integers(0, setting.population, setting.drawn)
        mine = replace(task, draw=Draw(drawn[: setting.drawn // 2], drawn[setting.drawn // 2 :]))
        asked += [Asked(rule, mine, budget) for budget in setting.budgets for rule in RULES]
    claims = decided(population, asked)
    for budget in setting.budgets:
        for rule in RULES:
            own = [
                claim for each, claim in zip(asked, claims, strict=True) if (each.rule, each.budget) == (rule, budget)
            ]
            print(
                f"{network.name:16s} {budget:6.3f} {rule:16s} {_row(population, problem, budget, own)}",
                flush=True,
            )
    drop = population.drop(())
    print(
        f"  {len(problem.groups)} groups, {len(problem.interactions)} interactions; all int8 loses {drop:.4f}; "
        f"{len(population.outcomes)} configurations on {setting.population} samples; "
        f"{time.perf_counter() - start:.0f} s",
        flush=True,
    )


def _row(population: Population, problem: Problem, budget: float, claims: Sequence[Claim]) -> str:
    whole = problem.cost(problem.all_floating())
    lists = [each.fallback for each in claims if each.fallback is not None]
    holds = [population.drop(each) <= budget * (1 + 1e-9) for each in lists]
    optimum, provable = (_cheapest(population, problem, budget, proven=each) for each in (False, True))
    extra = [100 * (problem.cost(problem.configuration(each)) - optimum) / whole for each in lists]
    kept = [each for each, held in zip(extra, holds, strict=True) if held]
    told = " ".join(f"{np.mean(each):7.2f}" if each else f"{'-':>7s}" for each in (kept, extra))
    measured = np.mean([each.measured for each in claims])
    ends = f"{100 * optimum / whole:7.2f} {100 * provable / whole:8.2f}"
    return f"{ends} {len(lists):6d} {len(lists) - sum(holds):6d} {told} {measured:8.1f}"


def _cheapest(population: Population, problem: Problem, budget: float, *, proven: bool) -> float:
    """The least cost of a measured configuration that is truly within, or surely so on a held-out part like it."""
    found = []
    for fallback in population.outcomes:
        inside = set(fallback)
        whole = all(len(inside.intersection(each.layers)) in (0, len(each.layers)) for each in problem.groups)
        drop = population.bound(fallback) if proven else population.drop(fallback)
        if whole and drop <= budget * (1 + 1e-9):
            found.append(problem.cost(problem.configuration(fallback)))
    return min(found)


def scale() -> None:
    """1,000 groups: log-normal losses and costs, a chain of conversions, and so many interactions of both signs."""
    print(f"{'pairs':>6s} {'loss':>6s} {'seconds':>8s} {'gap':>8s} {'greedy':>7s} {'per cost':>8s}")
    for pairs in (0, 1000, 5000):
        problem = _large(pairs)
        for share in (0.5, 0.1, 0.01):
            limit = share * problem.loss(problem.all_int8())
            start = time.perf_counter()
            found = Optimum(problem).cheapest(limit)
            seconds = time.perf_counter() - start
            assert isinstance(found, Solution)
            ratios = []
            for per_cost in (False, True):
                greedy = cheapest_along(problem, greedy_path(problem, per_cost=per_cost), limit)
                ratios.append(problem.cost(greedy) / found.cost if greedy is not None else np.nan)
            print(
                f"{pairs:6d} {share:6.2f} {seconds:8.1f} {found.gap:8.1e} {ratios[0]:7.3f} {ratios[1]:8.4f}", flush=True
            )


def _large(pairs: int, groups: int = 1000) -> Problem:
    rng = np.random.default_rng(0)
    losses, costs = np.exp(rng.normal(-8, 2, groups)), np.exp(rng.normal(10, 1, groups)).round()
    chain = [GroupConversion(each, (each + 1,), float(np.exp(rng.normal(7, 1)).round())) for each in range(groups - 1)]
    chosen = {
        (min(one, other), max(one, other)) for one, other in rng.integers(0, groups, (2 * pairs, 2)) if one != other
    }
    values = [
        GroupInteraction(int(one), int(other), float(np.sqrt(losses[one] * losses[other]) * rng.uniform(-0.3, 0.8)))
        for one, other in sorted(chosen)[:pairs]
    ]
    names = [MergedGroup(layers=(f"layer{each}",)) for each in range(groups)]
    return Problem(tuple(names), 0.0, costs, losses, tuple(chain), tuple(values))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", help="only this network, or scale")
    arguments = parser.parse_args()
    use_one_thread()
    print(f"torch {torch.__version__}, numpy {np.__version__}, {os.cpu_count()} processors, one thread")
    if arguments.what == "scale":
        scale()
        return
    print(
        f"{'network':16s} {'budget':>6s} {'rule':16s} {'optimum':>7s} {'provable':>8s} {'claims':>6s} {'broken':>6s} "
        f"{'extra':>7s} {'(all)':>7s} {'measured':>8s}"
    )
    for network in here():
        if network.name in SETTINGS and arguments.what in (None, network.name):
            compare(network)


if __name__ == "__main__":
    main()
