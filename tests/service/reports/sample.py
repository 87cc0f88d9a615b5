"""A hand-made report: a small ResNet, two layers of which int8 hurts; and parts to make others of."""

import math
from typing import Any

from service.domain.layers import Layer, Operation, SkippedOperation, TensorSpec
from service.domain.results import (
    CurvePoint,
    Decision,
    Extent,
    Interval,
    LayerEstimate,
    LayerResult,
    LayerStatistics,
    PredictedDrop,
    VariantScore,
    VerifiedVariant,
)
from service.domain.settings import Budget, SweepSettings
from service.reports.report import (
    CalibrationSection,
    Cost,
    DatasetSection,
    MetricSection,
    ModelSection,
    Report,
    Warning_,
)

SAMPLES = 2000
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "nul\x00bell\x07line\nbreak",
    "left\u202eright\u200b",
    '=HYPERLINK("x")',
    "</style><b>",
    "{{ 7*7 }}{% raw %}",
)


def share(value: float, half: float, p: float | None = None) -> Interval:
    """A drop of top1."""
    return Interval(value=value, low=value - half, high=value + half, method="Tango", samples=SAMPLES, p_value=p)


def undefined(reason: str = "no samples") -> Interval:
    return Interval(value=None, low=None, high=None, method=reason, samples=0)


def scored(variant: str, drop: float, half: float = 0.002, kl: float = 0.001) -> VariantScore:
    return VariantScore(
        variant=variant,
        metric=Interval(value=0.913 - drop, low=0.9 - drop, high=0.925 - drop, method="Wilson", samples=SAMPLES),
        drop=share(drop, half, 1e-9 if drop > half else 0.6),
        measures={"kl": Interval(value=kl, low=kl * 0.8, high=kl * 1.25, method="t", samples=SAMPLES, p_value=0.0)},
    )


def measured(index: int, name: str, drop: float, *, op: Operation = Operation.CONV) -> LayerResult:
    layer = Layer(
        id=f"node_{index}",
        name=name,
        op=op,
        activations=(f"node_{index}:0",),
        output_shape=(1, 64, 28, 28),
        macs=115_605_504 // (index + 1),
        weight_bytes=147_456 if op is Operation.CONV else 0,
    )
    half = 0.0015 + drop / 8
    score = scored(f"layer:{layer.id}", drop, half, kl=2.0 * math.exp(-0.45 * index))
    significant = drop > half
    statistics = LayerStatistics(
        weight_ratio=4.5 if op is Operation.CONV else None,
        activations={f"node_{index}:0": Extent(low=-0.5, high=6.25)},
        sqnr_db=31.75,
    )
    return LayerResult(
        layer=layer,
        state="measured",
        rank=None,
        significant=significant,
        amax={f"node_{index}:0": 6.25},
        statistics=statistics,
        score=score,
    )


def unmeasured(name: str, state: Any, reason: str | None) -> LayerResult:
    layer = Layer(id=f"id of {name}", name=name, op=Operation.MATMUL, activations=())
    return LayerResult(layer=layer, state=state, reason=reason)


def ranked(layers: list[LayerResult]) -> tuple[LayerResult, ...]:
    def drop(layer: LayerResult) -> float:
        return -(layer.score.drop.value or 0.0) if layer.score else math.inf

    order = [each.layer.id for each in sorted((each for each in layers if each.score), key=drop)]
    return tuple(
        each.model_copy(update={"rank": order.index(each.layer.id) + 1}) if each.score else each for each in layers
    )


def resnet_layers() -> list[LayerResult]:
    drops = {"conv1": 0.061, "layer1.0.conv1": 0.004, "layer2.0.downsample.0": 0.0235, "layer4.1.conv2": 0.0075}
    names = ["conv1"]
    for stage in range(1, 5):
        for block in range(2):
            names += [f"layer{stage}.{block}.conv1", f"layer{stage}.{block}.conv2"]
            names += [f"layer{stage}.{block}.downsample.0"] if stage > 1 and block == 0 else []
            names += [f"layer{stage}.{block}.add"]
    kinds = {"add": Operation.ADD}
    return [
        measured(
            index,
            name,
            drops.get(name, 0.0004 * ((index * 7) % 5 - 2)),
            op=kinds.get(name.rpartition(".")[2], Operation.CONV),
        )
        for index, name in enumerate(names)
    ]


def decision(layers: tuple[LayerResult, ...], **changes: Any) -> Decision:
    order = [each for each in sorted(layers, key=lambda each: each.rank or 10**6) if each.rank]
    ids = tuple(each.layer.id for each in order)
    drops = {0: 0.1235, 1: 0.0415, 2: 0.0062, 4: 0.0025, 8: 0.0015, len(ids): 0.0}
    verified = tuple(
        VerifiedVariant(
            fallback=ids[:kept],
            score=scored("mixed", drop, 0.0028 + drop / 9 if kept < len(ids) else 0.0),
            within_budget=drop <= 0.01,
        )
        for kept, drop in drops.items()
        if kept <= len(ids)
    )
    found = Decision(
        status="met",
        algorithm="greedy",
        fallback=ids[:2],
        fallback_names=tuple(each.layer.name for each in order[:2]),
        max_drop=0.01,
        certain=True,
        same_samples=True,
        chosen=next((each for each in verified if len(each.fallback) == 2), verified[0]),
        measured=verified,
        explanation="the shortest list along the ranking, of 6 measured, whose drop is within 0.01",
    )
    return found.model_copy(update=changes)


def searched_report(**changes: Any) -> Report:
    """A sweep that searched by prediction for few MACs, and verified on 1,000 held-out samples."""
    whole = report()
    found = decision(whole.layers)
    ids = [each.layer.id for each in sorted(whole.layers, key=lambda each: each.rank or 10**6) if each.rank]
    costs = [3.1e7 * kept for kept in range(len(ids) + 1)]

    def predicted(kept: int) -> PredictedDrop:
        value = 0.115 * math.exp(-1.3 * kept) + 0.0012
        return PredictedDrop(value=value, low=value * 0.4, high=value * 1.7, variants=7, extrapolated=kept == 0)

    curve = tuple(
        CurvePoint(fallback=tuple(ids[:kept]), cost=cost, predicted=predicted(kept), bound=cost, gap=0.0)
        for kept, cost in enumerate(costs)
    )

    def verified(kept: int, drop: float) -> VerifiedVariant:
        score = scored("mixed", drop, 0.0025 + drop / 9)
        score = score.model_copy(update={"drop": score.drop.model_copy(update={"samples": 1000})})
        prediction = predicted(kept)
        within = drop <= 0.01
        return VerifiedVariant(
            fallback=tuple(ids[:kept]), score=score, within_budget=within, cost=costs[kept], predicted=prediction
        )

    drops = {1: 0.0315, 2: 0.0121, 3: 0.0062, 4: 0.0025, 5: 0.0021, 7: 0.0015}
    measured_lists = tuple(verified(kept, drop) for kept, drop in drops.items())
    update = {
        "algorithm": "optimal",
        "fallback": tuple(ids[:3]),
        "chosen": measured_lists[2],
        "measured": measured_lists,
        "same_samples": False,
        "confidence": 0.975,
        "cost": "macs",
        "curve": curve,
    }
    return whole.model_copy(update={"decision": found.model_copy(update=update | changes)})


def estimated(result: LayerResult) -> LayerResult:
    """The same layer as a sweep by probes shows it; the first lies beyond the linear range."""
    assert result.score is not None
    estimate = LayerEstimate(measures=result.score.measures, beyond_linear=result.rank == 1)
    changes = {"state": "estimated", "score": None, "significant": None, "estimate": estimate}
    return result.model_copy(update=changes)


def probed_report() -> Report:
    """A sweep by probes: the layer of rank 2 was measured too."""
    whole = report()
    layers = tuple(each if each.score is None or (each.rank or 0) == 2 else estimated(each) for each in whole.layers)
    return whole.model_copy(update={"layers": layers})


def report(**changes: Any) -> Report:
    """The report; ``changes`` replace its fields."""
    layers = ranked(resnet_layers())
    failed = unmeasured("head.attention.matmul", "failed", "activation range is not finite: inf")
    excluded = unmeasured("fc", "excluded", "matches exclude 'fc'")
    found = Report(
        sweep_id="swp_0123456789",
        created_at="2025-03-01T10:00:00+00:00",
        finished_at="2025-03-01T10:04:31+00:00",
        settings=SweepSettings(model="mdl_1", dataset="dst_1", budget=Budget(max_drop=0.01)),
        model=ModelSection(
            id="mdl_1",
            name="resnet18.onnx",
            sha256="ab" * 32,
            format="onnx",
            inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, 224, 224)),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 1000)),),
            folded_batch_norms=20,
        ),
        dataset=DatasetSection(id="dst_1", name="val.npz", sha256="cd" * 32, population=5000, samples=SAMPLES),
        calibration=CalibrationSection(
            method="max", percentile=None, dataset_id="dst_2", dataset_name="train-512.npz", samples=512
        ),
        metric=MetricSection(name="top1", output="logits", higher_is_better=True, unit="share of samples"),
        controls={
            "fp32": scored("fp32", 0.0, 0.0, 0.0),
            "fp32_repeated": scored("fp32_repeated", 0.0, 0.0, 0.0),
            "all_int8": scored("all_int8", 0.1235, 0.0165, 0.8),
        },
        layers=(*layers, failed, excluded),
        skipped=(SkippedOperation(id="Mul_7", name="gate.mul", reason="not quantizable: Mul"),),
        decision=decision(layers),
        warnings=(Warning_(code="few-samples", message="2000 samples resolve drops down to about 0.6 points."),),
        environment={
            "backend": "onnxruntime",
            "device": "cpu",
            "host": "worker-1",
            "machine": "x86_64",
            "processors": 16,
            "versions": {"quantsieve": "1.0", "python": "3.11.9", "onnxruntime": "1.22.0"},
        },
        cost=Cost(seconds={"prepare": 1.2, "calibrate": 14.0, "measure": 203.4, "verify": 41.0}, variants=31, shards=4),
    )
    return found.model_copy(update=changes)
