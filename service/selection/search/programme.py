"""The problem as a mixed-integer linear programme, solved by HiGHS through SciPy.

Variables: f_g, binary, 1 where group g is in floating point; y_t in [0, 1], at least |f_source − f_reader| for every
reader, 1 where conversion t is paid; z_p in [0, 1] for each pair that interacts, the product of its two (1 − f), by
McCormick's inequalities (Mathematical Programming 10 (1976) 147-175), of which only those are needed that the
pair's sign pushes against. Without an interaction that is a knapsack with boundary terms.

Nothing depends on the clock: the effort is bounded by the number of nodes, not by time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from service.selection.problem import Bools, Floats, Problem, within

Objective = Literal["cost", "loss"]

REPAIRS = 8
"""Solutions that hold the limit within HiGHS's tolerance only are cut off one by one, so often."""
TIGHTER = 3e-6
"""And then the limit is lowered by this share: three times HiGHS's tolerance of a row (1e-6)."""
SCALE = 1e3
"""The objective's size: HiGHS stops at an absolute gap of 1e-6, which is 1e-9 of this."""


@dataclass(frozen=True)
class Effort:
    """How hard to try: nodes of the search tree at most, and the relative gap that is good enough."""

    nodes: int
    gap: float

    @classmethod
    def of(cls, problem: Problem) -> "Effort":
        """To the optimum where there are few groups; within 0.01 % of it where there are many."""
        return cls(nodes=5_000, gap=0.0 if len(problem.groups) <= SMALL else 1e-4)


ROUGH = Effort(nodes=200, gap=1e-3)
"""For what only breaks ties."""
SMALL = 64


@dataclass(frozen=True, eq=False)
class Solved:
    """What a search found and proved.

    ``floating``: (n,) the best configuration, None where none was found. ``bound``: none within the limit is lower;
    plus infinity where there surely is none.
    """

    floating: Bools | None
    bound: float


class Programme:
    """One problem's rows, for any objective and limit."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._n, self._m = len(problem.groups), len(problem.conversions)
        self._size = self._n + self._m + len(problem.interactions)
        self._rows, self._low, self._high = self._structure()
        self._weights: dict[Objective, Floats] = {"cost": self._cost_weights(), "loss": self._loss_weights()}
        # what the linear parts leave out: the cost of all int8, and the loss of all int8
        self._offset: dict[Objective, float] = {"cost": problem.base, "loss": float(problem.losses.sum())}
        self._value = {"cost": problem.cost, "loss": problem.loss}

    def minimise(self, objective: Objective, limit: float, effort: Effort, *, tie: float = 0.0) -> Solved:
        """The least of one with the other within the limit (infinity: no limit).

        ``tie``: the other counts with this weight too, both as shares of their largest; then ``bound`` is of no use.
        """
        limited: Objective = "loss" if objective == "cost" else "cost"
        weights = self._share(objective)
        if tie:
            weights = weights + tie * self._share(limited)
        rows, fixed = self._limit(limited, limit)
        cuts: list[Bools] = []
        lowest = -np.inf
        for repair in range(REPAIRS + 2):
            high = rows.ub * np.ones(1) - (TIGHTER if repair > REPAIRS else 0.0)
            found = self._solve(weights, LinearConstraint(rows.A, -np.inf, high), fixed, cuts, effort)
            bound = self._unscaled(objective, found.bound)
            lowest = bound if repair == 0 else lowest
            if found.floating is None:
                # after cuts of what is not within the limit, "none" is as true as before them
                return Solved(None, bound if repair <= REPAIRS else lowest)
            if within(self._value[limited](found.floating), limit):
                return Solved(found.floating, bound if repair <= REPAIRS else lowest)
            cuts.append(found.floating)
        return Solved(None, lowest)

    def _solve(
        self,
        weights: Floats,
        limit: LinearConstraint,
        fixed: tuple[Floats, Floats],
        cuts: Sequence[Bools],
        effort: Effort,
    ) -> Solved:
        constraints = [limit]
        if self._rows.shape[0]:
            constraints.append(LinearConstraint(self._rows, self._low, self._high))
        for each in cuts:  # at least one group on another side
            signs = np.zeros((1, self._size))
            signs[0, : self._n] = np.where(each, -1.0, 1.0)
            constraints.append(LinearConstraint(signs, 1.0 - each.sum(), np.inf))
        found = milp(
            weights,
            integrality=np.arange(self._size) < self._n,
            bounds=Bounds(*fixed),
            constraints=constraints,
            options={"node_limit": effort.nodes, "mip_rel_gap": effort.gap},
        )
        if found.status == 2:
            return Solved(None, np.inf)
        bound = -np.inf if found.mip_dual_bound is None else float(found.mip_dual_bound)
        return Solved(None if found.x is None else found.x[: self._n] > 0.5, bound)

    def _limit(self, limited: Objective, limit: float) -> tuple[LinearConstraint, tuple[Floats, Floats]]:
        """The limit as a row, divided by its size, and the bounds of all variables, with what cannot be int8."""
        low, high = np.zeros(self._size), np.ones(self._size)
        for place, floating in self._problem.fixed.items():
            low[place] = high[place] = float(floating)
        row = self._weights[limited][None, :]
        if np.isinf(limit):
            return LinearConstraint(np.zeros_like(row), -np.inf, 1.0), (low, high)
        if limited == "loss":
            too_much = ~np.array([within(each, limit) for each in self._least_losses()], dtype=bool)
            pinned = np.isin(np.arange(self._n), list(self._problem.fixed))
            low[: self._n][too_much & ~pinned] = 1.0
        # of the variables that are still open, so that a large one that is fixed does not drown the others
        open_ = low < high
        constant = float((row[0] * low)[~open_].sum()) + self._offset[limited]
        drift = 1e-12 * float(np.abs(row).sum())  # of the constant, a sum of large numbers that cancel
        size = max(float(np.abs(row[0][open_]).max(initial=0.0)), abs(limit - constant), drift) or 1.0
        scaled = np.where(open_, row[0], 0.0)[None, :] / size
        # a share of the limit for sums in another order; what it lets through is tested exactly
        slack = 1e-9 * abs(limit) + drift
        return LinearConstraint(scaled, -np.inf, (limit - constant + slack) / size), (low, high)

    def _least_losses(self) -> Floats:
        """(n,) below which no configuration with this group in int8 can come.

        Its own loss with all that can be taken from it; of the others, each with half of what pairs can take.
        """
        taken = np.zeros(self._n)
        for each in self._problem.interactions:
            taken[[each.first, each.second]] += min(each.value, 0.0)
        others = np.minimum(self._problem.losses + taken / 2, 0.0)
        least: Floats = self._problem.losses + taken + (others.sum() - others)
        return least

    def _share(self, objective: Objective) -> Floats:
        weights = self._weights[objective]
        return weights / (np.abs(weights).max(initial=0.0) or 1.0) * SCALE

    def _unscaled(self, objective: Objective, bound: float) -> float:
        weights = self._weights[objective]
        return bound * (np.abs(weights).max(initial=0.0) or 1.0) / SCALE + self._offset[objective]

    def _cost_weights(self) -> Floats:
        paid = [each.cost for each in self._problem.conversions]
        return np.concatenate([self._problem.costs, paid, np.zeros(len(self._problem.interactions))])

    def _loss_weights(self) -> Floats:
        pairs = [each.value for each in self._problem.interactions]
        return np.concatenate([-self._problem.losses, np.zeros(self._m), pairs])

    def _structure(self) -> tuple[sparse.csr_array, Floats, Floats]:
        rows: list[tuple[dict[int, float], float, float]] = []
        for index, each in enumerate(self._problem.conversions):
            y = self._n + index
            for target in each.targets:
                rows.append(({y: 1.0, each.source: -1.0, target: 1.0}, 0.0, np.inf))
                rows.append(({y: 1.0, each.source: 1.0, target: -1.0}, 0.0, np.inf))
        for index, pair in enumerate(self._problem.interactions):
            z = self._n + self._m + index
            if pair.value > 0:
                rows.append(({z: 1.0, pair.first: 1.0, pair.second: 1.0}, 1.0, np.inf))
            else:
                rows.append(({z: 1.0, pair.first: 1.0}, -np.inf, 1.0))
                rows.append(({z: 1.0, pair.second: 1.0}, -np.inf, 1.0))
        matrix = sparse.lil_array((len(rows), self._size))
        for index, (entries, _, _) in enumerate(rows):
            for place, value in entries.items():
                matrix[index, place] = value
        low, high = (np.array([row[side] for row in rows]) for side in (1, 2))
        return matrix.tocsr(), low, high
