"""A sandbox without a file: to see what confines one on this host."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from workers.sandbox.measures import Measure
from workers.sandbox.policy import Policy
from workers.sandbox.sandbox import PROBE, sandbox
from workers.sandbox.serving import Fetch, Reply
from workers.sandbox.wire import Message


class ServedNothing:
    """Answers nothing."""

    def opened(self) -> Reply:
        """That it runs."""
        return Reply()

    def answers(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        """None."""
        return iter(())


def served_nothing(files: Sequence[Path], asked: Message) -> ServedNothing:
    """Nothing is opened."""
    return ServedNothing()


def measures_here(policy: Policy) -> tuple[Measure, ...]:
    """What confines a sandbox on this host; raises SandboxDied where none can be made."""
    opened = sandbox(policy).open(PROBE, [])
    opened.end()
    return opened.measures
