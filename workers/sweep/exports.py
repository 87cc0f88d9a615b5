"""The decision as files that other tools take, by the format of the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.domain.file_check import FileCheck
from service.domain.results import Decision
from service.inspection.formats import ModelFormat
from workers.exports import (
    modelopt_list,
    name_map,
    onnxruntime_list,
    polygraphy_script,
    pytorch_quantization_list,
    torch_to_onnx,
    trtexec,
)
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.onnx_nodes import own_names
from workers.sweep import mixed_onnx
from workers.sweep.job import Job
from workers.sweep.outcome import File

TEXT, PYTHON, JSON = "text/plain; charset=utf-8", "text/x-python; charset=utf-8", "application/json"


@dataclass(frozen=True)
class Exported:
    """The files, and how the graph among them compares with what was verified (None where there is none)."""

    files: tuple[File, ...] = ()
    check: FileCheck | None = None


def make(job: Job, decision: Decision | None) -> Exported:
    """The files that fit the model's format; none where the decision leaves no layer in int8."""
    plan = job.plan
    int8 = {each.id for each in job.active_layers()} - set(decision.fallback if decision else ())
    if decision is None or not int8:
        return Exported()
    fallback = frozenset(each.id for each in plan.layers) - int8
    mixed = MixedPrecision(plan.layers, fallback, plan.skipped, job.settings.weights, job.settings.fallback_precision)
    with job.model_file() as path:
        if job.model.format != ModelFormat.ONNX:
            return Exported(tuple(of_torch(mixed, path)))
        listed = tuple(of_onnx(mixed, path))
    graph = mixed_onnx.make(job, fallback)
    return Exported((*listed, *graph.files), graph.check)


def of_onnx(mixed: MixedPrecision, path: Path) -> Iterator[File]:
    """For tools that take the ONNX file at ``path``."""
    nodes = own_names(path)
    yield File(trtexec.FILE, TEXT, trtexec.to_text(mixed, nodes))
    yield File(polygraphy_script.FILE, PYTHON, polygraphy_script.to_script(mixed, nodes))
    yield File(onnxruntime_list.FILE, JSON, onnxruntime_list.to_json(mixed, nodes))
    yield File(name_map.FILE, JSON, name_map.to_json(name_map.of_onnx(mixed.layers, nodes)))


def of_torch(mixed: MixedPrecision, path: Path) -> Iterator[File]:
    """For tools that take the module which the archive at ``path`` was exported from."""
    exported = torch_to_onnx.exported_layers(path)
    yield File(pytorch_quantization_list.FILE, PYTHON, pytorch_quantization_list.to_script(mixed))
    yield File(modelopt_list.FILE, PYTHON, modelopt_list.to_script(mixed))
    yield File(name_map.FILE, JSON, name_map.to_json(name_map.of_torch(mixed.layers, exported)))
