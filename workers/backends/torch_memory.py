"""What torch does with the machine's memory."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Let this process use the memory of tensors that are gone for the next ones, up to 1 GiB.

    glibc gives large blocks back to the system at once, and each tensor after that is paid for page by page: a third
    of a sweep's time at batches of 128, half of it at 1,024 (docs/benchmarks.md). Other C libraries stay as they are.
    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
