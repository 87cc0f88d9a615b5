import numpy as np
import pytest
import torch
from pytorch_quantization.tensor_quant import QuantDescriptor, fake_tensor_quant

from workers.backends.torch_session import ActivationQuantizer

RANGES = [0.0, 1e-9, 2.0**-24, 1.0000001e-7, 0.37, 1.0, 3.3333333, 1e30, float("inf"), float("nan")]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.half]
DEVICES = ["cpu", *(["cuda:0"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("amax", RANGES)
def test_the_quantizer_rounds_as_pytorch_quantization_does_bit_for_bit(
    amax: float, dtype: torch.dtype, device: str
) -> None:
    finite = amax if np.isfinite(amax) else 1.0
    # within the range, beyond it, and on the borders between levels
    steps = np.concatenate([np.linspace(-1.5, 1.5, 20_001), (np.arange(-130, 130) + 0.5) / 127])
    values = torch.from_numpy(steps * (finite or 1.0)).to(device, dtype)
    quantizer = ActivationQuantizer(QuantDescriptor(num_bits=8))
    quantizer.fix(amax, torch.device(device))
    expected = fake_tensor_quant(values, torch.tensor(np.float32(amax), device=device), 8, False, False)
    found = quantizer(values)
    assert found.dtype == expected.dtype
    assert found.is_contiguous()
    assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


def test_a_range_can_be_fixed_anew_and_a_quantizer_switched_off() -> None:
    quantizer, x = ActivationQuantizer(QuantDescriptor(num_bits=8)), torch.tensor([0.3, -5.0])
    for amax in (1.0, 2.0):
        quantizer.fix(amax, torch.device("cpu"))
        np.testing.assert_allclose(quantizer(x), [round(0.3 * 127 / amax) * amax / 127, -amax * 128 / 127], rtol=1e-6)
    quantizer.disable()
    assert quantizer(x) is x
