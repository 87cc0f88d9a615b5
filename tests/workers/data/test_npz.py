"""Opening .npz files: what is mapped, what is unpacked, and what is refused."""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from service.domain.errors import RejectedFile
from workers.data.npz import open_npz

SAMPLES = np.arange(5 * 3 * 4, dtype=np.float32).reshape(5, 3, 4)
LABELS = np.array([2, 0, 1, 1, 2], np.int32)


def saved(folder: Path, *, compressed: bool = False, **arrays: np.ndarray) -> Path:
    path = folder / "eval.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
def test_samples_come_back_in_the_order_asked_for(tmp_path: Path, compressed: bool) -> None:
    opened = open_npz(saved(tmp_path, compressed=compressed, x=SAMPLES, labels=LABELS))
    assert (opened.samples, opened.specs["x"].shape, opened.specs["x"].dtype) == (5, (3, 4), np.float32)
    np.testing.assert_array_equal(opened.batch(np.array([4, 0, 0]))["x"], SAMPLES[[4, 0, 0]])
    np.testing.assert_array_equal(opened.targets, LABELS)


def test_a_stored_array_is_read_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_temporary_file(*_: object, **__: object) -> None:
        raise AssertionError("a stored array was copied")

    monkeypatch.setattr(tempfile, "TemporaryFile", no_temporary_file)
    path = saved(tmp_path, x=SAMPLES)
    opened = open_npz(path)
    assert Path(opened.arrays["x"].filename) == path


def test_an_unpacked_array_has_no_name_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    opened = open_npz(saved(tmp_path, compressed=True, x=SAMPLES))
    assert list((tmp_path / "temporary").iterdir()) == []
    np.testing.assert_array_equal(opened.batch(np.arange(5))["x"], SAMPLES)


def test_a_batch_is_a_copy_that_may_be_changed(tmp_path: Path) -> None:
    opened = open_npz(saved(tmp_path, x=SAMPLES))
    opened.batch(np.array([0]))["x"][:] = -1
    np.testing.assert_array_equal(opened.batch(np.array([0]))["x"], SAMPLES[:1])


STORED = {
    "big-endian": SAMPLES.astype(">f4"),
    "fortran order": np.asfortranarray(SAMPLES),
    "uint8": SAMPLES.astype(np.uint8),
    "bool": SAMPLES > 7,
    "float16": SAMPLES.astype(np.float16),
}


@pytest.mark.parametrize("array", STORED.values(), ids=STORED)
@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
def test_batches_are_in_this_machines_order(tmp_path: Path, array: np.ndarray, compressed: bool) -> None:
    batch = open_npz(saved(tmp_path, compressed=compressed, x=array)).batch(np.array([3, 1]))["x"]
    np.testing.assert_array_equal(batch, array[[3, 1]])
    assert batch.dtype == array.dtype.newbyteorder("=")
    assert batch.dtype.isnative
    assert batch.flags.c_contiguous


@pytest.mark.parametrize("name", ["label", "labels", "target", "targets"])
def test_labels_are_known_by_their_name(tmp_path: Path, name: str) -> None:
    opened = open_npz(saved(tmp_path, x=SAMPLES, **{name: LABELS}))
    assert opened.targets is not None
    assert (set(opened.specs), opened.targets.dtype) == ({"x"}, np.int64)
    assert opened.class_counts == {"0": 1, "1": 2, "2": 2}


def test_without_labels_there_are_no_targets(tmp_path: Path) -> None:
    opened = open_npz(saved(tmp_path, x=SAMPLES))
    assert (opened.targets, opened.class_counts) == (None, None)


def test_the_litter_of_an_operating_system_is_passed_over(tmp_path: Path) -> None:
    path = saved(tmp_path, x=SAMPLES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._x.npy", b"litter")
    assert set(open_npz(path).specs) == {"x"}


def with_changed_byte(folder: Path, compressed: bool) -> Path:
    """One byte of the array's data is another, so that the zip's checksum is wrong."""
    path = saved(folder, compressed=compressed, x=np.random.default_rng(0).random((50, 50)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


def test_a_damaged_deflated_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(RejectedFile, match=r"'x(\.npy)?' is damaged") as caught:
        open_npz(with_changed_byte(tmp_path, compressed=True))
    assert caught.value.code == "npz-damaged"


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, x=SAMPLES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RejectedFile, match="damaged or cut off"):
        open_npz(path)


def test_two_label_arrays_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(RejectedFile, match="both 'labels' and 'targets' could be the labels; keep one"):
        open_npz(saved(tmp_path, x=SAMPLES, labels=LABELS, targets=LABELS))


def test_arrays_of_different_length_are_named_with_their_lengths(tmp_path: Path) -> None:
    with pytest.raises(RejectedFile, match="'x' 5, 'labels' 3"):
        open_npz(saved(tmp_path, x=SAMPLES, labels=LABELS[:3]))
