"""Opening Parquet files as people have them: Hugging Face image columns, binary images, lists, tensors."""

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from service.domain.errors import RejectedFile
from workers.data import parquet
from workers.data.parquet import open_parquet

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
IMAGE_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(color: tuple[int, int, int], size: tuple[int, int] = (4, 2)) -> bytes:
    """A file of one color; ``size`` is (width, height)."""
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def saved(folder: Path, table: Any, **options: Any) -> Path:
    path = folder / "eval.parquet"
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)
    return path


def images(*files: bytes | None) -> Any:
    return pa.array([None if each is None else {"bytes": each, "path": "x.png"} for each in files], IMAGE_STRUCT)


@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary"])
def test_image_files_are_decoded_when_they_are_asked_for(tmp_path: Path, kind: str) -> None:
    files = [png(each) for each in COLORS]
    column = images(*files) if kind == "struct" else pa.array(files, getattr(pa, kind)())
    opened = open_parquet(saved(tmp_path, {"image": column, "label": [0, 1, 1]}))
    spec = opened.specs["image"]
    assert (opened.samples, spec.encoded, spec.shape, spec.dtype) == (3, True, (None, None, 3), np.uint8)
    batch = opened.batch(np.array([2, 0]))["image"]
    assert [each.shape for each in batch] == [(2, 4, 3)] * 2
    assert [tuple(each[0, 0].tolist()) for each in batch] == [COLORS[2], COLORS[0]]


def test_images_may_differ_in_size(tmp_path: Path) -> None:
    opened = open_parquet(saved(tmp_path, {"image": images(png(COLORS[0], (4, 2)), png(COLORS[1], (5, 3)))}))
    assert [each.shape for each in opened.batch(np.arange(2))["image"]] == [(2, 4, 3), (3, 5, 3)]


def test_the_class_names_of_hugging_face_datasets_are_found(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"image": images(png(COLORS[0]), png(COLORS[1]), png(COLORS[2])), "label": [1, 0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    opened = open_parquet(saved(tmp_path, table))
    assert opened.class_names == ("cat", "dog")
    assert opened.class_counts == {"cat": 1, "dog": 2}
    np.testing.assert_array_equal(opened.targets, [1, 0, 1])


METADATA = {
    "not JSON": b"{",
    "no features": b'{"info": {}}',
    "names are no list": b'{"info": {"features": {"label": {"names": "cat"}}}}',
    "names are no texts": b'{"info": {"features": {"label": {"names": [1, 2]}}}}',
    "names are there twice": b'{"info": {"features": {"label": {"names": ["cat", "cat"]}}}}',
    "very deep": b"[" * 100_000,
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=METADATA)
def test_class_names_that_make_no_sense_are_none(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"x": [[1.0], [2.0]], "label": [0, 1]}).replace_schema_metadata({"huggingface": metadata})
    opened = open_parquet(saved(tmp_path, table))
    assert (opened.class_names, opened.class_counts) == (None, {"0": 1, "1": 1})


VALUES = np.arange(100 * 2 * 3, dtype=np.float32).reshape(100, 2, 3)
SHAPED = pa.field("x", pa.list_(pa.float32()), metadata={"shape": "[2, 3]"})
FORMS = {
    "nested lists": pa.table({"x": VALUES.tolist()}, pa.schema([("x", pa.list_(pa.list_(pa.float32())))])),
    "large lists": pa.table({"x": VALUES.tolist()}, pa.schema([("x", pa.large_list(pa.list_(pa.float32())))])),
    "lists of fixed size": pa.table({"x": VALUES.tolist()}, pa.schema([("x", pa.list_(pa.list_(pa.float32(), 3), 2))])),
    "flat lists with a shape": pa.table({"x": VALUES.reshape(100, 6).tolist()}, pa.schema([SHAPED])),
    "fixed-shape tensor": pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(VALUES)}),
}


@pytest.mark.parametrize("rows", [7, 100], ids=["many row groups", "one row group"])
@pytest.mark.parametrize("table", FORMS.values(), ids=FORMS)
def test_tensors_are_read_in_every_form_that_has_one_shape(tmp_path: Path, table: Any, rows: int) -> None:
    opened = open_parquet(saved(tmp_path, table, row_group_size=rows))
    assert (opened.samples, opened.specs["x"].shape, opened.specs["x"].dtype) == (100, (2, 3), np.float32)
    chosen = np.array([99, 63, 64, 0])
    np.testing.assert_array_equal(opened.batch(chosen)["x"], VALUES[chosen])


def test_a_tensor_whose_axes_are_permuted_is_read_as_it_is_meant(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 3), permutation=[1, 0])
    column = pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(pa.array(VALUES.ravel()), 6))
    opened = open_parquet(saved(tmp_path, {"x": column}))
    assert opened.specs["x"].shape == (3, 2)
    np.testing.assert_array_equal(opened.batch(np.arange(100))["x"], column.to_numpy_ndarray())


def test_single_numbers_are_samples_without_axes(tmp_path: Path) -> None:
    opened = open_parquet(saved(tmp_path, {"x": pa.array([1.5, 2.5], pa.float64()), "flag": [True, False]}))
    assert {name: (each.shape, str(each.dtype)) for name, each in opened.specs.items()} == {
        "x": ((), "float64"),
        "flag": ((), "bool"),
    }


def test_columns_that_can_be_no_input_are_passed_over(tmp_path: Path) -> None:
    table = {"x": [[1.0], [2.0]], "file_name": ["a", "b"], "when": pa.array([1, 2], pa.timestamp("s"))}
    assert set(open_parquet(saved(tmp_path, table)).specs) == {"x"}


def test_a_column_with_a_dot_in_its_name_is_not_taken_for_a_part_of_another(tmp_path: Path) -> None:
    table = {"a.bytes": pa.array([b"x", b"y"]), "a": images(b"abc", b"def")}
    opened = open_parquet(saved(tmp_path, table))
    assert {name: each.data[:].tobytes() for name, each in opened.images.items()} == {"a.bytes": b"xy", "a": b"abcdef"}


def test_what_is_unpacked_has_no_name_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    opened = open_parquet(saved(tmp_path, FORMS["nested lists"]))
    assert list((tmp_path / "temporary").iterdir()) == []
    assert opened.samples == 100


def shaped(shape: str) -> Any:
    return pa.table(
        {"x": [[1.0] * 6] * 2}, pa.schema([pa.field("x", pa.list_(pa.float64()), metadata={"shape": shape})])
    )


REFUSED = {
    "a gap in the images": ({"image": images(png(COLORS[0]), None)}, "image-missing", "row 1 of column 'image'"),
    "an image by its path": ({"image": images(png(COLORS[0]), b"")}, "image-missing", "paths alone are not followed"),
    "a gap in the rows": ({"x": [[1.0], None]}, "missing-values", "column 'x' has missing values"),
    "a gap within a row": ({"x": [[1.0], [None]]}, "missing-values", "column 'x' has missing values"),
    "a gap in the labels": ({"x": [[1.0], [2.0]], "label": [0, None]}, "missing-values", "column 'label'"),
    "ragged rows": ({"x": [[1.0], [2.0, 3.0]]}, "different-shapes", "lists of 1 and of 2"),
    "ragged rows far apart": ({"x": [[1.0]] * 64 + [[1.0, 2.0]] * 64}, "different-shapes", r"\(2,\) from row 64 on"),
    "ragged within a row": ({"x": [[[1.0], [2.0, 3.0]]]}, "different-shapes", "lists of 1 and of 2"),
    "empty rows": ({"x": pa.array([[], []], pa.list_(pa.float32()))}, "empty-array", "empty lists"),
    "no rows": ({"x": pa.array([], pa.list_(pa.float32()))}, "no-samples", "0 rows"),
    "no input": ({"name": ["a"], "label": [0]}, "parquet-columns", r"'name' \('string'\).*needed are images"),
    "class names as labels": ({"x": [[1.0]], "label": ["cat"]}, "label-type", "store the class's number"),
    "two labels": ({"x": [[1.0]], "label": [0], "target": [0]}, "ambiguous-labels", "keep one of them"),
    "two columns of a name": (
        pa.table([pa.array([1.0]), pa.array([2.0])], names=["x", "x"]),
        "parquet-columns",
        "two columns of the same name",
    ),
    "a shape that does not fit": (shaped("[2, 2]"), "column-shape", "needs 4 numbers, but its rows hold 6"),
    "a shape that is none": (shaped("2x3"), "column-shape", r"'2x3'; it must be as in '\[3, 32, 32\]'"),
    "a negative shape": (shaped("[-2, -3]"), "column-shape", "it must be as in"),
}


@pytest.mark.parametrize(("table", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, table: Any, code: str, words: str) -> None:
    with pytest.raises(RejectedFile, match=words) as caught:
        open_parquet(saved(tmp_path, table))
    assert caught.value.code == code


@pytest.mark.parametrize("place", ["pages", "footer", "cut off"])
def test_a_damaged_file_is_named(tmp_path: Path, place: str) -> None:
    path = saved(tmp_path, FORMS["nested lists"])
    content = bytearray(path.read_bytes())
    if place == "cut off":
        content = content[: len(content) // 2]
    else:
        start = 4 if place == "pages" else len(content) - 200
        content[start : start + 100] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(RejectedFile, match="the Parquet file cannot be read") as caught:
        open_parquet(path)
    assert caught.value.code == "parquet-damaged"


def test_an_image_that_cannot_be_decoded_is_named_by_its_row(tmp_path: Path) -> None:
    opened = open_parquet(saved(tmp_path, {"image": images(png(COLORS[0]), b"no image")}))
    with pytest.raises(RejectedFile, match="image in row 1 of column 'image' is none of JPEG, PNG"):
        opened.batch(np.arange(2))


def test_a_column_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MOST_BYTES", 1000)
    with pytest.raises(RejectedFile, match="takes more than 1000 bytes when unpacked"):
        open_parquet(saved(tmp_path, FORMS["nested lists"]))


@pytest.mark.parametrize(
    "change", [lambda byte: 0x80, lambda byte: (byte + 2) % 256], ids=["no text", "another number"]
)
def test_no_damage_to_the_footer_is_an_error_of_ours(tmp_path: Path, change: Callable[[int], int]) -> None:
    path = saved(tmp_path, {"x": [[1.0], [2.0]], "image": images(png(COLORS[0]), png(COLORS[1])), "label": [0, 1]})
    content = path.read_bytes()
    refused = set()
    for place in range(len(content) - 8 - int.from_bytes(content[-8:-4], "little"), len(content)):
        path.write_bytes(content[:place] + bytes([change(content[place])]) + content[place + 1 :])
        try:
            open_parquet(path)
        except RejectedFile as error:
            refused.add(error.code)
    assert "parquet-damaged" in refused
