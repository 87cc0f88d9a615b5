"""Int8 beside the graph, TensorRT 10 and before: dynamic ranges and the precision of every layer.

None of this exists in TensorRT 11 any more; it is called only where ``offers_implicit`` says so.
"""

import tensorrt as trt

from workers.backends.tensorrt.names import onnx_nodes
from workers.backends.tensorrt.seam import EngineFailure, ImplicitInt8


def offers_implicit() -> bool:
    """Whether this TensorRT still has implicit int8."""
    flags = ("INT8", "OBEY_PRECISION_CONSTRAINTS")
    members = ("precision", "set_output_type")
    return (
        all(hasattr(trt.BuilderFlag, each) for each in flags)
        and all(hasattr(trt.ILayer, each) for each in members)
        and hasattr(trt.ITensor, "set_dynamic_range")
    )


def apply_implicit(network: trt.INetworkDefinition, config: trt.IBuilderConfig, wanted: ImplicitInt8) -> None:
    """Give the wanted nodes int8 and everything else float32, as an obligation; raises EngineFailure.

    The outputs of int8 layers are float32 too: what the next layer reads is quantized by that layer's own choice.
    """
    config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    unseen = set(wanted.nodes)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer is None or not _computes_in_float(layer):
            continue
        nodes = onnx_nodes(layer.name, layer.metadata)
        chosen = bool(nodes & wanted.nodes)
        layer.precision = trt.DataType.INT8 if chosen else trt.DataType.FLOAT
        for output in range(layer.num_outputs):
            layer.set_output_type(output, trt.DataType.FLOAT)
        unseen -= nodes
    if unseen:
        raise EngineFailure(f"build failed: the parsed network holds no layer for {min(unseen)!r}")
    _set_ranges(network, wanted)


def _set_ranges(network: trt.INetworkDefinition, wanted: ImplicitInt8) -> None:
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer is None:
            continue
        tensors = [layer.get_input(each) for each in range(layer.num_inputs)]
        tensors += [layer.get_output(each) for each in range(layer.num_outputs)]
        for tensor in tensors:
            amax = None if tensor is None else wanted.ranges.get(tensor.name)
            if tensor is not None and amax is not None and not tensor.set_dynamic_range(-amax, amax):
                raise EngineFailure(f"build failed: TensorRT refuses the range ±{amax:g} of {tensor.name!r}")


def _computes_in_float(layer: trt.ILayer) -> bool:
    """Not a constant, and neither a shape nor an integer comes out of it."""
    if layer.type == trt.LayerType.CONSTANT:
        return False
    outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
    return bool(outputs) and all(
        each is not None and each.dtype == trt.DataType.FLOAT and not each.is_shape_tensor for each in outputs
    )
