"""New namespaces for a sandbox, and in them a view of the disk that holds nothing but what is needed.

Root makes them directly; others within a user namespace of their own, where the host allows these.
"""

import os
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from workers.sandbox import syscalls

ALL = (
    syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
)
LIBRARIES = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/opt/nvidia")
SINGLE_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
GPU_FOLDERS = ("/sys/bus/pci", "/sys/devices", "/sys/module", "/usr/local/cuda", "/dev/nvidia-caps")
SCRATCH, INPUT = "/scratch", "/input"


def enter() -> None:
    """New namespaces for this process, and a new one of processes for its next child; raises OSError."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            syscalls.unshare(ALL)
        except PermissionError:  # root of a container
            syscalls.unshare(ALL | syscalls.CLONE_NEWUSER)
        else:
            return
    else:
        syscalls.unshare(ALL | syscalls.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def change_root(
    root: str, scratch: str, files: Sequence[str], *, visible: Sequence[str], gpu: bool, writable: str | None = None
) -> list[str]:
    """Make ``root`` (an empty folder) the root of this process; raises OSError. Where ``files`` lie in it.

    All is read-only but ``scratch``, which lies at ``/scratch``, and the folder ``writable``, which stays where it is.
    """
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("none", root, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=1m,mode=0755")
    read_only = syscalls.ATTR_RDONLY | syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV
    for path in code_paths(visible, gpu=gpu):
        _bind(path, root + path, read_only)
    devices = [*DEVICES, *(_nvidia_devices() if gpu else ())]
    for path in devices:
        if os.path.exists(path):
            _bind(path, root + path, syscalls.ATTR_NOSUID | syscalls.ATTR_NOEXEC)
    inside = []
    for index, path in enumerate(files):
        inside.append(f"{INPUT}/{index}")
        _bind(path, root + inside[-1], read_only | syscalls.ATTR_NOEXEC)
    if writable is not None:
        _bind(writable, root + writable, syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC)
    _bind(scratch, root + SCRATCH, syscalls.ATTR_NOSUID | syscalls.ATTR_NODEV | syscalls.ATTR_NOEXEC)
    os.mkdir(root + "/proc")
    syscalls.mount("proc", root + "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    syscalls.restrict_mount(root + "/proc", syscalls.ATTR_RDONLY)
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.unmount(".")
    os.chdir("/")
    only_here = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("none", "/", None, only_here | syscalls.MS_RDONLY)
    return inside


def code_paths(visible: Sequence[str], *, gpu: bool) -> Iterator[str]:
    """Python, what it imports, and the libraries below: each path once, none below another."""
    package = str(Path(__file__).resolve().parents[2])
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix, package, *site.getsitepackages(), *sys.path, *visible]
    asked = [*LIBRARIES, *own, *SINGLE_FILES, *(GPU_FOLDERS if gpu else ())]
    found: list[str] = []
    for path in sorted({os.path.abspath(each) for each in asked if each and os.path.exists(each)}):
        if not any(path == each or path.startswith(each + "/") for each in found):
            found.append(path)
            yield path


def _nvidia_devices() -> list[str]:
    return [str(each) for each in Path("/dev").glob("nvidia*") if not each.is_dir()]


def _bind(source: str, target: str, attributes: int) -> None:
    if os.path.islink(source) and source in LIBRARIES:  # /lib → usr/lib
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    syscalls.mount(source, target, None, syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.restrict_mount(target, attributes)
