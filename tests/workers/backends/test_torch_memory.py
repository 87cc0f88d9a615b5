"""Memory that a tensor gave back, as the system sees it: in a process of its own, whose C library is as it starts."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys

import torch

from workers.backends.torch_memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
SIZE = 64 * 2**20
for _ in range(20):  # until the heap has taken its shape
    torch.ones(SIZE, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(SIZE, dtype=torch.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / SIZE / 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives large blocks back")
@pytest.mark.parametrize("memory", ["kept", "as it is"])
def test_a_tensor_takes_the_pages_of_the_one_before(memory: str) -> None:
    """The share of a tensor's pages that the system has to find anew, for each tensor."""
    said = subprocess.run([sys.executable, "-c", PROGRAM, memory], capture_output=True, text=True, check=True)
    share = float(said.stdout)
    assert share < 0.001 if memory == "kept" else share > 0.001, share
