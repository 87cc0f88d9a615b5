"""What the backend needs of TensorRT: plans made from ONNX bytes, engines loaded from plans."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from workers.backends.protocol import Array


class EngineFailure(RuntimeError):
    """An engine cannot be built, is not what was asked for, or cannot run; the message is what the table shows."""


@dataclass(frozen=True)
class InputRange:
    """The shapes that an input may take: the smallest, the one to tune for, the largest."""

    name: str
    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]


@dataclass(frozen=True)
class ImplicitInt8:
    """Int8 given beside the graph, for TensorRT 10 and before.

    ``nodes``: the ONNX nodes that compute in int8; all others in float32. ``ranges``: tensor → amax, for all that these
    nodes and what is fused with them read and write.
    """

    nodes: frozenset[str]
    ranges: Mapping[str, float]


@dataclass(frozen=True)
class BuildRequest:
    """One engine. ``implicit`` None: the types stand in the graph (Q/DQ), and the network is strongly typed.

    ``plugins``: the operators of the graph that only a plugin library knows.
    """

    model: bytes
    inputs: tuple[InputRange, ...]
    implicit: ImplicitInt8 | None = None
    plugins: tuple[str, ...] = ()


class Engine(Protocol):
    """A loaded engine on one GPU. Not thread-safe."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every output for these inputs. Raises EngineFailure, or OutOfMemory."""

    def information(self) -> str:
        """What the engine's inspector says of all its layers, JSON."""

    def profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, float]]:
        """For each run: layer, by the inspector's name → seconds on the GPU. Raises EngineFailure, or OutOfMemory."""


class EngineMaker(Protocol):
    """Makes engines for one GPU."""

    identity: str
    """GPU and versions: a plan made under one identity cannot be loaded under another."""
    implicit: bool
    """Whether int8 can be given beside the graph: TensorRT 10 and before."""

    def build(self, request: BuildRequest) -> bytes:
        """The serialized engine; may be called from another thread than ``load``. Raises EngineFailure."""

    def load(self, plan: bytes) -> Engine:
        """The engine of a plan. Raises EngineFailure."""
