"""The kinds of TensorRT calibration caches."""

from enum import StrEnum


class CacheAlgorithm(StrEnum):
    """Which of TensorRT's calibrators wrote a cache; only the same one reads it again."""

    ENTROPY_2 = "EntropyCalibration2"
    ENTROPY = "EntropyCalibration"
    MIN_MAX = "MinMaxCalibration"
    LEGACY = "LegacyCalibration"
