"""The naive loop, the oracle for every faster way: switch one variant on, run all batches, write the outputs down."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from service.domain.layers import Variant
from workers.backends.protocol import Tensors
from workers.backends.torch_session import TorchSession

Outputs = dict[tuple[str, int], dict[str, Any]]


def torch_outputs(session: TorchSession, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Outputs:
    """(variant's name, batch) → outputs by name, through torch's own interpreter of the whole graph."""
    found: Outputs = {}
    for variant in variants:
        session.select(variant.int8)
        for index, batch in enumerate(batches):
            found[variant.name, index] = run(session, batch)
    return found


def run(session: TorchSession, batch: Tensors) -> dict[str, Any]:
    """One batch with the selected layers in int8, every operation anew."""
    return session.interpret(fx.Interpreter(session._module), batch)
