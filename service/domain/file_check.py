"""Whether the graph that a sweep leaves is worth what was verified."""

from service.domain.costs import Precision
from service.domain.layers import Frozen
from service.domain.results import Interval


class FileScore(Frozen):
    """The file's metric in one arithmetic.

    ``difference``: how much worse than the verified variant's, paired on the same samples. ``within``: whether the
    metric lies within the interval of the variant's; None where there is no interval or no metric.
    """

    metric: Interval
    difference: Interval
    within: bool | None


class FileCheck(Frozen):
    """``mixed.onnx``, run by ONNX Runtime beside the verified variant on the same ``samples``.

    ``fallback_precision``: of its layers that are not int8; the variant's were in fp32. ``variant``: its metric there.
    ``simulated``: every Q/DQ is run as it stands, and what a float16 layer gives is rounded to float16; for fp32 that
    is the arithmetic that was measured. ``fused``: as the runtime runs the file on the CPU by itself, with integer
    kernels where it has them, and float16 layers in float32. Either is None for the reason in ``failures``.
    """

    fallback_precision: Precision
    samples: int
    variant: Interval
    simulated: FileScore | None
    fused: FileScore | None
    failures: dict[str, str]
