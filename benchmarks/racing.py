"""Racing beside the exact sweep: what both cost in fp32 evaluations, and whether both decide the same.

    python -m benchmarks.racing             # everything
    python -m benchmarks.racing digits      # 10,000 augmented digits, top-1, a budget: 20 seeds
    python -m benchmarks.racing resnet20    # label-free metrics, the most sensitive quarter

Costs are CPU time of one thread over all work units but preparing, calibrating and the report, each sweep with a
database and files of its own, against a plain fp32 pass over the same samples in the same process.
"""

import argparse
from typing import Any

import numpy as np

from benchmarks.engine import use_one_thread
from benchmarks.networks import Network, here
from benchmarks.sweeps import evaluation, sweep

DIGITS = 10_000
SEEDS = 20


def augmented(network: Network, samples: int) -> dict[str, Any]:
    """So many samples: those there are, shifted by up to a pixel to each side, with a little noise."""
    stored = np.load(network.evaluation)
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(stored["inputs"]), samples)
    inputs = stored["inputs"][picked].astype(np.float32)
    for index, (down, right) in enumerate(rng.integers(-1, 2, (samples, 2))):
        inputs[index] = np.roll(inputs[index], (down, right), axis=(-2, -1))
    noise = 0.05 * inputs.std() * rng.standard_normal(inputs.shape)
    return {"inputs": (inputs + noise).astype(np.float32), "labels": stored["labels"][picked]}


def digits(network: Network, budget: float) -> None:
    """A race for the fallback list, from many seeds, beside the exact sweep."""
    data, calibration = augmented(network, DIGITS), network.calibration.read_bytes()
    asked: dict[str, Any] = {"metric": {"name": "top1"}, "budget": {"max_drop": budget}}
    one = evaluation(network, data["inputs"])
    exact = sweep(network.pt2, data, calibration, **asked)
    print(
        f"digits, {DIGITS} samples, budget {budget}: exact {exact.seconds / one:.1f} fp32 evaluations, "
        f"{len(exact.fallback)} layers: {', '.join(exact.decision['fallback_names'])}",
        flush=True,
    )
    same, shares = 0, []
    for seed in range(SEEDS):
        raced = sweep(network.pt2, data, calibration, method="racing", seed=seed, **asked)
        same += raced.fallback == exact.fallback
        shares.append(raced.seconds / exact.seconds)
        samples = [each["score"]["drop"]["samples"] for each in raced.layers]
        print(
            f"  seed {seed}: {'same' if raced.fallback == exact.fallback else 'another'} list, "
            f"{raced.seconds / one:.1f} evaluations, {100 * shares[-1]:.0f} % of exact's; samples of a layer: "
            f"median {np.median(samples):.0f}, most {max(samples)}",
            flush=True,
        )
    print(f"  the same list in {same} of {SEEDS}; {100 * np.mean(shares):.0f} % of exact's cost on average", flush=True)


def quarter(network: Network, metric: str, samples: int) -> None:
    """A race for the most sensitive quarter, without labels, beside the exact sweep."""
    data, calibration = {"inputs": network.samples(samples)}, network.calibration.read_bytes()
    one = evaluation(network, data["inputs"])
    asked: dict[str, Any] = {"metric": {"name": metric}}
    exact = sweep(network.pt2, data, calibration, **asked)
    ranked = sorted((each for each in exact.layers if each["rank"]), key=lambda each: each["rank"])
    for seed in range(3):
        raced = sweep(network.pt2, data, calibration, method="racing", seed=seed, **asked)
        wanted = {each["layer"]["id"] for each in ranked[: len(raced.fallback)]}
        ties = [each["layer"]["name"] for each in raced.layers if (each["stopped"] or "").startswith("all")]
        print(
            f"{network.name}, {metric}, {samples} samples, seed {seed}: exact {exact.seconds / one:.1f}, racing "
            f"{raced.seconds / one:.1f} fp32 evaluations; top {len(wanted)}: "
            f"{'same' if raced.fallback == wanted else 'another'}; measured to the end: {', '.join(ties) or 'none'}",
            flush=True,
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("digits", "resnet20"), help="only this")
    arguments = parser.parse_args()
    use_one_thread()
    networks = {each.name: each for each in here()}
    if arguments.what in (None, "resnet20") and "cifar10_resnet20" in networks:
        for metric in ("mse", "kl"):
            quarter(networks["cifar10_resnet20"], metric, 1017)
    if arguments.what in (None, "digits"):
        digits(networks["digits"], 0.01)


if __name__ == "__main__":
    main()
