"""How sandboxes end: whatever happens in one, the worker hears of it, goes on, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.workers.sandbox.test_confinement import ENTRY, POLICY
from workers.sandbox.confined import Confined
from workers.sandbox.errors import SandboxDied
from workers.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(replace(POLICY, silent_seconds=1.0), entry=ENTRY)


@pytest.fixture
def opened(sandbox: Sandbox) -> Iterator[Confined]:
    made = sandbox.open("attack", [])
    yield made
    made.end()


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("crash", "it ended with signal SIGSEGV"),
        ("leave", "it ended with status 7"),
        ("babble", "it does not keep to the protocol"),
    ],
)
def test_one_that_dies_is_told_of_and_the_next_one_works(
    sandbox: Sandbox, opened: Confined, does: str, words: str
) -> None:
    with pytest.raises(SandboxDied, match=words):
        opened.one(does)
    assert not opened.alive
    with pytest.raises(SandboxDied, match="ended before"):
        opened.one("use_scratch")
    again = sandbox.open("attack", [])
    assert again.one("use_scratch").document == "kept"
    again.end()


def test_one_that_says_nothing_is_ended(opened: Confined) -> None:
    begun = time.monotonic()
    with pytest.raises(SandboxDied, match="it said nothing for 1 s"):
        opened.one("sleep", 60)
    assert time.monotonic() - begun < 20


def test_answers_that_nobody_takes_are_given_up(opened: Confined) -> None:
    numbers = opened.stream("count_to", 10**9)
    assert [next(numbers).document for _ in range(3)] == [0, 1, 2]
    assert opened.one("use_scratch").document == "kept"
    assert [each.document for each in opened.stream("count_to", 3)] == [0, 1, 2]


def test_an_input_that_breaks_off_leaves_it_usable(opened: Confined) -> None:
    def parts(good: int) -> Iterator[tuple[None, dict[str, np.ndarray]]]:
        for _ in range(good):
            yield None, {"x": np.ones(1000, np.int64)}
        if good < 3:
            raise InterruptedError("the lease is lost")

    assert [each.document for each in opened.stream("sum", parts=parts(3))] == [3000]
    with pytest.raises(InterruptedError):
        list(opened.stream("sum", parts=parts(1)))
    assert opened.one("use_scratch").document == "kept"


def test_one_that_nobody_refers_to_ends(sandbox: Sandbox) -> None:
    holder = sandbox.open("attack", [])._holder
    sandbox.open("attack", []).end()
    with pytest.raises(ProcessLookupError):
        os.kill(holder, 0)


WORKER = textwrap.dedent(
    """
    import time
    from tests.workers.sandbox.test_confinement import ENTRY, POLICY
    from workers.sandbox.sandbox import Sandbox
    sandbox = Sandbox(POLICY, entry=ENTRY)
    opened = sandbox.open("attack", [])
    print(sandbox._process.pid, opened._holder, flush=True)
    opened.one("sleep", 600)
    """
)


def test_no_sandbox_outlives_a_worker_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout is not None
    template, holder = (int(each) for each in worker.stdout.readline().split())
    inside = [int(each) for each in Path(f"/proc/{holder}/task/{holder}/children").read_text().split()]
    assert len(inside) == 1
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    deadline = time.monotonic() + 10
    while any(runs(each) for each in (template, holder, *inside)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
