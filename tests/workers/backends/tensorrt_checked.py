"""Stand-ins of TensorRT's classes, specified by the real ones, that refuse what the real ones would refuse.

A mock's specification knows the names of a class, but not the arguments of functions written in C++; those are read
from the signatures in their docstrings. For a child process of tensorrt_bindings.py, where the real ones are imported.
"""

import inspect
from typing import Any
from unittest import mock

import tensorrt_bindings as trt

from tests.workers.backends.make_tensorrt_stubs import split
from tests.workers.backends.tensorrt_dump import signatures


def checked(cls: type, **answers: Any) -> Any:
    """An instance's stand-in. ``answers``: method → what it returns (a function: called), property → its value."""
    made = mock.NonCallableMagicMock(spec_set=cls)
    for name in dir(cls):
        value = getattr(cls, name)
        if not name.startswith("_") and callable(value) and signatures(value):
            getattr(made, name).side_effect = Call(value, answers.pop(name, None))
    for name, value in answers.items():
        assert isinstance(getattr(cls, name), property), f"{cls.__name__} has no property {name}"
        setattr(made, name, value)
    return made


def constructor(cls: type, made: Any) -> Any:
    """What stands for the class itself: takes the real constructor's arguments and gives ``made``."""
    return Call(cls.__init__, made, of=cls)


class Call:
    """Takes what one of the real signatures takes, enums by their type; TypeError for anything else."""

    def __init__(self, real: Any, answer: Any, of: type | None = None) -> None:
        self._real, self._answer, self._bound = real, answer, of is not None
        assert signatures(real), f"{real} documents no signature"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for each in signatures(self._real):
            if _takes(each, args, kwargs):
                return self._answer(*args, **kwargs) if inspect.isfunction(self._answer) else self._answer
        raise TypeError(f"{signatures(self._real)} do not take {args} {kwargs}")


def _takes(signature: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    kinds: dict[str, str] = {}
    parameters = []
    for each in split(inside):
        name, _, rest = each.partition(":")
        kind, has_default, _ = rest.partition(" = ")
        if name != "self":
            kinds[name] = kind.strip().rpartition(".")[2]
            default = None if has_default else inspect.Parameter.empty
            parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    try:
        bound = inspect.Signature(parameters).bind(*args, **kwargs)
    except TypeError:
        return False
    return all(_fits(kinds[name], value) for name, value in bound.arguments.items())


PLAIN: dict[str, Any] = {"str": str, "bool": bool, "SupportsInt": int, "SupportsFloat": (int, float), "Buffer": bytes}


def _fits(kind: str, value: Any) -> bool:
    if kind in PLAIN:
        return isinstance(value, PLAIN[kind])
    if kind == "Dims":
        return isinstance(value, tuple) and all(isinstance(each, int) for each in value)
    wanted = getattr(trt, kind, None)
    return not isinstance(wanted, type) or isinstance(value, wanted)  # a mock with this specification is an instance
