"""The states of resources, sweeps and work units, and the moves between them."""

from enum import StrEnum


class ResourceState(StrEnum):
    """Of an uploaded model or evaluation set."""

    CHECKING = "checking"
    READY = "ready"
    REJECTED = "rejected"


class SweepState(StrEnum):
    """Of a sweep. The last three are terminal: nothing leaves them."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the sweep has ended."""
        return self in TERMINAL_SWEEP_STATES


TERMINAL_SWEEP_STATES = frozenset({SweepState.SUCCEEDED, SweepState.FAILED, SweepState.CANCELLED})

SWEEP_MOVES: dict[SweepState, frozenset[SweepState]] = {
    SweepState.QUEUED: frozenset({SweepState.RUNNING, SweepState.FAILED, SweepState.CANCELLED}),
    SweepState.RUNNING: TERMINAL_SWEEP_STATES,
    SweepState.SUCCEEDED: frozenset(),
    SweepState.FAILED: frozenset(),
    SweepState.CANCELLED: frozenset(),
}


class IllegalMove(ValueError):
    """A state was asked to change in a way that the table of moves does not hold."""


def move_sweep(current: SweepState, target: SweepState) -> SweepState:
    """The new state of a sweep; raises IllegalMove where the table of moves does not allow it."""
    if target not in SWEEP_MOVES[current]:
        raise IllegalMove(f"a sweep cannot go from {current} to {target}")
    return target


class ConversionState(StrEnum):
    """Of a conversion. The last two are terminal."""

    CONVERTING = "converting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether the conversion has ended."""
        return self is not ConversionState.CONVERTING


def move_conversion(current: ConversionState, target: ConversionState) -> ConversionState:
    """The new state of a conversion; raises IllegalMove where it has ended, or would begin again."""
    if current.terminal or not target.terminal:
        raise IllegalMove(f"a conversion cannot go from {current} to {target}")
    return target


class SelectionState(StrEnum):
    """Of a selection that is asked of a decided sweep. The last three are terminal.

    ``predicted``: an estimate that nobody asked to have measured; ``done``: answered by what was measured.
    """

    PREDICTED = "predicted"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing leaves it."""
        return not SELECTION_MOVES[self]

    @property
    def working(self) -> bool:
        """Whether lists are being measured for it, or will be."""
        return self in (SelectionState.QUEUED, SelectionState.RUNNING)


SELECTION_MOVES: dict[SelectionState, frozenset[SelectionState]] = {
    SelectionState.PREDICTED: frozenset({SelectionState.QUEUED}),
    SelectionState.QUEUED: frozenset({SelectionState.RUNNING, SelectionState.FAILED, SelectionState.CANCELLED}),
    SelectionState.RUNNING: frozenset({SelectionState.DONE, SelectionState.FAILED, SelectionState.CANCELLED}),
    SelectionState.DONE: frozenset(),
    SelectionState.FAILED: frozenset(),
    SelectionState.CANCELLED: frozenset(),
}


def move_selection(current: SelectionState, target: SelectionState) -> SelectionState:
    """The new state of a selection; raises IllegalMove where the table of moves does not allow it."""
    if target not in SELECTION_MOVES[current]:
        raise IllegalMove(f"a selection cannot go from {current} to {target}")
    return target


class Phase(StrEnum):
    """The phases of a sweep, in order. Only some methods probe or scout; ``select`` and ``verify`` alternate."""

    PREPARE = "prepare"
    CALIBRATE = "calibrate"
    PROBE = "probe"
    SCOUT = "scout"
    MEASURE = "measure"
    SELECT = "select"
    VERIFY = "verify"
    REPORT = "report"


class UnitKind(StrEnum):
    """What a work unit does: check an upload, convert a model, or one piece of one phase of a sweep.

    ``select`` and ``verify`` are also what a selection is made of that is asked of a decided sweep.
    """

    CHECK_MODEL = "check_model"
    CHECK_DATASET = "check_dataset"
    CONVERT = "convert"
    PREPARE = "prepare"
    CALIBRATE = "calibrate"
    PROBE = "probe"
    SCOUT = "scout"
    MEASURE = "measure"
    SELECT = "select"
    VERIFY = "verify"
    REPORT = "report"


class UnitState(StrEnum):
    """Of a work unit. ``waiting``: not yet to be done (its sweep or conversion waits for a check)."""

    WAITING = "waiting"
    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
