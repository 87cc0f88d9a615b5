"""The fallback list for machines: which layers stay in floating point, and the drop that was measured with it."""

import json
from typing import Any

from service.reports.report import SCHEMA_VERSION, Report


def fallback_layers(report: Report) -> dict[str, Any]:
    """The decision as a small document: layers by id, name and operation."""
    decision = report.decision
    fallback = set(decision.fallback) if decision else set()
    layers = [
        (each, {"id": each.layer.id, "name": each.layer.name, "op": each.layer.op.value}) for each in report.layers
    ]
    chosen = decision.chosen if decision else None
    return {
        "schema_version": SCHEMA_VERSION,
        "sweep": report.sweep_id,
        "status": decision.status if decision else None,
        "explanation": decision.explanation if decision else None,
        "metric": report.metric.name,
        "budget": report.settings.budget.model_dump(mode="json") if report.settings.budget else None,
        "max_drop": decision.max_drop if decision else None,
        "verified_drop": chosen.score.drop.model_dump(mode="json") if chosen else None,
        "verified_metric": chosen.score.metric.model_dump(mode="json") if chosen else None,
        "confidence": decision.confidence if decision else None,
        "samples_needed": decision.samples_needed if decision else None,
        "same_samples": decision.same_samples if decision else None,
        "cost": {"name": decision.cost, "value": chosen.cost if chosen else None} if decision else None,
        "predicted_drop": chosen.predicted.model_dump(mode="json") if chosen and chosen.predicted else None,
        "fallback": [told for each, told in layers if each.layer.id in fallback],
        "int8": [told for each, told in layers if each.scored and each.layer.id not in fallback],
        "floating_point_anyway": [told for each, told in layers if each.state in ("excluded", "failed")],
    }


def to_json(report: Report) -> bytes:
    """The same as JSON bytes."""
    return (json.dumps(fallback_layers(report), indent=1, ensure_ascii=False) + "\n").encode()
