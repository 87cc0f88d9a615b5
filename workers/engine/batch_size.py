"""How many samples to run at once on a device."""

import os

MOST = {"cpu": 64, "cuda": 256}
"""Larger batches gain nothing: the CPU's caches, or the GPU's cores, are full (docs/benchmarks.md)."""

SHARE_OF_MEMORY = 0.25
"""Others use the machine too, and kernels take memory for themselves."""

TIMES_LIVE = 3
"""A tree holds twice what a plain run does; one more for what kernels need."""


def batch_size(device: str, live_bytes: int | None) -> int:
    """Samples in a batch, at least 1.

    ``live_bytes``: the most that one sample's tensors take at once; None where it is not known.
    """
    kind = device.partition(":")[0]
    most = MOST[kind]
    if live_bytes is None or live_bytes <= 0:
        return MOST["cpu"]
    fitting = int(SHARE_OF_MEMORY * free_bytes(device)) // (TIMES_LIVE * live_bytes)
    return max(1, min(most, fitting))


def free_bytes(device: str) -> int:
    """Memory that is free on the device now."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
