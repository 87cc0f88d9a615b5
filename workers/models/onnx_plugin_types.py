"""Finds types and shapes of what plugins read and make, which ONNX's shape inference cannot know.

ONNX Runtime tells the types when it makes a session. Shapes come from two runs on other samples, of 1 and 3 in the
batch where that is free: a size that is the same in both is fixed, one that follows the batch is the batch's, and any
other stays unknown. Where the runs fail, or an input has another free size, no shape is known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from service.domain.errors import RejectedFile, first_line
from service.inspection.formats import quoted
from workers.models.onnx_libraries import Broken, register, told
from workers.models.onnx_plugins import is_plugin, operator_of, plugins_of

Array = npt.NDArray[np.generic]

BATCHES = (1, 3)
Shape = tuple[int | str, ...]
"""A size; a symbol where it is free, "" where nothing is known of it."""


def declare_plugin_tensors(model: onnx.ModelProto, weights: Mapping[str, Array], libraries: Sequence[Path]) -> None:
    """Add what is found to the graph's ``value_info``. ``model``: with the shapes that inference knows.

    Raises RejectedFile where ONNX Runtime cannot make a session, naming the operators and the setting.
    """
    wanted = _unknown(model)
    session = _session(model, wanted, weights, libraries)
    types = {each.name: _element(each.type) for each in session.get_outputs()}
    shapes = _shapes(model, session, wanted)
    for name in wanted:
        if types[name] is not None:
            model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, types[name], shapes.get(name)))
            _forget_sizes(model.graph.value_info[-1])


def _unknown(model: onnx.ModelProto) -> list[str]:
    """The tensors at plugins (but for those inside control flow) whose type nothing declares."""
    graph = model.graph
    declared = (*graph.value_info, *graph.input, *graph.output)
    known = {each.name for each in declared if each.type.tensor_type.elem_type}
    known.update(each.name for each in graph.initializer)
    names = (name for node in graph.node if is_plugin(node) for name in (*node.input, *node.output) if name)
    return [name for name in dict.fromkeys(names) if name not in known]


def _session(
    model: onnx.ModelProto, wanted: Sequence[str], weights: Mapping[str, Array], libraries: Sequence[Path]
) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    broken = register(options, libraries)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(each)) for each in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    present = {each.name for each in probed.graph.output}
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
    try:
        return onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises classes of its own
        raise _refusal(model.graph, first_line(error), libraries, broken) from error


def _refusal(graph: onnx.GraphProto, said: str, libraries: Sequence[Path], broken: Sequence[Broken]) -> RejectedFile:
    """By the operator that the runtime names, else by the first one."""
    plugins = list(plugins_of(graph))
    named = [node for node in plugins if f"{node.domain}:{node.op_type}(" in said]
    node = (named or plugins)[0]
    return RejectedFile(
        f"operator {operator_of(node)} (node {quoted(node.name)}) cannot be run: {told(libraries, broken)}; "
        f"ONNX Runtime says: {said}"
    )


def _element(kind: str) -> int | None:
    """``tensor(float)`` as ONNX numbers it; None for what is no tensor."""
    inside = kind.removeprefix("tensor(").removesuffix(")").upper()
    return int(onnx.TensorProto.DataType.Value(inside)) if inside in onnx.TensorProto.DataType.keys() else None  # noqa: SIM118


def _shapes(model: onnx.ModelProto, session: Any, wanted: Sequence[str]) -> dict[str, Shape]:
    if not wanted:  # a session that is asked for no output gives all
        return {}
    runs = []
    for seed, batch in enumerate(BATCHES):
        feeds = {each.name: _sample(each, batch, seed) for each in model.graph.input}
        if any(each is None for each in feeds.values()):
            return {}
        try:
            found = session.run(list(wanted), feeds)
        except Exception:  # what a plugin thinks of random samples says nothing against the model
            return {}
        runs.append({name: np.shape(value) for name, value in zip(wanted, found, strict=True)})
    symbol = _batch_symbol(model.graph)
    return {
        name: tuple(_size(sizes, symbol) for sizes in zip(*(each[name] for each in runs), strict=True))
        for name in wanted
        if len({len(each[name]) for each in runs}) == 1
    }


def _size(sizes: tuple[int, ...], symbol: str) -> int | str:
    if sizes == BATCHES:
        return symbol
    # nothing found on random samples says nothing of how much is found on others
    return sizes[0] if len(set(sizes)) == 1 and sizes[0] else ""


def _batch_symbol(graph: onnx.GraphProto) -> str:
    """What all inputs call their free first size; "" where they do not agree."""
    first = [each.type.tensor_type.shape.dim[0] for each in graph.input if each.type.tensor_type.shape.dim]
    symbols = {each.dim_param for each in first if not each.HasField("dim_value")}
    return str(next(iter(symbols))) if len(symbols) == 1 else ""


def _sample(value: onnx.ValueInfoProto, batch: int, seed: int) -> Array | None:
    """Random numbers; the seed for what counts or chooses; None where the sizes or the kind of value are not known."""
    kind = value.type.tensor_type
    sizes = [each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim]
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    if None in sizes[1:] or not kind.HasField("shape") or dtype.kind not in "fiub":
        return None
    shape = [batch if each is None else each for each in sizes]
    if dtype.kind == "f":
        return np.random.default_rng(seed).normal(size=shape).astype(dtype)
    return np.full(shape, seed, dtype)


def _forget_sizes(value: onnx.ValueInfoProto) -> None:
    """A size of which nothing is known is neither a number nor a symbol, not even an empty one."""
    for each in value.type.tensor_type.shape.dim:
        if each.HasField("dim_param") and not each.dim_param:
            each.ClearField("dim_param")
