"""In which order a sweep takes its samples: in that of the plan, or drawn by how unsure fp32 is of each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from workers.metrics.draw import Draw, Floats, drawn
from workers.metrics.shard_result import ShardResult
from workers.sweep.plan import Plan

UNCERTAINTY = "uncertainty"
EVEN_SHARE = 0.1
"""Of the chances, so much is the same for all samples: none can then count for more than ten."""


def planned(plan: Plan) -> tuple[npt.NDArray[np.int64], Draw]:
    """In the order of the plan, where every sample has the same chance to come first."""
    return plan.order(), Draw.equal(plan.samples)


def scouted(plan: Plan, shards: Sequence[ShardResult]) -> tuple[npt.NDArray[np.int64], Draw]:
    """Drawn by the uncertainties of all the plan's samples, (index of each sample, its chances) in the new order."""
    chances = chances_of(np.concatenate([each.measures[UNCERTAINTY][0] for each in shards]))
    order = drawn(chances, plan.seed)
    return plan.order()[order], Draw(chances[order])


def chances_of(uncertainty: Floats) -> Floats:
    """In proportion, but for EVEN_SHARE; the mean is 1."""
    mean = uncertainty.mean()
    if mean <= 0:
        return np.ones(len(uncertainty))
    found: Floats = (1 - EVEN_SHARE) * uncertainty / mean + EVEN_SHARE
    return found
