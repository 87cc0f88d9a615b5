"""NVIDIA Model Optimizer, ``auto_quantize``: its two ways to score layers before it chooses among them.

The same loader calibrates and scores. Only scoring is timed; it is part of the call, so the searcher's method is
watched.
"""

import copy
from typing import Any

import modelopt
import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.quantization.algorithms import AutoQuantizeGradientSearcher, AutoQuantizeKLDivSearcher
from torch.nn import functional

from benchmarks.peers.measure import Row, calls_of, task
from benchmarks.peers.resnet20 import loaded, plain


def loss(logits: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy."""
    return functional.cross_entropy(logits, batch[1])


def scores_of(state: dict[str, Any]) -> dict[str, float]:
    """Layer → score in int8; the state names layers with a suffix, and lists their formats, the last unquantized."""
    return {
        name.removesuffix(".quant_recipe"): float(max(held["scores"]))
        for name, held in state["candidate_stats"].items()
    }


def main() -> None:
    """One row for each method."""
    files = task()
    model = loaded(files)
    inputs = [torch.from_numpy(each) for each in files.inputs()]
    batches = list(zip(inputs, map(torch.from_numpy, files.labels()), strict=True))
    for method, searcher in (("kl_div", AutoQuantizeKLDivSearcher), ("gradient", AutoQuantizeGradientSearcher)):
        fp32 = plain(model, inputs)
        fp32.take()
        with calls_of(searcher, "estimate_sensitivity_scores") as scoring:
            _, state = mtq.auto_quantize(
                copy.deepcopy(model),
                constraints={"effective_bits": 12.0},
                quantization_formats=[mtq.INT8_DEFAULT_CFG],
                data_loader=batches,
                forward_step=lambda module, batch: module(batch[0]),
                loss_func=loss if method == "gradient" else None,
                num_calib_steps=len(batches),
                num_score_steps=len(batches),
                method=method,
            )
        fp32.take()
        scores = scores_of(state)
        Row(
            tool="ModelOpt",
            version=modelopt.__version__,
            measured=f"auto_quantize, {method}",
            layers=len(scores),
            evaluations=sum(scoring.seconds) / fp32.seconds,
            scores=scores,
        ).show()


if __name__ == "__main__":
    main()
