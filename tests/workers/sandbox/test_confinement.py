"""What a sandbox may not do: each attack runs in one, as a stranger's file could make its parser run it."""

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from workers.sandbox.confined import Confined
from workers.sandbox.errors import FailedInside
from workers.sandbox.measures import ESSENTIAL, missing
from workers.sandbox.policy import Policy
from workers.sandbox.sandbox import Sandbox
from workers.sandbox.wire import Closed

ENTRY = "tests.workers.sandbox.attacker"
GIB = 2**30
POLICY = replace(
    Policy.of(Settings()), memory=GIB, file=2**20, threads=64, open_seconds=60.0, silent_seconds=30.0, visible=()
)
SECRET = "a secret of the worker"
UNSHARE_CALL = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
IO_URING_CALL, BPF_CALL = 425, {"x86_64": 321, "aarch64": 280}[os.uname().machine]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTSIEVE_DATABASE_URL", SECRET)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("NVIDIA_TF32_OVERRIDE", "0")
        yield Sandbox(POLICY, entry=ENTRY)


@pytest.fixture
def attacker(sandbox: Sandbox, tmp_path: Path) -> Iterator[Confined]:
    """A sandbox over one input file. Where the host permits it, with every measure."""
    file = tmp_path / "input"
    file.write_text("the input")
    file.chmod(0o666)
    opened = sandbox.open("attack", [file])
    yield opened
    opened.end()


def needs(attacker: Confined, *names: str) -> None:
    lacking = [each.found for each in attacker.measures if each.name in names and not each.holds]
    if lacking:
        pytest.skip(f"this host does not permit it: {lacking[0]}")


def refused(attacker: Confined, attack: str, argument: Any = None) -> str:
    with pytest.raises(FailedInside) as caught:
        attacker.one(attack, argument)
    return str(caught.value)


def test_the_input_can_be_read_and_not_written(attacker: Confined, tmp_path: Path) -> None:
    assert attacker.one("read_input").document == "the input"
    needs(attacker, "files")
    assert "Read-only file system" in refused(attacker, "overwrite_input")
    assert (tmp_path / "input").read_text() == "the input"


def test_no_other_file_is_seen_and_none_is_left(attacker: Confined, tmp_path: Path) -> None:
    needs(attacker, "files")
    for path in (str(tmp_path / "input"), "/etc/passwd", str(Path.home() / ".profile"), "/proc/1/root/etc/passwd"):
        assert "No such file" in refused(attacker, "read", path) or "Permission" in refused(attacker, "read", path)
    for path in (str(tmp_path / "new"), "/new", "/usr/new", "/tmp/new", str(Path(__file__).with_name("new"))):
        assert refused(attacker, "write", path).startswith(("FileNotFoundError", "OSError", "PermissionError"))
    assert {each.name for each in tmp_path.iterdir()} == {"input"}


def test_it_has_a_folder_of_its_own_that_is_gone_afterwards(sandbox: Sandbox) -> None:
    first, second = sandbox.open("attack", []), sandbox.open("attack", [])
    assert first.one("use_scratch").document == "kept"
    assert "FileNotFoundError" in refused(second, "read", "note")
    first.end()
    second.end()
    assert not any(Path("/tmp").glob("quantsieve-sandbox-*/*/scratch/note"))


def test_there_is_no_network(attacker: Confined) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert refused(attacker, "connect", server.getsockname()[1]).startswith(("PermissionError", "OSError"))
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_credential_comes_in(attacker: Confined) -> None:
    assert SECRET not in attacker.one("environment").document
    needs(attacker, "processes")
    assert SECRET not in attacker.one("environments").document


def test_it_runs_as_nobody_and_sees_no_other_process(attacker: Confined) -> None:
    needs(attacker, "processes", "user")
    seen = json.loads(attacker.one("who").document)
    assert seen["pid"] == 1
    assert seen["uid"] == (65534 if os.getuid() == 0 else os.getuid())
    assert "FileNotFoundError" in refused(attacker, "read", f"/proc/{os.getpid()}/cmdline")


@pytest.mark.parametrize(
    ("attack", "argument"),
    [
        ("fork", None),
        ("execute", None),
        ("remount", None),
        ("kill", os.getpid()),
        ("system_call", UNSHARE_CALL),
        ("system_call", IO_URING_CALL),
        ("system_call", BPF_CALL),
    ],
    ids=["fork", "exec", "mount", "kill", "unshare", "io_uring", "bpf"],
)
def test_calls_that_parsing_never_needs_are_refused(attacker: Confined, attack: str, argument: Any) -> None:
    needs(attacker, "system calls")
    assert "not permitted" in refused(attacker, attack, argument)


def test_memory_files_and_threads_have_limits(attacker: Confined) -> None:
    from workers.backends.protocol import OutOfMemory

    with pytest.raises(OutOfMemory, match="more memory than a sandbox may take"):
        attacker.one("allocate", 2 * GIB)
    assert attacker.one("allocate", GIB // 8).document == "1"
    # of a file that is larger than any may be, or of a private folder that is full: whichever limit is met first
    assert re.search("File too large|no space left", refused(attacker, "fill_a_file", 2**21))
    assert "start new thread" in refused(attacker, "threads", 500)


def test_every_measure_is_told(attacker: Confined) -> None:
    assert {each.name for each in attacker.measures} == {*ESSENTIAL, "user", "privileges", "limits"}
    assert all(each.found for each in attacker.measures)


WITHOUT_NAMESPACES = textwrap.dedent(
    """
    import json, sys
    from dataclasses import replace
    from tests.workers.sandbox.test_confinement import ENTRY, POLICY
    from workers.sandbox.sandbox import Sandbox
    from service.domain.errors import Unavailable
    opened = Sandbox(POLICY, entry=ENTRY).open("attack", [])
    measures = {each.name: each.holds for each in opened.measures}
    try:
        opened.one("connect", 1)
        measures["connected"] = True
    except Exception as error:
        measures["connected"] = str(error)
    try:
        Sandbox(replace(POLICY, demand="required"), entry=ENTRY).open("attack", [])
    except Unavailable as error:
        measures["required"] = error.message
    print(json.dumps(measures))
    """
)


def test_what_the_host_does_not_permit_is_left_out_and_told_and_refused_where_it_is_required() -> None:
    """In a user namespace that allows no further mount namespace, as in many containers."""
    script = 'echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, WITHOUT_NAMESPACES],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "max_mnt_namespaces" in done.stderr:
        pytest.skip(f"no user namespace can be made here: {done.stderr.strip()[:200]}")
    found = json.loads(done.stdout)
    assert [found[name] for name in ("files", "network", "processes")] == [False, False, False], done.stderr
    assert found["system calls"]
    assert found["limits"]
    assert "PermissionError" in found["connected"]
    assert "its setting sandbox is 'required': files: no namespaces" in found["required"]


def test_only_the_essential_measures_are_asked_for() -> None:
    from workers.sandbox.measures import Measure

    measures = [Measure("files", True, "x"), Measure("user", False, "y"), Measure("network", False, "z")]
    assert missing(measures) == [measures[2]]


def test_an_array_of_objects_does_not_come_out(attacker: Confined) -> None:
    with pytest.raises((FailedInside, Closed), match="dtype object"):
        attacker.one("pickle")


def test_the_folder_of_engines_is_kept_for_those_that_build_some(tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / "old.plan").write_text("built before")
    file = tmp_path / "input"
    file.write_text("the input")
    sandbox = Sandbox(replace(POLICY, engines=str(folder)), entry=ENTRY)
    first = sandbox.open("tensorrt", [file])
    needs(first, "files")
    assert first.one("read", str(folder / "old.plan")).document == "built before"
    assert first.one("write", str(folder / "old.plan")).document == "written"
    assert first.one("write", str(folder / "new.plan")).document == "written"
    assert json.loads(first.one("environment").document)["QUANTSIEVE_TENSORRT_CACHE"] == str(folder)
    assert refused(first, "write", str(tmp_path / "other")).startswith(("FileNotFoundError", "OSError"))
    second, other = sandbox.open("latency", [file]), sandbox.open("attack", [file])
    assert second.one("read", str(folder / "new.plan")).document == "written"
    assert "No such file" in refused(other, "read", str(folder / "new.plan"))
    for each in (first, second, other):
        each.end()


def test_what_decides_how_a_gpu_rounds_is_known_inside(attacker: Confined) -> None:
    assert json.loads(attacker.one("environment").document)["NVIDIA_TF32_OVERRIDE"] == "0"
