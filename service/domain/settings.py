"""What a caller asks of a sweep, and of the preprocessing of an evaluation set. All defaults stand here."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from service.domain.costs import CostName, Precision
from service.domain.layers import Frozen
from service.domain.scheduling import DeviceKind, Priority


class BackendName(StrEnum):
    """The runtimes that can measure a model."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


class SweepMode(StrEnum):
    """``one_on``: one layer in int8, the rest fp32. ``one_off``: all in int8, one layer back in fp32."""

    ONE_ON = "one_on"
    ONE_OFF = "one_off"


class SweepMethod(StrEnum):
    """How layers are scored.

    ``exact``: every layer on every sample. ``racing``: a layer stops once its side of the decision is sure. ``probe``:
    gradients estimate all layers at once. ``probe_then_exact``: layers near the decision, and those that a first-order
    estimate is not to be believed for, are measured after it. Lists are measured whatever the method is.
    """

    EXACT = "exact"
    RACING = "racing"
    PROBE = "probe"
    PROBE_THEN_EXACT = "probe_then_exact"

    @property
    def probes(self) -> bool:
        """Whether gradients come first."""
        return self in (SweepMethod.PROBE, SweepMethod.PROBE_THEN_EXACT)


class WeightGranularity(StrEnum):
    """How weights are scaled: one scale for each output channel, or one for the tensor."""

    PER_CHANNEL = "per_channel"
    PER_TENSOR = "per_tensor"


class Quantization(StrEnum):
    """How TensorRT is told what is int8.

    ``explicit``: by Q/DQ in the graph, each tensor with its scale. ``implicit``: by scales and precisions beside the
    fp32 graph, as with a calibration cache; TensorRT 10 and before only, which scales the weights itself.
    """

    EXPLICIT = "explicit"
    IMPLICIT = "implicit"


class CalibrationMethod(StrEnum):
    """How a range follows from the values: as in pytorch-quantization, or (``trt_``) as TensorRT's calibrators."""

    MAX = "max"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"
    TRT_ENTROPY2 = "trt_entropy2"
    TRT_ENTROPY = "trt_entropy"
    TRT_MINMAX = "trt_minmax"
    TRT_LEGACY = "trt_legacy"


class Preprocessing(Frozen):
    """How stored samples become model inputs, in this order: layout, resize, centre crop, dtype, scale, mean, std.

    ``layout`` is that of the stored images; NHWC is transposed to the NCHW that models take.
    ``resize`` is the length of the shorter side, or (height, width), in pixels; ``scale`` multiplies
    (1/255 = 0.00392156862745098); ``mean`` and ``std`` are per channel and apply after ``scale``.
    """

    dtype: Literal["float32", "float16", "int64", "int32", "uint8"] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    resize: Annotated[int, Field(ge=1, le=8192)] | tuple[int, int] | None = None
    center_crop: Annotated[int, Field(ge=1, le=8192)] | tuple[int, int] | None = None
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None

    @property
    def is_identity(self) -> bool:
        """Whether samples are taken as they are stored."""
        return self == Preprocessing()


class CalibrationSettings(Frozen):
    """How activation ranges are found.

    ``cache``: the id of a calibration cache of TensorRT that holds them; no sample is run for ranges then, and nothing
    else is given here. A layer without a usable scale for each of its inputs cannot be int8.
    ``percentile``: with that method, per cent of all |x| that lie within the range. ``quantile`` and ``cutoff``: with
    ``trt_legacy``, the share of all |x| within it, and the share of the largest |x| that it is at most.
    ``dataset`` None: the first ``samples`` of the evaluation set (the report warns).
    """

    cache: str | None = Field(
        default=None, description="A calibration cache's id: its scales are the ranges. Given alone; ONNX models only."
    )
    method: CalibrationMethod = CalibrationMethod.MAX
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    quantile: Annotated[float, Field(gt=0.5, le=1)] = 0.9999
    cutoff: Annotated[float, Field(gt=0, le=1)] = 1.0
    dataset: str | None = None
    samples: Annotated[int, Field(ge=1, le=1_000_000)] = 512

    @field_validator("method", "percentile", "quantile", "cutoff", "dataset", "samples")
    @classmethod
    def _not_beside_a_cache(cls, value: Any, info: ValidationInfo) -> Any:
        # validators see what was given, not defaults: what a cache replaces may not even be said beside it
        if value is not None and info.data.get("cache") is not None:
            raise ValueError("calibration.cache has the ranges, so that nothing is calibrated; give one or the other")
        return value

    @model_serializer(mode="wrap")
    def _cache_alone(self, serialize: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        """What is stored and shown of settings with a cache says nothing of a method that is not used."""
        # without a return type the JSON schema stays that of the fields
        return serialize(self) if self.cache is None else {"cache": self.cache}

    @field_validator("percentile", "quantile", "cutoff")
    @classmethod
    def _goes_with_its_method(cls, value: float, info: ValidationInfo) -> float:
        assert info.field_name is not None
        own = METHOD_OF[info.field_name]
        default = cls.model_fields[info.field_name].default
        if info.data.get("method", own) is not own and value != default:
            raise ValueError(f"goes with method '{own}', and only with it")
        return value

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters of the method, by name."""
        return {name: getattr(self, name) for name, method in METHOD_OF.items() if method is self.method}


METHOD_OF = {
    "percentile": CalibrationMethod.PERCENTILE,
    "quantile": CalibrationMethod.TRT_LEGACY,
    "cutoff": CalibrationMethod.TRT_LEGACY,
}
"""Parameter → the calibration method that it goes with."""


class MetricSettings(Frozen):
    """The metric that ranks the layers.

    ``name``: top1, top5 (labels needed); mse, sqnr, cosine, kl, agreement (against the fp32 output); or the class name
    of a torchmetrics metric with ``args`` for its constructor. ``output``: which output is scored, by name (default:
    the first).
    """

    name: str = "top1"
    args: dict[str, Any] = Field(default_factory=dict)
    output: str | None = None


class Budget(Frozen):
    """The metric drop that the caller accepts: absolute in the metric's own unit, or relative to the fp32 value."""

    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    relative: bool = False


class SelectionAlgorithm(StrEnum):
    """What proposes fallback lists.

    ``threshold``: layers more sensitive than a number. ``top_k``: the k most sensitive. ``greedy``: the shortest list
    along the ranking whose measured drop is within the budget, on the samples that it is chosen on. ``optimal``: the
    least cost for a predicted output noise, proven or with its gap, verified on samples that the choice did not see.
    """

    THRESHOLD = "threshold"
    TOP_K = "top_k"
    GREEDY = "greedy"
    OPTIMAL = "optimal"


class SelectionSettings(Frozen):
    """How the fallback list is chosen.

    ``algorithm`` None: optimal where there is a budget, of a race greedy. ``threshold``: with that algorithm, layers
    more sensitive than this fall back; ``top_k``: with that one, so many.

    What follows is for lists that are proposed by prediction, which a race and ``greedy`` do not. ``cost``: what is
    kept small. ``always_int8`` and ``never_int8``: patterns over ids and names, as in ``include``. ``groups``: layers
    that share a precision, one list of patterns for each group; ``fused_groups``: with ``optimal``, so do those that an
    engine makes one kernel. ``holdout``: the share of the samples that lists are verified on and not chosen on; 0
    verifies on the samples that they were chosen on.
    """

    algorithm: SelectionAlgorithm | None = None
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    cost: CostName = CostName.LAYERS
    always_int8: tuple[str, ...] = ()
    never_int8: tuple[str, ...] = ()
    groups: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = ()
    fused_groups: bool = True
    holdout: Annotated[float, Field(ge=0, le=0.9)] = 0.5

    @model_validator(mode="after")
    def _numbers_go_with_their_algorithm(self) -> Self:
        for algorithm in (SelectionAlgorithm.THRESHOLD, SelectionAlgorithm.TOP_K):
            if (self.algorithm is algorithm) != (getattr(self, algorithm) is not None):
                raise ValueError(f"give {algorithm} with algorithm '{algorithm}', and only with it")
        both = sorted(set(self.always_int8) & set(self.never_int8))
        if both:
            raise ValueError(f"{both[0]!r} stands in both always_int8 and never_int8; drop one of the two")
        return self


class ProbeOptions(Frozen):
    """How layers are probed.

    ``directions``: random directions for each sample, one backward pass each (two where the output is class scores).
    ``loss``: whether the change of the cross-entropy is estimated too where there are labels, one pass more.
    """

    directions: Annotated[int, Field(ge=1, le=64)] = 1
    loss: bool = False


class SweepSettings(Frozen):
    """One sweep, as it was asked for. ``model`` and ``dataset`` are resource ids."""

    model: str
    dataset: str
    backend: BackendName | None = None
    mode: SweepMode = SweepMode.ONE_ON
    method: SweepMethod = SweepMethod.EXACT
    probe: ProbeOptions = ProbeOptions()
    weights: WeightGranularity = WeightGranularity.PER_CHANNEL
    quantization: Quantization = Field(
        default=Quantization.EXPLICIT, description="tensorrt: Q/DQ in the graph, or scales beside it (TensorRT <= 10)."
    )
    calibration: CalibrationSettings = CalibrationSettings()
    metric: MetricSettings = MetricSettings()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    budget: Budget | None = None
    selection: SelectionSettings = SelectionSettings()
    fuse_bn: bool = True
    fallback_precision: Literal[Precision.FP32, Precision.FP16] = Field(
        default=Precision.FP32,
        description="Of the layers in mixed.onnx that are not int8 (ONNX models). Lists are verified with fp32; the "
        "file's own metric is measured beside that.",
    )
    priority: Priority = Field(
        default=Priority.NORMAL,
        description="The share of the workers beside other sweeps of the project: 1, 4 or 16 parts.",
    )
    device: DeviceKind = Field(default=DeviceKind.ANY, description="Only workers with this kind of device take it.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    samples: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Use only this many samples, drawn by the seed."
    )
    shard_size: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        default=None, description="Samples in one shard; planned where null."
    )
    segments: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="onnxruntime: at most so many segments of the graph share work; 1 runs the whole graph every time, "
        "as it is deployed; planned where null.",
    )

    @property
    def algorithm(self) -> SelectionAlgorithm:
        """What proposes fallback lists."""
        searched = self.budget is not None and self.method is not SweepMethod.RACING
        return self.selection.algorithm or (SelectionAlgorithm.OPTIMAL if searched else SelectionAlgorithm.GREEDY)

    @property
    def predicts(self) -> bool:
        """Whether lists are proposed by predicted noise and verified on held-out samples."""
        in_full = self.budget is not None and self.method is not SweepMethod.RACING
        return in_full and self.algorithm is not SelectionAlgorithm.GREEDY

    @property
    def selection_in_force(self) -> SelectionSettings:
        """With the algorithm that is meant where none was named."""
        return self.selection.model_copy(update={"algorithm": self.algorithm})

    @property
    def scouts(self) -> bool:
        """Whether fp32 is run first on all samples, to draw those that it is unsure of before the others."""
        return self.method is SweepMethod.RACING and self.metric.name == "kl"
