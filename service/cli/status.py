"""What the service says of a sweep, as far as the command line shows it."""

from dataclasses import dataclass
from typing import Self

from service.client import Document
from service.domain.states import Phase, SweepState


@dataclass(frozen=True)
class SweepStatus:
    """Where a sweep stands. ``fraction`` 0 to 1; ``eta_seconds`` None until known."""

    id: str
    state: SweepState
    phase: Phase
    fraction: float
    eta_seconds: float | None
    problem: str | None
    warnings: tuple[str, ...]
    metric: str

    @classmethod
    def of(cls, document: Document) -> Self:
        """From the service's document."""
        return cls(
            id=document["id"],
            state=SweepState(document["state"]),
            phase=Phase(document["phase"]),
            fraction=document["progress"]["fraction"],
            eta_seconds=document["eta_seconds"],
            problem=document["problem"]["message"] if document["problem"] else None,
            warnings=tuple(each["message"] for each in document["warnings"]),
            metric=document["settings"]["metric"]["name"],
        )

    @property
    def stage(self) -> str:
        """The phase of a running sweep, else its state."""
        return self.phase.value if self.state is SweepState.RUNNING else self.state.value


def time_left(seconds: float | None) -> str:
    """Such as ``about 1 min 20 s left``; nothing while it is not known, and nothing of nothing."""
    if seconds is None or round(seconds) < 1:
        return ""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes} min left"
    return f"about {minutes} min {rest} s left" if minutes else f"about {rest} s left"
