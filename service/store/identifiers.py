"""Identifiers of resources: a kind's prefix and 60 random bits, safe in URLs and easy to copy."""

import re
import secrets
from enum import StrEnum

_SHAPE = re.compile(r"[a-z]{3}_[0-9a-z]{12}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


class Prefix(StrEnum):
    """What an identifier stands for."""

    MODEL = "mdl"
    DATASET = "dat"
    CALIBRATION = "cal"
    SWEEP = "swp"
    CONVERSION = "cnv"
    SELECTION = "sel"
    UNIT = "unt"
    WORKER = "wrk"
    KEY = "key"
    AUDIT = "aud"
    REQUEST = "req"


def new_id(prefix: Prefix) -> str:
    """A fresh identifier such as ``swp_4q8c1z0rk2vx``."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(12))


def could_be_id(text: str) -> bool:
    """Whether a text has the shape of an identifier; a database cannot even look up every text that has not."""
    return _SHAPE.fullmatch(text) is not None
