"""The text format of TensorRT's calibration caches (TensorRT <= 10), read and written exactly.

The first line is ``TRT-<version digits>-<algorithm>``; every other one ``<tensor name>: <8 hex digits>``, the bits of
the scale (amax / 127) as a big-endian IEEE-754 float32. Names may hold colons and spaces, so the last ``": "`` counts.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Self

from service.domain.caches import CacheAlgorithm
from service.domain.errors import InvalidInput, RejectedFile
from service.inspection.formats import quoted

HEADER = re.compile(r"TRT-([0-9]+)-([A-Za-z0-9]+)")
BITS = re.compile(r"[0-9a-f]{8}")
SEPARATOR = ": "


@dataclass(frozen=True)
class CacheEntry:
    """The scale of one tensor. ``bits``: those of the float32, so that no value changes when it is written again."""

    tensor: str
    bits: int

    def __post_init__(self) -> None:
        if not self.tensor or "\n" in self.tensor or "\r" in self.tensor:
            raise InvalidInput(
                f"tensor {self.tensor!r}: a name in a calibration cache is not empty and has no line break"
            )
        if not 0 <= self.bits < 2**32:
            raise InvalidInput(f"bits: {self.bits} is not in 0 to 2**32 - 1")

    @classmethod
    def of(cls, tensor: str, scale: float) -> Self:
        """The entry of a scale; raises InvalidInput where it is no positive float32."""
        try:
            packed = struct.pack(">f", scale)
        except OverflowError:
            packed = struct.pack(">f", float("inf"))
        made = cls(tensor, int.from_bytes(packed, "big"))
        if not made.usable:
            raise InvalidInput(f"tensor {quoted(tensor)}: {scale} is not a scale; a positive float32 is")
        return made

    @property
    def scale(self) -> float:
        """The scale, exactly; NaN and infinity are possible in a file from elsewhere."""
        value: float = struct.unpack(">f", self.bits.to_bytes(4, "big"))[0]
        return value

    @property
    def usable(self) -> bool:
        """Whether the scale is finite and above zero."""
        return isfinite(self.scale) and self.scale > 0

    @property
    def amax(self) -> float:
        """127 times the scale."""
        return self.scale * 127.0


@dataclass(frozen=True)
class CalibrationCache:
    """One cache. ``version``: the digits of the header, ``8510`` for 8.5.1.0. Entries keep their order."""

    version: str
    algorithm: CacheAlgorithm
    entries: tuple[CacheEntry, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]+", self.version):
            raise InvalidInput(
                f"version: {self.version!r} is wrong; it is the digits of a TensorRT version, like 100300"
            )
        if len(self.by_tensor) != len(self.entries):
            raise InvalidInput("entries: a tensor has more than one")

    @cached_property
    def by_tensor(self) -> Mapping[str, CacheEntry]:
        """The entries by the name of their tensor."""
        return {each.tensor: each for each in self.entries}


def read_cache(data: bytes) -> CalibrationCache:
    """The cache in a file's bytes; raises InvalidInput that names the line and what is wrong with it."""
    lines = list(_lines(data))
    if not lines:
        raise InvalidInput("the calibration cache is empty; its first line is TRT-<version>-<algorithm>")
    version, algorithm = _header(lines[0])
    entries = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        entry = _entry(line, number)
        before = first_lines.setdefault(entry.tensor, number)
        if before != number:
            raise InvalidInput(f"line {number}: tensor {quoted(entry.tensor)} has an entry in line {before} already")
        entries.append(entry)
    return CalibrationCache(version, algorithm, tuple(entries))


def inspect_cache(path: Path) -> CalibrationCache:
    """The cache in an uploaded file; raises RejectedFile where it cannot be read, or holds no scale."""
    try:
        cache = read_cache(path.read_bytes())
    except InvalidInput as error:
        raise RejectedFile(error.message, code="bad-calibration-cache") from None
    if not any(each.usable for each in cache.entries):
        raise RejectedFile(
            f"none of the cache's {len(cache.entries)} entries is a scale above zero, so it gives no tensor a range",
            code="bad-calibration-cache",
        )
    return cache


def write_cache(cache: CalibrationCache) -> bytes:
    """The file's bytes: the same that were read, where it was read."""
    lines = [f"TRT-{cache.version}-{cache.algorithm}"]
    lines += [f"{each.tensor}{SEPARATOR}{each.bits:08x}" for each in cache.entries]
    return "".join(f"{line}\n" for line in lines).encode()


def _lines(data: bytes) -> Iterator[str]:
    *whole, rest = data.split(b"\n")
    for number, line in enumerate(whole, start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"line {number}: it is not UTF-8 text, so this is not a calibration cache") from None
        if text.endswith("\r"):
            raise InvalidInput(f"line {number}: it ends with a carriage return; TensorRT writes plain line feeds")
        yield text
    if rest:
        raise InvalidInput(f"line {len(whole) + 1}: it has no line feed at its end, so the file is cut off")


def _header(line: str) -> tuple[str, CacheAlgorithm]:
    match = HEADER.fullmatch(line)
    if match is None:
        raise InvalidInput(
            f"line 1: {quoted(line)} is not the header of a calibration cache, TRT-<version>-<algorithm>"
        )
    try:
        return match[1], CacheAlgorithm(match[2])
    except ValueError:
        known = ", ".join(CacheAlgorithm)
        raise InvalidInput(f"line 1: TensorRT has no algorithm {match[2]!r}; it has {known}") from None


def _entry(line: str, number: int) -> CacheEntry:
    name, separator, digits = line.rpartition(SEPARATOR)
    if not separator or not name:
        raise InvalidInput(f"line {number}: {quoted(line)} is not <tensor name>: <8 hex digits>")
    if not BITS.fullmatch(digits):
        raise InvalidInput(f"line {number}: {quoted(digits)} is not 8 hex digits in lower case")
    return CacheEntry(name, int(digits, 16))
