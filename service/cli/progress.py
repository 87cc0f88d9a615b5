"""A sweep's progress as one live line: phase, bar, share, time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from service.cli.status import SweepStatus, time_left
from service.client import Document

Report = Callable[[Document], None]


class _TimeLeft(ProgressColumn):
    """The service's own estimate; the bar's speed would not know of phases that are still to come."""

    def render(self, task: Task) -> Text:
        """The cell."""
        return Text(time_left(task.fields.get("eta")), "cyan")


@contextmanager
def shown_progress(console: Console, check: Callable[[], None]) -> Iterator[Report]:
    """What to call with each state of the sweep; ``check`` may raise to give up. Plain lines without a terminal."""
    if not console.is_terminal:
        yield _Lines(console, check)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _TimeLeft())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("queued", total=1.0, eta=None)

        def update(document: Document) -> None:
            check()
            sweep = SweepStatus.of(document)
            progress.update(task, description=sweep.stage, completed=sweep.fraction, eta=sweep.eta_seconds)

        yield update


class _Lines:
    """A line for each phase and each tenth of the way: for logs and pipes."""

    def __init__(self, console: Console, check: Callable[[], None]) -> None:
        self._console, self._check = console, check
        self._last: tuple[str, int] | None = None

    def __call__(self, document: Document) -> None:
        self._check()
        sweep = SweepStatus.of(document)
        current = (sweep.stage, int(sweep.fraction * 10))
        if current == self._last:
            return
        self._last = current
        line = f"{sweep.stage:<10} {sweep.fraction:4.0%}  {time_left(sweep.eta_seconds)}"
        self._console.print(Text(line.rstrip()))
