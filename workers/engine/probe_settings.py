"""What is to be probed, and how finely."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProbeSettings:
    """``output``: the scored one; ``distribution``: its rows are probabilities already, as ``is_distribution`` says.

    ``layers``: ids of those that are probed, None: all. ``probes``: random directions for each sample, a backward pass
    each (two for class scores). ``loss``: whether the change of the cross-entropy is wanted too where there are labels,
    one backward pass more. ``micro_batch``: samples whose tensors are alive at a time; a model of one batch size takes
    that size instead.
    """

    output: str
    layers: frozenset[str] | None = None
    distribution: bool = False
    probes: int = 1
    loss: bool = False
    seed: int = 0
    micro_batch: int = 32

    def __post_init__(self) -> None:
        for name in ("probes", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}, at least 1 is needed")
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed}, no negative numbers")
