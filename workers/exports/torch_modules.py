"""Layers as the modules whose quantizers carry them in pytorch-quantization and ModelOpt.

Both replace modules by ones with an input quantizer and, where there is a weight, a weight quantizer. What is no call
of such a module (a residual add, a product of activations, a functional pool) has no quantizer there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.layers import Layer, Operation
from service.domain.settings import WeightGranularity
from workers.exports.mixed_precision import MixedPrecision
from workers.exports.quoting import shown
from workers.models.names import SUFFIX

WEIGHTED = {Operation.CONV, Operation.CONV_TRANSPOSE, Operation.LINEAR}
POOL_NAME = re.compile(rf"(?:(?P<path>.*)\.)?{SUFFIX[Operation.AVERAGE_POOL]}(?:_\d+)?", re.DOTALL)


@dataclass(frozen=True)
class QuantizedModule:
    """A module by its path, and the layers that are calls of it. ``int8``: all of them are.

    ``axis``: the axis of the weight's output channels; None where one scale serves the whole weight, or none is there.
    ``weighted`` False: an average pool, if it is a module at all; a functional one shows the path of what holds it.
    """

    path: str
    layers: tuple[Layer, ...]
    int8: bool
    weighted: bool
    axis: int | None

    def quantizers(self, prefix: str = "") -> tuple[str, ...]:
        """The names of its quantizers; ``prefix`` is what the tool puts before ``input_quantizer``."""
        start = f"{self.path}." if self.path else ""
        kinds = ("input_quantizer", "weight_quantizer") if self.weighted else ("input_quantizer",)
        return tuple(f"{start}{prefix}{kind}" for kind in kinds)


@dataclass(frozen=True)
class TorchModules:
    """The modules in the order of their first call, the layers without one, and modules called in both precisions.

    The quantizers of the latter are off: a module has one set of them, so that it cannot be in int8 at one place only.
    """

    modules: tuple[QuantizedModule, ...]
    without: tuple[Layer, ...]
    torn: tuple[QuantizedModule, ...]


def torch_modules(mixed: MixedPrecision) -> TorchModules:
    """The modules of all layers."""
    calls: dict[str, list[Layer]] = {}
    without = []
    for layer in mixed.layers:
        path = module_of(layer)
        if path is None:
            without.append(layer)
        else:
            calls.setdefault(path, []).append(layer)
    made = [_module(path, layers, mixed) for path, layers in calls.items()]
    torn = (each for each in made if not each.int8 and any(layer.id not in mixed.fallback for layer in each.layers))
    return TorchModules(tuple(made), tuple(without), tuple(torn))


def module_of(layer: Layer) -> str | None:
    """The path of the module that a layer is a call of; None where it is none that has quantizers."""
    if layer.op in WEIGHTED and layer.weight is not None and layer.weight.endswith(".weight"):
        return layer.weight.removesuffix(".weight")
    found = POOL_NAME.fullmatch(layer.name) if layer.op is Operation.AVERAGE_POOL else None
    return (found["path"] or "") if found else None


def _module(path: str, calls: Sequence[Layer], mixed: MixedPrecision) -> QuantizedModule:
    return QuantizedModule(
        path=path,
        layers=tuple(calls),
        int8=all(each.id not in mixed.fallback for each in calls),
        weighted=calls[0].weight is not None,
        axis=_axis(calls[0]) if mixed.weights is WeightGranularity.PER_CHANNEL else None,
    )


def _axis(layer: Layer) -> int | None:
    if layer.weight is None:
        return None
    if layer.op is not Operation.CONV_TRANSPOSE:
        return 0  # of the module's own weight, whichever way round the graph holds it
    ungrouped = layer.weight_shape and layer.output_shape and layer.weight_shape[1] == layer.output_shape[0]
    return 1 if ungrouped else None  # output channels repeat over the groups, so that no one axis names them


def notes(mixed: MixedPrecision, found: TorchModules) -> list[str]:
    """What a list of modules leaves open, as sentences for a comment."""
    named = [
        ("Stay in floating point", [each.name for each in mixed.floating]),
        (
            "In int8 in the sweep, but no call of a module with quantizers, so that they stay in floating point here",
            [each.name for each in found.without if each.id not in mixed.fallback],
        ),
        ("Called in both precisions in the sweep; in floating point here", [each.path for each in found.torn]),
        ("Never measured, and in floating point throughout the sweep", [each.name for each in mixed.skipped]),
    ]
    sentences = [f"{what}: {', '.join(map(shown, names))}." for what, names in named if names]
    if any(not each.weighted for each in found.modules):
        sentences.append("An average pool has a quantizer where it is a module; a functional one has none.")
    return sentences
