"""Takes from a process, step by step, what it needs no more, before it looks at the first byte of a stranger's file."""

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress

from workers.backends.tensorrt.timing_cache import FOLDER_VARIABLE
from workers.sandbox import namespaces, seccomp, syscalls
from workers.sandbox.measures import Measure
from workers.sandbox.policy import Policy

NOBODY = 65534
OPEN_FILES = 1024


def enter_namespaces() -> str | None:
    """New namespaces for this process and its next child; the reason where there are none."""
    try:
        namespaces.enter()
    except OSError as error:
        return f"no namespaces: {error.strerror or error}"
    return None


def confine(
    policy: Policy,
    descriptors: Sequence[int],
    paths: Sequence[str],
    *,
    scratch: str,
    root: str,
    refused: str | None,
    engines: str | None = None,
) -> tuple[list[str], tuple[Measure, ...]]:
    """Where the input files are for this process from now on, and which measures hold.

    ``descriptors``: of the opened input files, whose ``paths`` are needed to show them in another root.
    ``refused``: why there are no namespaces; None where this process is the first of new ones. ``engines``: a folder
    that it may write, and others like it.
    """
    found: list[Measure] = []
    files = [f"/proc/self/fd/{each}" for each in descriptors]
    if refused is None:
        why, seen = None, files
        try:
            inside = namespaces.change_root(
                root, scratch, paths, visible=policy.visible, gpu=policy.gpu, writable=engines
            )
            seen, scratch = inside, namespaces.SCRATCH
        except OSError as error:
            why = f"no view of its own on the disk: {error.strerror or error}"
        if why is None:
            _same_files(descriptors, seen)
            files = seen
            for each in descriptors:
                os.close(each)
        found.append(Measure("files", why is None, why or "sees code, its inputs (read-only) and a folder of its own"))
        found.append(Measure("network", True, "a network namespace without any interface"))
        found.append(Measure("processes", True, "a process namespace of its own"))
    else:
        found += [Measure(name, False, refused) for name in ("files", "network", "processes")]
    _settle_in(scratch)
    found.append(_attempt("user", lambda: _become_nobody(scratch, files, engines)))
    if engines is not None and os.access(engines, os.R_OK | os.W_OK | os.X_OK):
        os.environ[FOLDER_VARIABLE] = engines  # else its engines end with it
    found.append(_attempt("privileges", _drop_privileges))
    found.append(_attempt("limits", lambda: _limit(policy)))
    found.append(_attempt("system calls", _filter))
    # after the change of user, which would clear it
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    return files, tuple(found)


def _attempt(name: str, step: Callable[[], str]) -> Measure:
    try:
        return Measure(name, True, step())
    except (OSError, ValueError, seccomp.Unsupported, _NotHere) as error:
        return Measure(name, False, getattr(error, "strerror", None) or str(error))


class _NotHere(Exception):
    pass


def _same_files(descriptors: Sequence[int], paths: Sequence[str]) -> None:
    for descriptor, path in zip(descriptors, paths, strict=True):
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise RuntimeError("a file was replaced while it was being opened")


def _settle_in(scratch: str) -> None:
    os.chdir(scratch)
    os.umask(0o077)
    tempfile.tempdir = scratch
    os.environ.update(HOME=scratch, TMPDIR=scratch, USER="nobody", LOGNAME="nobody")
    # torch has settled on a folder when it was loaded
    os.environ.update(TORCHINDUCTOR_CACHE_DIR=f"{scratch}/inductor", TRITON_CACHE_DIR=f"{scratch}/triton")


def _become_nobody(scratch: str, files: Sequence[str], engines: str | None) -> str:
    if os.geteuid() != 0:
        return f"user {os.geteuid()}, as the worker"
    if not _may_read((os.__file__, *(each for each in sys.path if os.path.exists(each)), scratch, *files)):
        os.chown(scratch, 0, 0)  # root without its powers may not write to what is another's
        raise _NotHere("runs as root without its powers: the user nobody could not read what it needs")
    if engines is not None:
        _hand_over(engines)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    return f"user {NOBODY} (nobody)"


def _hand_over(folder: str) -> None:
    """Once, what root has made there before: no sandbox has written to it yet, so no link leads out of it."""
    if os.stat(folder).st_uid == NOBODY:
        return
    for each in os.scandir(folder):
        if each.is_file(follow_symlinks=False):
            os.chown(each.path, NOBODY, NOBODY, follow_symlinks=False)
    os.chown(folder, NOBODY, NOBODY)


def _may_read(paths: Sequence[str]) -> bool:
    groups = os.getgroups()
    try:
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    except OSError:
        return False
    try:
        for each in paths:
            os.close(os.open(each, os.O_RDONLY))
    except OSError:
        return False
    finally:
        os.seteuid(0)
        os.setegid(0)
        with suppress(OSError):
            os.setgroups(groups)
    return True


def _drop_privileges() -> str:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.drop_capabilities()
    return "no capabilities, and no way to new ones"


def _limit(policy: Policy) -> str:
    limits = {
        # not the address space, of which CUDA reserves far more than there is memory
        resource.RLIMIT_DATA: policy.memory,
        resource.RLIMIT_FSIZE: policy.file,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: policy.threads,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 64 * 2**20 if not policy.gpu else resource.RLIM_INFINITY,
    }
    for name, asked in limits.items():
        hard = resource.getrlimit(name)[1]
        value = asked if hard == resource.RLIM_INFINITY else min(asked, hard) if asked >= 0 else hard
        resource.setrlimit(name, (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that grows too large is an error of its writer
    return (
        f"{policy.memory / 2**30:.1f} GiB of memory, files of {policy.file / 2**30:.0f} GiB, {policy.threads} threads, "
        f"{policy.open_seconds:.0f} s to open and {policy.silent_seconds:.0f} s between answers"
    )


def _filter() -> str:
    seccomp.install()
    return "a filter refuses sockets, programs, processes, mounts and tracing"
