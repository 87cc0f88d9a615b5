"""A worker's surroundings for tests: a migrated SQLite database, files and a broker of folders, and small real inputs.

Nothing stands in for anything: the models are opened by ONNX Runtime, the messages lie in the broker's folder.
"""

import io
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from sqlalchemy import event, select

from service.api.calibrations import CalibrationInfo
from service.domain.conversion import ConversionSettings
from service.domain.settings import BackendName, Preprocessing, SweepSettings
from service.domain.states import SweepState, UnitKind, UnitState
from service.inspection.calibration_cache import read_cache
from service.settings import Settings
from service.store import conversions, resources, sweeps, units
from service.store.database import Database
from service.store.tables import ConversionRow, DatasetRow, ModelRow, SweepRow, UnitRow
from service.store.units import Lease
from workers.context import WorkerContext
from workers.sweep.runner import run_unit

QUEUES = ("data", "onnxruntime", "torch", "tensorrt")
LONG = 60.0

# scores of 3 classes from 4 numbers: two linear layers
NETWORK = """g (float[N,4] x) => (float[N,3] scores)
<float[5,4] a = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1, 1,-1,1,-1},
 float[3,5] b = {1,0.5,-1,0.25,0.125, -1,1,0.5,-0.25,0.75, 0.5,-1,1,0.125,-0.5}>
{ [first] h = Gemm <transB = 1> (x, a)
  [relu] r = Relu(h)
  [second] scores = Gemm <transB = 1> (r, b) }"""
LAYERS = ("first", "second")


def onnx_bytes(graph: str = NETWORK) -> bytes:
    text = f'<ir_version: 8, opset_import: ["" : 18]>\n{graph}'
    content: bytes = onnx.parser.parse_model(text).SerializeToString()
    return content


def npz_bytes(samples: int = 48, *, seed: int = 0, **arrays: Any) -> bytes:
    """Inputs, and as labels the network's own answer in fp32 (so top-1 is 1.0), unless other arrays are given."""
    x = np.random.default_rng(seed).normal(size=(samples, 4)).astype(np.float32)
    buffer = io.BytesIO()
    np.savez(buffer, **(arrays or {"x": x, "labels": answers(x)}))
    return buffer.getvalue()


def answers(x: np.ndarray) -> np.ndarray:
    weights = {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx.load_from_string(onnx_bytes()).graph.initializer
    }
    scores = np.maximum(x @ weights["a"].T, 0) @ weights["b"].T
    return scores.argmax(axis=1).astype(np.int64)


@dataclass
class Installation:
    """One database, one folder of files, one broker, and a worker in this process."""

    context: WorkerContext

    @classmethod
    def at(cls, folder: Path, **settings: Any) -> "Installation":
        fixed: dict[str, Any] = {"database_url": None, "broker_url": None, "blob_url": None}
        made = Settings(data_dir=folder, **{**fixed, **settings})
        return cls(WorkerContext.open(made, "wrk_test"))

    def again(self, worker_id: str = "wrk_other") -> "Installation":
        """A second worker with connections of its own."""
        return Installation(WorkerContext.open(self.context.settings, worker_id))

    # what a caller does

    def model(self, content: bytes | None = None, format: str = "onnx") -> str:
        blob = self.context.blobs.put(onnx_bytes() if content is None else content)
        with self.context.database.write() as session:
            return resources.add_model(session, resources.NewFile("m", blob, format))[0].id

    def dataset(self, content: bytes | None = None, format: str = "npz", **preprocessing: Any) -> str:
        blob = self.context.blobs.put(npz_bytes() if content is None else content)
        asked = Preprocessing.model_validate(preprocessing)
        with self.context.database.write() as session:
            return resources.add_dataset(session, resources.NewFile("d", blob, format), asked, queue="data")[0].id

    def cache(self, content: bytes) -> str:
        info = CalibrationInfo.of(read_cache(content)).model_dump(mode="json")
        with self.context.database.write() as session:
            return resources.add_calibration(session, "c", self.context.blobs.put(content), info)[0].id

    def conversion(self, **settings: Any) -> str:
        asked = ConversionSettings.model_validate(settings)
        with self.context.database.write() as session:
            model = resources.share(session, ModelRow, asked.model)
            return conversions.create(session, asked, model, queue="onnxruntime")[0].id

    def sweep(self, **settings: Any) -> str:
        """A sweep of the default network on the default samples, unless settings say otherwise.

        Three shards, and a budget that all layers in int8 exceed, so that there is something to verify; along the
        ranking, so that every sample is in the table.
        """
        asked: dict[str, Any] = {"shard_size": 16, "metric": {"name": "mse"}, "budget": {"max_drop": 1e-9}}
        asked |= {"selection": {"algorithm": "greedy"}, **settings}
        for field, make in (("model", self.model), ("dataset", self.dataset)):
            if field not in asked:
                asked[field] = make()
        parsed = SweepSettings.model_validate(asked)
        with self.context.database.write() as session:
            subjects = sweeps.subjects_of(session, parsed)
            new = sweeps.NewSweep(parsed, subjects, parsed.backend or BackendName.ONNXRUNTIME)
            return sweeps.create(session, new)[0].id

    def sweep_with(self, kind: UnitKind) -> str:
        """A sweep that has a unit of this kind on its way."""
        asked: dict[UnitKind, dict[str, Any]] = {
            UnitKind.PROBE: {"method": "probe"},
            UnitKind.SCOUT: {"method": "racing", "metric": {"name": "kl"}},
        }
        return self.sweep(**asked.get(kind, {}))

    def cancel(self, sweep_id: str) -> None:
        with self.context.database.write() as session:
            sweeps.cancel(session, sweep_id)

    # what a worker does

    def claim(self, *, queues: Sequence[str] = QUEUES, lease_seconds: float = LONG) -> Lease | None:
        with self.context.database.write() as session:
            for queue in queues:
                owner = self.context.worker_id
                lease = units.claim(session, queue, owner=owner, lease_seconds=lease_seconds)
                if lease is not None:
                    return lease
        return None

    def step(self) -> Lease | None:
        """Claim a unit and do it."""
        lease = self.claim()
        if lease is not None:
            run_unit(self.context, lease)
        return lease

    def run(self, lease: Lease) -> None:
        """Do a unit that is claimed."""
        run_unit(self.context, lease)

    def run_until(self, kind: UnitKind | None = None) -> Lease | None:
        """Do units until one of this kind comes, which is only claimed; None: until nothing is left."""
        for _ in range(200):
            lease = self.claim()
            if lease is None or lease.kind is kind:
                return lease
            run_unit(self.context, lease)
        raise AssertionError("200 units were not enough")

    def let_expire(self, lease: Lease) -> None:
        """As if the worker that holds the lease had been silent for long."""
        with self.context.database.write() as session:
            unit = session.get_one(UnitRow, lease.unit_id)
            unit.lease_expires_at = 0.0

    # what there is to see

    def row(self, sweep_id: str) -> SweepRow:
        with self.context.database.read() as session:
            return sweeps.get(session, sweep_id)

    def state(self, sweep_id: str) -> SweepState:
        return SweepState(self.row(sweep_id).state)

    def resource(self, resource_id: str) -> ModelRow | DatasetRow:
        with self.context.database.read() as session:
            table = ModelRow if resource_id.startswith("mdl_") else DatasetRow
            return resources.get(session, table, resource_id)

    def unit(self, lease: Lease) -> UnitRow:
        with self.context.database.read() as session:
            return session.get_one(UnitRow, lease.unit_id)

    def unit_states(self, sweep_id: str) -> dict[str, set[UnitState]]:
        with self.context.database.read() as session:
            rows = session.execute(select(UnitRow.kind, UnitRow.state).where(UnitRow.sweep_id == sweep_id))
            found: dict[str, set[UnitState]] = {}
            for kind, state in rows:
                found.setdefault(kind, set()).add(UnitState(state))
        return found

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of all tables, to see that nothing was written."""
        with self.context.database.read() as session:
            tables = sorted(SweepRow.metadata.tables.items())
            return {name: [dict(row) for row in session.execute(select(table)).mappings()] for name, table in tables}

    def report(self, sweep_id: str) -> dict[str, Any]:
        with self.context.database.read() as session:
            (found,) = [each for each in sweeps.artifacts(session, sweep_id) if each.name == "report.json"]
        document: dict[str, Any] = json.loads(self.context.blobs.read(found.sha256))
        return document

    def converted(self, conversion_id: str) -> tuple[ConversionRow, dict[str, bytes]]:
        """A conversion, and its files."""
        with self.context.database.read() as session:
            row = conversions.get(session, conversion_id)
            files = conversions.files(session, conversion_id)
        return row, {each.name: self.context.blobs.read(each.sha256) for each in files}

    def files(self, sweep_id: str) -> dict[str, bytes]:
        """What the sweep left to download."""
        with self.context.database.read() as session:
            rows = sweeps.artifacts(session, sweep_id)
        return {row.name: self.context.blobs.read(row.sha256) for row in rows}

    def hints(self) -> list[str]:
        """The queues of the messages that lie in the broker's folder; each is taken out."""
        folder = self.context.settings.data_dir / "broker" / "messages"
        files = sorted(folder.iterdir())
        found = [json.loads(each.read_text())["properties"]["delivery_info"]["routing_key"] for each in files]
        for each in files:
            each.unlink()
        return sorted(found)


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Until it holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


def waiting_for_the_lock(database: Database) -> set[int]:
    """The threads that stand at the BEGIN of a writing transaction, by identifier; the set follows what happens."""
    waiting: set[int] = set()

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            waiting.add(threading.get_ident())

    def after(_connection: Any, _cursor: Any, _statement: str, *_: Any) -> None:
        waiting.discard(threading.get_ident())

    event.listen(database.engine, "before_cursor_execute", before)
    event.listen(database.engine, "after_cursor_execute", after)
    return waiting
