"""A written graph in ONNX Runtime: as the runtime fuses it, or with Q/DQ and float16 as what they stand for."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workers.engine.fixed_batch import filled
from workers.exports.half_rounding import round_halves

Array = npt.NDArray[np.generic]


class FileSession:
    """The file in ONNX Runtime. ``fused``: as the runtime runs it; else Q/DQ and float16 are what they stand for."""

    def __init__(self, path: Path, libraries: Sequence[Path] = (), *, fused: bool) -> None:
        import onnxruntime

        from workers.models.onnx_libraries import register

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3
        register(options, libraries)
        if not fused:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            path = _rounding(path)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._sizes = {each.name: each.shape[0] if each.shape else None for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def run(self, batch: Mapping[str, Array], samples: int) -> dict[str, Array]:
        """Every output for the batch, which holds so many samples."""
        sizes = {name: size if isinstance(size, int) else None for name, size in self._sizes.items()}
        feeds = {name: filled(batch[name], size) for name, size in sizes.items()}
        rows = self._session.run(self._outputs, feeds)
        return {name: np.asarray(each)[:samples] for name, each in zip(self._outputs, rows, strict=True)}


def _rounding(path: Path) -> Path:
    """A graph beside the file, over the same data, that rounds to float16 where the file is in it."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    round_halves(model)
    made = path.with_name(f"rounding_{path.name}")
    made.write_bytes(model.SerializeToString())
    return made
