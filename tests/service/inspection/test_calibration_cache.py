"""TensorRT's calibration caches: byte for byte, and errors that name the line."""

import struct
from pathlib import Path

import pytest

from service.domain.caches import CacheAlgorithm
from service.domain.errors import InvalidInput
from service.inspection.calibration_cache import CacheEntry, CalibrationCache, read_cache, write_cache
from tests.real_data import FOLDER, needs_data

SAMPLE = Path(__file__).parent / "sample.cache"
HEADER = b"TRT-100300-EntropyCalibration2\n"


def test_the_sample_is_read_and_written_again_byte_for_byte() -> None:
    data = SAMPLE.read_bytes()
    cache = read_cache(data)
    assert (cache.version, cache.algorithm) == ("100300", CacheAlgorithm.ENTROPY_2)
    assert [each.tensor for each in cache.entries] == [
        "input",
        "(Unnamed Layer* 8) [Constant]_output",
        "block: 1/add",
        "höhe",
    ]
    assert write_cache(cache) == data


@needs_data
@pytest.mark.data
def test_real_caches_are_written_again_byte_for_byte() -> None:
    files = sorted((FOLDER / "tensorrt_caches").glob("*.cache"))
    assert len(files) == 4
    for file in files:
        cache = read_cache(file.read_bytes())
        assert len(cache.entries) > 40
        assert write_cache(cache) == file.read_bytes()


def test_the_digits_are_the_scale_as_a_big_endian_float32() -> None:
    (entry,) = read_cache(HEADER + b"data: 3caa54fc\n").entries
    assert entry.scale == struct.unpack(">f", bytes.fromhex("3caa54fc"))[0]
    assert entry.amax == pytest.approx(2.6406, abs=1e-4)
    assert CacheEntry.of("data", entry.scale) == entry
    assert CacheEntry.of("one", 1.0).bits == 0x3F800000


@pytest.mark.parametrize("digits", ["7fc00001", "7f800000", "ff800000", "00000000", "bf800000", "7f800001"])
def test_scales_that_cannot_be_used_keep_their_bits(digits: str) -> None:
    data = HEADER + f"odd: {digits}\n".encode()
    (entry,) = read_cache(data).entries
    assert not entry.usable
    assert write_cache(read_cache(data)) == data


@pytest.mark.parametrize("algorithm", list(CacheAlgorithm))
def test_every_algorithm_has_its_header(algorithm: CacheAlgorithm) -> None:
    cache = CalibrationCache("8510", algorithm, (CacheEntry.of("x", 0.5),))
    assert write_cache(cache) == f"TRT-8510-{algorithm.value}\nx: 3f000000\n".encode()
    assert read_cache(write_cache(cache)) == cache


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"data: 3caa54fc\n", "line 1: "),
        (b"TRT-8510-GuessCalibration\n", "line 1: TensorRT has no algorithm 'GuessCalibration'"),
        (b"TRT-8.5.1-EntropyCalibration2\n", "line 1: "),
        (HEADER + b"a: 3f800000\n\nb: 3f800000\n", "line 3: "),
        (HEADER + b"a: 3f80000\n", "line 2: .*8 hex digits"),
        (HEADER + b"a: 3F800000\n", "line 2: .*lower case"),
        (HEADER + b": 3f800000\n", "line 2: "),
        (HEADER + b"a 3f800000\n", "line 2: .*<tensor name>"),
        (HEADER + b"a: 3f800000", "line 2: .*cut off"),
        (HEADER + b"a: 3f800000\r\n", "line 2: .*carriage return"),
        (HEADER + b"\xff: 3f800000\n", "line 2: .*UTF-8"),
        (HEADER + b"a: 3f800000\nb: 3f800000\na: 3f800000\n", "line 4: tensor .*a.* line 2 already"),
    ],
    ids=lambda each: each[-24:] if isinstance(each, bytes) else "",
)
def test_a_malformed_file_is_refused_with_the_line(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_cache(data)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e-60])
def test_only_a_positive_float32_is_a_scale(scale: float) -> None:
    with pytest.raises(InvalidInput, match="positive float32"):
        CacheEntry.of("x", scale)


def test_a_name_cannot_hold_a_line_break() -> None:
    with pytest.raises(InvalidInput, match="line break"):
        CacheEntry.of("a\nb", 1.0)
