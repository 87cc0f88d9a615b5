"""The decision as a graph that deploys: made, checked, linted, and compared with the variant that was verified."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from service.domain.costs import Precision
from service.domain.errors import InvalidInput
from service.domain.file_check import FileCheck
from service.domain.settings import WeightGranularity
from workers.backends.protocol import OpenSettings
from workers.sandbox.graph import CACHE, GraphToMake, open_sandboxed_graph
from workers.sweep import mixed_check
from workers.sweep.job import Job
from workers.sweep.mixed_check import Compared
from workers.sweep.outcome import File

CHECKS = "mixed.json"


@dataclass(frozen=True)
class MixedOnnx:
    """The files, and whether the graph is worth what was verified; None where that was not compared."""

    files: tuple[File, ...]
    check: FileCheck | None


def make(job: Job, fallback: frozenset[str]) -> MixedOnnx:
    """The graph (with its data beside it where it is larger than 2 GiB), the scales of all layers, and the checks.

    Where the graph cannot be made the checks say why, and stand alone.
    """
    try:
        return _made(job, fallback)
    except InvalidInput as error:
        return MixedOnnx((_checks({"made": False, "reason": error.message}),), None)


def _made(job: Job, fallback: frozenset[str]) -> MixedOnnx:
    asked = job.settings
    wanted = GraphToMake(
        amax=job.amax,
        fallback=fallback,
        unmeasured=frozenset(each.id for each in job.plan.layers) - {each.id for each in job.active_layers()},
        half_fallback=asked.fallback_precision is Precision.FP16,
        per_channel=asked.weights is WeightGranularity.PER_CHANNEL,
        opened=OpenSettings(asked.fuse_bn, asked.weights, libraries=job.context.libraries),
    )
    with job.model_file() as path:
        graph = open_sandboxed_graph(job.context.sandbox, path, wanted)
    with graph:
        made = graph.made
        found = mixed_check.compare(job, graph, frozenset(made.int8), asked.fallback_precision)
    checks = {
        "made": True,
        "int8": list(made.int8),
        "fallback_precision": asked.fallback_precision,
        "kept_float32": [asdict(each) for each in made.kept_float32],
        "rescaled": [asdict(each) for each in made.rescaled],
        "lint": [each.document() for each in made.lint],
        **_told(found),
    }
    files = (File(name, _type(name), content) for name, content in graph.files.items())
    return MixedOnnx((*files, _checks(checks)), found.check if isinstance(found, Compared) else None)


def _type(name: str) -> str:
    return "text/plain; charset=utf-8" if name == CACHE else "application/octet-stream"


def _told(found: Compared | str) -> dict[str, Any]:
    """``compared``: of the outputs, relative root mean square; ``metric``: of the metric."""
    if isinstance(found, str):
        return {"compared": None, "metric": None, "reason": found}
    return {
        "compared": {"samples": found.check.samples, **found.outputs},
        "metric": found.check.model_dump(mode="json"),
    }


def _checks(document: Mapping[str, Any]) -> File:
    return File(CHECKS, "application/json", (json.dumps(document, indent=1) + "\n").encode())
