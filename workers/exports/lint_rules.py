"""The rules of the Q/DQ linter: what each finds, why it matters, and what it costs.

From TensorRT's developer guide, "Explicit quantization" ("Q/DQ placement recommendations", "Q/DQ limitations").
"""

from dataclasses import asdict, dataclass
from enum import StrEnum


class Rule(StrEnum):
    """The id of a rule."""

    NOT_INT8 = "not-int8"
    ASYMMETRIC = "asymmetric-zero-point"
    DYNAMIC_SCALE = "dynamic-scale"
    BAD_SCALE = "bad-scale"
    PER_CHANNEL_ACTIVATION = "per-channel-activation"
    UNPAIRED = "unpaired"
    MISMATCHED_PAIR = "mismatched-pair"
    REPEATED_PAIR = "repeated-pair"
    SEVERAL_SCALES = "several-scales"
    REQUANTIZE = "requantize"
    PER_TENSOR_WEIGHT = "per-tensor-weight"
    WEIGHT_AXIS = "weight-axis"
    FLOAT_WEIGHT = "float-weight"
    QUANTIZED_BIAS = "quantized-bias"
    HALF_QUANTIZED = "half-quantized"
    SPLIT_FUSION = "split-fusion"
    BOTH_BRANCHES = "both-add-branches"
    NEEDLESS_PAIR = "needless-pair"
    OUTPUT_PAIR = "output-pair"
    PLUGIN_OUTPUT = "plugin-output"


@dataclass(frozen=True)
class Finding:
    """One violation. ``why``: what was seen there; ``cost``: what it costs in the engine."""

    rule: Rule
    node: str
    tensor: str
    why: str

    @property
    def cost(self) -> str:
        """What the rule's violation costs."""
        return COSTS[self.rule]

    def document(self) -> dict[str, str]:
        """As JSON, its cost with it."""
        return asdict(self) | {"cost": self.cost}


COSTS = {
    Rule.NOT_INT8: "the engine supports signed int8 here only: the build fails",
    Rule.ASYMMETRIC: "asymmetric quantization is not supported: the build fails",
    Rule.DYNAMIC_SCALE: "scales must be build-time constants: the build fails",
    Rule.BAD_SCALE: "a scale must be finite and above zero: the build fails, or all values become NaN or zero",
    Rule.PER_CHANNEL_ACTIVATION: "activations take one scale for the tensor: the build fails",
    Rule.UNPAIRED: "the layer cannot be matched to an int8 kernel: it runs in floating point, or the build fails",
    Rule.MISMATCHED_PAIR: "values come out larger or smaller than they went in: accuracy is lost",
    Rule.REPEATED_PAIR: "the same tensor is quantized again: one kernel more",
    Rule.SEVERAL_SCALES: "the tensor is quantized once for each scale: the producer fuses with one at most",
    Rule.REQUANTIZE: "a requantize kernel between scales, and one rounding more",
    Rule.PER_TENSOR_WEIGHT: "accuracy: one scale for all channels, although one for each costs no time",
    Rule.WEIGHT_AXIS: "the scales are not those of output channels: floating point, or the build fails",
    Rule.FLOAT_WEIGHT: "the file holds the weight in float32: four times its int8 size",
    Rule.QUANTIZED_BIAS: "the bias must be floating point: the build fails, or the layer loses its fusion",
    Rule.HALF_QUANTIZED: "there is no kernel for one int8 and one float input: the layer runs in floating point",
    Rule.SPLIT_FUSION: "the activation or batch norm is not fused with the layer before it: one kernel more",
    Rule.BOTH_BRANCHES: "the addition is not fused with the layer before it: two kernels more",
    Rule.NEEDLESS_PAIR: "the operation gains nothing from int8 input: a quantize and a dequantize kernel more",
    Rule.OUTPUT_PAIR: "the last layer cannot give floating point directly: a kernel more, and a rounded result",
    Rule.PLUGIN_OUTPUT: "the plugin is not closed in by pairs: it runs in floating point",
}
