"""What the measured numbers themselves warn of."""

import math
from collections.abc import Mapping
from typing import Any

from service.domain.layers import ALL_INT8, FP32, FP32_REPEATED
from service.domain.results import Interval, VariantScore
from workers.engine.probe import FAR

# how many classes may be named for each sample
GUESSES = {"top1": 1, "top5": 5}
CLOSE_TO_CHANCE = 0.1


def result_warnings(
    controls: Mapping[str, VariantScore], dataset_info: Mapping[str, Any], metric: str
) -> list[dict[str, str]]:
    """An fp32 metric that looks like chance, an fp32 that does not repeat, an int8 that does no harm."""
    found = []
    fp32, repeated, int8 = (controls.get(name) for name in (FP32, FP32_REPEATED, ALL_INT8))
    chance = _chance(dataset_info, GUESSES[metric]) if metric in GUESSES else None
    if fp32 is not None and chance is not None and _hardly_better(fp32.metric, chance):
        message = (
            f"the fp32 {metric} of {fp32.metric.value:.4g} is hardly better than chance ({chance:.4g}): the "
            "preprocessing or the labels probably do not fit the model"
        )
        found.append({"code": "fp32-looks-like-chance", "message": message})
    if repeated is not None and _differs(repeated):
        message = "fp32 does not give the same outputs twice on this device; drops below that difference mean nothing"
        found.append({"code": "not-deterministic", "message": message})
    if int8 is not None and int8.drop.high is not None and int8.drop.high <= 0:
        message = "all layers in int8 do not worsen the metric: there is nothing to fall back for"
        found.append({"code": "nothing-to-find", "message": message})
    return found


def probe_warnings(predicted: float, measured: float) -> list[dict[str, str]]:
    """An output MSE of all layers in int8 that probes miss by more than a layer's may be off (both above zero)."""
    if min(predicted, measured) > 0 and abs(math.log(predicted / measured)) <= FAR:
        return []
    message = (
        f"with all layers in int8 probes predict an output MSE of {predicted:.3g}, and {measured:.3g} was measured: "
        "the network is not linear in its int8 errors, so that sums of estimates mislead; every list was measured"
    )
    return [{"code": "probe-not-linear", "message": message}]


def _chance(dataset_info: Mapping[str, Any], guesses: int) -> float | None:
    """The metric of always naming the most frequent classes; None where that is right every time, or unknown."""
    counts = sorted((int(each) for each in (dataset_info.get("class_counts") or {}).values()), reverse=True)
    if len(counts) <= guesses or not sum(counts):
        return None
    return sum(counts[:guesses]) / sum(counts)


def _hardly_better(metric: Interval, chance: float) -> bool:
    return metric.value is not None and metric.value < min(2 * chance, chance + CLOSE_TO_CHANCE)


def _differs(repeated: VariantScore) -> bool:
    mse = repeated.measures.get("mse")
    return mse is not None and mse.value is not None and mse.value > 0
