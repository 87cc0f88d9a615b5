"""Untrusted text as a person may safely see it."""

import unicodedata

# controls, formats (direction overrides, zero widths), surrogates, line and paragraph separators
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""The text with every character that has no glyph of its own written as an escape (``\x00``, ``\u202e``)."""
    return "".join(_escape(each) if unicodedata.category(each) in INVISIBLE else each for each in text)


def shortened(text: str, length: int) -> str:
    """At most ``length`` characters; the middle gives way, as a module path's ends tell the most."""
    if len(text) <= length:
        return text
    head = (length - 1) // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


def _escape(character: str) -> str:
    point = ord(character)
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
