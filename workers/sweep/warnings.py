"""What the measured numbers themselves warn of."""

from collections.abc import Mapping
from typing import Any

from service.domain.layers import ALL_INT8, FP32, FP32_REPEATED
from service.domain.results import VariantScore


def result_warnings(
    controls: Mapping[str, VariantScore], dataset_info: Mapping[str, Any], metric: str
) -> list[dict[str, str]]:
    """An fp32 metric that looks like chance, an fp32 that does not repeat, an int8 that does no harm."""
    found = []
    fp32, repeated, int8 = (controls.get(name) for name in (FP32, FP32_REPEATED, ALL_INT8))
    chance = _chance(dataset_info)
    if fp32 is not None and metric == "top1" and chance is not None:
        high = fp32.metric.high
        if high is not None and high < max(2 * chance, chance + 0.05):
            message = (
                f"the fp32 top-1 of {fp32.metric.value:.4g} is hardly better than chance ({chance:.4g}): the "
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


def _chance(dataset_info: Mapping[str, Any]) -> float | None:
    counts = [int(each) for each in (dataset_info.get("class_counts") or {}).values()]
    return max(counts) / sum(counts) if counts and sum(counts) else None


def _differs(repeated: VariantScore) -> bool:
    mse = repeated.measures.get("mse")
    return mse is not None and mse.value is not None and mse.value > 0
