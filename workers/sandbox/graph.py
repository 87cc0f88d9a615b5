"""The decision as a graph: made of an uploaded model in a sandbox, and run there beside what was verified."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from service.domain.caches import CacheAlgorithm
from service.domain.conversion import DEFAULT_VERSION
from service.domain.errors import InvalidInput, first_line
from service.domain.layers import output_edge
from service.inspection.calibration_cache import CacheEntry, write_cache
from workers.backends.onnx_reading import ReadModel, read_model
from workers.backends.protocol import Array, OpenSettings, PluginLibraries, Tensors
from workers.exports.file_session import FileSession
from workers.exports.half import KeptFloat32
from workers.exports.lint_rules import Finding
from workers.exports.onnx_file import write_onnx
from workers.exports.qdq_lint import lint_qdq
from workers.exports.qdq_onnx import QdqExport, QdqSettings, export_qdq
from workers.exports.scales import Rescaled
from workers.exports.to_cache import to_cache
from workers.models.fake_quant import scale_of
from workers.sandbox.confined import Confined
from workers.sandbox.results import as_array, read_files, sent_files
from workers.sandbox.sandbox import Sandbox
from workers.sandbox.serving import Fetch, Reply
from workers.sandbox.wire import Message

KIND, MODEL, CACHE = "mixed-graph", "mixed.onnx", "calibration.cache"


@dataclass(frozen=True)
class GraphToMake:
    """Which graph. ``amax``: activation edge → range. ``fallback``: ids of layers that stay in floating point.

    ``unmeasured``: those without ranges, which are not in the cache.
    """

    amax: Mapping[str, float]
    fallback: frozenset[str]
    unmeasured: frozenset[str]
    half_fallback: bool
    per_channel: bool
    opened: OpenSettings


@dataclass(frozen=True)
class MadeGraph:
    """What there is to tell of the graph."""

    int8: tuple[str, ...]
    kept_float32: tuple[KeptFloat32, ...]
    rescaled: tuple[Rescaled, ...]
    lint: tuple[Finding, ...]


ASKED, MADE = TypeAdapter(GraphToMake), TypeAdapter(MadeGraph)


class ServedGraph:
    """The inner side: the files lie in its temporary folder."""

    def __init__(self, path: Path, asked: GraphToMake) -> None:
        read = read_model(path, asked.opened)
        settings = QdqSettings(per_channel=asked.per_channel, half_fallback=asked.half_fallback)
        made = export_qdq(read.program, read.found, asked.amax, fallback=asked.fallback, settings=settings)
        self._path = Path.cwd() / MODEL
        self._written = write_onnx(self._path, made.model, made.weights)
        self._cache = _cache(read, asked, settings)
        lint = tuple(lint_qdq(made.model, made.weights))
        self._made = MadeGraph(tuple(made.int8), tuple(made.kept_float32), tuple(made.rescaled), lint)
        self._libraries: PluginLibraries = asked.opened.libraries
        self._sessions: dict[bool, FileSession] = {}

    def opened(self) -> Reply:
        """What was made, and the files."""
        files = {**read_files(self._written), CACHE: as_array(self._cache)}
        return Reply(MADE.dump_python(self._made, mode="json"), files)

    def answers(self, asked: Message, fetch: Fetch) -> Iterator[Reply]:
        """``run``: every output of the file for a batch, by the runtime's fused kernels or not."""
        fused, samples, plugins = asked.document
        try:
            if fused not in self._sessions:
                libraries = self._libraries.onnxruntime if plugins else ()
                self._sessions[fused] = FileSession(self._path, libraries, fused=fused)
            outputs = self._sessions[fused].run(asked.arrays, samples)
        except Exception as error:  # the runtime raises classes of its own
            raise InvalidInput(f"ONNX Runtime cannot run it: {first_line(error)}") from error
        yield Reply(None, outputs)


def served_graph(files: Sequence[Path], asked: Message) -> ServedGraph:
    """Make the graph that is asked for of the model file."""
    return ServedGraph(files[0], ASKED.validate_python(asked.document))


class SandboxedGraph:
    """The graph, made; ``files``: by name, the graph's first. A context manager: its sandbox ends with the block."""

    def __init__(self, confined: Confined) -> None:
        self._confined = confined
        self.made: MadeGraph = confined.checked(lambda: MADE.validate_python(confined.first.document))
        self.files: Mapping[str, bytes] = confined.checked(lambda: sent_files(confined.first.arrays, (MODEL, CACHE)))

    def __enter__(self) -> "SandboxedGraph":
        return self

    def __exit__(self, *_: Any) -> None:
        self._confined.end()

    def run(self, batch: Tensors, samples: int, *, fused: bool, plugins: bool) -> Mapping[str, Array]:
        """Every output for the batch, which holds so many samples; raises InvalidInput where it does not run."""
        answer = self._confined.one("run", [fused, samples, plugins], {name: np.asarray(batch[name]) for name in batch})
        return answer.arrays


def open_sandboxed_graph(sandbox: Sandbox, path: Path, asked: GraphToMake) -> SandboxedGraph:
    """Make the graph of the model file; raises InvalidInput where it cannot be made."""
    seconds = sandbox.policy.silent_seconds
    return SandboxedGraph(sandbox.open(KIND, [path], ASKED.dump_python(asked, mode="json"), seconds=seconds))


def _cache(read: ReadModel, asked: GraphToMake, settings: QdqSettings) -> bytes:
    """Of every layer that has ranges: which of them are int8 is told elsewhere.

    As they were measured: who builds from a cache gives the branches of a Concat one scale by itself.
    """
    measured = replace(settings, unify=False, half_fallback=False)
    whole: QdqExport = export_qdq(read.program, read.found, asked.amax, fallback=asked.unmeasured, settings=measured)
    found = to_cache(whole.model, whole.weights, version=DEFAULT_VERSION, algorithm=CacheAlgorithm.ENTROPY_2)
    present = found.cache.by_tensor
    added = tuple(each for each in _plugin_entries(read, asked) if each.tensor not in present)
    return write_cache(replace(found.cache, entries=(*found.cache.entries, *added)))


def _plugin_entries(read: ReadModel, asked: GraphToMake) -> Iterator[CacheEntry]:
    """An implicit build asks for the scale of a plugin's output wherever that goes; no pair stands at the graph's."""
    nodes = {node.name: node for node in read.program.skeleton.graph.node}
    for found in read.found:
        for index in found.outputs if found.layer.id not in asked.unmeasured else ():
            amax = asked.amax[output_edge(found.layer.id, index)]
            yield CacheEntry.of(nodes[found.node].output[index], float(scale_of(amax)))
