"""Writes typed stubs of TensorRT from what its real bindings document.

``python -m tests.workers.backends.make_tensorrt_stubs`` writes ``typings/tensorrt/__init__.pyi``, the union of both
majors, for the type checker; the contract test makes one of each major for itself.
"""

import re
from typing import Any

from tests.workers.backends.tensorrt_bindings import ROOT, VERSIONS, bindings

STUB = ROOT / "typings" / "tensorrt" / "__init__.pyi"
HEAD = '''"""The part of TensorRT's Python interface that is used here, generated from NVIDIA's bindings; do not edit.

Made by ``python -m tests.workers.backends.make_tensorrt_stubs`` from {versions}.
"""

from collections.abc import Buffer, Sequence
from typing import Any, ClassVar, SupportsFloat, SupportsInt

__version__: str
'''
# what the bindings hand out may be a null pointer, which is None; their docstrings do not say so
NULLABLE = {
    "build_serialized_network",
    "deserialize_cuda_engine",
    "create_execution_context",
    "create_network",
    "create_builder_config",
    "create_engine_inspector",
    "get_timing_cache",
    "create_timing_cache",
    "get_input",
    "get_output",
    "get_layer",
}
KNOWN = {"int", "float", "bool", "str", "None", "bytes", "object"}
RENAMED = {
    "typing.SupportsInt": "SupportsInt",
    "typing.SupportsFloat": "SupportsFloat",
    "typing_extensions.Buffer": "Buffer",
    "typing_extensions.CapsuleType": "object",
    "nvonnxparser::IParserError": "ParserError",
    "capsule": "object",
}


class Types:
    """Translates the types of pybind11's docstrings; ``classes`` are those of the stub, what is unknown is Any."""

    def __init__(self, classes: set[str]) -> None:
        self._classes = classes

    def taken(self, text: str) -> str:
        """As an argument: sizes may be any sequence."""
        found = self.given(text)
        return "Sequence[int] | Dims" if found == "Dims" else found

    def given(self, text: str) -> str:
        """As a value that comes back."""
        text = text.strip().replace("tensorrt_bindings.tensorrt.", "")
        text = RENAMED.get(text, text)
        if text in self._classes | KNOWN or text in RENAMED.values() or text == "ILogger.Severity":
            return text
        inner = re.fullmatch(r"list\[(.+)\]", text) or re.fullmatch(r"List\[(.+)\]", text)
        return f"list[{self.given(inner[1])}]" if inner else "Any"


def split(arguments: str) -> list[str]:
    """At the commas that stand outside brackets."""
    parts, depth = [""], 0
    for each in arguments:
        depth += (each in "[(<{") - (each in "])>}")
        if each == "," and not depth:
            parts.append("")
        else:
            parts[-1] += each
    return [each.strip() for each in parts if each.strip()]


def function(name: str, signature: str, types: Types, *, method: bool) -> str:
    """One ``def`` line."""
    found = re.fullmatch(r"\w+\((.*)\) -> (.+)", signature)
    assert found is not None, signature
    arguments = []
    for each in split(found[1]):
        argument, _, rest = each.partition(":")
        kind, has_default, default = rest.partition(" = ")
        if argument == "self" and method:
            arguments.append("self")
        elif argument.startswith("*"):
            arguments.append(f"{argument}: Any")
        else:
            kind = types.taken(kind) + (" | None" if default.strip() == "None" else "")
            optional = bool(has_default) or any(each.endswith("...") for each in arguments)
            arguments.append(f"{argument}: {kind}" + (" = ..." if optional else ""))
    result = types.given(found[2]) + (" | None" if name in NULLABLE else "")
    return f"def {name}({', '.join(arguments)}) -> {'None' if name == '__init__' else result}: ..."


def functions(name: str, signatures: list[str], types: Types, *, method: bool) -> list[str]:
    """The ``def`` line; one that takes anything where there are several overloads that a checker cannot tell apart."""
    if not signatures:
        return [f"def {name}({'self, ' if method else ''}*args: Any, **kwargs: Any) -> {_loose(name)}: ..."]
    made = list(dict.fromkeys(function(name, each, types, method=method) for each in signatures))
    if len(made) == 1:
        return made
    return [line for each in sorted(made, key=lambda each: each.count("Any")) for line in ("@overload", each)]


def _loose(name: str) -> str:
    return "None" if name == "__init__" else "Any"


def class_lines(name: str, found: dict[str, Any], types: Types, within: str = "") -> list[str]:
    """The lines of one class; ``within`` names the class that holds it, with a dot."""
    base = f"({found['base']})" if found["base"] not in {"pybind11_object", "object"} else ""
    lines = [f"class {name}{base}:"]
    body: list[str] = []
    for nested, inner in found.get("nested", {}).items():
        body += class_lines(nested, inner, types, within=f"{name}.")
        body += [f"{member}: ClassVar[{name}.{nested}]" for member in inner["enum"]]
    if found["enum"]:
        body += [f"{member}: ClassVar[{within}{name}]" for member in found["enum"]]
        body += ["@property", "def name(self) -> str: ...", "def __int__(self) -> int: ..."]
    for each, value in sorted(found["properties"].items()):
        if found["enum"] and each in {"name", "value"}:
            continue
        kind = types.given(value["type"])
        body += ["@property", f"def {each}(self) -> {kind}: ..."]
        if value["set"]:
            body += [f"@{each}.setter", f"def {each}(self, value: {types.taken(value['type'])}) -> None: ..."]
    for each, signatures in sorted(found["methods"].items()):
        if not (found["enum"] and each == "__init__"):
            body += functions(each, signatures, types, method=True)
    if name == "IHostMemory":
        body.append("def __buffer__(self, flags: int, /) -> memoryview: ...")
    if name == "Dims":
        body += ["def __len__(self) -> int: ...", "def __iter__(self) -> Iterator[int]: ..."]
        body.append("def __getitem__(self, index: int) -> int: ...")
    return lines + [f"    {each}" for each in body or ["..."]]


def stub_text(dump: dict[str, Any]) -> str:
    """The stub of what one dump holds."""
    types = Types(set(dump["classes"]))
    text = HEAD.format(versions=dump["version"])
    text = text.replace("Buffer, Sequence", "Iterator, Sequence").replace("SupportsInt\n", "SupportsInt, overload\n")
    lines = ["", "from typing_extensions import Buffer", ""]
    for name, signatures in sorted(dump["functions"].items()):
        lines += functions(name, signatures, types, method=False)
    # ILogger first: a base must stand before what inherits from it
    for name, found in sorted(dump["classes"].items(), key=lambda each: (each[1]["base"] != "pybind11_object", each)):
        lines += ["", *class_lines(name, found, types)]
    return text + "\n".join(lines) + "\n"


def united(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both majors in one: every member of either; where both have a member, the newer one's signature."""
    classes: dict[str, Any] = {}
    for name in first["classes"].keys() | second["classes"].keys():
        old, new = (each["classes"].get(name) for each in (first, second))
        if old is None or new is None:
            classes[name] = old or new
            continue
        classes[name] = new | {
            "enum": sorted({*old["enum"], *new["enum"]}),
            "methods": old["methods"] | new["methods"],
            "properties": old["properties"] | new["properties"],
        }
    version = f"{first['version']} and {second['version']}"
    return {"version": version, "classes": classes, "functions": first["functions"] | second["functions"]}


def main() -> None:
    """Write the stub of both majors."""
    dumps = [bindings(version).dump() for version in VERSIONS]
    STUB.parent.mkdir(parents=True, exist_ok=True)
    STUB.write_text(stub_text(united(dumps[0], dumps[1])))


if __name__ == "__main__":
    main()
