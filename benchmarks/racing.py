"""Racing beside the exact sweep: what both cost in fp32 evaluations, and whether both decide the same.

    python -m benchmarks.racing             # everything
    python -m benchmarks.racing digits      # 10,000 augmented digits, top-1, a budget: 20 seeds
    python -m benchmarks.racing resnet20    # label-free metrics, the most sensitive quarter

Costs are CPU time of one thread over all work units but preparing, calibrating and the report, each sweep with a
database and files of its own, against a plain fp32 pass over the same samples in the same process.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine import cpu_seconds, opened, plain, use_one_thread
from benchmarks.networks import Network, batches_of, here
from service.domain.settings import BackendName, SweepSettings
from service.domain.states import UnitKind
from service.store import sweeps
from tests.workers.installation import Installation
from workers.sweep.runner import run_unit

COUNTED = (UnitKind.MEASURE, UnitKind.SELECT, UnitKind.VERIFY)
DIGITS = 10_000
SEEDS = 20


@dataclass(frozen=True)
class Swept:
    """``seconds`` of CPU; ``layers`` and ``decision`` as in report.json."""

    seconds: float
    layers: list[dict[str, Any]]
    decision: dict[str, Any]

    @property
    def fallback(self) -> set[str]:
        """The fallback layers."""
        return set(self.decision["fallback"])


def sweep(model: Path, arrays: Mapping[str, Any], calibration: bytes, **settings: Any) -> Swept:
    """One sweep by the torch backend, from upload to report."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation.at(Path(folder))
        installation.context.database.migrate()
        asked = SweepSettings.model_validate(
            {
                "model": installation.model(model.read_bytes(), "pt2"),
                "dataset": installation.dataset(buffer.getvalue()),
                "calibration": {"dataset": installation.dataset(calibration)},
                **settings,
            }
        )
        with installation.context.database.write() as session:
            new = sweeps.NewSweep(asked, sweeps.subjects_of(session, asked), BackendName.TORCH)
            sweep_id = sweeps.create(session, new)[0].id
        seconds = 0.0
        while (lease := installation.claim(queues=("data", "torch"))) is not None:
            began = time.process_time()
            run_unit(installation.context, lease)
            seconds += (time.process_time() - began) * (lease.kind in COUNTED)
        row = installation.row(sweep_id)
        assert row.state == "succeeded", row.problem
        with installation.context.database.read() as session:
            layers = [each.model_dump(mode="json") for each in sweeps.layers(session, row)]
        return Swept(seconds, layers, row.decision)


def evaluation(network: Network, inputs: Any) -> float:
    """CPU seconds of a plain fp32 pass, the least of three."""
    model = opened(network, BackendName.TORCH)
    run = plain(model, batches_of(model, inputs, 64))
    return min(cpu_seconds(run)[0] for _ in range(3))


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
