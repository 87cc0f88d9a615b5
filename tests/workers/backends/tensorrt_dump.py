"""Prints what the imported TensorRT bindings hold, as JSON; runs in a child process of tensorrt_bindings.py.

Of each class: its base, its enum members, its methods (the signatures that pybind11 writes into their docstrings, one
for each overload), and its properties (their type, and whether they can be set).
"""

import json
import re
from typing import Any

CLASS_NAMES = (
    "Builder BuilderFlag DataType Dims EngineInspector IBuilderConfig ICudaEngine IExecutionContext IHostMemory ILayer "
    "ILogger INetworkDefinition IOptimizationProfile IPluginRegistry IProfiler ITensor ITimingCache "
    "LayerInformationFormat LayerType Logger MemoryPoolType NetworkDefinitionCreationFlag OnnxParser ParserError "
    "ProfilingVerbosity Runtime TensorIOMode"
)
FUNCTIONS = ("init_libnvinfer_plugins", "get_plugin_registry", "nptype")
NUMBERED = re.compile(r"^\d+\. ")


def signatures(function: Any) -> list[str]:
    """The signature lines of a pybind11 function; none where it documents none."""
    name = getattr(function, "__name__", "")
    lines = [NUMBERED.sub("", line) for line in (function.__doc__ or "").splitlines()]
    return [line for line in lines if line.startswith(f"{name}(") and "(*args, **kwargs)" not in line]


def property_of(value: property) -> dict[str, Any]:
    """Its type as documented, and whether it can be set."""
    text = (value.fget.__doc__ or "") if value.fget is not None else ""
    return {"type": text.partition("->")[2].strip().splitlines()[0] if "->" in text else "", "set": bool(value.fset)}


def described(cls: Any) -> dict[str, Any]:
    """One class."""
    enum = sorted(getattr(cls, "__members__", {}))
    found: dict[str, Any] = {"base": cls.__mro__[1].__name__, "enum": enum, "methods": {}, "properties": {}}
    for name, value in vars(cls).items():
        if name == "__init__" or not name.startswith("_"):
            if isinstance(value, property):
                found["properties"][name] = property_of(value)
            elif callable(value) and name not in enum and not isinstance(value, type):
                found["methods"][name] = signatures(getattr(cls, name))
    return found


def main() -> None:
    """Print them."""
    import tensorrt_bindings as trt

    classes = {name: described(getattr(trt, name)) for name in CLASS_NAMES.split() if hasattr(trt, name)}
    classes["ILogger"]["nested"] = {"Severity": described(trt.ILogger.Severity)}
    functions = {name: signatures(getattr(trt, name)) for name in FUNCTIONS if hasattr(trt, name)}
    print(json.dumps({"version": trt.__version__, "classes": classes, "functions": functions}))


if __name__ == "__main__":
    main()
