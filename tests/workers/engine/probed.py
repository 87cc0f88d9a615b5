"""Sums as a probe of a network would hand them in, from effects that a test chooses."""

import numpy as np
import numpy.typing as npt

from workers.engine.probe_sums import MeanSums, PairSums, ProbeSums

Floats = npt.NDArray[np.float64]


def probed(
    slopes: Floats,
    *,
    kl: Floats | None = None,
    loss: Floats | None = None,
    variance: float = 1e6,
    failures: dict[str, str] | None = None,
) -> ProbeSums:
    """Of derivatives (probes, samples, L), named a, b, …; ``variance``: of the fp32 output."""
    probes, samples, layers = slopes.shape
    return ProbeSums(
        layers=tuple("abcdefghijklmnopqrstuvwxyz"[:layers]),
        samples=samples,
        probes=probes,
        mse=PairSums.of(slopes),
        kl=None if kl is None else PairSums.of(kl),
        loss=None if loss is None else MeanSums.of(loss),
        spread=variance * (samples - 1),
        spread_freedom=samples - 1,
        failures=failures or {},
        constants=("round",),
    )


def slopes_of(effects: Floats, *, probes: int = 1, seed: int = 0) -> Floats:
    """What probes see, (probes, samples, L), of layers' effects on the outputs, (L, samples, D): random ±1 of each."""
    _, samples, size = effects.shape
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (probes, samples, size))
    found: Floats = np.einsum("pnd,lnd->pnl", signs, effects) / size**0.5
    return found


def mse_of(effects: Floats, chosen: list[int]) -> float:
    """What a linear network does with these layers in int8."""
    return float(np.square(effects[chosen].sum(axis=0)).mean())
