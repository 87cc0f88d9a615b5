"""What a caller asks of a conversion between a calibration cache and Q/DQ, and what it comes to."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from service.domain.caches import CacheAlgorithm
from service.domain.layers import Frozen
from service.domain.settings import WeightGranularity

DEFAULT_VERSION = "100300"
"""TensorRT 10.3: the last majors that read caches compare the algorithm's name only."""


class ConversionSettings(Frozen):
    """One conversion. With ``calibration``: a float32 model and its cache to Q/DQ; without: a Q/DQ model to a cache.

    Each option goes with one of the two directions, and is refused in the other.
    """

    model: str = Field(description="A model's id: float32 with `calibration`, Q/DQ without.")
    calibration: str | None = Field(default=None, description="A calibration cache's id.")
    weights: WeightGranularity | None = Field(
        default=None, description="To Q/DQ: how weights are scaled. Default: per_channel."
    )
    transposed_axis: Literal[0, 1] | None = Field(
        default=None, description="To Q/DQ: axis of the weight scales of ConvTranspose. Default: 1."
    )
    half: bool | None = Field(
        default=None, description="To Q/DQ: layers that stay in floating point are float16. Default: false."
    )
    algorithm: CacheAlgorithm | None = Field(
        default=None, description="To a cache: the calibrator that shall read it. Default: EntropyCalibration2."
    )
    tensorrt_version: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,12}$",
        description=f"To a cache: the digits of the TensorRT version in its header. Default: {DEFAULT_VERSION}.",
    )

    @field_validator("weights", "transposed_axis", "half", "algorithm", "tensorrt_version")
    @classmethod
    def _goes_with_its_direction(cls, value: object, info: ValidationInfo) -> object:
        needs_cache = info.field_name in TO_QDQ_OPTIONS
        if value is not None and needs_cache != (info.data.get("calibration") is not None):
            raise ValueError(
                "it says how Q/DQ is made from a cache; give calibration too, or leave it out"
                if needs_cache
                else "it says how a cache is written from a Q/DQ model; leave it out, or leave out calibration"
            )
        return value

    @property
    def to_qdq(self) -> bool:
        """Whether a cache becomes Q/DQ, rather than Q/DQ a cache."""
        return self.calibration is not None


TO_QDQ_OPTIONS = frozenset({"weights", "transposed_axis", "half"})


class ConversionSummary(Frozen):
    """What a conversion came to, in numbers; its ``conversion.json`` names each.

    ``int8``: layers in int8; ``left_float``: layers that are not. ``entries``: scales in the cache; ``unused``: those
    that no quantized tensor of the model has; ``merged``: tensors that had several scales, of which a cache keeps the
    largest. ``findings``: of the linter, about the Q/DQ model. None where the direction has no such thing.
    """

    int8: int | None = None
    left_float: int | None = None
    entries: int
    unused: int | None = None
    merged: int | None = None
    findings: int
