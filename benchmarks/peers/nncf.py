"""NNCF, ``quantize_with_accuracy_control`` on OpenVINO: its ranking of groups of quantizers, each put back alone.

It ranks only where int8 is worse than fp32 by more than is allowed, and accuracy can be better by luck. So the metric
is one minus the outputs' noise over their power, and no drop is allowed. (A callback may hand over the outputs
themselves, to be ranked by their normalized MSE; release 3.4.0 then puts back first the group that leaves the largest.)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import nncf
import numpy as np
import openvino
import torch
from nncf.quantization.advanced_parameters import AdvancedAccuracyRestorerParameters
from nncf.quantization.algorithms.accuracy_control.ranker import Ranker

from benchmarks.peers.measure import Plain, Row, calls_of, task
from benchmarks.peers.resnet20 import ResNet20, loaded, weight_layers

# Left to itself OpenVINO takes bfloat16 for "fp32" on processors that have it.
FP32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def logits(compiled: Any, batches: Sequence[Any]) -> list[Any]:
    """(n, 10) of each batch."""
    return [compiled(batch)[compiled.output(0)].copy() for batch in batches]


def named(graph: Any) -> dict[str, str]:
    """Operation → layer, by order: folding names convolutions Multiply_5827 and so on, but they run one by one."""
    weighted = [each.node_name for each in graph.topological_sort() if each.node_type in ("Convolution", "MatMul")]
    return dict(zip(weighted, weight_layers(ResNet20()), strict=True))


def main() -> None:
    """One row."""
    files = task()
    model = loaded(files)
    batches = files.inputs()
    core = openvino.Core()
    core.set_property("CPU", FP32)
    program = openvino.convert_model(model, example_input=torch.from_numpy(batches[0][:1]), input=[-1, 3, 32, 32])
    compiled = core.compile_model(program, "CPU")
    reference = logits(compiled, batches)

    def validate(candidate: Any, items: Iterable[tuple[Any, Any]]) -> tuple[float, list[float]]:
        images, expected = zip(*items, strict=True)
        found = logits(candidate, images)
        kept = [1 - float(np.square(a - b).sum() / np.square(b).sum()) for a, b in zip(found, expected, strict=True)]
        return float(np.mean(kept)), kept

    fp32 = Plain(lambda: logits(compiled, batches))
    fp32.take()
    with (
        calls_of(Ranker, "rank_groups_of_quantizers") as ranking,
        calls_of(Ranker, "_calculate_ranking_score") as scoring,
    ):
        nncf.quantize_with_accuracy_control(
            program,
            nncf.Dataset(files.calibration_inputs()),
            nncf.Dataset(list(zip(batches, reference, strict=True))),
            validate,
            max_drop=0.0,
            subset_size=len(batches),
            advanced_accuracy_restorer_parameters=AdvancedAccuracyRestorerParameters(
                max_num_iterations=1, ranking_subset_size=len(batches)
            ),
        )
    fp32.take()
    if not ranking.arguments:
        raise RuntimeError("nothing was ranked")
    _, groups, _, graph, *_ = ranking.arguments[0]
    layer_of = named(graph)
    scores = {
        layer_of[operation.node_name]: float(metric)  # what is reached when the group is put back
        for group, metric in zip(groups, scoring.results[: len(groups)], strict=True)
        for operation in group.operations
        if operation.node_name in layer_of
    }
    Row(
        tool="NNCF",
        version=f"{nncf.__version__}, OpenVINO {openvino.__version__.split('-')[0]}",
        measured="accuracy control, one off, noise over signal",
        layers=len(groups),
        evaluations=ranking.seconds[0] / fp32.seconds,
        scores=scores,
    ).show()


if __name__ == "__main__":
    main()
