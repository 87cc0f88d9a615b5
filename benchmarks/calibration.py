"""Calibration beside pytorch-quantization's own calibrators, on the same batches, in one run.

    python -m benchmarks.calibration

CPU time of one thread, median of 3 (of 1 for the real entropy), "theirs" over "ours": from the batches to the range.
Tensors are of 100,352 values, as 32 samples of a 56 × 56 × 1 activation; "growing" has a second batch of values 1.5
times as large. "count" is what both calibrators spend on counting alone, which one pass does for all methods of ours;
"amax" the two ranges' relative difference.
"""

import os
import platform
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pytorch_quantization
import torch
from pytorch_quantization.calib import HistogramCalibrator, MaxCalibrator

from benchmarks.engine import cpu_seconds, use_one_thread
from service.domain.settings import CalibrationMethod, CalibrationSettings
from workers.calibration.histogram import Grid, Histogram
from workers.calibration.methods import amax

SIZE = 32 * 56 * 56
REPEATS = 3


def cases() -> dict[str, list[Any]]:
    """Batches by name, float32."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(SIZE).astype(np.float32)
    return {
        "after a ReLU": [np.maximum(normal, 0)],
        "normal": [normal],
        "log-normal": [rng.lognormal(size=SIZE).astype(np.float32)],
        "growing": [normal, normal[::-1].copy() * np.float32(1.5)],
    }


def counted(batches: list[Any]) -> Histogram:
    """What our calibration keeps."""
    histogram = Histogram(Grid.of(batches[0]))
    for each in batches:
        histogram.update(each)
    return histogram


def collected(batches: list[Any]) -> HistogramCalibrator:
    """What theirs keeps."""
    calibrator = HistogramCalibrator(8, None, False)
    for each in batches:
        calibrator.collect(torch.from_numpy(each))
    return calibrator


def theirs(batches: list[Any], method: CalibrationMethod) -> float:
    """Their range."""
    if method is not CalibrationMethod.MAX:
        return float(collected(batches).compute_amax(method.value))
    calibrator = MaxCalibrator(8, None, False)
    for each in batches:
        calibrator.collect(torch.from_numpy(each))
    return float(calibrator.compute_amax())


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median CPU seconds, and the last result."""
    runs = [cpu_seconds(work) for _ in range(repeats)]
    return median(seconds for seconds, _ in runs), runs[-1][1]


def row(name: str, what: str, ours: Callable[[], Any], other: Callable[[], Any], repeats: int) -> None:
    """Print both times, their ratio, and how far the ranges differ."""
    mine, found = timed(ours, REPEATS)
    other_seconds, expected = timed(other, repeats)
    differ = f"{abs(found / expected - 1):8.0e}" if isinstance(found, float) else ""
    ratio = other_seconds / mine
    print(f"{name:14s} {what:11s} {1000 * mine:9.1f} {1000 * other_seconds:9.1f} {ratio:9.1f} {differ}", flush=True)


def main() -> None:
    """Every tensor by every method that both have and that runs without a GPU."""
    use_one_thread()
    print(f"{os.cpu_count()} processors ({platform.machine()}), one thread; torch {torch.__version__}")
    print(f"numpy {np.__version__}, pytorch-quantization {pytorch_quantization.__version__}")
    print(f"{'tensor':14s} {'method':11s} {'ours, ms':>9s} {'theirs':>9s} {'ratio':>9s} {'amax':>8s}")
    for name, batches in cases().items():
        counted(batches), collected(batches)
        row(name, "count", lambda b=batches: counted(b), lambda b=batches: collected(b), REPEATS)
        for method in (CalibrationMethod.MAX, CalibrationMethod.PERCENTILE, CalibrationMethod.ENTROPY):
            settings = CalibrationSettings(method=method)
            row(
                name,
                method.value,
                lambda b=batches, s=settings: amax(counted(b), s),
                lambda b=batches, m=method: theirs(b, m),
                1 if method is CalibrationMethod.ENTROPY else REPEATS,
            )


if __name__ == "__main__":
    main()
