"""The largest magnitudes of tensors inside an ONNX graph, on one batch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from workers.backends.protocol import Array
from workers.models.onnx_graph import OnnxProgram, with_outputs, without_unused
from workers.models.onnx_libraries import register


def largest_magnitudes(
    program: OnnxProgram, tensors: Sequence[str], feeds: Mapping[str, Array], libraries: Sequence[Path] = ()
) -> dict[str, float]:
    """Tensor → max |x|, by ONNX Runtime on the CPU; raises the runtime's own errors where it cannot run the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    register(options, libraries)
    model = without_unused(with_outputs(program.skeleton, list(tensors)))
    held = [each.name for each in model.graph.initializer if each.name in program.weights]
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(program.weights[name])) for name in held]
    if held:
        options.add_external_initializers(held, values)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(list(tensors), dict(feeds)) if tensors else []
    return {name: float(np.abs(value).max(initial=0.0)) for name, value in zip(tensors, found, strict=True)}
