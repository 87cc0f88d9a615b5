"""Probes beside the exact sweep on the same samples, in one run.

    python -m benchmarks.probe              # the table
    python -m benchmarks.probe digits       # of one network
    python -m benchmarks.probe --noise 1    # interactions count from one standard error on

"cost" of the probe and "exact" of the exact sweep (all layers alone, with the measures), in fp32 evaluations of the
same samples: CPU time of one thread, the evaluation timed before and after the probe. "MSE" and "KL": Spearman's
correlation of the probe's table with the exact one. Then the output MSE of 20 random sets of layers, mean
|ln(predicted / measured)|: by the plain "sum" of the layers' own, with "pairs" of layers too, and with measured values
"placed" for the layers that are taken to lie beyond the linear range without knowing those values ("marked"); "KL sum"
and "KL pairs": the same of their KL divergence.
"""

import argparse
import os
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.engine import cpu_seconds, evaluated, opened, plain, use_one_thread
from benchmarks.networks import Network, batches_of, here
from service.domain.layers import Variant
from service.domain.settings import BackendName
from tests.workers.backends.ranges import calibrated
from workers.backends.protocol import Tensors
from workers.backends.torch_fake_quant import TorchModel
from workers.data.binding import Batch
from workers.engine import probe
from workers.engine.probe import Gram, beyond_linear, estimates, gram
from workers.engine.probe_settings import ProbeSettings
from workers.metrics.per_sample import Array, Floats, against_reference, is_distribution, scored

COLUMNS = (
    f"{'network':16s} {'L':>4s} {'samples':>7s} {'cost':>5s} {'exact':>6s} "
    f"{'MSE':>6s} {'KL':>6s} {'sum':>6s} {'pairs':>6s} {'placed':>6s} {'marked':>6s} "
    f"{'KL sum':>8s} {'KL pairs':>8s}"
)
SAMPLES = {"vww_mobilenet": 128, "cifar10_resnet56": 256}
"""Of the others 512, or as many as there are."""
CALIBRATION_SAMPLES = 256
BATCH = 32
SETS = 20


def random_sets(layers: Sequence[str]) -> list[frozenset[str]]:
    """Of all sizes, from a tenth of the layers to all of them."""
    rng = np.random.default_rng(1)
    shares = np.repeat(np.linspace(0.1, 1.0, SETS // 2), 2)
    found = [frozenset(each for each in layers if rng.random() < share) for share in shares]
    return [each for each in found if each]


def measured(
    model: TorchModel, batches: Sequence[Tensors], reference: Array, sets: Sequence[frozenset[str]]
) -> list[dict[str, Floats]]:
    """The measures of each set of int8 layers, by sample."""
    variants = [Variant(name=str(index), int8=each) for index, each in enumerate(sets)]
    outputs = evaluated(model, batches, variants)
    distribution = is_distribution(reference)
    fp32 = scored(reference, distribution=distribution)
    return [
        against_reference(
            fp32,
            scored(
                np.concatenate([outputs[each.name, index] for index in range(len(batches))]), distribution=distribution
            ),
        )
        for each in variants
    ]


def log_error(found: Gram, sets: Sequence[frozenset[str]], truth: Sequence[float], *, interactions: bool) -> float:
    """Mean |ln(predicted / measured)|."""
    predicted = np.array([found.predict(each, interactions=interactions) for each in sets])
    return float(np.abs(np.log(predicted / truth)).mean())


def compare(network: Network) -> None:
    """Print one row of the table."""
    model = opened(network, BackendName.TORCH)
    assert isinstance(model, TorchModel)
    name = model.facts.inputs[0].name
    calibrated(model, {name: network.calibration_samples(CALIBRATION_SAMPLES)})
    batches = batches_of(model, network.samples(SAMPLES.get(network.name, 512)), BATCH)
    layers = [each.id for each in model.facts.layers]
    plain(model, batches[:1])()
    first, reference = cpu_seconds(plain(model, batches))
    fp32 = np.concatenate(reference)
    probed = [Batch(each, None, BATCH * index + np.arange(len(each[name]))) for index, each in enumerate(batches)]
    settings = ProbeSettings(model.facts.outputs[0].name, distribution=is_distribution(fp32), micro_batch=BATCH)
    cost, sums = cpu_seconds(lambda: model.probe(probed, settings))
    second, _ = cpu_seconds(plain(model, batches))
    one = (first + second) / 2
    whole, alone = cpu_seconds(lambda: measured(model, batches, fp32, [frozenset({each}) for each in layers]))
    sets = random_sets(layers)
    run = measured(model, batches, fp32, sets)
    truth, truth_kl = ([float(each[measure].mean()) for each in run] for measure in ("mse", "kl"))
    table, pairs, pairs_kl = estimates(sums), gram(sums, "mse"), gram(sums, "kl")
    mse, kl = (
        spearmanr([table[each][measure].value for each in layers], [each[measure].mean() for each in alone]).statistic
        for measure in ("mse", "kl")
    )
    marked = beyond_linear(sums, {})
    placed = pairs.with_measured(
        {each: float(found["mse"].mean()) for each, found in zip(layers, alone, strict=True) if each in marked}
    )
    errors = (
        log_error(pairs, sets, truth, interactions=False),
        log_error(pairs, sets, truth, interactions=True),
        log_error(placed, sets, truth, interactions=True),
    )
    print(
        f"{network.name:16s} {len(layers):4d} {len(fp32):7d} {cost / one:5.1f} {whole / one:6.1f} {mse:6.3f} {kl:6.3f} "
        + " ".join(f"{each:6.3f}" for each in errors)
        + f" {len(marked):6d} "
        + " ".join(f"{log_error(pairs_kl, sets, truth_kl, interactions=each):8.3f}" for each in (False, True)),
        flush=True,
    )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", help="only this one")
    parser.add_argument("--noise", type=float, default=probe.NOISE, help="standard errors that count as none")
    arguments = parser.parse_args()
    probe.NOISE = arguments.noise
    use_one_thread()
    print(f"torch {torch.__version__}, {os.cpu_count()} processors, one thread\n{COLUMNS}")
    for network in here():
        if arguments.network in (None, network.name):
            compare(network)


if __name__ == "__main__":
    main()
