"""Tells which kind of model file was sent, by its content."""

from pathlib import Path

from service.domain.errors import RejectedFile
from service.inspection.content import is_pickle, is_zip, read_head, starts_like_safetensors
from service.inspection.formats import ModelFormat
from service.inspection.onnx_archive import check_onnx_archive, holds_onnx
from service.inspection.onnx_fields import check_onnx_fields
from service.inspection.zip_listing import list_zip

__all__ = ["ModelFormat", "inspect_model"]

ACCEPTED = (
    "send an ONNX file (.onnx), a zip of one .onnx file and its external data files, or a torch.export archive (.pt2)"
)
HOW_TO_EXPORT = (
    "export the model with torch.onnx.export(model, args, 'model.onnx', dynamo=True), "
    "or with torch.export.save(torch.export.export(model, args), 'model.pt2')"
)
_OTHER_KINDS = (
    (4, b"TFL3", "a TensorFlow Lite model", "tflite-model"),
    (0, b"\x89HDF", "an HDF5 file, such as Keras saves", "hdf5-file"),
    (0, b"GGUF", "a GGUF file", "gguf-file"),
    (0, b"\x93NUMPY", "a NumPy array", "not-a-model"),
    (0, b"PAR1", "a Parquet file", "not-a-model"),
)


def inspect_model(path: Path) -> ModelFormat:
    """The format of a model file; raises RejectedFile where it is none that can be opened."""
    head = read_head(path)
    if is_zip(head):
        return _inspect_zip(path)
    if is_pickle(head):
        message = f"the file is a Python pickle (torch.save), which runs code when it is loaded; {HOW_TO_EXPORT}"
        raise RejectedFile(message, code="pickle")
    if starts_like_safetensors(head):
        message = f"the file is safetensors, which holds weights but no network; {HOW_TO_EXPORT}"
        raise RejectedFile(message, code="weights-only")
    for offset, magic, kind, code in _OTHER_KINDS:
        if head[offset:].startswith(magic):
            raise RejectedFile(f"the file is {kind}; {ACCEPTED}", code=code)
    with path.open("rb") as file:
        check_onnx_fields(file, path.stat().st_size, ACCEPTED)
    return ModelFormat.ONNX


def _inspect_zip(path: Path) -> ModelFormat:
    members = list_zip(path)
    names = [each.filename for each in members]
    if _is_torch_export(names):
        return ModelFormat.PT2
    if holds_onnx(names):
        check_onnx_archive(path, members, ACCEPTED)
        return ModelFormat.ONNX
    raise _no_model(names)


def _is_torch_export(names: list[str]) -> bool:
    below_root = {name.partition("/")[2] for name in names}
    if "archive_format" in below_root:
        if any(name.startswith("models/") and name.endswith(".json") for name in below_root):
            return True
        message = f"the .pt2 archive holds no exported program (no models/*.json); {HOW_TO_EXPORT}"
        raise RejectedFile(message, code="pt2-without-program")
    return "serialized_exported_program.json" in names  # as torch before 2.8 writes it


def _no_model(names: list[str]) -> RejectedFile:
    below_root = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") or name == "constants.pkl" for name in below_root):
        return RejectedFile(f"the file is TorchScript, which is not taken; {HOW_TO_EXPORT}", code="torchscript")
    if "data.pkl" in below_root:
        message = f"the file was written by torch.save (a pickle), which runs code when it is loaded; {HOW_TO_EXPORT}"
        return RejectedFile(message, code="pickle")
    if any(name.endswith(".npy") for name in names):
        return RejectedFile(f"the file is an .npz of arrays, not a model; {ACCEPTED}", code="not-a-model")
    return RejectedFile(f"the file is a zip, but holds no model; {ACCEPTED}", code="not-a-model")
