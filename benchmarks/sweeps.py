"""Whole sweeps, from upload to report, each with a database and files of its own: what they cost and what they find."""

import io
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine import cpu_seconds, opened, plain
from benchmarks.networks import Network, batches_of
from service.domain.settings import BackendName
from service.domain.states import UnitKind
from service.store import sweeps
from tests.workers.in_process import unconfined
from tests.workers.installation import Installation
from workers.sweep.runner import run_unit

COUNTED = (UnitKind.PROBE, UnitKind.SCOUT, UnitKind.MEASURE, UnitKind.SELECT, UnitKind.VERIFY)


@dataclass(frozen=True)
class Swept:
    """``seconds`` of CPU; ``layers`` and ``decision`` as in report.json."""

    seconds: float
    layers: list[dict[str, Any]]
    decision: dict[str, Any]

    @property
    def fallback(self) -> set[str]:
        """The fallback layers."""
        return set(self.decision["fallback"])


def sweep(model: Path, arrays: Mapping[str, Any], calibration: bytes, **settings: Any) -> Swept:
    """One sweep by the torch backend. Its cost is that of all units but preparing, calibrating and the report."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with tempfile.TemporaryDirectory() as folder, unconfined(Path(folder)):
        installation = Installation.at(Path(folder))
        installation.context.database.migrate()
        sweep_id = installation.sweep(
            **{
                "model": installation.model(model.read_bytes(), "pt2"),
                "dataset": installation.dataset(buffer.getvalue()),
                "calibration": {"dataset": installation.dataset(calibration)},
                "backend": BackendName.TORCH,
                "shard_size": None,
                "budget": None,
                **settings,
            }
        )
        seconds = 0.0
        while (lease := installation.claim()) is not None:
            began = time.process_time()
            run_unit(installation.context, lease)
            seconds += (time.process_time() - began) * (lease.kind in COUNTED)
        row = installation.row(sweep_id)
        assert row.state == "succeeded", row.problem
        with installation.context.database.read() as session:
            layers = [each.model_dump(mode="json") for each in sweeps.layers(session, row)]
        return Swept(seconds, layers, row.decision)


def evaluation(network: Network, inputs: Any) -> float:
    """CPU seconds of a plain fp32 pass, the least of three."""
    model = opened(network, BackendName.TORCH)
    run = plain(model, batches_of(model, inputs, 64))
    return min(cpu_seconds(run)[0] for _ in range(3))
