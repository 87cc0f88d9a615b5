"""An ONNX model whose variants run as TensorRT engines, one for each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from service.domain.costs import Precision
from service.domain.errors import InvalidInput
from service.domain.layers import Operation, Variant
from service.domain.settings import WeightGranularity
from workers.backends.onnx_reading import ReadModel
from workers.backends.onnxruntime import OnnxModel
from workers.backends.protocol import Array, Evaluated, Observe, OpenSettings, OutputError, Tensors
from workers.backends.tensorrt.ahead import one_ahead
from workers.backends.tensorrt.inspector import read_layers, why_not_realised
from workers.backends.tensorrt.plans import PlanStore, plan_key
from workers.backends.tensorrt.profile import input_ranges
from workers.backends.tensorrt.seam import BuildRequest, Engine, EngineFailure, EngineMaker, InputRange
from workers.backends.tensorrt.session import EngineSession
from workers.backends.tensorrt.timed_layers import timed_runs
from workers.engine.fixed_batch import length_of
from workers.engine.latency import TimedRuns
from workers.models.onnx_libraries import contents

if TYPE_CHECKING:
    from workers.data.binding import Batch
    from workers.engine.probe_settings import ProbeSettings
    from workers.engine.probe_sums import ProbeSums


class TensorRTModel:
    """Ranges, weights and local errors come from ONNX Runtime on the CPU; outputs of variants from engines.

    ``maker`` is called at the first variant, so that a model can be looked at where there is no GPU.
    """

    def __init__(
        self, read: ReadModel, settings: OpenSettings, maker: Callable[[], EngineMaker], plans: PlanStore
    ) -> None:
        self._onnx = OnnxModel(read, replace(settings, device="cpu", segments=1))
        libraries = dict(self._onnx.facts.libraries)
        if libraries:  # both libraries have the model's plugins
            libraries |= contents(settings.libraries.tensorrt)
        self.facts = replace(self._onnx.facts, cost_per_layer=True, libraries=libraries)
        self._read, self._settings, self._plans = read, settings, plans
        self._make_maker = maker
        self._amax: dict[str, float] = {}

    @cached_property
    def _maker(self) -> EngineMaker:
        return self._make_maker()

    def try_out(self) -> None:
        """Make the fp32 session once; raises RejectedFile where ONNX Runtime cannot.

        Raises InvalidInput where this TensorRT has no implicit int8 and that is asked for.
        """
        self._onnx.try_out()
        if self._settings.implicit_int8 and not self._maker.implicit:
            version = self._maker.identity.rpartition("/")[2]
            raise InvalidInput(
                f"quantization: TensorRT {version} of this worker has no implicit int8, which ended with TensorRT 10; "
                "use explicit",
                field="quantization",
            )

    def observe(self, batches: Iterable[Tensors], observe: Observe) -> None:
        """Run fp32 and show every activation edge."""
        self._onnx.observe(batches, observe)

    def set_amax(self, amax: Mapping[str, float]) -> None:
        """Fix the range of each activation edge."""
        self._amax.update(amax)
        self._onnx.set_amax(amax)

    def weight(self, layer_id: str) -> Array | None:
        """The layer's weight, batch norms folded in."""
        return self._onnx.weight(layer_id)

    def output_errors(self, batches: Iterable[Tensors], layers: Sequence[str]) -> Iterator[Mapping[str, OutputError]]:
        """What int8 does to each layer's own output, by fake quantization."""
        return self._onnx.output_errors(batches, layers)

    def probe(self, batches: Iterable["Batch"], settings: "ProbeSettings") -> "ProbeSums":
        """Gradients come from torch on the CPU: an engine has none, and estimates spare engines."""
        return self._onnx.probe(batches, settings)

    def evaluate(self, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Iterator[Evaluated]:
        """One engine after the other; the next is built while one is measured.

        A variant whose engine cannot be built, or is not what was asked for, comes back with the reason.
        """
        shapes = [{name: each.shape for name, each in self._onnx.feeds(batch).items()} for batch in batches]
        maker = self._maker
        for variant, built in one_ahead(lambda each: self._plan(maker, each, shapes), variants):
            try:
                session = self._session(maker, variant, built())
            except EngineFailure as error:
                yield from (Evaluated(variant, index, None, str(error)) for index in range(len(batches)))
                continue
            for index, batch in enumerate(batches):
                yield self._onnx.run_variant(session, variant, index, batch, self._onnx.feeds(batch))

    def timed(
        self, batch: Tensors, variants: Mapping[Precision, Variant], *, runs: int, warm_up: int
    ) -> list[TimedRuns]:
        """Each variant's layers by TensorRT's profiler, on one batch. Raises EngineFailure where one is not built."""
        feeds, maker = self._onnx.feeds(batch), self._maker
        found = []
        for precision, variant in variants.items():
            plan = self._plan(maker, variant, [{name: each.shape for name, each in feeds.items()}])
            engine = maker.load(plan)
            times = engine.profile(feeds, warm_up + runs)[warm_up:]
            try:
                layers = read_layers(engine.information())
            except ValueError as error:
                raise EngineFailure(str(error)) from error
            found.append(timed_runs(layers, times, self._read.found, precision, samples=length_of(feeds)))
        return found

    def _plan(self, maker: EngineMaker, variant: Variant, shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> bytes:
        """In the builder's thread."""
        broken = self._onnx.broken_weight(variant.int8)
        if broken is not None:
            raise EngineFailure(broken)
        try:
            ranges = input_ranges({each.name: each.shape for each in self.facts.inputs}, shapes)
        except ValueError as error:
            raise EngineFailure(str(error)) from error
        request = self._request(variant.int8, ranges)
        key = plan_key(maker.identity, request)
        plan = self._plans.get(key)
        if plan is None:
            plan = maker.build(request)
            self._plans.put(key, plan)
        return plan

    def _request(self, int8: frozenset[str], ranges: tuple[InputRange, ...]) -> BuildRequest:
        from workers.backends.tensorrt.graphs import explicit_model, implicit_int8, serialized
        from workers.models.onnx_plugins import operator_of, plugins_of

        program, found = self._read.program, self._read.found
        plugins = tuple(sorted({operator_of(node) for node in plugins_of(program.skeleton.graph)}))
        if self._settings.implicit_int8 and int8:
            beside = implicit_int8(program, found, int8, self._amax)
            return BuildRequest(serialized(program.skeleton, program), ranges, beside, plugins)
        layers = [each for each in found if each.layer.id in int8]
        per_channel = self._settings.weights is WeightGranularity.PER_CHANNEL
        model = explicit_model(program, layers, self._amax, per_channel=per_channel)
        return BuildRequest(model, ranges, plugins=plugins)

    def _session(self, maker: EngineMaker, variant: Variant, plan: bytes) -> EngineSession:
        engine = maker.load(plan)
        reason = self._not_realised(engine, variant.int8)
        if reason is not None:
            raise EngineFailure(f"not realised: {reason}")
        names = ([each.name for each in self.facts.inputs], [each.name for each in self.facts.outputs])
        return EngineSession(engine, *names)

    def _readers_of_plugins(self, int8: frozenset[str]) -> set[str]:
        """The nodes that read what plugins in int8 give: quantized values, whatever type they are read in."""
        graph = self._read.program.skeleton.graph
        quantized = {each.node: each.quantized_outputs for each in self._read.found if each.layer.id in int8}
        made = {node.output[index] for node in graph.node for index in quantized.get(node.name, ())}
        return {node.name for node in graph.node if made.intersection(node.input)}

    def _not_realised(self, engine: Engine, int8: frozenset[str]) -> str | None:
        try:
            layers = read_layers(engine.information())
        except ValueError as error:
            return str(error)
        # a plugin itself computes in float: what stands around it in a strongly typed network is what was asked for
        checked = [each for each in self._read.found if each.layer.op is not Operation.PLUGIN]
        wanted = {each.node: len(each.operands) for each in checked if each.layer.id in int8}
        free = self._readers_of_plugins(int8)
        unwanted = [each.node for each in checked if each.layer.id not in int8 and each.node not in free]
        return why_not_realised(layers, wanted, unwanted)
