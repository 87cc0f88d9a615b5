"""What a decision goes by beside the results: the plan, the settings, the metric, and how the samples were drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.settings import SweepMethod, SweepSettings
from workers.engine import racing
from workers.metrics.draw import Draw
from workers.metrics.intervals import CONFIDENCE
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import TaskMetric
from workers.sweep.plan import Plan


@dataclass(frozen=True)
class Course:
    """Of one sweep, once it is planned."""

    settings: SweepSettings
    plan: Plan
    metric: TaskMetric
    draw: Draw

    def board(self, shards: Sequence[ShardResult], *, held: bool = True, confidence: float = CONFIDENCE) -> Scoreboard:
        """The scores over these shards.

        Those of a race, which are looked at again and again, hold at every look, unless ``held`` is false: then they
        are as those of an exact sweep of so many samples. Another ``confidence`` is that of each look.
        """
        repeated = held and self.settings.method is SweepMethod.RACING and confidence == CONFIDENCE
        looks = len(racing.looks(self.plan.shard_sizes())) if repeated else 1
        draw = None if self.draw.is_equal else self.draw
        return Scoreboard(shards, self.metric, looks=looks, confidence=confidence, draw=draw)
