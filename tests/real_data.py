"""Where the real models and labelled data of the tests lie; a test that needs them skips where they are absent."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("QUANTSIEVE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the real models and data are not here; set QUANTSIEVE_TEST_DATA to their folder"
)


@dataclass(frozen=True)
class RealModel:
    """A model in both formats with its sets, and what its README says of it."""

    folder: str
    data: str
    layers: int
    fp32_top1: float

    @property
    def evaluation(self) -> Path:
        """The labelled evaluation set."""
        return FOLDER / self.data / "eval.npz"

    @property
    def calibration(self) -> Path:
        """The disjoint calibration set."""
        return FOLDER / self.data / "calib.npz"

    def file(self, backend: str) -> Path:
        """The model in the backend's format."""
        return FOLDER / self.folder / ("model.pt2" if backend == "torch" else "model.onnx")


RESNET20 = RealModel("cifar10_resnet20", "cifar10", layers=30, fp32_top1=0.9164)
MOBILENET = RealModel("vww_mobilenet", "vww_mobilenet", layers=29, fp32_top1=0.8594)
TRANSFORMER = RealModel("kws_transformer", "kws_transformer", layers=122, fp32_top1=0.9746)
MODELS = (RESNET20, MOBILENET, TRANSFORMER)
