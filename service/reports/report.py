"""The report of a sweep, as a documented document (``docs/report.schema.json``)."""

import json
from typing import Any, Literal

from service.domain.costs import CostModel
from service.domain.file_check import FileCheck
from service.domain.layers import Frozen, SkippedOperation, TensorSpec
from service.domain.results import Decision, FoldingDifference, LayerResult, VariantScore
from service.domain.settings import SweepSettings

SCHEMA_VERSION = 1


class ModelSection(Frozen):
    """The model that was measured. ``folding_difference``: None where no batch norm was folded."""

    id: str
    name: str
    sha256: str
    format: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    folded_batch_norms: int
    folding_difference: FoldingDifference | None = None


class DatasetSection(Frozen):
    """The evaluation set: ``samples`` is how many were used out of ``population``."""

    id: str
    name: str
    sha256: str
    population: int
    samples: int
    class_counts: dict[str, int] | None = None


class CacheSection(Frozen):
    """The calibration cache that had the ranges. ``tensorrt_version``: the digits in its first line."""

    id: str
    name: str
    sha256: str
    algorithm: str
    tensorrt_version: str
    entries: int


class CalibrationSection(Frozen):
    """How activation ranges were found, and on what: by ``method`` on samples, or in ``cache``; the other is None."""

    method: str | None
    percentile: float | None
    quantile: float | None = None
    cutoff: float | None = None
    dataset_id: str | None
    dataset_name: str | None
    samples: int
    cache: CacheSection | None = None


class MetricSection(Frozen):
    """The metric that ranks the layers."""

    name: str
    output: str
    higher_is_better: bool
    unit: str


class Warning_(Frozen):  # noqa: N801  (Warning is a builtin)
    """Something that the reader should know before trusting a number."""

    code: str
    message: str


class Cost(Frozen):
    """What the sweep took. ``seconds``: phase → time of its units, summed over workers."""

    seconds: dict[str, float]
    variants: int
    shards: int


class Report(Frozen):
    """Everything that a sweep found. Layers are in topological order; ``rank`` orders them by sensitivity.

    ``exported``: None where no graph was left, or where it could not be compared. ``costs``: what layers cost, and how
    they hang together; None in reports of before they were kept.
    """

    schema_version: Literal[1] = 1
    sweep_id: str
    created_at: str
    finished_at: str
    settings: SweepSettings
    model: ModelSection
    dataset: DatasetSection
    calibration: CalibrationSection
    metric: MetricSection
    controls: dict[str, VariantScore]
    layers: tuple[LayerResult, ...]
    skipped: tuple[SkippedOperation, ...]
    decision: Decision | None
    exported: FileCheck | None = None
    costs: CostModel | None = None
    warnings: tuple[Warning_, ...]
    environment: dict[str, Any]
    cost: Cost


def to_json(report: Report) -> bytes:
    """The report as JSON, the same bytes for the same report."""
    document = report.model_dump(mode="json")
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_schema() -> dict[str, Any]:
    """The JSON schema of the report."""
    return Report.model_json_schema()
