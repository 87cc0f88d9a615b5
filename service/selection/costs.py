"""What a configuration costs: which layers run in floating point, and where precisions meet.

A tensor is converted once however many layers read it in the other precision. So boundaries with one source are one
conversion, which is paid as soon as one reader differs from the source; its size is that of the largest of them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from service.domain.costs import Boundary, CostModel, CostName, LayerCost, Precision
from service.domain.errors import InvalidInput

BITS = {Precision.INT8: 8, Precision.FP16: 16, Precision.FP32: 32}
FIELD = "selection.cost"


@dataclass(frozen=True)
class Conversion:
    """Paid where at least one of ``targets`` runs in another precision than ``source`` (ids of layers)."""

    source: str
    targets: tuple[str, ...]
    cost: float


@dataclass(frozen=True)
class Prices:
    """A cost model read by one cost: layer → its cost in int8 and in floating point, and the conversions.

    ``notes``: what is not known and counts as nothing, in sentences.
    """

    name: CostName
    int8: Mapping[str, float]
    floating: Mapping[str, float]
    conversions: tuple[Conversion, ...]
    notes: tuple[str, ...] = ()

    def of(self, floating: Collection[str]) -> float:
        """The cost with exactly these layers (ids) in floating point."""
        inside = frozenset(floating)
        layers = sum(self.floating[each] if each in inside else self.int8[each] for each in self.int8)
        paid = (
            each.cost
            for each in self.conversions
            if any((target in inside) != (each.source in inside) for target in each.targets)
        )
        return layers + sum(paid)


def prices(model: CostModel, name: CostName, fallback: Precision = Precision.FP32) -> Prices:
    """The model's layers and boundaries by one cost, with ``fallback`` where a layer is not in int8.

    ``layers``: 1 for each layer in floating point; conversions cost nothing. ``macs``: MACs in floating point, and one
    for each element converted, since a conversion is a multiplication of each. ``weight_bytes``: 1, 2 or 4 bytes for
    each weight; conversions store nothing. ``bops``: MACs × bits × bits, and for each element converted 8 × the
    bits of ``fallback``. ``latency``: seconds, as measured; a conversion that was not measured counts as nothing, and
    ``notes`` says how many.

    Raises InvalidInput where the cost of a layer is not known, naming the layer.
    """
    if fallback is Precision.INT8:
        raise ValueError("fallback is a floating-point precision")
    return Prices(
        name=name,
        int8={each.layer: _cost(each, name, Precision.INT8) for each in model.layers},
        floating={each.layer: _cost(each, name, fallback) for each in model.layers},
        conversions=_conversions(model.boundaries, name, fallback, {each.layer for each in model.layers}),
        notes=_notes(model.boundaries) if name is CostName.LATENCY else (),
    )


def _cost(layer: LayerCost, name: CostName, precision: Precision) -> float:
    floating = precision is not Precision.INT8
    match name:
        case CostName.LAYERS:
            return float(floating)
        case CostName.WEIGHT_BYTES:
            return layer.weights * BITS[precision] / 8
        case CostName.LATENCY:
            return _latency(layer, precision)
        case CostName.MACS:
            return float(_macs(layer, name)) if floating else 0.0
        case CostName.BOPS:
            return float(_macs(layer, name)) * BITS[precision] ** 2


def _macs(layer: LayerCost, name: CostName) -> int:
    if layer.macs is None:
        message = f"{FIELD}: {name} is not known of layer {layer.layer}, whose MACs are not known; take another cost"
        raise InvalidInput(message, field=FIELD, code="cost-not-known")
    return layer.macs


def _latency(layer: LayerCost, precision: Precision) -> float:
    found = layer.latency.get(precision)
    if found is None or found.value is None:
        why = "was not measured" if found is None else f"has no number: {found.method}"
        message = f"{FIELD}: the latency of layer {layer.layer} in {precision} {why}; measure it, or take another cost"
        raise InvalidInput(message, field=FIELD, code="cost-not-known")
    return found.value


def _conversions(
    boundaries: Iterable[Boundary], name: CostName, fallback: Precision, layers: Collection[str]
) -> tuple[Conversion, ...]:
    targets: dict[str, dict[str, float]] = {}
    for each in boundaries:
        if each.source in layers and each.target in layers and each.source != each.target:
            readers = targets.setdefault(each.source, {})
            readers[each.target] = max(readers.get(each.target, 0.0), _conversion(each, name, fallback))
    found = (Conversion(source, tuple(readers), max(readers.values())) for source, readers in targets.items())
    return tuple(each for each in found if each.cost > 0)


def _conversion(boundary: Boundary, name: CostName, fallback: Precision) -> float:
    match name:
        case CostName.LAYERS | CostName.WEIGHT_BYTES:
            return 0.0
        case CostName.LATENCY:
            return boundary.latency or 0.0
        case CostName.MACS:
            return float(boundary.elements)
        case CostName.BOPS:
            return float(boundary.elements) * BITS[Precision.INT8] * BITS[fallback]


def _notes(boundaries: Collection[Boundary]) -> tuple[str, ...]:
    unknown = sum(each.latency is None for each in boundaries)
    if not unknown:
        return ()
    return (f"the latency of {unknown} of {len(boundaries)} conversions was not measured and counts as nothing",)
