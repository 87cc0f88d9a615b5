"""Probes of an ONNX model: over a torch graph of it that was found to agree with ONNX Runtime."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from service.domain.errors import InvalidInput, first_line
from workers.backends.onnx_agreement import fp32_outputs, refuse_other_errors, refuse_other_outputs
from workers.backends.protocol import OpenedModel, OpenSettings, Tensors
from workers.backends.torch_probe import TorchProbe
from workers.backends.torch_session import TorchSession
from workers.backends.torch_tree import ERRORS, is_out_of_memory
from workers.data.binding import Batch
from workers.engine.probe_settings import ProbeSettings
from workers.engine.probe_sums import ProbeSums
from workers.models.onnx_graph import OnnxProgram
from workers.models.onnx_layers import Found
from workers.models.onnx_to_torch import convert
from workers.models.onnx_to_torch_layers import torch_layers

COMPARED_SAMPLES = 8
"""Of the first batch, those that both runtimes are compared on."""


class OnnxProbe:
    """Probes one model with the ranges that it has. Not thread-safe.

    Raises InvalidInput (``method``) where the model cannot be written out as a torch graph.
    """

    def __init__(
        self, program: OnnxProgram, found: Sequence[Found], settings: OpenSettings, amax: Mapping[str, float]
    ) -> None:
        converted = convert(program, [each.node for each in found])
        self._inputs = converted.inputs
        self._names = {node.name: name for name, node in converted.nodes.items()}
        self._session = TorchSession(converted.program, settings, torch_layers(found, converted))
        self._session.set_amax(amax)
        self._layers = [each.layer.id for each in found]
        self._agrees = False

    def sums(self, model: OpenedModel, batches: Iterable[Batch], settings: ProbeSettings) -> ProbeSums:
        """As ``TorchProbe.sums``, under the names of the model.

        ``model``: the same one in ONNX Runtime; the first samples are compared with it once, and InvalidInput
        (``method``) is raised where the two differ.
        """
        iterator = iter(batches)
        first = list(islice(iterator, 1))
        if first and not self._agrees:
            layers = [each for each in self._layers if settings.layers is None or each in settings.layers]
            self._compare(model, {name: each[:COMPARED_SAMPLES] for name, each in first[0].inputs.items()}, layers)
            self._agrees = True
        found = TorchProbe(self._session, settings.layers).sums(self._renamed(chain(first, iterator)), settings)
        return replace(found, constants=tuple(self._names.get(each, each) for each in found.constants))

    def _compare(self, model: OpenedModel, batch: Tensors, layers: Sequence[str]) -> None:
        renamed = self._rename(batch)
        expected = fp32_outputs(model, batch)
        self._session.select(frozenset())
        try:
            found = self._session.outputs(renamed)
        except ERRORS as error:
            if is_out_of_memory(error):
                raise
            raise InvalidInput(
                f"method: the torch graph of this model does not run: {first_line(error)}; measure it with "
                "method: exact",
                field="method",
            ) from error
        refuse_other_outputs(expected, found)
        (errors,) = model.output_errors([batch], layers)
        refuse_other_errors(errors, self._session.output_errors(renamed, frozenset(layers)))

    def _renamed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield replace(batch, inputs=self._rename(batch.inputs))

    def _rename(self, batch: Tensors) -> Tensors:
        return {self._inputs[name]: each for name, each in batch.items() if name in self._inputs}
