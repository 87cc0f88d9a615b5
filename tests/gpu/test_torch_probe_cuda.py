"""Probes on a CUDA device. Skips where there is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.gpu.test_torch_cuda import NETWORKS, opened, saved
from workers.backends.torch_probe import ProbeSettings, TorchProbe
from workers.data.binding import Batch
from workers.engine.probe import estimates

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_probe_agrees_with_that_of_the_cpu(tmp_path: Path, name: str) -> None:
    module: nn.Module = NETWORKS[name][0]
    path, x = saved(module, tmp_path, *NETWORKS[name][1])
    found = []
    for device in ("cpu", "cuda:0"):
        model = opened(path, device, x)
        batch = Batch({model.facts.inputs[0].name: x}, None, np.arange(len(x)))
        sums = TorchProbe(model._session).sums([batch], ProbeSettings(model.facts.outputs[0].name, probes=4))
        assert not sums.failures
        found.append({layer: each["mse"].value for layer, each in estimates(sums).items()})
    assert all(each > 0 for each in found[0].values())
    # the same directions; other kernels move a value to the next level now and then
    for layer, value in found[0].items():
        assert found[1][layer] == pytest.approx(value, rel=0.02), layer
