"""Metrics of a whole set, from torchmetrics: states that are summed over shards, never recomputed from averages."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from service.domain.errors import InvalidInput, SweepFailure

Array = npt.NDArray[np.generic]

# where torchmetrics keeps its classes; some of those at its top level are deprecated twins
SUBPACKAGES = ("classification", "regression", "segmentation", "image", "retrieval", "clustering", "text")
# torchmetrics 1.9 merges its states wrongly as soon as there are more than two of them
UNMERGEABLE = ("NormalizedRootMeanSquaredError",)
NOT_APPLICABLE = "metric-not-applicable"
# what torchmetrics raises, here and there, over arguments and arrays that it does not take
REFUSALS = (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class CorpusMetric:
    """A torchmetrics class with its arguments."""

    kind: type[Any]
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def higher_is_better(self) -> bool:
        """As torchmetrics says."""
        return bool(self.kind(**self.args).higher_is_better)

    def new_state(self) -> "CorpusState":
        """An empty state."""
        return CorpusState(self.kind(**self.args))

    def compute(self, shards: Sequence[Mapping[str, Array]]) -> float:
        """The metric over all shards; each maps a state's name to its array."""
        metric = self.kind(**self.args)
        return CorpusState(metric).merged(shards)


class CorpusState:
    """A torchmetrics metric as it fills."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def update(self, predictions: Array, targets: Array) -> None:
        """One batch: predictions of shape (n, ...), targets as stored."""
        import torch

        try:
            self._metric.update(torch.from_numpy(np.array(predictions)), torch.from_numpy(np.array(targets)))
        except REFUSALS as error:
            name = type(self._metric).__name__
            shapes = f"predictions {predictions.shape} {predictions.dtype}, targets {targets.shape} {targets.dtype}"
            raise InvalidInput(f"metric.name: {name} does not take {shapes}: {error}", field="metric.name") from error

    def arrays(self) -> dict[str, Array]:
        """The state as arrays; states that grow with the samples are joined along axis 0."""
        found = {}
        for name, value in self._metric.metric_state.items():
            tensor = _joined(value) if isinstance(value, list) else value
            found[name] = tensor.detach().cpu().numpy()
        return found

    def merged(self, shards: Sequence[Mapping[str, Array]]) -> float:
        """The metric of several states, merged by each state's own reduction; NaN where it is not defined on them.

        Raises SweepFailure where the metric gives more than one number or cannot be computed.
        """
        import torch

        for name, default in self._metric._defaults.items():
            parts = [torch.from_numpy(np.array(each[name])) for each in shards]
            if isinstance(default, list):
                setattr(self._metric, name, [torch.cat(parts)])
                continue
            stacked = torch.stack(parts)  # (shards, ...)
            reduce = self._metric._reductions[name]
            # without a reduction the metric itself merges the stacked states (correlations do)
            setattr(self._metric, name, stacked if reduce is None else reduce(stacked))
        self._metric._update_count = len(shards)
        kind = type(self._metric).__name__
        try:
            value = self._metric.compute()
        except REFUSALS as error:
            raise SweepFailure(f"metric.name: {kind} cannot be computed: {error}", code=NOT_APPLICABLE) from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            given = f"{value.numel()} numbers" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise SweepFailure(
                f"metric.args: {kind} gives {given}; to rank layers it has to give one (an average, for example)",
                code=NOT_APPLICABLE,
            )
        return float(value)


def _joined(parts: Sequence[Any]) -> Any:
    import torch

    return torch.cat([each.reshape(-1) if each.ndim == 0 else each for each in parts]) if parts else torch.zeros(0)


def open_corpus_metric(name: str, args: Mapping[str, Any], *, own: Sequence[str]) -> CorpusMetric:
    """Find and try the torchmetrics class; raises InvalidInput naming ``metric.name`` or ``metric.args``."""
    kind = _find(name)
    if kind is None:
        raise InvalidInput(
            f"metric.name: {name!r} is neither one of {', '.join(own)} nor a class of torchmetrics", field="metric.name"
        )
    if name in UNMERGEABLE:
        raise InvalidInput(
            f"metric.name: torchmetrics cannot merge {name} over parts of the evaluation set; take another, such as "
            "MeanSquaredError",
            field="metric.name",
        )
    known = _parameters(kind)
    unknown = sorted(set(args) - set(known))
    if unknown:
        raise InvalidInput(
            f"metric.args: {name} has no argument {unknown[0]!r}; it takes {', '.join(known)}", field="metric.args"
        )
    try:
        made = kind(**args)
    except REFUSALS as error:
        raise InvalidInput(f"metric.args: {name} cannot be made: {error}", field="metric.args") from error
    if made.higher_is_better is None:
        raise InvalidInput(
            f"metric.name: torchmetrics does not say whether more of {name} is better, so it cannot rank layers",
            field="metric.name",
        )
    return CorpusMetric(kind, dict(args))


def _find(name: str) -> type[Any] | None:
    if not name.isidentifier():
        return None
    import importlib

    import torchmetrics

    for module in (*(importlib.import_module(f"torchmetrics.{each}") for each in SUBPACKAGES), torchmetrics):
        found = getattr(module, name, None)
        if inspect.isclass(found) and issubclass(found, torchmetrics.Metric) and found is not torchmetrics.Metric:
            return found
    return None


def _parameters(kind: type[Any]) -> list[str]:
    """Argument names over the whole line of classes: torchmetrics passes the rest on by ``**kwargs``."""
    names: dict[str, None] = {}
    for each in inspect.getmro(kind):
        for method in (each.__dict__.get("__new__"), each.__dict__.get("__init__")):
            if method is None or each.__module__ in {"builtins", "torch.nn.modules.module"}:
                continue
            target = method.__func__ if isinstance(method, staticmethod) else method
            for parameter in inspect.signature(target).parameters.values():
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    names[parameter.name] = None
    return [name for name in names if name not in {"self", "cls"}]
