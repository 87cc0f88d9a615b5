"""A filter on system calls: what parsing and computing never need is refused, and foreign call conventions are fatal.

It is a list of what is refused, not of what is allowed: runtimes and drivers differ in what they call, and a call that
was forgotten would end a sweep on one machine in a hundred. What gives access to the network, to other processes, to
new namespaces or to the wider kernel is refused with EPERM, starting programs and processes too; threads are not.
"""

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping

from workers.sandbox import syscalls

EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x0001_0000
X32_BIT = 0x4000_0000
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
LOAD, JUMP_EQUAL, JUMP_SET, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
SECCOMP_MODE_FILTER = 2
ARCHITECTURES: Mapping[str, int] = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

# the same numbers on both: io_uring (its operations pass no filter), the new mount calls, pidfds, clone3 (see below)
NEWER = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 443)
CLONE3 = 435
REFUSED: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "socket": 41,
        "connect": 42,
        "accept": 43,
        "bind": 49,
        "listen": 50,
        "socketpair": 53,
        "accept4": 288,
        "fork": 57,
        "vfork": 58,
        "execve": 59,
        "execveat": 322,
        "kill": 62,
        "tkill": 200,
        "rt_sigqueueinfo": 129,
        "rt_tgsigqueueinfo": 297,
        "ptrace": 101,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "mount": 165,
        "umount2": 166,
        "pivot_root": 155,
        "chroot": 161,
        "unshare": 272,
        "setns": 308,
        "mknod": 133,
        "mknodat": 259,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "fanotify_init": 300,
        "bpf": 321,
        "perf_event_open": 298,
        "userfaultfd": 323,
        "keyctl": 250,
        "add_key": 248,
        "request_key": 249,
        "kexec_load": 246,
        "kexec_file_load": 320,
        "init_module": 175,
        "finit_module": 313,
        "delete_module": 176,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "sethostname": 170,
        "setdomainname": 171,
        "iopl": 172,
        "ioperm": 173,
        "modify_ldt": 154,
        "quotactl": 179,
        "acct": 163,
        "syslog": 103,
        "personality": 135,
        "settimeofday": 164,
        "clock_settime": 227,
        "clock_adjtime": 305,
        "adjtimex": 159,
        "vhangup": 153,
        "migrate_pages": 256,
        "lookup_dcookie": 212,
    },
    "aarch64": {
        "socket": 198,
        "connect": 203,
        "accept": 202,
        "bind": 200,
        "listen": 201,
        "socketpair": 199,
        "accept4": 242,
        "execve": 221,
        "execveat": 281,
        "kill": 129,
        "tkill": 130,
        "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240,
        "ptrace": 117,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "mount": 40,
        "umount2": 39,
        "pivot_root": 41,
        "chroot": 51,
        "unshare": 97,
        "setns": 268,
        "mknodat": 33,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "fanotify_init": 262,
        "bpf": 280,
        "perf_event_open": 241,
        "userfaultfd": 282,
        "keyctl": 219,
        "add_key": 217,
        "request_key": 218,
        "kexec_load": 104,
        "kexec_file_load": 294,
        "init_module": 105,
        "finit_module": 273,
        "delete_module": 106,
        "swapon": 224,
        "swapoff": 225,
        "reboot": 142,
        "sethostname": 161,
        "setdomainname": 162,
        "quotactl": 60,
        "acct": 89,
        "syslog": 116,
        "personality": 92,
        "settimeofday": 170,
        "clock_settime": 112,
        "clock_adjtime": 266,
        "adjtimex": 171,
        "vhangup": 58,
        "migrate_pages": 238,
        "lookup_dcookie": 18,
    },
}
CLONE: Mapping[str, int] = {"x86_64": 56, "aarch64": 220}
TGKILL: Mapping[str, int] = {"x86_64": 234, "aarch64": 131}


class Unsupported(Exception):
    """The call numbers of the processor are not known."""


def install() -> None:
    """Filter this process's calls from now on; raises OSError or Unsupported. ``no_new_privs`` must be set."""
    code = b"".join(instructions(syscalls.machine(), os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, then a pointer to them
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    pointer = ctypes.cast(program, ctypes.c_void_p)
    syscalls.prctl(syscalls.PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer)


def instructions(machine: str, own: int) -> Iterator[bytes]:
    """The filter as classic BPF, 8 bytes each; ``own``: the process's id, the only one that it may signal (abort)."""
    if machine not in ARCHITECTURES:
        raise Unsupported(f"the call numbers of {machine} are not known; x86_64 and aarch64 are")
    yield _step(LOAD, ARCHITECTURE_AT)
    yield _step(JUMP_EQUAL, ARCHITECTURES[machine], yes=1)
    yield _step(RETURN, KILL_PROCESS)
    yield _step(LOAD, NUMBER_AT)
    if machine == "x86_64":
        yield _step(JUMP_AT_LEAST, X32_BIT, no=1)
        yield _step(RETURN, KILL_PROCESS)
    for number in (*REFUSED[machine].values(), *NEWER):
        yield _step(JUMP_EQUAL, number, no=1)
        yield _step(RETURN, ERRNO | EPERM)
    # its flags lie in memory, where a filter cannot look: the C library then takes clone
    yield _step(JUMP_EQUAL, CLONE3, no=1)
    yield _step(RETURN, ERRNO | ENOSYS)
    yield _step(JUMP_EQUAL, CLONE[machine], no=4)
    yield _step(LOAD, FIRST_ARGUMENT_AT)
    yield _step(JUMP_SET, CLONE_THREAD, no=1)
    yield _step(RETURN, ALLOW)
    yield _step(RETURN, ERRNO | EPERM)
    yield _step(JUMP_EQUAL, TGKILL[machine], no=4)
    yield _step(LOAD, FIRST_ARGUMENT_AT)
    yield _step(JUMP_EQUAL, own, no=1)
    yield _step(RETURN, ALLOW)
    yield _step(RETURN, ERRNO | EPERM)
    yield _step(RETURN, ALLOW)


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)
