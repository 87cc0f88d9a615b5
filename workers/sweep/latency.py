"""Measured latencies of layers and of conversions: the model's own graph, in each precision, timed on this worker.

The graphs run in turn on one batch: fp32; all layers in int8, in the form that ONNX Runtime has integer kernels for;
the graph that deploys with each Q and DQ as it stands, for what a conversion costs; and on CUDA, float16.
"""

import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from pydantic import TypeAdapter

from service.domain.costs import Boundary, CostModel, Precision
from service.domain.errors import Unavailable
from service.domain.layers import ALL_INT8, FP32, Variant
from service.domain.settings import BackendName, WeightGranularity
from service.inspection.formats import ModelFormat
from workers.backends.onnx_profiling import GraphToTime, Profile, ProfileSettings, profiles
from workers.backends.onnx_ranges import largest_magnitudes
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.protocol import Array, OpenSettings, Tensors
from workers.backends.registry import backend
from workers.backends.tensorrt.model import TensorRTModel
from workers.backends.tensorrt.seam import EngineFailure
from workers.engine import latency
from workers.engine.fixed_batch import filled, length_of
from workers.engine.latency import TimedKernel, TimedRuns
from workers.exports.integer_form import integer_form, tensors_behind
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_onnx import QdqSettings, export_qdq
from workers.models.onnx_dataflow import elements_per_sample
from workers.models.onnx_kernels import Role, computes_in_integers, kernel_owners
from workers.models.onnx_layers import Found
from workers.models.private_folder import private_folder
from workers.sandbox.serving import Reply
from workers.sandbox.wire import Message
from workers.sweep.job import Job

CONVERSIONS = "conversions"
"""The graph that is run for its Q and DQ alone; the others are called after their precision."""
NOT_ONNX = (
    "no latency was measured: the model is a torch.export archive, whose int8 is simulated; export it with "
    "torch.onnx.export and sweep the ONNX file"
)
NO_CONVERSIONS = "TensorRT was timed with all layers in int8 and with none: what a single conversion costs is not known"
NOT_HALF = "float16 was not timed by TensorRT"
ONLY_ON_CUDA = "float16 was not timed: ONNX Runtime's CPU provider computes it in float32 on most machines"


@dataclass(frozen=True)
class Timed:
    """A graph, and where it lies."""

    model: onnx.ModelProto
    file: GraphToTime


def run(job: Job) -> CostModel:
    """The plan's costs with what was measured on this worker, or with a note that says why nothing was.

    The sweep must be calibrated. Takes the first batch of the evaluation set.
    """
    costs, plan, asked, libraries = job.plan.costs, job.plan, job.settings, job.context.libraries
    if job.model.format != ModelFormat.ONNX:
        return _noted(costs, NOT_ONNX)
    batch = next(iter(job.open_dataset().batches(plan.order()[: plan.batch_size], plan.batch_size))).inputs
    wanted = ToTime(
        costs=costs,
        amax=job.amax,
        active=frozenset(each.id for each in job.active_layers()),
        device=job.device,
        tensorrt=job.backend == BackendName.TENSORRT,
        opened=job.open_settings
        if job.backend == BackendName.TENSORRT
        else OpenSettings(asked.fuse_bn, asked.weights, libraries=libraries),
    )
    document = TO_TIME.dump_python(wanted, mode="json")
    with job.model_file() as path:
        return job.context.sandbox.run(
            KIND, [path], document, batch, read=lambda answer: CostModel.model_validate(answer.document)
        )


@dataclass(frozen=True)
class ToTime:
    """What is to be timed: a model opened so, with ``active`` layers (ids) in int8 and these ranges of edges."""

    costs: CostModel
    amax: Mapping[str, float]
    active: frozenset[str]
    device: str
    tensorrt: bool
    opened: OpenSettings


KIND, TO_TIME = "latency", TypeAdapter(ToTime)


def served_latency(files: Sequence[Path], asked: Message) -> Reply:
    """The costs with latencies, of the model that lies in a sandbox; the batch comes with the request."""
    wanted, (path,) = TO_TIME.validate_python(asked.document), files
    if wanted.tensorrt:
        model = backend(BackendName.TENSORRT).open(path, wanted.opened)
        assert isinstance(model, TensorRTModel)
        model.set_amax(wanted.amax)
        by_engines = ProfileSettings(wanted.device)
        found = costs_by_tensorrt(model, wanted.costs, asked.arrays, int8=wanted.active, settings=by_engines)
    else:
        read = read_model(path, wanted.opened)
        found = measured_costs(
            read,
            wanted.costs,
            wanted.amax,
            asked.arrays,
            settings=ProfileSettings(wanted.device, libraries=wanted.opened.libraries.onnxruntime),
            weights=wanted.opened.weights,
            floating=frozenset(each.layer.id for each in read.found) - wanted.active,
        )
    return Reply(found.model_dump(mode="json"))


def costs_by_tensorrt(
    model: TensorRTModel,
    costs: CostModel,
    batch: Tensors,
    *,
    int8: frozenset[str],
    settings: ProfileSettings,
) -> CostModel:
    """``costs`` with the latencies of layers by the engines of the controls, which the plan store may hold already.

    ``int8``: the layers (ids) that can be. The ranges must be set.
    """
    variants = {
        Precision.FP32: Variant(name=FP32, int8=frozenset()),
        Precision.INT8: Variant(name=ALL_INT8, int8=int8),
    }
    try:
        runs = model.timed(batch, variants, runs=settings.runs, warm_up=settings.warm_up)
    except EngineFailure as error:
        return _noted(costs, f"no latency was measured: {error}")
    timed = latency.measured(costs, {each.id: each.name for each in model.facts.layers}, runs)
    changes = {"measured_on": f"{settings.device}, TensorRT", "notes": (*timed.notes, NO_CONVERSIONS, NOT_HALF)}
    return timed.model_copy(update=changes)


def measured_costs(
    read: ReadModel,
    costs: CostModel,
    amax: Mapping[str, float],
    batch: Tensors,
    *,
    settings: ProfileSettings,
    weights: WeightGranularity = WeightGranularity.PER_CHANNEL,
    floating: Collection[str] = (),
) -> CostModel:
    """``costs`` with the latencies of layers and boundaries, in seconds per sample of this batch.

    ``amax``: activation edge → range; ``floating``: layers (ids) that are int8 in no graph. Where the provider cannot
    be timed there is a note with the reason, and no latency.
    """
    feeds = {each.name: filled(batch[each.name], read.program.batch_size) for each in read.program.inputs}
    qdq = QdqSettings(per_channel=weights is WeightGranularity.PER_CHANNEL)
    with private_folder() as folder:
        graphs = _Graphs(read, folder, qdq).all(amax, frozenset(floating), feeds, settings)
        try:
            found = profiles({key: each.file for key, each in graphs.items()}, feeds, settings)
        except Unavailable as error:
            return _noted(costs, f"no latency was measured: {error.message}")
    samples = length_of(feeds)
    runs = {key: _runs(key, graphs[key].model.graph, each, read.found, samples) for key, each in found.items()}
    conversions = latency.conversion_latencies(runs.pop(CONVERSIONS))
    names = {each.layer.id: each.layer.name for each in read.found}
    timed = latency.measured(costs, names, list(runs.values()))
    changes = {
        "boundaries": _of_boundaries(costs.boundaries, read, conversions),
        "measured_on": _device(settings),
        "notes": (*timed.notes, *([] if Precision.FP16 in runs else [ONLY_ON_CUDA])),
    }
    return timed.model_copy(update=changes)


@dataclass(frozen=True)
class _Graphs:
    """Makes the graphs to time."""

    read: ReadModel
    folder: Path
    settings: QdqSettings

    def all(
        self, amax: Mapping[str, float], floating: frozenset[str], feeds: Tensors, settings: ProfileSettings
    ) -> dict[str, Timed]:
        program, found = self.read.program, self.read.found
        export = export_qdq(program, found, amax, fallback=floating, settings=self.settings)
        behind = tensors_behind(program.skeleton.graph, found)
        ranges = largest_magnitudes(program, behind, feeds, settings.libraries)
        form = integer_form(export, found, ranges)
        graphs = {
            Precision.FP32: self._written(Precision.FP32, program.skeleton, program.weights),
            Precision.INT8: self._written(Precision.INT8, form.model, form.weights),
            CONVERSIONS: self._written(CONVERSIONS, export.model, export.weights, integer_kernels=False),
        }
        if settings.device.startswith("cuda"):
            every = frozenset(each.layer.id for each in found)
            half = export_qdq(program, found, {}, fallback=every, settings=QdqSettings(half_fallback=True))
            graphs[Precision.FP16] = self._written(Precision.FP16, half.model, half.weights)
        return {str(key): each for key, each in graphs.items()}

    def _written(
        self, name: str, model: onnx.ModelProto, weights: Mapping[str, Array], *, integer_kernels: bool = True
    ) -> Timed:
        path = self.folder / f"{name}.onnx"
        write_onnx(path, model, weights)
        return Timed(model, GraphToTime(path, integer_kernels))


def _runs(key: str, given: onnx.GraphProto, profile: Profile, found: Sequence[Found], samples: int) -> TimedRuns:
    owners = kernel_owners(given, profile.optimized, found)
    kernels = []
    for each in profile.kernels:
        owner = owners.get(each.name)
        kernels.append(
            TimedKernel(
                operator=each.op,
                seconds=np.asarray(each.seconds, dtype=np.float64),
                layers=owner.layers if owner else (),
                beside=owner.others if owner and owner.layers else (),
                converts=owner is not None and owner.role in (Role.QUANTIZE, Role.DEQUANTIZE),
                tensor=owner.tensor if owner else None,
                floating=not computes_in_integers(each.op),
            )
        )
    precision = Precision.FP32 if key == CONVERSIONS else Precision(key)
    return TimedRuns(precision, tuple(kernels), np.asarray(profile.wall, dtype=np.float64), samples)


def _of_boundaries(
    boundaries: Sequence[Boundary], read: ReadModel, conversions: Mapping[str, float]
) -> tuple[Boundary, ...]:
    """Each with the time of the tensor of its size that its target reads quantized."""
    nodes = {node.name: node for node in read.program.skeleton.graph.node}
    operands = {each.layer.id: [nodes[each.node].input[index] for index in each.operands] for each in read.found}
    sizes = elements_per_sample(read.program)
    found = []
    for each in boundaries:
        read_by_target = operands.get(each.target, [])
        fitting = [name for name in read_by_target if len(read_by_target) == 1 or sizes.get(name) == each.elements]
        times = [conversions[name] for name in fitting if name in conversions]
        found.append(each.model_copy(update={"latency": float(np.mean(times)) if times else None}))
    return tuple(found)


def _device(settings: ProfileSettings) -> str:
    import onnxruntime

    threads = settings.threads or len(os.sched_getaffinity(0))
    where = settings.device if settings.device != "cpu" else f"cpu ({_processor()}, {threads} threads)"
    return f"{where}, ONNX Runtime {onnxruntime.__version__}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _noted(costs: CostModel, note: str) -> CostModel:
    return costs.model_copy(update={"notes": (*costs.notes, note)})
