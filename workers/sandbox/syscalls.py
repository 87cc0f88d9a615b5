"""The calls to Linux that confinement needs and Python does not offer; each raises OSError with the kernel's reason."""

import ctypes
import os
import platform
from collections.abc import Mapping

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x0002_0000, 0x0400_0000, 0x0800_0000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x1000_0000, 0x2000_0000, 0x4000_0000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
CAPABILITY_VERSION = 0x2008_0522

# the numbers of calls without a function in the C library: those from 424 on are the same everywhere
MOUNT_SETATTR = 442
NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {"pivot_root": 155, "capset": 126},
    "aarch64": {"pivot_root": 41, "capset": 91},
}

_libc = ctypes.CDLL(None, use_errno=True)


def machine() -> str:
    """The processor's architecture, as Linux calls it."""
    return platform.machine()


def prctl(option: int, value: int, pointer: ctypes.c_void_p | None = None) -> None:
    """Change an attribute of this process."""
    _done(_libc.prctl(option, ctypes.c_ulong(value), pointer or ctypes.c_ulong(0), 0, 0), "prctl")


def unshare(flags: int) -> None:
    """Leave shared namespaces."""
    _done(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Put one tree on another."""
    texts = [None if each is None else os.fsencode(each) for each in (source, target, kind, data)]
    _done(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount on {target}")


def unmount(target: str) -> None:
    """Take a tree off, as soon as nobody uses it."""
    _done(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def pivot_root(new: str, old: str) -> None:
    """Take another root."""
    _call("pivot_root", NUMBERS[machine()]["pivot_root"], os.fsencode(new), os.fsencode(old))


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]


def restrict_mount(target: str, attributes: int) -> None:
    """Restrict a mount and all below it (mount_setattr: Linux 5.12)."""
    asked = _MountAttributes(attributes, 0, 0, 0)
    path = os.fsencode(target)
    size = ctypes.c_size_t(ctypes.sizeof(asked))
    _call("mount_setattr", MOUNT_SETATTR, AT_FDCWD, path, AT_RECURSIVE, ctypes.byref(asked), size)


class _CapabilityHead(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def drop_capabilities() -> None:
    """Keep no capability at all."""
    head = _CapabilityHead(CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    _call("capset", NUMBERS[machine()]["capset"], ctypes.byref(head), ctypes.byref(none))


def _call(name: str, number: int, *arguments: object) -> None:
    _done(_libc.syscall(ctypes.c_long(number), *arguments), name)


def _done(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
