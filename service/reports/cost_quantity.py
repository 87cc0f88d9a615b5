"""What a cost is called and how its numbers are written: the unit in words, scaled to few digits."""

from dataclasses import dataclass
from typing import Self

from service.domain.costs import CostName
from service.reports.quantity import NO_NUMBER, significant

TITLES = {
    CostName.LAYERS: "layers in floating point",
    CostName.MACS: "MACs in floating point per sample",
    CostName.WEIGHT_BYTES: "bytes of weights",
    CostName.BOPS: "bit operations per sample",
    CostName.LATENCY: "seconds per sample",
}
COUNTS = ((1e12, "trillions of "), (1e9, "billions of "), (1e6, "millions of "), (1e3, "thousands of "), (1.0, ""))
TIMES = ((1.0, ""), (1e-3, "milli"), (1e-6, "micro"), (1e-9, "nano"))


@dataclass(frozen=True)
class CostQuantity:
    """One cost. ``title`` names it with its unit; a number is divided by ``scale`` before it is written."""

    title: str
    scale: float = 1.0

    @classmethod
    def of(cls, name: str, largest: float) -> Self:
        """For numbers up to ``largest``; raises ValueError for a name that is no cost."""
        cost = CostName(name)
        if cost is CostName.LAYERS:
            return cls(TITLES[cost])
        scales = TIMES if cost is CostName.LATENCY else COUNTS
        scale, prefix = next((each for each in scales if largest >= each[0]), scales[-1] if largest else (1.0, ""))
        return cls(prefix + TITLES[cost], scale)

    def number(self, value: float | None) -> str:
        """Whole numbers whole, others to 3 significant digits; without the unit."""
        if value is None:
            return NO_NUMBER
        scaled = value / self.scale
        return f"{scaled:.0f}" if scaled == int(scaled) and scaled < 1e6 else significant(scaled)

    def phrase(self, value: float | None) -> str:
        """With the unit."""
        return f"{self.number(value)} {self.title}"
