"""A sandbox without a file: to see what confines one on this host."""

from collections.abc import Sequence
from pathlib import Path

from workers.sandbox.measures import Measure
from workers.sandbox.policy import Policy
from workers.sandbox.sandbox import PROBE, sandbox
from workers.sandbox.serving import Reply
from workers.sandbox.wire import Message


def nothing(files: Sequence[Path], asked: Message) -> Reply:
    """Nothing is opened: only that it runs is told."""
    return Reply()


def measures_here(policy: Policy) -> tuple[Measure, ...]:
    """What confines a sandbox on this host; raises SandboxDied where none can be made."""
    opened = sandbox(policy).open(PROBE, [])
    opened.end()
    return opened.measures
