"""Identifiers of resources: a kind's prefix and 60 random bits, safe in URLs and easy to copy."""

import secrets
from enum import StrEnum

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


class Prefix(StrEnum):
    """What an identifier stands for."""

    MODEL = "mdl"
    DATASET = "dat"
    SWEEP = "swp"
    UNIT = "unt"
    WORKER = "wrk"


def new_id(prefix: Prefix) -> str:
    """A fresh identifier such as ``swp_4q8c1z0rk2vx``."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(12))
