"""The ONNX Runtime backend: the fp32 model with Q/DQ around the layers of a variant, one session for each."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.domain.errors import InvalidInput, RejectedFile, Unavailable, first_line
from service.domain.layers import Variant, output_edge
from service.domain.settings import BackendName, WeightGranularity
from workers.backends.onnx_providers import (
    CUDA,
    TENSORRT,
    provider_of,
    refuse_unusable,
    session_providers,
    usable_providers,
)
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.onnx_tree import OnnxTree, all_finite, run
from workers.backends.protocol import (
    Array,
    Capability,
    Evaluated,
    ModelFacts,
    Observe,
    OpenedModel,
    OpenSettings,
    OutputError,
    Tensors,
)
from workers.engine.fixed_batch import filled, length_of

if TYPE_CHECKING:
    import onnx

    from workers.backends.onnx_probe import OnnxProbe
    from workers.data.binding import Batch
    from workers.engine.probe_settings import ProbeSettings
    from workers.engine.probe_sums import ProbeSums

OWN_ERRORS = (
    "Fail",
    "InvalidArgument",
    "RuntimeException",
    "InvalidGraph",
    "NotImplemented",
    "EPFail",
    "InvalidProtobuf",
    "NoModel",
)


class OnnxRuntimeBackend:
    """Opens ONNX files."""

    name = BackendName.ONNXRUNTIME

    def capability(self) -> Capability:
        """Whether onnx and onnxruntime are here, and on which devices they run."""
        for package in ("onnx", "onnxruntime"):
            if find_spec(package) is None:
                reason = f"the package {package} is not installed; install quantsieve[cpu] or quantsieve[gpu]"
                return Capability(self.name, False, (), {}, reason)
        try:
            import onnx
            import onnxruntime
        except (ImportError, OSError) as error:
            return Capability(self.name, False, (), {}, f"onnxruntime cannot be loaded: {first_line(error)}")

        providers = usable_providers()
        devices = ("cpu", "cuda:0") if CUDA in providers else ("cpu",)
        versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
        return Capability(self.name, True, devices, versions, providers=providers)

    def open(self, path: Path, settings: OpenSettings) -> OpenedModel:
        """Read the file and find its layers."""
        model = OnnxModel(read_model(path, settings), settings)
        model.try_out()
        return model


class OnnxModel:
    """An opened ONNX file."""

    def __init__(self, read: ReadModel, settings: OpenSettings) -> None:
        import onnxruntime

        from workers.models.onnx_cuts import Cuts
        from workers.models.onnx_dataflow import onnx_costs
        from workers.models.onnx_libraries import contents
        from workers.models.onnx_plugins import plugins_of

        program, found = read.program, read.found
        # a model of standard operators has nothing to do with them
        self._libraries = settings.libraries.onnxruntime if any(plugins_of(program.skeleton.graph)) else ()
        provider = provider_of(settings.device, settings.gpu_provider)
        refuse_unusable(provider)
        self.facts = ModelFacts(
            inputs=program.inputs,
            outputs=program.outputs,
            layers=tuple(each.layer for each in found),
            skipped=read.skipped,
            folded_batch_norms=program.folded_batch_norms,
            batch_size=program.batch_size,
            libraries=contents(self._libraries),
            costs=onnx_costs(program, found),
            cost_per_layer=provider == TENSORRT,
        )
        self._runtime = onnxruntime
        self._settings = settings
        self._program = program
        self._found = {each.layer.id: each for each in found}
        self._provider = provider
        self._per_channel = settings.weights is WeightGranularity.PER_CHANNEL
        self._amax: dict[str, float] = {}
        self._probe: OnnxProbe | None = None
        # shared by all sessions and kept alive for as long as they are
        self._values = {name: self._value(array) for name, array in program.weights.items()}
        self._int8_weights: dict[str, Any] = {}
        self.errors = _errors_of(onnxruntime)
        self._tree = OnnxTree(
            Cuts(program.skeleton),
            [(each.layer.id, each.node, float(each.layer.macs or 0)) for each in found],
            # an engine is built for each piece, and a piece that ends elsewhere is fused otherwise than what deploys
            segments=1 if provider == TENSORRT else settings.segments,
        )

    def _value(self, array: Array) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def try_out(self) -> None:
        """Make the fp32 session once; raises RejectedFile where the runtime cannot."""
        try:
            self._session(self._program.skeleton, {})
        except self.errors as error:
            raise RejectedFile(f"ONNX Runtime cannot run the model: {first_line(error)}") from error

    def observe(self, batches: Iterable[Tensors], observe: Observe) -> None:
        """Run fp32 and show every activation edge; a tensor that several layers read is fetched once."""
        from workers.models.onnx_graph import with_outputs

        nodes = {node.name: node for node in self._program.skeleton.graph.node}
        edges: dict[str, list[str]] = {}
        for found in self._found.values():
            node = nodes[found.node]
            for index in found.operands:
                edges.setdefault(node.input[index], []).append(f"{found.layer.id}:{index}")
            for index in found.outputs:
                edges.setdefault(node.output[index], []).append(output_edge(found.layer.id, index))
        inputs = {each.name for each in self.facts.inputs}
        fetched = [name for name in edges if name not in inputs]
        session = self._session(with_outputs(self._program.skeleton, fetched), {})
        for batch in batches:
            feeds = self.feeds(batch)
            try:
                tensors = dict(zip(fetched, session.run(fetched, feeds), strict=True)) if fetched else {}
            except self.errors as error:
                raise InvalidInput(f"the model does not run on the calibration samples: {first_line(error)}") from error
            for name, readers in edges.items():
                tensor = self._cut(tensors.get(name, feeds.get(name)), length_of(batch))
                for edge in readers:
                    observe(edge, tensor)

    def set_amax(self, amax: Mapping[str, float]) -> None:
        """Fix the range of each activation edge."""
        if any(self._amax.get(edge) != value for edge, value in amax.items()):
            self._probe = None
        self._amax.update(amax)

    def weight(self, layer_id: str) -> Array | None:
        """The layer's weight, batch norms folded in."""
        weight = self._found[layer_id].weight
        return None if weight is None else weight[1]

    def output_errors(self, batches: Iterable[Tensors], layers: Sequence[str]) -> Iterator[Mapping[str, OutputError]]:
        """One session that holds every layer twice and gives out sums only; where it cannot run, no layer has any."""
        from workers.models.onnx_output_errors import NOISE, SIGNAL, with_output_errors

        reasons = {each: self.broken_weight([each]) for each in layers}
        broken = {each: OutputError(0.0, 0.0, why) for each, why in reasons.items() if why is not None}
        usable = [each for each in layers if each not in broken]
        made, names = with_output_errors(self._program.skeleton, [self._found[each] for each in usable], self._amax)
        session = None
        for batch in batches:
            try:
                added = {name: self._int8_weight(each) for name, each in made.weights.items()}
                session = session or self._session(made.model, added)
                sums = self._sums(session, batch)
                parts = {key: sum(sums[name] for name in each) for key, each in names.items()}
                found = {each: OutputError(parts[each, SIGNAL], parts[each, NOISE]) for each in usable}
            except self.errors as error:
                found = {each: OutputError(0.0, 0.0, first_line(error)) for each in usable}
            yield broken | found

    def probe(self, batches: Iterable["Batch"], settings: "ProbeSettings") -> "ProbeSums":
        """Probes over a torch graph of the model; raises InvalidInput (``method``) where none agrees with it."""
        from workers.backends.torch_fake_quant import TorchBackend

        reason = TorchBackend().capability().reason
        if reason is not None:
            raise Unavailable(f"method: probe needs torch: {reason}")
        from workers.backends.onnx_probe import OnnxProbe

        if self._probe is None:
            self._probe = OnnxProbe(self._program, list(self._found.values()), self._settings, self._amax)
        return self._probe.sums(self, batches, settings)

    def _sums(self, session: Any, batch: Tensors) -> dict[str, float]:
        """The sum of each output over the batch's samples."""
        made = [each.name for each in session.get_outputs()]
        rows = run(session, self.feeds(batch), made)
        return {
            name: float(self._cut(each, length_of(batch)).sum(dtype=np.float64))
            for name, each in zip(made, rows, strict=True)
        }

    def evaluate(self, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Iterator[Evaluated]:
        """All variants, each from where it first differs from a trunk that is run once."""
        usable = []
        for variant in variants:
            broken = self.broken_weight(variant.int8)
            if broken is None:
                usable.append(variant)
            else:
                yield from (Evaluated(variant, index, None, broken) for index in range(len(batches)))
        yield from self._tree.evaluate(self, batches, usable)

    def piece_session(self, piece: "onnx.ModelProto", int8: frozenset[str]) -> Any:
        """A session over a piece of the graph with these of its layers in int8.

        TensorRT's is over the whole graph, with int8 weights: with fake-quantized ones it would compute in fp32.
        """
        from workers.models.onnx_qdq import insert_qdq

        layers = [found for layer_id, found in self._found.items() if layer_id in int8]
        if self._provider == TENSORRT:
            from workers.backends.tensorrt.graphs import explicit_model

            content = explicit_model(self._program, layers, self._amax, per_channel=self._per_channel)
            return self._opened(content, self._options(), TENSORRT, int8=bool(int8))
        made = insert_qdq(piece, layers, self._amax)
        return self._session(made.model, {name: self._int8_weight(layer) for name, layer in made.weights.items()})

    def run_variant(
        self, session: Any, variant: Variant, index: int, batch: Tensors, feeds: dict[str, Any]
    ) -> Evaluated:
        """One variant's outputs for one batch."""
        try:
            outputs = self._outputs(session, feeds, length_of(batch))
            if variant.int8 and not all_finite(outputs):
                # rare: the reference session is made only here
                reference = self._outputs(
                    self._session(self._program.skeleton, {}), self.feeds(batch), length_of(batch)
                )
                worse = [name for name in outputs if _newly_broken(outputs[name], reference[name])]
                if worse:
                    reason = f"output {worse[0]!r} holds NaN or infinite values where that of fp32 is finite"
                    return Evaluated(variant, index, None, reason)
        except self.errors as error:
            return Evaluated(variant, index, None, first_line(error))
        return Evaluated(variant, index, outputs)

    def _outputs(self, session: Any, feeds: Mapping[str, Any], length: int) -> dict[str, Array]:
        made = [each.name for each in session.get_outputs()]
        tensors = {**feeds, **dict(zip(made, run(session, feeds, made), strict=True))}
        return {each.name: self._cut(tensors[each.name], length) for each in self.facts.outputs}

    def _cut(self, tensor: Any, length: int) -> Array:
        """Without the samples that only fill a fixed batch, where the first axis is the sample."""
        array: Array = np.asarray(tensor)
        return array[:length] if array.ndim and len(array) == self.facts.batch_size else array

    def broken_weight(self, layers: Iterable[str]) -> str | None:
        """Why these layers cannot be in int8, by their weights; None where they can."""
        for layer_id in sorted(layers):
            weight = self._found[layer_id].weight
            if weight is not None and not np.isfinite(weight[1]).all():
                return "its weight holds NaN or infinite values"
        return None

    def _int8_weight(self, layer_id: str) -> Any:
        from workers.models.onnx_qdq import quantized_weight

        if layer_id not in self._int8_weights:
            value = quantized_weight(self._found[layer_id], per_channel=self._per_channel)
            self._int8_weights[layer_id] = self._value(value)
        return self._int8_weights[layer_id]

    def _session(self, model: "onnx.ModelProto", added: Mapping[str, Any]) -> Any:
        """By CUDA where TensorRT runs the variants: no engine is worth building for one look at what flows inside."""
        from workers.models.onnx_graph import without_unused

        options = self._options()
        model = without_unused(model)
        values = {**self._values, **added}
        external = [each.name for each in model.graph.initializer if each.name in values]
        if external:
            options.add_external_initializers(external, [values[name] for name in external])
        provider = CUDA if self._provider == TENSORRT else self._provider
        return self._opened(model.SerializeToString(), options, provider)

    def _options(self) -> Any:
        from workers.models.onnx_libraries import register

        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        # fake quantization stays what it says: no fusing of Q/DQ into integer kernels
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        register(options, self._libraries)  # what does not load was told when the model was read
        if self._settings.as_written:
            options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def _opened(self, content: bytes, options: Any, provider: str, *, int8: bool = False) -> Any:
        providers = session_providers(provider, self._settings.device, int8=int8)
        session = self._runtime.InferenceSession(content, options, providers=providers)
        if provider not in session.get_providers():
            raise Unavailable(f"ONNX Runtime cannot use {provider} on this machine")
        return session

    def feeds(self, batch: Tensors) -> dict[str, Any]:
        """A batch as the whole graph takes it."""
        return {each.name: filled(batch[each.name], self.facts.batch_size) for each in self.facts.inputs}


def _errors_of(runtime: Any) -> tuple[type[Exception], ...]:
    """What the runtime raises: its own classes stand beside RuntimeError, not below it."""
    state = runtime.capi.onnxruntime_pybind11_state
    own = [getattr(state, name) for name in OWN_ERRORS if hasattr(state, name)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _newly_broken(output: Array, reference: Array) -> bool:
    if output.dtype.kind != "f":
        return False
    broken = ~np.isfinite(output)
    return bool(broken.any() if output.shape != reference.shape else (broken & np.isfinite(reference)).any())
