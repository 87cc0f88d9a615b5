"""The networks of the benchmarks, with their samples and ranges."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.layers import Variant
from service.domain.settings import SweepMode
from workers.backends.protocol import OpenedModel, Tensors
from workers.sweep.plan import layer_variants

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("QUANTSIEVE_TEST_DATA", ROOT.parent / "shared" / "data"))


@dataclass(frozen=True)
class Network:
    """Files of one network; ``pt2`` and ``onnx`` are the same network."""

    name: str
    pt2: Path
    onnx: Path
    evaluation: Path
    calibration: Path

    def samples(self, count: int) -> Any:
        """Inputs (count, ...) float32; fewer where there are fewer."""
        return np.load(self.evaluation)["inputs"][:count].astype(np.float32)

    def calibration_samples(self, count: int) -> Any:
        """Inputs (count, ...) of the disjoint calibration set."""
        return np.load(self.calibration)["inputs"][:count].astype(np.float32)


def _real(folder: str, data: str) -> Network:
    model, sets = DATA / folder, DATA / data
    return Network(folder, model / "model.pt2", model / "model.onnx", sets / "eval.npz", sets / "calib.npz")


DIGITS = ROOT / "examples" / "digits"
NETWORKS = (
    Network("digits", DIGITS / "digits.pt2", DIGITS / "digits.onnx", DIGITS / "eval.npz", DIGITS / "calib.npz"),
    _real("cifar10_resnet20", "cifar10"),
    _real("cifar10_resnet56", "cifar10"),
    _real("vww_mobilenet", "vww_mobilenet"),
    _real("kws_transformer", "kws_transformer"),
)


def here() -> list[Network]:
    """The networks whose files are on this machine; says which are not."""
    found = []
    for each in NETWORKS:
        if each.pt2.exists() and each.evaluation.exists():
            found.append(each)
        else:
            print(f"{each.name}: not here (set QUANTSIEVE_TEST_DATA)")
    return found


def batches_of(model: OpenedModel, inputs: Any, size: int) -> list[Tensors]:
    """The inputs cut into batches under the model's name for them."""
    name = model.facts.inputs[0].name
    return [{name: inputs[start : start + size]} for start in range(0, len(inputs), size)]


def table_of(model: OpenedModel, mode: SweepMode) -> tuple[Variant, ...]:
    """One variant for each layer."""
    return layer_variants(model.facts.layers, mode)
