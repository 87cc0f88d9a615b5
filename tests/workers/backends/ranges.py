"""Ranges for an opened model, by the largest value that flows over each edge."""

from typing import Any, TypeVar

import numpy as np

from workers.backends.protocol import OpenedModel, Tensors

Model = TypeVar("Model", bound=OpenedModel)


def calibrated(model: Model, batch: Tensors) -> Model:
    """The model, ready to evaluate, its ranges those of this batch."""
    amax: dict[str, float] = {}

    def see(edge: str, tensor: Any) -> None:
        amax[edge] = max(amax.get(edge, 0.0), float(np.abs(tensor).max()))

    model.observe([batch], see)
    assert set(amax) == {edge for layer in model.facts.layers for edge in layer.activations}
    model.set_amax(amax)
    return model
