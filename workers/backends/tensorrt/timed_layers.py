"""Whose the times of an engine's layers are: by the ONNX nodes that the inspector lists for each."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from service.domain.costs import Precision
from workers.backends.tensorrt.inspector import EngineLayer
from workers.engine.latency import TimedKernel, TimedRuns

if TYPE_CHECKING:
    from workers.models.onnx_layers import Found

CONVERSIONS = {"Quantize", "Dequantize", "Reformat"}
"""Kinds of engine layers; a reformat between int8 and float is a conversion that TensorRT merged with one of layout."""
UNKNOWN = "not listed by the inspector"


def timed_runs(
    layers: Sequence[EngineLayer],
    times: Sequence[Mapping[str, float]],
    found: Sequence["Found"],
    precision: Precision,
    *,
    samples: int,
) -> TimedRuns:
    """``times``: for each run, engine layer → seconds. A run's ``wall`` is their sum: TensorRT times all that it runs.

    What is reported of a layer that the inspector does not list is nobody's.
    """
    ids = {each.node: each.layer for each in found}
    listed = {each.name: each for each in layers}
    kernels = []
    for name in dict.fromkeys(name for run in times for name in run):
        engine_layer = listed.get(name)
        own = [] if engine_layer is None else [ids[node] for node in engine_layer.nodes if node in ids]
        converts = engine_layer is not None and engine_layer.kind in CONVERSIONS
        ordered = sorted(own, key=lambda each: (-(each.macs or 0), each.id))
        kernels.append(
            TimedKernel(
                operator=UNKNOWN if engine_layer is None else engine_layer.kind,
                seconds=np.array([run.get(name, 0.0) for run in times]),
                layers=() if converts else tuple(each.id for each in ordered),
                converts=converts,
                floating=engine_layer is None or not engine_layer.in_int8,
            )
        )
    wall = np.array([sum(run.values()) for run in times])
    return TimedRuns(precision, tuple(kernels), wall, samples)
