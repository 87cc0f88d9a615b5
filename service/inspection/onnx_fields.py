"""Whether a file can be an ONNX ModelProto: its top-level protobuf fields, without reading what they hold."""

from typing import BinaryIO

from service.domain.errors import RejectedFile

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {1: _VARINT, 2: _BYTES, 3: _BYTES, 4: _BYTES, 5: _VARINT, 6: _BYTES, 7: _BYTES, 8: _BYTES, 14: _BYTES}
_HIGHEST_FIELD = 63  # fields that ONNX may add later are let through
_GRAPH = 7
_MOST_FIELDS = 100_000
_VARINT_BYTES = 10


class _NotAModelError(Exception):
    pass


def check_onnx_fields(file: BinaryIO, size: int, accepted: str) -> None:
    """Raise RejectedFile where a file of ``size`` bytes cannot be an ONNX model, or is cut off.

    ``accepted``: what may be sent.
    """
    found: set[int] = set()
    try:
        for _ in range(_MOST_FIELDS):
            if file.tell() == size:
                break
            number, length = _next_field(file)
            found.add(number)
            if file.tell() + length > size and found & {1, _GRAPH}:
                _reject_cut_off(file.tell() + length, size)
            if file.tell() + length > size:
                raise _NotAModelError
            file.seek(length, 1)
        else:
            raise _NotAModelError
    except _NotAModelError:
        raise RejectedFile(f"the file is not a model that is known here; {accepted}", code="not-a-model") from None
    if _GRAPH not in found:
        raise RejectedFile(f"the file holds no ONNX graph; {accepted}", code="not-a-model")


def _reject_cut_off(needed: int, size: int) -> None:
    message = f"the ONNX file is cut off: {needed} bytes are announced, {size} are there; send it once more"
    raise RejectedFile(message, code="onnx-cut-off")


def _next_field(file: BinaryIO) -> tuple[int, int]:
    """The number of the field at hand and the bytes to skip to the next."""
    tag = _read_varint(file)
    number, wire = tag >> 3, tag & 7
    if not 1 <= number <= _HIGHEST_FIELD or _WIRE_TYPES.get(number, wire) != wire:
        raise _NotAModelError
    if wire == _VARINT:
        _read_varint(file)
        return number, 0
    if wire == _BYTES:
        return number, _read_varint(file)
    if wire in (_FIXED64, _FIXED32):
        return number, 8 if wire == _FIXED64 else 4
    raise _NotAModelError


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for position in range(_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            raise _NotAModelError
        value |= (byte[0] & 0x7F) << (7 * position)
        if byte[0] < 0x80:
            return value
    raise _NotAModelError
