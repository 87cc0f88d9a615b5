"""One worker for each GPU of this machine, started again when it dies, ended together (on Linux however we end)."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from service.domain.errors import InvalidInput
from service.embedded.keeper import die_with_parent
from service.embedded.process import next_pause

LOOK_SECONDS = 0.2
ASK_SECONDS = 30.0

log = logging.getLogger(__name__)


def gpus_of(asked: str) -> list[str]:
    """The GPUs that ``all`` or a list such as ``0,1`` names; raises InvalidInput where they are not on this machine.

    Where CUDA_VISIBLE_DEVICES is set, there are only those.
    """
    here = _gpus_here()
    if not here:
        raise InvalidInput("--gpus: nvidia-smi shows no GPU on this machine; leave it out", field="--gpus")
    if asked == "all":
        return here
    wanted = [each.strip() for each in asked.split(",")]
    unknown = [each for each in wanted if each not in here]
    if unknown or len(set(wanted)) < len(wanted):
        message = f"--gpus: {asked!r} is wrong; give all, or each once of {','.join(here)}"
        raise InvalidInput(message, field="--gpus")
    return wanted


def _gpus_here() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [each.strip() for each in visible.split(",") if each.strip() not in ("", "-1")]
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


class GpuWorkers:
    """A worker for each GPU, which sees that GPU alone, as ``cuda:0``."""

    def __init__(self, command: Sequence[str], gpus: Sequence[str], environment: Mapping[str, str]) -> None:
        self._workers = [_Worker(command, gpu, environment) for gpu in gpus]
        self._stopping = threading.Event()
        self._signal = signal.SIGTERM

    def run(self) -> None:
        """Run them until SIGTERM or SIGINT, which is passed on; returns when all have ended. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        while not self._stopping.is_set():
            for each in self._workers:
                if self._stopping.is_set():
                    break
                each.keep()
            self._stopping.wait(LOOK_SECONDS)
        for each in self._workers:
            each.signal(self._signal)
        for each in self._workers:
            each.wait()

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self._stopping.is_set():  # a second one, to end at once: the loop passes on no more
            for each in self._workers:
                each.signal(number)
        # the loop passes it on: here a process may just be starting that is not known yet
        self._signal = signal.Signals(number)
        self._stopping.set()


class _Worker:
    def __init__(self, command: Sequence[str], gpu: str, environment: Mapping[str, str]) -> None:
        self._command, self._gpu = command, gpu
        self._environment = {**environment, "CUDA_VISIBLE_DEVICES": gpu, "QUANTSIEVE_DEVICE": "cuda:0"}
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._due = self._pause = 0.0

    def keep(self) -> None:
        """Start it where it is time to."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            self._pause = next_pause(self._pause, now - self._started)
            self._due = now + self._pause
            status, self._process = self._process.returncode, None
            log.warning("the worker of GPU %s ended with %d; once more in %.0f s", self._gpu, status, self._pause)
        if self._process is None and now >= self._due:
            # a session of its own: Ctrl-C reaches it once, through us
            self._process = subprocess.Popen(
                self._command, env=self._environment, start_new_session=True, preexec_fn=die_with_parent()
            )
            self._started = now

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self) -> None:
        if self._process is not None:
            self._process.wait()
