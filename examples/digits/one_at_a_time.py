"""Print what int8 does to each layer of digits.onnx, without quantsieve: an independent check of README.md's figures.

Q/DQ pairs are written by hand on exactly the inputs of the layers in int8. Run from anywhere; takes a few seconds.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
QUANTIZED = {"Conv", "Gemm", "Add", "AveragePool"}
FOLDER = Path(__file__).parent


def run(model: onnx.ModelProto, images: Array) -> list[Array]:
    """All outputs of the model."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {"image": images})
    return outputs


def activation_ranges(model: onnx.ModelProto, images: Array) -> dict[str, float]:
    """The largest absolute value of every activation, by name."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    inner = [name for node in model.graph.node for name in node.output if name != model.graph.output[0].name]
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inner)
    names = [output.name for output in probed.graph.output]
    ranges = {name: float(np.abs(value).max()) for name, value in zip(names, run(probed, images), strict=True)}
    return {**ranges, "image": float(np.abs(images).max())}


def channels_of_input(model: onnx.ModelProto, layer: str, images: Array) -> str:
    """How the channels of a layer's input share the one scale of the tensor."""
    (name,) = [node.input[0] for node in model.graph.node if node.name == layer]
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.output.append(helper.make_empty_tensor_value_info(name))
    reached = np.abs(run(probed, images)[-1]).max(axis=(0, 2, 3))
    below = int((reached < reached.max() / 127).sum())
    largest, median = float(reached.max()), float(np.median(reached))
    return f"largest channel {largest:.1f}, median {median:.2f}; {below} of {len(reached)} below one int8 step"


def fake_quantized(weight: Array) -> Array:
    """The weight after int8 with one scale per output channel (axis 0), in float32."""
    scale = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True) / 127
    scale[scale == 0] = 1
    rounded: Array = (np.clip(np.round(weight / scale), -127, 127) * scale).astype(np.float32)
    return rounded


def with_int8(model: onnx.ModelProto, layers: Collection[str], ranges: dict[str, float]) -> onnx.ModelProto:
    """The model with the named layers in fake int8."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes, graph = [], changed.graph
    for node in graph.node:
        for position, name in enumerate(node.input if node.name in layers else ()):
            edge = f"{node.name}:{position}"
            if name in weights and position == 1:
                graph.initializer.append(numpy_helper.from_array(fake_quantized(weights[name]), edge))
            elif name in weights:
                continue  # the bias stays in float32
            else:
                parts = [edge + "/scale", edge + "/zero"]
                graph.initializer.append(numpy_helper.from_array(np.array(ranges[name] / 127, np.float32), parts[0]))
                graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), parts[1]))
                nodes.append(helper.make_node("QuantizeLinear", [name, *parts], [edge + "/q"]))
                nodes.append(helper.make_node("DequantizeLinear", [edge + "/q", *parts], [edge]))
            node.input[position] = edge
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def main() -> None:
    """Print one line for each variant: its name, its top-1, its relative squared error."""
    model = onnx.load(FOLDER / "digits.onnx")
    samples = np.load(FOLDER / "eval.npz")
    ranges = activation_ranges(model, np.load(FOLDER / "calib.npz")["inputs"])
    layers = [node.name for node in model.graph.node if node.op_type in QUANTIZED]
    worst = ["block6.pointwise", "block3.pointwise"]
    variants = {"fp32": [], "all int8": layers} | {name: [name] for name in layers}
    variants |= {f"all but {' and '.join(worst[:k])}": [n for n in layers if n not in worst[:k]] for k in (1, 2)}
    reference = run(model, samples["inputs"])[0]
    for title, chosen in variants.items():
        scores = run(with_int8(model, chosen, ranges), samples["inputs"])[0]
        top1 = (scores.argmax(1) == samples["labels"]).mean()
        error = np.square(scores - reference).mean() / np.square(reference).mean()
        print(f"{title:48} top-1 {top1:.4f}  error {error:.1e}")
    for name in ("block3.pointwise", "block4.pointwise", "block6.pointwise"):
        print(f"{name}: {channels_of_input(model, name, np.load(FOLDER / 'calib.npz')['inputs'])}")


if __name__ == "__main__":
    main()
