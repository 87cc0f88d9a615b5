"""A template whose sandboxes do the worst that a stranger's file could make its parser do, and tell how that went."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers.sandbox.policy import Policy
from workers.sandbox.serving import Fetch, Reply, serve
from workers.sandbox.template import POLICY, run_template
from workers.sandbox.wire import Channel, Message


def connect(port: int) -> str:
    socket.create_connection(("127.0.0.1", port), timeout=5)
    return "connected"


def read(path: str) -> str:
    return Path(path).read_text()


def write(path: str) -> str:
    Path(path).write_text("written")
    return "written"


def overwrite_input(_: Any) -> str:
    with open(INPUTS[0], "r+b") as file:
        file.write(b"changed")
    return "changed"


def read_input(_: Any) -> str:
    return INPUTS[0].read_text()


def environment(_: Any) -> str:
    return json.dumps(dict(os.environ))


def environments(_: Any) -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def kill(pid: int) -> str:
    os.kill(pid, signal.SIGKILL)
    return "killed"


def fork(_: Any) -> str:
    if os.fork() == 0:
        os._exit(0)
    return "forked"


def execute(_: Any) -> str:
    return subprocess.run(["/bin/echo", "ran"], capture_output=True, text=True, check=True).stdout


def system_call(number: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "called"


def remount(_: Any) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(32), None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "mounted"


def allocate(size: int) -> str:
    return str(np.ones(size, np.uint8)[-1])


def fill_a_file(size: int) -> str:
    with open("filled", "wb") as file:
        file.truncate(0)
        file.seek(size)
        file.write(b"x")
    return "filled"


def threads(count: int) -> str:
    started = []
    for _ in range(count):
        each = threading.Thread(target=time.sleep, args=(2,), daemon=True)
        each.start()
        started.append(each)
    return str(len(started))


def use_scratch(_: Any) -> str:
    Path("note").write_text("kept")
    return Path.cwd().joinpath("note").read_text()


def crash(_: Any) -> str:
    ctypes.string_at(0)
    return "alive"


def leave(_: Any) -> str:
    os._exit(7)


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def babble(_: Any) -> str:
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"no message at all, and long enough for a head")
        except OSError:
            continue
    time.sleep(5)
    return "babbled"


def who(_: Any) -> str:
    return json.dumps({"uid": os.getuid(), "pid": os.getpid()})


ATTACKS: Mapping[str, Callable[[Any], str]] = {
    each.__name__: each
    for each in (
        *(connect, read, write, overwrite_input, read_input, environment, environments, kill, fork, execute),
        *(system_call, remount, allocate, fill_a_file, threads, use_scratch, crash, leave, sleep, babble, who),
    )
}
INPUTS: list[Path] = []


class Attacker:
    def opened(self) -> Reply:
        return Reply("ready")

    def answers(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        if asked.kind == "count_to":
            for number in range(asked.document):
                yield Reply(number)
            return
        if asked.kind == "sum":
            yield Reply(int(sum(int(part.arrays["x"].sum()) for part in iter(fetch, None))))
            return
        if asked.kind == "pickle":
            yield Reply(None, {"x": np.array([{}], object)})
            return
        yield Reply(ATTACKS[asked.kind](asked.document))


def opener(files: Sequence[Path], asked: Message) -> Attacker:
    INPUTS.extend(files)
    return Attacker()


def main(arguments: Sequence[str]) -> None:
    policy: Policy = POLICY.validate_json(arguments[1])
    with socket.socket(fileno=int(arguments[0])) as control:
        run_template(control, policy, lambda kind: None, _serve)


def _serve(channel: Channel, kind: str, files: Sequence[Path]) -> None:
    serve(channel, opener, files)


if __name__ == "__main__":
    main(sys.argv[1:])
