"""The decision as files that other tools take, by the format of the model."""

from collections.abc import Iterator
from dataclasses import dataclass

from service.domain.file_check import FileCheck
from service.domain.results import Decision
from service.inspection.formats import ModelFormat
from workers.exports import (
    modelopt_list,
    name_map,
    onnxruntime_list,
    polygraphy_script,
    pytorch_quantization_list,
    trtexec,
)
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.torch_to_onnx import Exported, NotExported
from workers.sandbox.names import sandboxed_exported_layers, sandboxed_own_names
from workers.sweep import mixed_onnx
from workers.sweep.job import Job
from workers.sweep.outcome import File

TEXT, PYTHON, JSON = "text/plain; charset=utf-8", "text/x-python; charset=utf-8", "application/json"


@dataclass(frozen=True)
class ExportedFiles:
    """The files, and how the graph among them compares with what was verified (None where there is none)."""

    files: tuple[File, ...] = ()
    check: FileCheck | None = None


def make(job: Job, decision: Decision | None) -> ExportedFiles:
    """The files that fit the model's format; none where the decision leaves no layer in int8."""
    plan = job.plan
    int8 = {each.id for each in job.active_layers()} - set(decision.fallback if decision else ())
    if decision is None or not int8:
        return ExportedFiles()
    fallback = frozenset(each.id for each in plan.layers) - int8
    mixed = MixedPrecision(plan.layers, fallback, plan.skipped, job.settings.weights, job.settings.fallback_precision)
    sandbox = job.context.sandbox
    with job.model_file() as path:
        if job.model.format != ModelFormat.ONNX:
            return ExportedFiles(tuple(of_torch(mixed, sandboxed_exported_layers(sandbox, path))))
        listed = tuple(of_onnx(mixed, sandboxed_own_names(sandbox, path)))
    graph = mixed_onnx.make(job, fallback)
    return ExportedFiles((*listed, *graph.files), graph.check)


def of_onnx(mixed: MixedPrecision, nodes: frozenset[str]) -> Iterator[File]:
    """For tools that take the ONNX file, in which these node names stand once."""
    yield File(trtexec.FILE, TEXT, trtexec.to_text(mixed, nodes))
    yield File(polygraphy_script.FILE, PYTHON, polygraphy_script.to_script(mixed, nodes))
    yield File(onnxruntime_list.FILE, JSON, onnxruntime_list.to_json(mixed, nodes))
    yield File(name_map.FILE, JSON, name_map.to_json(name_map.of_onnx(mixed.layers, nodes)))


def of_torch(mixed: MixedPrecision, exported: Exported | NotExported) -> Iterator[File]:
    """For tools that take the module which the archive was exported from. ``exported``: its layers in ONNX."""
    yield File(pytorch_quantization_list.FILE, PYTHON, pytorch_quantization_list.to_script(mixed))
    yield File(modelopt_list.FILE, PYTHON, modelopt_list.to_script(mixed))
    yield File(name_map.FILE, JSON, name_map.to_json(name_map.of_torch(mixed.layers, exported)))
