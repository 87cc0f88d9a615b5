"""Binds an evaluation set to a model's inputs: which array is which input, and how it gets there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.domain.errors import InvalidInput
from service.domain.layers import TensorSpec
from service.domain.settings import Preprocessing
from service.inspection.formats import quoted
from workers.data.preprocess import InputPlan, plan_input
from workers.data.stored import Array, ArraySpec, EvaluationSet, Indices, Tensors

NO_PREPROCESSING = Preprocessing()
_MOST_LISTED = 12


@dataclass(frozen=True)
class Batch:
    """Some samples, ready for the model: ``inputs`` by the model's names, ``indices`` into the evaluation set."""

    inputs: Tensors
    targets: Array | None
    indices: Indices


class BoundEvaluationSet:
    """An evaluation set as a model takes it. Raises InvalidInput where the two do not fit together."""

    def __init__(
        self, evaluation_set: EvaluationSet, specs: Sequence[TensorSpec], preprocessing: Preprocessing
    ) -> None:
        self.evaluation_set = evaluation_set
        self.inputs = _plan(evaluation_set.specs, specs, preprocessing)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return self.evaluation_set.samples

    @property
    def targets(self) -> Array | None:
        """Of all samples, in their order."""
        return self.evaluation_set.targets

    def batches(self, indices: Indices, batch_size: int) -> Iterator[Batch]:
        """The samples at these positions, in this order; only the last batch may be smaller."""
        targets = self.targets
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            stored = self.evaluation_set.batch(chosen)
            inputs = {plan.spec.name: plan.apply(stored[plan.array], chosen) for plan in self.inputs}
            yield Batch(inputs, None if targets is None else targets[chosen], chosen)


def match_arrays(arrays: Mapping[str, ArraySpec], inputs: Sequence[TensorSpec]) -> Mapping[str, str]:
    """Input name → array name: by equal names, or the only array for the only input; raises InvalidInput otherwise."""
    missing = [each.name for each in inputs if each.name not in arrays]
    if not missing:
        return {each.name: each.name for each in inputs}
    if len(inputs) == 1:
        several = [name for name, each in arrays.items() if each.shape]  # one number for a sample is rather an id
        for candidates in (list(arrays), several):
            if len(candidates) == 1:
                return {inputs[0].name: candidates[0]}
    message = (
        f"the evaluation set holds the arrays {_listed(arrays)}; the model's inputs are "
        f"{_listed([each.name for each in inputs])}: name the arrays after the inputs (missing: {_listed(missing)})"
    )
    raise InvalidInput(message, field="dataset", code="input-names")


def _plan(
    arrays: Mapping[str, ArraySpec], inputs: Sequence[TensorSpec], preprocessing: Preprocessing
) -> tuple[InputPlan, ...]:
    """Of several inputs, preprocessing is for the images among them; where none is one, for all."""
    array_of = match_arrays(arrays, inputs)
    images = [each for each in inputs if len(arrays[array_of[each.name]].shape) == 3]
    meant = images if images and len(inputs) > 1 else inputs
    return tuple(
        plan_input(
            array_of[each.name],
            arrays[array_of[each.name]],
            each,
            preprocessing if each in meant else NO_PREPROCESSING,
        )
        for each in inputs
    )


def _listed(names: Mapping[str, ArraySpec] | Sequence[str]) -> str:
    shown = [quoted(each) for each in list(names)[:_MOST_LISTED]]
    return ", ".join([*shown, "…"] if len(names) > _MOST_LISTED else shown)
