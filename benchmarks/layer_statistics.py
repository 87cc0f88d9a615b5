"""What the statistics without labels cost beside a plain pass, in one run.

    python -m benchmarks.layer_statistics

"SQNR": the pass that runs every layer twice (with ONNX Runtime the session is made in it too), in fp32 evaluations of
the same 32 samples: CPU time of one thread, median of 5, the two in turn. "local SQNR": of the layers, in dB.
"""

import os
from statistics import median

from benchmarks.engine import cpu_seconds, opened, plain, use_one_thread
from benchmarks.networks import Network, batches_of, here
from service.domain.settings import BackendName
from tests.workers.backends.ranges import calibrated
from workers.backends.protocol import OpenedModel, Tensors
from workers.calibration.statistics import sqnr_db
from workers.sweep.statistics import MOST_SAMPLES

REPEATS = 5


def local_sqnr(model: OpenedModel, batches: list[Tensors]) -> list[float]:
    """Of every layer that has one, in dB."""
    (found,) = model.output_errors(batches, [each.id for each in model.facts.layers])
    numbers = [sqnr_db(each.signal, each.noise) for each in found.values()]
    return [each for each in numbers if not isinstance(each, str)]


def compare(network: Network, backend: BackendName) -> None:
    """Print one row of the table."""
    model = opened(network, backend)
    batches = batches_of(model, network.calibration_samples(MOST_SAMPLES), MOST_SAMPLES)
    calibrated(model, batches[0])
    found = local_sqnr(model, batches)
    rounds = [
        (cpu_seconds(plain(model, batches))[0], cpu_seconds(lambda: local_sqnr(model, batches))[0])
        for _ in range(REPEATS)
    ]
    fp32, twice = (median(each) for each in zip(*rounds, strict=True))
    print(
        f"{network.name:16s} {backend.value:12s} {len(model.facts.layers):4d} {1000 * fp32:8.1f} {twice / fp32:6.1f} "
        f"{min(found):10.1f} to {max(found):.1f}",
        flush=True,
    )


def main() -> None:
    """Every network with both backends."""
    use_one_thread()
    print(f"{os.cpu_count()} processors, one thread")
    print(f"{'network':16s} {'backend':12s}    L  fp32 ms   SQNR  local SQNR, dB")
    for network in here():
        for backend in (BackendName.TORCH, BackendName.ONNXRUNTIME):
            compare(network, backend)


if __name__ == "__main__":
    main()
