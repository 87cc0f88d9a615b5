"""The ONNX Runtime backend: the fp32 model with Q/DQ around the layers of a variant, one session for each."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from service.domain.errors import RejectedFile
from service.domain.layers import Variant
from service.domain.settings import BackendName, WeightGranularity
from workers.backends.protocol import (
    Array,
    Capability,
    Evaluated,
    ModelFacts,
    Observe,
    OpenedModel,
    OpenSettings,
    Tensors,
)
from workers.engine.fixed_batch import filled, length_of

if TYPE_CHECKING:
    import onnx

    from workers.models.onnx_graph import OnnxProgram
    from workers.models.onnx_layers import Found


class OnnxRuntimeBackend:
    """Opens ONNX files."""

    name = BackendName.ONNXRUNTIME

    def capability(self) -> Capability:
        """Whether onnx and onnxruntime are here, and on which devices they run."""
        for package in ("onnx", "onnxruntime"):
            if find_spec(package) is None:
                reason = f"the package {package} is not installed; install quantsieve[cpu] or quantsieve[gpu]"
                return Capability(self.name, False, (), {}, reason)
        import onnx
        import onnxruntime

        devices = ["cpu"]
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            devices.append("cuda:0")
        versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
        return Capability(self.name, True, tuple(devices), versions)

    def open(self, path: Path, settings: OpenSettings) -> OpenedModel:
        """Read the file and find its layers."""
        from workers.models.onnx_graph import read_onnx
        from workers.models.onnx_layers import LayerFinder

        program = read_onnx(path, fuse_bn=settings.fuse_bn)
        finder = LayerFinder(program)
        found = finder.find()
        if not found:
            raise RejectedFile("the model has no quantizable layer (Conv, Gemm, MatMul, residual Add, AveragePool)")
        return OnnxModel(program, found, tuple(finder.skipped), settings)


class OnnxModel:
    """An opened ONNX file: the naive loop, one session for each variant."""

    def __init__(
        self, program: "OnnxProgram", found: Sequence["Found"], skipped: tuple[Any, ...], settings: OpenSettings
    ) -> None:
        import onnxruntime

        self.facts = ModelFacts(
            inputs=program.inputs,
            outputs=program.outputs,
            layers=tuple(each.layer for each in found),
            skipped=skipped,
            folded_batch_norms=program.folded_batch_norms,
            batch_size=program.batch_size,
        )
        self._runtime = onnxruntime
        self._program = program
        self._found = {each.layer.id: each for each in found}
        self._providers = _providers(settings.device)
        self._per_channel = settings.weights is WeightGranularity.PER_CHANNEL
        self._amax: dict[str, float] = {}
        # shared by all sessions and kept alive for as long as they are
        self._values = {name: self._value(array) for name, array in program.weights.items()}
        self._int8_weights: dict[str, Any] = {}

    def _value(self, array: Array) -> Any:
        return self._runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def observe(self, batches: Iterable[Tensors], observe: Observe) -> None:
        """Run fp32 and show every activation edge; a tensor that several layers read is fetched once."""
        import onnx

        nodes = {node.name: node for node in self._program.skeleton.graph.node}
        edges: dict[str, list[str]] = {}
        for found in self._found.values():
            for index in found.operands:
                edges.setdefault(nodes[found.node].input[index], []).append(f"{found.layer.id}:{index}")
        inputs = {each.name for each in self.facts.inputs}
        model = onnx.ModelProto()
        model.CopyFrom(self._program.skeleton)
        present = {each.name for each in model.graph.output}
        fetched = [name for name in edges if name not in inputs]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fetched if name not in present)
        session = self._session(model, {})
        for batch in batches:
            length = length_of(batch)
            feeds = self._feeds(batch)
            tensors = dict(zip(fetched, session.run(fetched, feeds), strict=True)) if fetched else {}
            for name, readers in edges.items():
                tensor = tensors.get(name, feeds.get(name))
                for edge in readers:
                    observe(edge, tensor if self.facts.batch_size is None else tensor[:length])

    def set_amax(self, amax: Mapping[str, float]) -> None:
        """Fix the range of each activation edge."""
        self._amax = dict(amax)

    def evaluate(self, batches: Sequence[Tensors], variants: Sequence[Variant]) -> Iterator[Evaluated]:
        """Variant by variant, batch by batch."""
        names = [each.name for each in self.facts.outputs]
        for variant in variants:
            try:
                session = self._variant_session(variant)
                failure = self._broken_weight(variant)
            except (RuntimeError, ValueError) as error:
                session, failure = None, f"its session cannot be made: {_first_line(error)}"
            for index, batch in enumerate(batches):
                if session is None or failure is not None:
                    yield Evaluated(variant, index, None, failure)
                    continue
                try:
                    outputs = session.run(names, self._feeds(batch))
                except (RuntimeError, ValueError) as error:
                    yield Evaluated(variant, index, None, _first_line(error))
                    continue
                length = length_of(batch)
                yield Evaluated(variant, index, {n: o[:length] for n, o in zip(names, outputs, strict=True)})

    def _broken_weight(self, variant: Variant) -> str | None:
        for layer_id in sorted(variant.int8):
            weight = self._found[layer_id].weight
            if weight is not None and not np.isfinite(weight[1]).all():
                return "its weight holds NaN or infinite values"
        return None

    def _variant_session(self, variant: Variant) -> Any:
        from workers.models.onnx_qdq import insert_qdq, quantized_weight

        layers = [found for layer_id, found in self._found.items() if layer_id in variant.int8]
        for found in layers:
            if found.weight is not None and found.layer.id not in self._int8_weights:
                quantized = quantized_weight(found, per_channel=self._per_channel)
                assert quantized is not None
                self._int8_weights[found.layer.id] = quantized
        model, added = insert_qdq(self._program.skeleton, layers, self._amax, self._int8_weights)
        return self._session(model, {name: self._value(array) for name, array in added.items()})

    def _session(self, model: "onnx.ModelProto", added: Mapping[str, Any]) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        # fake quantization stays what it says: no fusing of Q/DQ into integer kernels
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        used = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
        values = {name: value for name, value in {**self._values, **added}.items() if name in used}
        unused = [each for each in model.graph.initializer if each.name not in used]
        for each in unused:
            model.graph.initializer.remove(each)
        if values:
            options.add_external_initializers(list(values), list(values.values()))
        return self._runtime.InferenceSession(model.SerializeToString(), options, providers=self._providers)

    def _feeds(self, batch: Tensors) -> dict[str, Array]:
        return {each.name: filled(batch[each.name], self.facts.batch_size) for each in self.facts.inputs}


def _providers(device: str) -> list[Any]:
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        return [("CUDAExecutionProvider", {"device_id": index, "use_tf32": 0}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
