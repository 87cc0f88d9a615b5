"""A model that is opened and run in a sandbox: the worker sends samples, and gets outputs, counts and errors back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from service.domain.layers import Variant
from service.domain.settings import BackendName
from workers.backends.protocol import (
    Array,
    Evaluated,
    ModelFacts,
    OpenedModel,
    OpenSettings,
    OutputError,
    Tensors,
)
from workers.backends.registry import backend
from workers.calibration.counting import Counting
from workers.calibration.histograms import Histograms
from workers.data.binding import Batch
from workers.engine.probe_settings import ProbeSettings
from workers.engine.probe_sums import ProbeSums
from workers.sandbox.confined import Confined, Parts
from workers.sandbox.sandbox import Sandbox
from workers.sandbox.serving import Fetch, Reply
from workers.sandbox.wire import Message

INDICES, TARGETS, INPUT = "indices", "targets", "input/"
FACTS = TypeAdapter(ModelFacts)
SETTINGS = TypeAdapter(OpenSettings)
VARIANTS = TypeAdapter(list[Variant])
ERRORS = TypeAdapter(dict[str, OutputError])
PROBE = TypeAdapter(ProbeSettings)


class ServedModel:
    """The inner side."""

    def __init__(self, model: OpenedModel) -> None:
        self._model = model
        self._answers = {
            "count": self._count,
            "set_amax": self._set_amax,
            "weight": self._weight,
            "output_errors": self._output_errors,
            "evaluate": self._evaluate,
            "probe": self._probe,
        }

    def opened(self) -> Reply:
        """The facts."""
        return Reply(FACTS.dump_python(self._model.facts, mode="json"))

    def answers(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        """As the method of that name of an opened model."""
        return self._answers[asked.kind](asked, fetch)

    def _count(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        counting = Counting(first_counts=asked.document)
        batches = (_tensors(each.arrays) for each in iter(fetch, None))
        self._model.observe(counting.followed(batches), counting.observe)
        yield Reply(*Histograms(counting.histograms).to_parts())

    def _set_amax(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        self._model.set_amax(asked.document)
        yield Reply()

    def _weight(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        weight = self._model.weight(asked.document)
        yield Reply(None, {} if weight is None else {"weight": weight})

    def _output_errors(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        batches = (_tensors(each.arrays) for each in iter(fetch, None))
        for each in self._model.output_errors(batches, asked.document):
            yield Reply(ERRORS.dump_python(dict(each), mode="json"))

    def _evaluate(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        variants = VARIANTS.validate_python(asked.document["variants"])
        positions = {each.name: index for index, each in enumerate(variants)}
        batches: list[dict[str, Array]] = [{} for _ in range(asked.document["batches"])]
        for name, array in asked.arrays.items():
            index, _, own = name.partition("/")
            batches[int(index)][own] = array
        for done in self._model.evaluate(batches, variants):
            document = [positions[done.variant.name], done.batch, done.failure]
            yield Reply(document, {} if done.outputs is None else dict(done.outputs))

    def _probe(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        settings = PROBE.validate_python(asked.document)
        sums = self._model.probe((_batch(each) for each in iter(fetch, None)), settings)
        yield Reply(*sums.to_parts())


def served_model(files: Sequence[Path], asked: Message) -> ServedModel:
    """Open the file in the backend that is asked for."""
    settings = SETTINGS.validate_python(asked.document["settings"])
    return ServedModel(backend(BackendName(asked.document["backend"])).open(files[0], settings))


class SandboxedModel:
    """A model in a sandbox, to the worker like any other, but that it counts by itself. Raises SandboxDied besides."""

    def __init__(self, confined: Confined) -> None:
        self._confined = confined
        self.facts: ModelFacts = confined.checked(lambda: FACTS.validate_python(confined.first.document))
        self._outputs = frozenset(each.name for each in self.facts.outputs)

    @property
    def alive(self) -> bool:
        """Whether it can still be run."""
        return self._confined.alive

    def count(self, batches: Iterable[Tensors], *, first_counts: bool) -> Histograms:
        """What flows over every activation edge in fp32. The first batch fixes the grids, and is it counted too?"""
        parts: Parts = ((None, _named(each)) for each in batches)
        (answer,) = self._confined.stream("count", first_counts, parts=parts)
        return self._confined.checked(lambda: Histograms.from_parts(answer.document, answer.arrays))

    def set_amax(self, amax: Mapping[str, float]) -> None:
        """Fix the range of each activation edge."""
        self._confined.one("set_amax", dict(amax))

    def weight(self, layer_id: str) -> Array | None:
        """The layer's weight, as it is quantized; None where it has none."""
        return self._confined.one("weight", layer_id).arrays.get("weight")

    def output_errors(self, batches: Iterable[Tensors], layers: Sequence[str]) -> Iterator[Mapping[str, OutputError]]:
        """For each batch what int8 does to each layer's own output."""
        parts: Parts = ((None, _named(each)) for each in batches)
        for answer in self._confined.stream("output_errors", list(layers), parts=parts):
            yield self._confined.checked(partial(ERRORS.validate_python, answer.document))

    def evaluate(self, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Iterator[Evaluated]:
        """Outputs of every variant on every batch, in any order."""
        arrays = {f"{index}/{name}": array for index, each in enumerate(batches) for name, array in each.items()}
        document = {"variants": VARIANTS.dump_python(list(variants), mode="json"), "batches": len(batches)}
        for answer in self._confined.stream("evaluate", document, arrays):
            yield self._confined.checked(partial(self._evaluated, answer, variants, len(batches)))

    def probe(self, batches: Iterable[Batch], settings: ProbeSettings) -> ProbeSums:
        """What every layer's int8 error does to the output to first order, summed over the samples."""
        parts: Parts = ((None, _named(each.inputs) | _beside(each)) for each in batches)
        (answer,) = self._confined.stream("probe", PROBE.dump_python(settings, mode="json"), parts=parts)
        return self._confined.checked(lambda: ProbeSums.from_parts(answer.document, answer.arrays))

    def _evaluated(self, answer: Message, variants: Sequence[Variant], batches: int) -> Evaluated:
        position, batch, failure = answer.document
        if type(position) is not int or position not in range(len(variants)):
            raise ValueError("no such variant")
        if type(batch) is not int or batch not in range(batches):
            raise ValueError("no such batch")
        if failure is not None:
            return Evaluated(variants[position], batch, None, str(failure))
        if answer.arrays.keys() != self._outputs:
            raise ValueError("other outputs than announced")
        return Evaluated(variants[position], batch, answer.arrays)


def open_sandboxed_model(sandbox: Sandbox, name: BackendName, path: Path, settings: OpenSettings) -> SandboxedModel:
    """Open the model file in that backend; raises RejectedFile where it cannot be used."""
    document = {"backend": name.value, "settings": SETTINGS.dump_python(settings, mode="json")}
    return SandboxedModel(sandbox.open(name.value, [path], document))


def _named(tensors: Tensors) -> dict[str, Array]:
    return {INPUT + name: each for name, each in tensors.items()}


def _beside(batch: Batch) -> dict[str, Array]:
    return {INDICES: batch.indices} | ({} if batch.targets is None else {TARGETS: batch.targets})


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(INPUT): each for name, each in arrays.items() if name.startswith(INPUT)}


def _batch(part: Message) -> Batch:
    return Batch(_tensors(part.arrays), part.arrays.get(TARGETS), part.arrays[INDICES].astype(np.int64))
