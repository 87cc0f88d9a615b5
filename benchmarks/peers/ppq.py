"""PPQ, ``layerwise_error_analyse``: one operation quantized at a time, the noise of the outputs over their power.

Its executor cannot pad the channel axis, so the module is exported here, in an opset that it reads and with shortcuts
written as a concatenation. The analysis runs the plain network again beside each quantized operation. The plain
evaluation is that executor's with every quantizer off.
"""

import tempfile
import warnings
from pathlib import Path

import ppq
import torch
from ppq import QuantizationSettingFactory, TargetPlatform, TorchExecutor, layerwise_error_analyse
from ppq.api import quantize_onnx_model
from ppq.IR.quantize import QuantableGraph

from benchmarks.peers.measure import Plain, Row, cpu_seconds, task
from benchmarks.peers.resnet20 import Block, ResNet20, Shortcut, loaded, weight_layers


class Concatenated(Shortcut):
    """Zeros beside, by an operation that the executor has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) → (n, c + extra, h / 2, w / 2)."""
        x = x[:, :, ::2, ::2]
        zeros = x[:, : self.extra // 2] * 0.0
        return torch.cat([zeros, x, zeros], 1)


def exported(model: ResNet20, example: torch.Tensor, path: Path) -> Path:
    """The module as an ONNX file, for batches of the example's size; the model's shortcuts are replaced."""
    for each in model.modules():
        if isinstance(each, Block) and isinstance(each.shortcut, Shortcut):
            each.shortcut = Concatenated(each.shortcut.extra)
    torch.onnx.export(
        model, (example,), path, input_names=["input"], output_names=["logits"], opset_version=13, dynamo=False
    )
    return path


def layer_of(operation: str, layers: list[str]) -> str | None:
    """The layer that an operation such as ``/layer1/layer1.0/conv1/Conv`` is."""
    name = ".".join(operation.strip("/").split("/")[-3:-1])
    return name if name in layers else None


def main() -> None:
    """One row."""
    warnings.simplefilter("ignore")
    files = task()
    model = loaded(files)
    batches = [torch.from_numpy(each) for each in files.inputs()]
    calibration = [torch.from_numpy(each) for each in files.calibration_inputs()]
    layers = weight_layers(model)
    with tempfile.TemporaryDirectory() as folder:
        graph = quantize_onnx_model(
            onnx_import_file=str(exported(model, batches[0], Path(folder) / "model.onnx")),
            calib_dataloader=calibration,
            calib_steps=max(8, len(calibration)),  # it takes no fewer, and goes round
            input_shape=list(batches[0].shape),
            setting=QuantizationSettingFactory.default_setting(),
            platform=TargetPlatform.TRT_INT8,
            device="cpu",
            verbose=0,
        )
    executor, switches = TorchExecutor(graph, device="cpu"), QuantableGraph(graph)

    def evaluate() -> None:
        with torch.no_grad():
            for batch in batches:
                executor.forward(batch)

    fp32 = Plain(evaluate)
    switches.dequantize_graph()
    fp32.take()
    switches.restore_quantize_state()
    spent, table = cpu_seconds(
        lambda: layerwise_error_analyse(
            graph, batches, running_device="cpu", method="snr", steps=len(batches), verbose=False
        )
    )
    switches.dequantize_graph()
    fp32.take()
    named = {layer_of(operation, layers): float(noise) for operation, noise in table.items()}
    Row(
        tool="PPQ",
        version=ppq.PPQ_CONFIG.VERSION,
        measured="layerwise_error_analyse, noise over signal",
        layers=len(table),
        evaluations=spent / fp32.seconds,
        scores={layer: noise for layer, noise in named.items() if layer is not None},
    ).show()


if __name__ == "__main__":
    main()
