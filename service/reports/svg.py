"""SVG elements as escaped markup."""

from markupsafe import Markup, escape


def element(tag: str, *children: str, **attributes: str | float) -> Markup:
    """One element, text and attribute values escaped; ``stroke_width`` is ``stroke-width``, ``class_`` ``class``."""
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _value(value))
        for name, value in attributes.items()
    )
    inside = Markup("").join(escape(each) for each in children)
    return Markup(f"<{tag}") + written + Markup(">") + inside + Markup(f"</{tag}>")


def drawing(name: str, title: str, *children: str, width: float, height: float) -> Markup:
    """A drawing that a screen reader announces by its title; ``name`` is its id on the page."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        *children,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        role="img",
        aria_labelledby=f"{name}-title",
        class_=f"drawing {name}",
        style=f"max-width:{_value(width)}px",
    )


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
