"""AMD Quark, ``AutoMixprecisionConfig``: from int16 everywhere, one layer at a time in int8, the outputs' noise.

Its sensitivity analysis is part of the call; only that method is timed. Nodes of the ONNX file are matched to layers by
their order: both lists hold the convolutions and the linear layer as they run.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from quark.onnx import AutoMixprecisionConfig, Int8Spec, Int16Spec, ModelQuantizer, QConfig, QLayerConfig
from quark.onnx.algorithm.mprecision.sensitivity_analyzer import SensitivityAnalyzer
from quark.version import __version__

from benchmarks.peers.measure import Plain, Row, calls_of, task
from benchmarks.peers.resnet20 import ResNet20, weight_layers


class Reader:
    """Hands out the batches one by one, then None; what Quark takes for a data loader."""

    def __init__(self, name: str, batches: Sequence[Any]) -> None:
        self._name, self._batches = name, batches
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the input's name."""
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}

    def rewind(self) -> None:
        """Begin again."""
        self._left = iter(self._batches)


def main() -> None:
    """One row."""
    files = task()
    batches = files.inputs()
    program = onnx.load(files.onnx)
    name = program.graph.input[0].name
    nodes = [each.name for each in program.graph.node if each.op_type in ("Conv", "Gemm", "MatMul")]
    layer_of = dict(zip(nodes, weight_layers(ResNet20()), strict=True))
    session = onnxruntime.InferenceSession(files.onnx, providers=["CPUExecutionProvider"])
    fp32 = Plain(lambda: [session.run(None, {name: batch}) for batch in batches])
    fp32.take()
    eight, sixteen = (QLayerConfig(activation=each, weight=each) for each in (Int8Spec(), Int16Spec()))
    with tempfile.TemporaryDirectory() as folder, calls_of(SensitivityAnalyzer, "analyze") as analysis:
        mixing = AutoMixprecisionConfig(
            target_layer_config=eight,
            metric_threshold=None,
            metric_default="sqnr",
            sensitivity_cache_file=str(Path(folder) / "sensitivity.json"),
        )
        quantizer = ModelQuantizer(QConfig(global_config=sixteen, algo_config=[mixing]))
        quantizer.quantize_model(str(files.onnx), str(Path(folder) / "quantized.onnx"), Reader(name, batches))
    fp32.take()
    table = {each.name: float(each.score) for each in analysis.results[0]}
    Row(
        tool="Quark",
        version=f"{__version__.split('+')[0]}, ONNX Runtime {onnxruntime.__version__}",
        measured="auto mixed precision, one on, SQNR",
        layers=len(table),
        evaluations=analysis.seconds[0] / fp32.seconds,
        scores={layer_of[node]: score for node, score in table.items() if node in layer_of},
    ).show()


if __name__ == "__main__":
    main()
