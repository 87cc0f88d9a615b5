"""Variants that failed on some samples and without which nothing can be decided."""

from service.domain.errors import SweepFailure
from service.domain.layers import ALL_INT8, LAYER_PREFIX
from workers.metrics.scores import Scoreboard
from workers.sweep.course import Course
from workers.sweep.measure import MIXED_PREFIX


def check_failures(course: Course, board: Scoreboard) -> None:
    """Raises SweepFailure where a list or all layers in int8 failed.

    The trial before measuring let them pass: on some samples only, layers fail that passed on others.
    """
    for name, reason in board.failures.items():
        if name.startswith(MIXED_PREFIX):
            raise SweepFailure(f"a mixed-precision variant cannot run: {reason}", code="verification-failed")
    if ALL_INT8 not in board.failures:
        return
    broken = {name.removeprefix(LAYER_PREFIX) for name in board.failures}
    names = [each.name for each in course.plan.layers if each.id in broken]
    advice = f"; exclude the layers that fail on some samples: {', '.join(names)}" if names else ""
    raise SweepFailure(
        f"with all layers in int8 the model does not run: {board.failures[ALL_INT8]}{advice}", code="all-int8-failed"
    )
