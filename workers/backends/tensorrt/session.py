"""An engine in the shape of an ONNX Runtime session, so that variants run and are checked by the same code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workers.backends.protocol import Array
from workers.backends.tensorrt.seam import Engine


@dataclass(frozen=True)
class Named:
    """An input or output."""

    name: str


class EngineSession:
    """``inputs`` and ``outputs``: the names of the model's."""

    def __init__(self, engine: Engine, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._engine = engine
        self._inputs, self._outputs = [Named(each) for each in inputs], [Named(each) for each in outputs]

    def get_inputs(self) -> list[Named]:
        """What it takes."""
        return self._inputs

    def get_outputs(self) -> list[Named]:
        """What it gives."""
        return self._outputs

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """These outputs, in this order. Raises EngineFailure, which is a RuntimeError, or OutOfMemory."""
        found = self._engine.run(feeds)
        return [found[name] for name in outputs]
