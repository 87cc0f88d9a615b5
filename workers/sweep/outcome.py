"""What a unit of each phase hands over when it is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from service.domain.costs import CostModel
from service.domain.results import Decision, LayerResult, LayerStatistics, VariantScore
from service.domain.selections import Selected
from service.domain.states import UnitKind
from service.selection.evidence import Evidence
from service.store.blobs import Blob
from workers.calibration.histograms import Histograms
from workers.engine.probe_sums import ProbeSums
from workers.metrics.shard_result import ShardResult
from workers.sweep.plan import Plan

Warnings = list[dict[str, str]]


@dataclass(frozen=True)
class Prepared:
    """The plan, and the environment that will produce the numbers."""

    plan: Plan
    environment: dict[str, Any]
    warnings: Warnings = field(default_factory=list)


@dataclass(frozen=True)
class Counted:
    """What flows over each activation edge on one shard of the calibration samples.

    ``content_key`` names the shard; ``samples``: how many were run for it, 0 where it was counted before.
    """

    histograms: Histograms
    content_key: str
    samples: int


@dataclass(frozen=True)
class Calibrated:
    """Activation edge → amax; layers that cannot be quantized, with the reason; how many variants and shards follow.

    ``groups``: the variants (names) of each unit, where units are cut by layer group; empty where each takes them all.
    ``statistics``: layer id → what the calibration samples tell of it. ``counted``: where one unit did all, its counts.
    """

    amax: dict[str, float]
    failed: dict[str, str]
    variants: int
    shards: int
    statistics: Mapping[str, LayerStatistics]
    groups: tuple[tuple[str, ...], ...] = ()
    counted: Counted | None = None
    warnings: Warnings = field(default_factory=list)


@dataclass(frozen=True)
class Probed:
    """One shard's sums of probes, named by ``content_key``; ``found``: an earlier sweep had made them."""

    sums: ProbeSums
    content_key: str
    found: bool
    warnings: Warnings = field(default_factory=list)


@dataclass(frozen=True)
class Scouted:
    """One shard's uncertainties, named by ``content_key``; how many variants and shards of them follow."""

    result: ShardResult
    content_key: str
    variants: int
    shards: int


@dataclass(frozen=True)
class Measured:
    """One shard's per-sample results; ``kind``: measure or verify.

    ``content_key`` names the shard; ``found``: how many of its variants were measured before, for whatever sweep.
    """

    kind: UnitKind
    result: ShardResult
    content_key: str
    found: int


class KeptCurve(NamedTuple):
    """The file that holds the candidates, and the name of their content."""

    key: str
    sha256: str


@dataclass(frozen=True)
class NextRound:
    """What the decision needs measured: shard → the names of variants. ``stopped``: layer id → why it is not.

    ``costs``: what lists are weighed by, with latencies where these were measured; None where they are not weighed.
    ``curve``: the candidates, kept for the next step.
    """

    variants: Mapping[int, tuple[str, ...]]
    stopped: Mapping[str, str] = field(default_factory=dict)
    costs: CostModel | None = None
    curve: KeptCurve | None = None


@dataclass(frozen=True)
class Decided:
    """The decision stands. ``stopped``: layer id → why it was measured on no more samples.

    ``evidence``: what it rests on, to decide again by; None for a race, whose layers have no number on all samples.
    ``costs``: as those of the rounds before it.
    """

    decision: Decision
    stopped: Mapping[str, str] = field(default_factory=dict)
    evidence: Evidence | None = None
    costs: CostModel | None = None
    curve: KeptCurve | None = None


@dataclass(frozen=True)
class Chosen:
    """A selection that was asked of a decided sweep has its answer, by what was measured. ``curve``: as a sweep's."""

    answer: Selected
    curve: KeptCurve | None = None


class File(NamedTuple):
    """A file to download, before it is stored."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class Artifact:
    """A file of the report."""

    name: str
    media_type: str
    blob: Blob


@dataclass(frozen=True)
class Reported:
    """The report's files."""

    artifacts: tuple[Artifact, ...]


Outcome = Prepared | Counted | Calibrated | Probed | Scouted | Measured | NextRound | Decided | Chosen | Reported


@dataclass(frozen=True)
class Table:
    """The layer table and the other scores as far as they are known; ``shards``: how many units' results it holds."""

    layers: tuple[LayerResult, ...]
    scores: tuple[VariantScore, ...]
    shards: int
