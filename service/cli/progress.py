"""A sweep's progress as one live line: phase, bar, share, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from service.client import Sweep

Report = Callable[[Sweep], None]


class _TimeLeft(ProgressColumn):
    """The service's own estimate; the bar's speed would not know of phases that are still to come."""

    def render(self, task: Task) -> Text:
        """The cell."""
        return Text(time_left(task.fields.get("eta")), "cyan")


def time_left(seconds: float | None) -> str:
    """Such as ``about 1 min 20 s left``; nothing while it is not known."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes} min left"
    return f"about {minutes} min {rest} s left" if minutes else f"about {rest} s left"


@contextmanager
def shown_progress(console: Console, check: Callable[[], None]) -> Iterator[Report]:
    """What to call with each state of the sweep; ``check`` may raise to give up. Plain lines without a terminal."""
    if not console.is_terminal:
        yield _Lines(console, check)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _TimeLeft())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("queued", total=1.0, eta=None)

        def update(sweep: Sweep) -> None:
            check()
            progress.update(task, description=stage(sweep), completed=sweep.progress, eta=sweep.eta_seconds)

        yield update


def stage(sweep: Sweep) -> str:
    """The phase of a running sweep, else its state."""
    return str(sweep.phase if sweep.state == "running" else sweep.state)


class _Lines:
    """A line for each phase and each tenth of the way: for logs and pipes."""

    def __init__(self, console: Console, check: Callable[[], None]) -> None:
        self._console, self._check = console, check
        self._last: tuple[str, int] | None = None

    def __call__(self, sweep: Sweep) -> None:
        self._check()
        current = (stage(sweep), int(sweep.progress * 10))
        if current == self._last:
            return
        self._last = current
        line = f"{current[0]:<10} {sweep.progress:4.0%}  {time_left(sweep.eta_seconds)}"
        self._console.print(Text(line.rstrip()))
