"""AIMET, ``QuantAnalyzer``: one layer enabled at a time, each scored by the caller's own evaluation.

``analyze()`` does six things; the enabling of one wrapper after another is the sweep, so its steps are called one by
one and that one is timed. Twice: with the accuracy, as its documentation does, and with the output MSE.
"""

import copy
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from benchmarks.peers import torchvision_operators  # noqa: F401  has to come before aimet_torch

from aimet_torch.common.defs import CallbackFunc, QuantScheme  # isort: skip
from aimet_torch.model_preparer import prepare_model  # isort: skip
from aimet_torch.quant_analyzer import QuantAnalyzer  # isort: skip

from benchmarks.peers.measure import Row, cpu_seconds, task
from benchmarks.peers.resnet20 import loaded, outputs, plain, weight_layers


def main() -> None:
    """One row for each evaluation."""
    files = task()
    model = loaded(files)
    inputs = [torch.from_numpy(each) for each in files.inputs()]
    labels = torch.cat([torch.from_numpy(each) for each in files.labels()])
    calibration = [torch.from_numpy(each) for each in files.calibration_inputs()]
    reference = outputs(model, inputs)

    def calibrate(module: torch.nn.Module, _: Any = None) -> None:
        outputs(module, calibration)

    def accuracy(module: torch.nn.Module, _: Any = None) -> float:
        return float((outputs(module, inputs).argmax(1) == labels).float().mean())

    def negated_mse(module: torch.nn.Module, _: Any = None) -> float:
        return -float((outputs(module, inputs) - reference).square().mean())

    evaluations: dict[str, Callable[..., float]] = {"accuracy": accuracy, "output MSE": negated_mse}
    for name, evaluation in evaluations.items():
        fp32 = plain(model, inputs)
        fp32.take()
        analyzer = QuantAnalyzer(
            prepare_model(copy.deepcopy(model)),
            inputs[0][:1],
            CallbackFunc(calibrate, None),
            CallbackFunc(evaluation, None),
        )
        sim = analyzer._create_quantsim_and_encodings(QuantScheme.post_training_tf_enhanced, 8, 8, None)
        with tempfile.TemporaryDirectory() as folder:
            spent, table = cpu_seconds(
                lambda held=analyzer, quantized=sim, where=folder: (
                    held.perform_per_layer_analysis_by_enabling_quant_wrappers(quantized, where)
                )
            )
        fp32.take()
        Row(
            tool="AIMET",
            version=version("aimet-torch"),
            measured=f"QuantAnalyzer, one on, {name}",
            layers=len(table),
            evaluations=spent / fp32.seconds,
            scores={layer: -table[layer] for layer in weight_layers(model) if layer in table},
        ).show()


if __name__ == "__main__":
    main()
