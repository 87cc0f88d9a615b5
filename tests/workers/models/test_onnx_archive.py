"""ONNX models with external data, sent as a zip: what is read, and what can't be reached."""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.domain.errors import RejectedFile
from tests.workers.models.matmul import matmul_model
from workers.models import onnx_archive
from workers.models.onnx_archive import external_tensors
from workers.models.onnx_graph import read_onnx

WEIGHT = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def external_model(location: str = "w.bin", **entries: str) -> onnx.ModelProto:
    """A MatMul whose weight, 16384 bytes, lies in another file."""
    weight = TensorProto(name="fc.weight", data_type=TensorProto.FLOAT, dims=WEIGHT.shape)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    return matmul_model(weight)


def zipped(folder: Path, members: dict[str, bytes | onnx.ModelProto], method: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "model.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, bytes) else content.SerializeToString())
    return path


LAYOUTS = {
    "side by side": ("model.onnx", "w.bin", "w.bin"),
    "in a folder": ("net/model.onnx", "net/w.bin", "w.bin"),
    "data below": ("model.onnx", "weights/w.bin", "weights/w.bin"),
    "with a dot": ("./model.onnx", "./w.bin", "./w.bin"),
    "a name that no disk takes": ("model.onnx", "w" * 300, "w" * 300),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize(("model", "data", "location"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_data_is_read_from_the_zip_and_nothing_stays_unpacked(
    tmp_path: Path, temporary_folder: Path, model: str, data: str, location: str, method: int
) -> None:
    members = {model: external_model(location), data: WEIGHT.tobytes(), "__MACOSX/._model.onnx": b"litter"}
    program = read_onnx(zipped(tmp_path, members, method), fuse_bn=True)
    np.testing.assert_array_equal(program.weights["fc.weight"], WEIGHT)
    assert list(temporary_folder.iterdir()) == []


def test_tensors_share_a_file_by_their_offsets(tmp_path: Path) -> None:
    model = external_model(offset="4096", length="16384")
    members = {"model.onnx": model, "w.bin": b"\xff" * 4096 + WEIGHT.tobytes()}
    np.testing.assert_array_equal(read_onnx(zipped(tmp_path, members), fuse_bn=True).weights["fc.weight"], WEIGHT)


def test_a_zip_of_a_model_with_its_weights_inside_is_taken(tmp_path: Path) -> None:
    model = external_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT, "fc.weight"))
    assert "fc.weight" in read_onnx(zipped(tmp_path, {"model.onnx": model}), fuse_bn=True).weights


OUTSIDE = ["../../etc/passwd", "/etc/passwd", "weights/../../w.bin", "\\etc\\passwd", "..\\w.bin", "C:\\w.bin", "C:w"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_a_location_outside_the_zip_is_refused_by_name(tmp_path: Path, temporary_folder: Path, location: str) -> None:
    members = {"net/model.onnx": external_model(location), "w.bin": WEIGHT.tobytes()}
    with pytest.raises(RejectedFile, match="must be a relative path without") as caught:
        read_onnx(zipped(tmp_path, members), fuse_bn=True)
    assert f"tensor 'fc.weight' has its data at {location!r}" in str(caught.value)
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.parametrize("location", ["other.bin", "", ".", "model.onnx", "w.bin/x", "w.bin\0"])
def test_a_location_that_the_zip_does_not_hold_is_refused_by_name(tmp_path: Path, location: str) -> None:
    members = {"model.onnx": external_model(location), "w.bin": WEIGHT.tobytes()}
    with pytest.raises(RejectedFile, match=r"not in the zip; beside the \.onnx file it holds 'w.bin'"):
        read_onnx(zipped(tmp_path, members), fuse_bn=True)


UNREADABLE = {
    "offset beyond the end": ({"offset": "20000"}, "offset '20000'.*which has 16384 bytes"),
    "negative offset": ({"offset": "-1"}, "offset '-1'"),
    "too long": ({"length": "99999999999"}, "length '99999999999'"),
    "negative length": ({"length": "-5"}, "length '-5'"),
    "no number": ({"length": "many"}, "length 'many'"),
    "less than the shape needs": ({"length": "100"}, r"'fc.weight' has the shape \(64, 64\), but"),
}


@pytest.mark.parametrize(("entries", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_part_that_the_file_does_not_have_is_refused(tmp_path: Path, entries: dict[str, str], words: str) -> None:
    members = {"model.onnx": external_model(**entries), "w.bin": WEIGHT.tobytes()}
    with pytest.raises(RejectedFile, match=words):
        read_onnx(zipped(tmp_path, members), fuse_bn=True)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    model = external_model()
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(RejectedFile, match="names the location of its external data 2 times"):
        read_onnx(zipped(tmp_path, {"model.onnx": model, "w.bin": WEIGHT.tobytes()}), fuse_bn=True)


def test_many_tensors_on_the_same_bytes_are_no_way_to_fill_the_memory(tmp_path: Path) -> None:
    model = external_model()
    for index in range(8):
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(model.graph.initializer[0])
        tensor.name = f"copy {index}"
    with pytest.raises(RejectedFile, match="claim 147456 bytes of external data, of 16384"):
        read_onnx(zipped(tmp_path, {"model.onnx": model, "w.bin": WEIGHT.tobytes()}), fuse_bn=True)


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"model.onnx": external_model(), "w.bin": WEIGHT.tobytes()})
    content = bytearray(path.read_bytes())
    content[content.index(WEIGHT.tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(RejectedFile, match=r"the zip is damaged .*w\.bin"):
        read_onnx(path, fuse_bn=True)


def test_a_location_that_is_no_text_is_refused(tmp_path: Path) -> None:
    model = external_model("w.bin").SerializeToString().replace(b"w.bin", b"w\x80bin")
    with pytest.raises(RejectedFile, match=r"the name b'w\\x80bin', which is not UTF-8"):
        read_onnx(zipped(tmp_path, {"model.onnx": model, "w.bin": WEIGHT.tobytes()}), fuse_bn=True)


def test_a_member_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RejectedFile, match=r"'model\.onnx' in the zip is not an ONNX model"):
        read_onnx(zipped(tmp_path, {"model.onnx": b"\xff\xff nonsense"}), fuse_bn=True)


def in_a_branch(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    branch = helper.make_graph([node], "b", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch))


def in_a_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(helper.make_function("d", "f", [], ["c"], [node], []))


def in_a_sparse_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, dims=[4]))


@pytest.mark.parametrize("place", [in_a_branch, in_a_function, in_a_sparse_initializer])
def test_external_data_is_found_wherever_a_tensor_can_be(
    place: Callable[[onnx.ModelProto, TensorProto], None],
) -> None:
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    model = external_model()
    place(model, tensor)
    assert {each.name for each in external_tensors(model)} == {"fc.weight", "hidden"}


def test_only_its_owner_can_look_into_the_folder(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"model.onnx": external_model(), "w.bin": WEIGHT.tobytes()})
    with onnx_archive.unpacked(path) as file:
        assert file.parent.stat().st_mode & 0o077 == 0
        assert sorted(each.name for each in file.parent.iterdir()) == ["0.data", "model.onnx"]
