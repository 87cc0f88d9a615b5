"""Reading ONNX files: what is taken, and what is refused with which words."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.domain.errors import RejectedFile
from tests.workers.models.matmul import matmul_model
from workers.models.onnx_graph import OnnxProgram, read_onnx

HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'


def saved(folder: Path, body: str, header: str = HEADER) -> Path:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(header + body), path)
    return path


def read(folder: Path, body: str, header: str = HEADER) -> OnnxProgram:
    return read_onnx(saved(folder, body, header), fuse_bn=True)


def with_weight(folder: Path, **save: object) -> Path:
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "fc.weight")
    path = folder / "model.onnx"
    onnx.save(matmul_model(weight), path, **save)
    return path


REFUSED = {
    "opset": ('<ir_version: 8, opset_import: ["" : 12]>', "g (float[n] x) => (float[n] y) { y = Relu(x) }", "opset 12"),
    "domain": (
        '<ir_version: 8, opset_import: ["" : 18, "acme" : 1]>',
        "g (float[n] x) => (float[n] y) { y = acme.Fancy(x) }",
        "acme::Fancy",
    ),
    "domain inside a branch": (
        '<ir_version: 8, opset_import: ["" : 18, "acme" : 1]>',
        "g (bool c, float[n] x) => (float[n] y) "
        "{ y = If (c) <then_branch = t () => (float[n] a) { a = acme.Fancy(x) },"
        " else_branch = e () => (float[n] b) { b = Relu(x) }> }",
        "acme::Fancy",
    ),
    "unknown operator": (HEADER, "g (float[n] x) => (float[n] y) { y = Nonsense(x) }", "Nonsense"),
    "quantized": (
        HEADER,
        "g (float[n] x) => (float[n] y) <float s = {0.5}, int8 z = {0}> "
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
        "quantized already",
    ),
    "half weights": (
        HEADER,
        "g (float16[n,1] x) => (float16[n,1] y) <float16[1,1] w = {1}> { y = MatMul(x, w) }",
        "float16",
    ),
}


@pytest.mark.parametrize(("header", "body", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_an_unusable_model_is_refused_by_name_of_what_is_wrong(
    tmp_path: Path, header: str, body: str, words: str
) -> None:
    model = onnx.parser.parse_model(header + "\n" + body)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(RejectedFile, match=words):
        read_onnx(tmp_path / "m.onnx", fuse_bn=True)


@pytest.mark.parametrize("content", [b"", b"GIF89a not a model", b"\x08\x08" * 40], ids=["empty", "text", "protobuf"])
def test_what_is_not_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(RejectedFile):
        read_onnx(tmp_path / "m.onnx", fuse_bn=True)


def test_a_sequence_output_is_refused(tmp_path: Path) -> None:
    body = "g (float[n] x) => (seq(float[n]) y) { y = SequenceConstruct(x) }"
    with pytest.raises(RejectedFile, match="output 'y' is not a tensor"):
        read(tmp_path, body)


@pytest.mark.parametrize("place", ["w.bin", "../w.bin", "/etc/hostname"])
def test_data_in_another_file_is_never_read_whatever_lies_there(tmp_path: Path, place: str) -> None:
    path = with_weight(tmp_path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = place
    path.write_bytes(model.SerializeToString())
    with pytest.raises(RejectedFile, match=r"not uploaded; send a zip of the \.onnx file and that one") as caught:
        read_onnx(path, fuse_bn=True)
    assert repr(place) in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("change", [lambda raw: raw + b"1234", lambda raw: raw + b"1", lambda raw: raw[:100]])
def test_a_weight_with_more_or_less_data_than_its_shape_is_refused_by_name(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = with_weight(tmp_path)
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = change(model.graph.initializer[0].raw_data)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(RejectedFile, match=r"fc\.weight.*shape"):
        read_onnx(path, fuse_bn=True)


@pytest.mark.parametrize("name", [b"fc.weight", b"x", b"MatMul"], ids=["weight", "input", "operator"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: bytes) -> None:
    path = with_weight(tmp_path)
    path.write_bytes(path.read_bytes().replace(name, b"\xff" * len(name)))
    with pytest.raises(RejectedFile, match=r"which is not UTF-8|refuses the model"):
        read_onnx(path, fuse_bn=True)


def test_a_note_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    path = with_weight(tmp_path)
    model = onnx.load(path)
    model.doc_string = "latin"
    path.write_bytes(model.SerializeToString().replace(b"latin", b"l\xe4tin"))
    assert "fc.weight" in read_onnx(path, fuse_bn=True).weights


@pytest.mark.parametrize("place", ["input", "weight"])
def test_a_data_type_that_does_not_exist_is_refused(tmp_path: Path, place: str) -> None:
    path = with_weight(tmp_path)
    model = onnx.load(path)
    if place == "input":
        model.graph.input[0].type.tensor_type.elem_type = 99
    else:
        model.graph.initializer[0].data_type = 99
    path.write_bytes(model.SerializeToString())
    with pytest.raises(RejectedFile):
        read_onnx(path, fuse_bn=True)


def test_large_weights_are_held_apart_from_the_graph(tmp_path: Path) -> None:
    program = read_onnx(with_weight(tmp_path), fuse_bn=True)
    assert program.weights["fc.weight"].shape == (64, 64)
    assert len(program.skeleton.SerializeToString()) < 1000


def test_initializers_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = with_weight(tmp_path)
    model = onnx.load(path)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("fc.weight", TensorProto.FLOAT, [64, 64]))
    onnx.save(model, path)
    assert [each.name for each in read_onnx(path, fuse_bn=True).inputs] == ["x"]


@pytest.mark.parametrize(("dims", "size"), [("n,3", None), ("4,3", 4)], ids=["free", "fixed"])
def test_the_batch_size_is_that_of_the_inputs(tmp_path: Path, dims: str, size: int | None) -> None:
    assert read(tmp_path, f"g (float[{dims}] x) => (float[{dims}] y) {{ y = Relu(x) }}").batch_size == size
