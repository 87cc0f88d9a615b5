"""Random signs for the probes: they depend on the seed and the sample alone, not on batches, shards or workers."""

import numpy as np
import numpy.typing as npt

Signs = npt.NDArray[np.float32]


def signs(seed: int, index: int, *, probes: int, size: int) -> Signs:
    """Vectors of ±1, shape (probes, size), of the sample at ``index`` of its evaluation set.

    Each vector by itself is uniform. The vectors of one sample are one draw, turned by rows of a Hadamard matrix: they
    are orthogonal or nearly so, and what one misses another sees, so that their mean varies less than of free draws.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, index]))
    bits = np.unpackbits(np.frombuffer(generator.bytes(-(-size // 8)), np.uint8), count=size)  # (size,)
    turned = bits[None] ^ _hadamard(probes, size)  # (probes, size)
    found: Signs = 1.0 - 2.0 * turned.astype(np.float32)
    return found


def _hadamard(rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """The first rows of Sylvester's matrix as bits: the parity of the ones that row and column number share."""
    shared = np.arange(rows)[:, None] & np.arange(columns)[None]
    parity: npt.NDArray[np.uint8] = (np.bitwise_count(shared) & 1).astype(np.uint8)
    return parity
