"""One unit's view of its sweep: the rows as read at its start, and the opened model and evaluation set.

The last opened model and evaluation set stay open in the worker's process, for the sweep's next unit.
"""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from weakref import finalize

import numpy as np
import numpy.typing as npt

from service.domain.errors import LeaseLost, SweepFailure
from service.domain.layers import Layer
from service.domain.results import LayerStatistics
from service.domain.settings import BackendName, Preprocessing, Quantization, SweepSettings
from service.domain.states import UnitKind
from service.store import units
from service.store.blob_cache import CacheFull
from service.store.blobs import BlobStore
from service.store.tables import CalibrationRow, DatasetRow, ModelRow, SelectionRow, SweepRow
from service.store.units import Lease
from workers.backends.protocol import OpenSettings
from workers.capabilities import device_for
from workers.context import WorkerContext
from workers.data.binding import Batch, BoundEvaluationSet
from workers.data.stored import EvaluationSet
from workers.lease import HeldLease
from workers.metrics.draw import Draw
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.metrics.task_metric import TaskMetric, resolve_metric
from workers.sandbox.evaluation_set import SandboxedSet, open_sandboxed_set
from workers.sandbox.model import SandboxedModel, open_sandboxed_model
from workers.sandbox.sandbox import Sandbox
from workers.sweep import drawing
from workers.sweep.course import Course
from workers.sweep.plan import Plan


@dataclass(frozen=True)
class Job:
    """What a phase works with. ``lease`` names the unit; ``held`` is asked whether to go on.

    ``selection``: where the unit works for one that was asked of the sweep, which has its decision then.
    """

    context: WorkerContext
    held: HeldLease
    sweep: SweepRow
    model: ModelRow
    dataset: DatasetRow
    calibration: DatasetRow
    cache: CalibrationRow | None
    settings: SweepSettings
    selection: SelectionRow | None = None

    @classmethod
    def load(cls, context: WorkerContext, held: HeldLease) -> "Job":
        """Read the rows; raises LeaseLost where the sweep or its selection is gone."""
        selection_id = held.lease.selection_id
        with context.database.read() as session:
            sweep = session.get(SweepRow, held.lease.sweep_id)
            selection = session.get(SelectionRow, selection_id) if selection_id is not None else None
            if sweep is None or (selection is None and selection_id is not None):
                raise LeaseLost("what the unit was for was deleted")
            return cls(
                context=context,
                held=held,
                sweep=sweep,
                model=session.get_one(ModelRow, sweep.model_id),
                dataset=session.get_one(DatasetRow, sweep.dataset_id),
                calibration=session.get_one(DatasetRow, sweep.calibration_id),
                cache=session.get_one(CalibrationRow, sweep.cache_id) if sweep.cache_id is not None else None,
                settings=SweepSettings.model_validate(sweep.settings),
                selection=selection,
            )

    @property
    def lease(self) -> Lease:
        """The lease on the unit."""
        return self.held.lease

    @property
    def sweep_id(self) -> str:
        """The sweep's id."""
        return self.sweep.id

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.sweep.backend

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda:<index>``."""
        return device_for(BackendName(self.backend), self.context.settings.device)

    @property
    def cancel_requested(self) -> bool:
        """Whether the caller cancelled what the unit is for before it began."""
        return (self.selection or self.sweep).cancel_requested

    @property
    def plan(self) -> Plan:
        """The plan, once prepared."""
        return Plan.model_validate(self.sweep.plan)

    @property
    def amax(self) -> dict[str, float]:
        """Activation edge → amax, once calibrated."""
        return dict(self.sweep.amax["amax"])

    @property
    def failed(self) -> dict[str, str]:
        """Layer id → why it cannot be measured, once calibrated."""
        return dict(self.sweep.amax["failed"])

    @property
    def statistics(self) -> dict[str, LayerStatistics]:
        """Layer id → its statistics, once calibrated; empty for a sweep that was calibrated without."""
        stored = self.sweep.amax.get("statistics", {})
        return {layer: LayerStatistics.model_validate(each) for layer, each in stored.items()}

    def active_layers(self) -> tuple[Layer, ...]:
        """The layers that are measured."""
        return self.plan.active(self.failed)

    @property
    def open_settings(self) -> OpenSettings:
        """How the sweep's model is opened."""
        asked = self.settings
        implicit = asked.quantization is Quantization.IMPLICIT
        return OpenSettings(
            asked.fuse_bn,
            asked.weights,
            self.device,
            asked.segments,
            implicit_int8=implicit,
            libraries=self.context.libraries,
            gpu_provider=self.context.settings.onnxruntime_provider,
        )

    def model_file(self) -> AbstractContextManager[Path]:
        """The model's file, which lies at this path as long as the block lasts."""
        return self.context.blobs.local(self.model.sha256)

    def open_model(self) -> SandboxedModel:
        """The sweep's model on this worker's device."""
        context = self.context
        asked = (context.blobs, context.sandbox, self.model.sha256, self.backend, self.open_settings)
        model = _open_model(*asked)
        if not model.alive:
            _open_model.cache_clear()
            model = _open_model(*asked)
        self._refuse_other_libraries(model)
        return model

    def _refuse_other_libraries(self, model: SandboxedModel) -> None:
        """Operators of other libraries are another network: their results must not stand in one table."""
        prepared = self.sweep.environment
        if prepared and model.facts.libraries.keys() != prepared.get("libraries", {}).keys():
            names = ", ".join(sorted(model.facts.libraries.values())) or "none"
            raise SweepFailure(
                f"the plugin libraries of this worker (of these names: {names}) are not those that the sweep was "
                "prepared with; install the same files on every worker, and start the sweep again",
                code="libraries-differ",
            )

    def open_dataset(self, *, calibration: bool = False) -> BoundEvaluationSet:
        """The evaluation set (or the calibration set), bound to the model's inputs."""
        row = self.calibration if calibration else self.dataset
        model = self.open_model()
        return BoundEvaluationSet(
            open_dataset(self.context, row), model.facts.inputs, Preprocessing.model_validate(row.preprocessing)
        )

    def shard(self, batch_size: int) -> Sequence[Batch]:
        """The unit's samples, in batches of this size."""
        start, stop = self.lease.payload["start"], self.lease.payload["stop"]
        key = self._shard_key(start, stop, batch_size)
        return self.context.read_ahead.get(key, lambda: self._read(self.open_dataset(), start, stop, batch_size))

    def read_next_shard(self) -> None:
        """Begin to read what this worker will probably be given next."""
        with self.context.database.read() as session:
            payload = units.expected_next(session, self.lease)
        if payload is None:
            return
        start, stop, size = payload["start"], payload["stop"], self.plan.batch_size

        def read() -> Sequence[Batch]:
            # not the set that is open already: two threads would read from one file
            opened = _opened_dataset(self.context.blobs, self.context.sandbox, self.dataset.sha256, self.dataset.format)
            preprocessing = Preprocessing.model_validate(self.dataset.preprocessing)
            bound = BoundEvaluationSet(opened, self.plan.inputs, preprocessing)
            return self._read(bound, start, stop, size)

        self.context.read_ahead.ahead(self._shard_key(start, stop, size), read)

    def _read(self, dataset: BoundEvaluationSet, start: int, stop: int, batch_size: int) -> Sequence[Batch]:
        return list(dataset.batches(self.order()[start:stop], batch_size))

    def _shard_key(self, start: int, stop: int, batch_size: int) -> Hashable:
        plan = self.plan
        by = "plan" if self._in_planned_order else self.sweep_id
        drawn = (by, plan.population, plan.samples, plan.seed, start, stop, batch_size)
        return (self.dataset.id, tuple(each.model_dump_json() for each in plan.inputs), drawn)

    def metric(self) -> TaskMetric:
        """The metric that ranks the layers."""
        plan = self.plan
        outputs = [each.name for each in plan.outputs]
        return resolve_metric(self.settings.metric, has_labels=plan.has_labels, output_names=outputs)

    @cached_property
    def course(self) -> Course:
        """What the sweep's decision goes by."""
        return Course(self.settings, self.plan, self.metric(), self._drawn[1])

    def order(self) -> npt.NDArray[np.int64]:
        """Indices of the samples in the order in which the unit's shards take them, (samples,)."""
        return self._drawn[0]

    @property
    def _in_planned_order(self) -> bool:
        return not self.settings.scouts or self.lease.kind is UnitKind.SCOUT

    @cached_property
    def _drawn(self) -> tuple[npt.NDArray[np.int64], Draw]:
        if self._in_planned_order:
            return drawing.planned(self.plan)
        with self.context.database.read() as session:
            rows = units.units_of(session, self.sweep_id, UnitKind.SCOUT)
            found = {row.ordinal: row.result_sha256 for row in rows if row.result_sha256}
        shards = [ShardResult.from_bytes(self.context.blobs.read(found[each])) for each in sorted(found)]
        return drawing.scouted(self.plan, shards)

    def board(self, shards: Sequence[ShardResult]) -> Scoreboard:
        """The scores over these shards; those of a race hold at every look."""
        return self.course.board(shards)


def open_dataset(context: WorkerContext, row: DatasetRow) -> EvaluationSet:
    """An uploaded evaluation set, as stored, in a sandbox."""
    asked = (context.blobs, context.sandbox, row.sha256, row.format)
    try:
        opened = _open_dataset(*asked)
    except CacheFull:  # those that are open here for no more than a next time may be what takes the room
        _open_dataset.cache_clear()
        opened = _open_dataset(*asked)
    if opened.alive:
        return opened
    _open_dataset.cache_clear()
    return _open_dataset(*asked)


@lru_cache(maxsize=2)
def _open_dataset(blobs: BlobStore, sandbox: Sandbox, sha256: str, kind: str) -> SandboxedSet:
    return _opened_dataset(blobs, sandbox, sha256, kind)


def _opened_dataset(blobs: BlobStore, sandbox: Sandbox, sha256: str, kind: str) -> SandboxedSet:
    """The set; the file that it reads from stays there until nothing refers to the set any more."""
    with ExitStack() as stack:
        opened = open_sandboxed_set(sandbox, stack.enter_context(blobs.local(sha256)), kind)
        finalize(opened, stack.pop_all().close)
    return opened


@lru_cache(maxsize=1)
def _open_model(
    blobs: BlobStore, sandbox: Sandbox, sha256: str, backend_name: str, settings: OpenSettings
) -> SandboxedModel:
    with blobs.local(sha256) as path:  # an opened model needs its file no more
        return open_sandboxed_model(sandbox, BackendName(backend_name), path, settings)
