"""The text of an API key: a prefix that scanners know, its id, a secret, and a checksum that finds typing errors.

``qs_<id: 12>_<secret: 40 characters, 200 bits><CRC-32: 7 characters>``, all after the prefix in Crockford's base 32
and lower case, with an underscore behind the id. The id is that of the row: key ``qs_4q8c1z0rk2vx_…`` is
``key_4q8c1z0rk2vx``.
"""

import re
import secrets
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # no i, l, o, u
SECRET_LENGTH = 40
CHECKSUM_LENGTH = 7
_SHAPE = re.compile(rf"qs_([{ALPHABET}]{{12}})_([{ALPHABET}]{{{SECRET_LENGTH}}})([{ALPHABET}]{{{CHECKSUM_LENGTH}}})")


class KeyScope(StrEnum):
    """What a key may do; none of them includes another.

    ``admin`` is for keys, projects, workers and the audit log of the whole installation.
    """

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


@dataclass(frozen=True)
class ApiKey:
    """A key in the clear; its ``text`` is shown once, and never printed by accident."""

    id: str
    text: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A fresh key."""
        random = ["".join(secrets.choice(ALPHABET) for _ in range(length)) for length in (12, SECRET_LENGTH)]
        body = f"qs_{random[0]}_{random[1]}"
        return cls(f"key_{random[0]}", body + _checksum(body))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The key that a text is; None where it is none, as after a typing error."""
        match = _SHAPE.fullmatch(text)
        if match is None or _checksum(text[:-CHECKSUM_LENGTH]) != match[3]:
            return None
        return cls(f"key_{match[1]}", text)


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    return "".join(ALPHABET[number >> shift & 31] for shift in range(30, -1, -5))
