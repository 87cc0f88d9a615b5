"""Sweeps whose files lie in a bucket: as from a folder, with little room on the worker's disk, and with cuts."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.domain.states import ResourceState, SweepState, UnitKind, UnitState
from service.store.blob_cache import CacheFull
from service.store.leftovers import remove_leftovers
from service.store.tables import DatasetRow, UnitRow
from tests.cut_line import Line, cut_line
from tests.s3_server import BUCKET, S3Server
from tests.workers.installation import Installation, npz_bytes, onnx_bytes
from tests.workers.sweep.test_runner import opened_before
from workers.reconciler import HINT_AGE_SECONDS, reconcile
from workers.sweep.job import open_dataset


@pytest.fixture
def line(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with cut_line(s3.port) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", line.url)
        yield line


def at_s3(folder: Path, migrated: Path, **settings: Any) -> Installation:
    """An installation with its files in the bucket; the last opened model and sets are those of other tests."""
    shutil.copytree(migrated, folder)
    where = {"blob_url": f"s3://{BUCKET}/files", "max_attempts": 3, "heartbeat_seconds": 0.02, **settings}
    return Installation.at(folder, **where)


def cache_folder(installation: Installation) -> Path:
    return installation.context.settings.resolved_blob_cache_dir


def forget_copies(installation: Installation) -> None:
    """As on another machine: nothing is open, nothing lies in the cache."""
    opened_before(installation)
    for path in (cache_folder(installation) / "copies").iterdir():
        path.unlink()


def measured(report: dict[str, Any]) -> Any:
    """What of a report hangs on neither time nor names."""
    kept = ("controls", "layers", "decision", "skipped")
    return json.loads(json.dumps({name: report[name] for name in kept}))


def test_a_sweep_finds_what_it_finds_with_files_in_a_folder(
    s3: S3Server, installation: Installation, tmp_path: Path, migrated: Path
) -> None:
    far = at_s3(tmp_path / "far", migrated)
    reports = []
    for at in (installation, far):
        sweep_id = at.sweep(budget={"max_drop": 1000.0})
        at.run_until()
        assert at.state(sweep_id) is SweepState.SUCCEEDED
        reports.append(measured(at.report(sweep_id)))
        files = at.files(sweep_id)
    assert reports[0] == reports[1]
    assert "mixed.onnx" in files
    assert {key.removeprefix("files/") for key in s3.objects()} == set(far.context.blobs.written_before(float("inf")))
    assert [path for path in (tmp_path / "far" / "blobs").rglob("*") if path.is_file()] == []


def test_a_sweep_needs_no_more_room_than_its_files_take_at_once(s3: S3Server, tmp_path: Path, migrated: Path) -> None:
    """The cache holds the model and two evaluation sets, not three: the one that no unit needs any more goes."""
    sets = [npz_bytes(seed=seed) for seed in range(3)]
    limit = len(onnx_bytes()) + 2 * len(sets[0]) + 100
    far = at_s3(tmp_path / "far", migrated, blob_cache_bytes=limit)
    model = far.model()
    for content in sets:
        sweep_id = far.sweep(model=model, dataset=far.dataset(content), shard_size=48, budget=None)
        far.run_until()
        assert far.state(sweep_id) is SweepState.SUCCEEDED
        copies = list((cache_folder(far) / "copies").iterdir())
        assert sum(path.stat().st_size for path in copies) <= limit


def test_sets_that_are_open_for_a_next_time_make_room_for_the_one_that_is_needed(
    s3: S3Server, tmp_path: Path, migrated: Path
) -> None:
    sets = [npz_bytes(seed=seed) for seed in range(3)]
    far = at_s3(tmp_path / "far", migrated, blob_cache_bytes=len(sets[0]) + len(onnx_bytes()) + 100)
    opened_before(far)
    checked = [far.dataset(content) for content in sets]
    far.run_until()
    assert {far.resource(each).state for each in checked} == {ResourceState.READY}


def test_the_file_of_a_set_that_is_open_is_not_evicted(s3: S3Server, tmp_path: Path, migrated: Path) -> None:
    content = npz_bytes()
    far = at_s3(tmp_path / "far", migrated, blob_cache_bytes=len(content))
    opened_before(far)
    row, blobs = far.resource(far.dataset(content)), far.context.blobs
    assert isinstance(row, DatasetRow)
    other = blobs.put(b"x").sha256
    opened = open_dataset(far.context, row)
    with pytest.raises(CacheFull), blobs.local(other):
        pass
    assert opened.samples == 48
    del opened
    opened_before(far)
    with blobs.local(other) as path:
        assert path.read_bytes() == b"x"


def test_a_file_that_never_fits_ends_the_sweep_and_says_what_to_set(
    s3: S3Server, tmp_path: Path, migrated: Path
) -> None:
    far = at_s3(tmp_path / "far", migrated, blob_cache_bytes=len(onnx_bytes()) - 1)
    opened_before(far)
    model = far.model()
    far.run_until()
    problem = far.resource(model).problem
    assert problem is not None
    assert "set QUANTSIEVE_BLOB_CACHE_BYTES higher" in problem


@pytest.mark.parametrize("kind", [UnitKind.PREPARE, UnitKind.CALIBRATE, UnitKind.MEASURE, UnitKind.REPORT])
def test_while_the_network_is_cut_work_waits_and_no_attempt_is_counted(
    line: Line, tmp_path: Path, migrated: Path, kind: UnitKind
) -> None:
    far = at_s3(tmp_path / "far", migrated)
    sweep_id = far.sweep()
    lease = far.run_until(kind)
    assert lease is not None
    line.cut()
    for _ in range(2 * far.context.settings.max_attempts):
        forget_copies(far)
        far.hints()
        far.run(lease)
        unit = far.unit(lease)
        assert unit.error == "the storage of the files does not answer; try again"
        assert (unit.state, unit.attempts) == (UnitState.QUEUED, 0)
        assert far.hints() == [], "it would be tried again at once, and again"
        again = far.claim()
        assert again is not None
        lease = again
    assert not far.state(sweep_id).terminal
    far.run(lease)
    with far.context.database.write() as session:
        session.execute(update(UnitRow).values(published_at=UnitRow.published_at - HINT_AGE_SECONDS - 1))
    reconcile(far.context)
    assert "onnxruntime" in far.hints()
    line.mend()
    far.run_until()
    assert far.state(sweep_id) is SweepState.SUCCEEDED
    assert {state for states in far.unit_states(sweep_id).values() for state in states} == {UnitState.DONE}


def test_an_upload_that_waits_for_its_check_is_not_rejected_by_a_cut(
    line: Line, tmp_path: Path, migrated: Path
) -> None:
    far = at_s3(tmp_path / "far", migrated)
    model = far.model()
    line.cut()
    forget_copies(far)
    for _ in range(5):
        far.step()
        assert far.resource(model).state == ResourceState.CHECKING
    line.mend()
    far.step()
    assert far.resource(model).state == ResourceState.READY


def test_two_machines_share_the_bucket_and_not_their_copies(s3: S3Server, tmp_path: Path, migrated: Path) -> None:
    one = at_s3(tmp_path / "far", migrated)
    settings = one.context.settings.model_copy(update={"blob_cache_dir": tmp_path / "other"})
    two = Installation(type(one.context).open(settings, "wrk_two"))
    sweep_id = one.sweep()
    turn = 0
    while True:
        opened_before(one)
        if (one, two)[turn % 2].step() is None:
            break
        turn += 1
    assert one.state(sweep_id) is SweepState.SUCCEEDED
    assert turn > 4
    assert len(list((tmp_path / "other" / "copies").iterdir())) == 2
    two.context.database.close()


def test_what_no_row_names_is_removed_from_the_bucket(s3: S3Server, tmp_path: Path, migrated: Path) -> None:
    far = at_s3(tmp_path / "far", migrated)
    model = far.model()
    orphan = far.context.blobs.put(b"nobody names me")
    assert remove_leftovers(far.context.database, far.context.blobs) == 0
    assert remove_leftovers(far.context.database, far.context.blobs, older_than=-60) == 1
    assert s3.objects() == [f"files/{far.resource(model).sha256}"]
    assert orphan.sha256 not in s3.objects()[0]
