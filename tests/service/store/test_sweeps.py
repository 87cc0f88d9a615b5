import pytest

from service.domain.errors import Conflict, InvalidInput, NotFound
from service.domain.states import Phase, ResourceState, SweepState, UnitKind, UnitState
from service.store import resources, sweeps, units
from service.store.folder_blobs import FolderBlobStore
from service.store.leftovers import remove_leftovers
from service.store.pages import read_page
from service.store.progress import Progress, Round, compute
from service.store.tables import ArtifactRow, DatasetRow, LayerRow, ModelRow, SweepRow, UnitRow


def prepare_unit(database, sweep_id: str) -> UnitRow:
    with database.read() as session:
        return units.units_of(session, sweep_id, UnitKind.PREPARE)[0]


def test_a_new_sweep_has_one_queued_unit(rows, database):
    unit = prepare_unit(database, rows.sweep())
    assert (unit.state, unit.queue) == (UnitState.QUEUED, "onnxruntime")


def test_a_sweep_on_what_is_checked_waits(rows, database):
    calibration = rows.dataset("c", ResourceState.CHECKING)
    assert prepare_unit(database, rows.sweep(calibration={"dataset": calibration})).state == UnitState.WAITING


def test_the_same_key_and_settings_give_the_same_sweep(rows):
    assert rows.sweep(key="k") == rows.sweep(key="k")


def test_the_same_key_with_other_settings_is_refused(rows):
    rows.sweep(key="k")
    with pytest.raises(InvalidInput, match="other settings"):
        rows.sweep(key="k", seed=7)


def test_cancelling_what_nobody_works_on_ends_it(rows, database):
    sweep_id = rows.sweep()
    with database.write() as session:
        assert sweeps.cancel(session, sweep_id).state == SweepState.CANCELLED
    assert prepare_unit(database, sweep_id).state == UnitState.CANCELLED
    with database.write() as session:
        assert sweeps.cancel(session, sweep_id).state == SweepState.CANCELLED


def test_cancelling_what_a_worker_holds_asks_the_worker(rows, database):
    sweep_id = rows.sweep()
    with database.write() as session:
        units.claim(session, "onnxruntime", owner="w", lease_seconds=60)
    with database.write() as session:
        row = sweeps.cancel(session, sweep_id)
        assert (row.state, row.cancel_requested) == (SweepState.QUEUED, True)


def test_deleting_takes_everything_with_it(rows, database):
    sweep_id = rows.sweep()
    with pytest.raises(Conflict, match="cancel it first"), database.write() as session:
        sweeps.remove(session, sweep_id)
    with database.write() as session:
        sweeps.cancel(session, sweep_id)
        session.add(ArtifactRow(sweep_id=sweep_id, name="a", media_type="text/plain", sha256="f" * 64, size=1))
        session.add(LayerRow(sweep_id=sweep_id, position=0, layer_id="l", name="l", state="pending", document={}))
    with database.write() as session:
        sweeps.remove(session, sweep_id)
    with database.read() as session:
        assert [session.query(table).count() for table in (SweepRow, ArtifactRow, LayerRow)] == [0, 0, 0]
        assert session.query(UnitRow).filter(UnitRow.sweep_id.is_not(None)).count() == 0
    with pytest.raises(NotFound), database.write() as session:
        sweeps.remove(session, sweep_id)


def test_a_resource_in_use_stays(rows, database):
    sweep_id = rows.sweep()
    model_id = rows.get(sweep_id).model_id
    with pytest.raises(Conflict, match="1 sweep used model"), database.write() as session:
        resources.remove(session, ModelRow, model_id)
    with database.write() as session:
        sweeps.cancel(session, sweep_id)
        sweeps.remove(session, sweep_id)
        resources.remove(session, ModelRow, model_id)
    with database.read() as session:
        assert session.query(UnitRow).filter(UnitRow.subject_id == model_id).count() == 0


def test_pages_hold_every_row_once(rows, database):
    ids = [rows.sweep() for _ in range(5)]
    found, cursor = [], None
    while True:
        with database.read() as session:
            page = read_page(session, SweepRow, limit=2, cursor=cursor)
        found += [row.id for row in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(found) == sorted(ids)
    assert len(found) == 5


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "W10", "WzEsMl0", "bnVsbA"])
def test_a_foreign_cursor_is_refused(rows, database, cursor):
    with pytest.raises(InvalidInput, match="cursor"), database.read() as session:
        read_page(session, DatasetRow, limit=2, cursor=cursor)


def test_only_old_files_without_a_row_are_removed(rows, database, tmp_path):
    blobs = FolderBlobStore(tmp_path / "blobs")
    kept, gone = blobs.put(b"kept"), blobs.put(b"gone")
    (blobs.incoming / "half").write_bytes(b"half")
    with database.write() as session:
        resources.add_model(session, resources.NewFile("m", kept, "onnx"))
    assert remove_leftovers(database, blobs, older_than=3600) == 0
    assert remove_leftovers(database, blobs, older_than=-10) == 2
    assert blobs.path(kept.sha256).exists()
    assert not blobs.path(gone.sha256).exists()


def measured(done: float, *, rounds: tuple[Round, ...] = ()) -> list[Round]:
    prepare = Round(UnitKind.PREPARE, 0, 1, 1, 0.0, 0.0, 90.0)
    return [prepare, Round(UnitKind.MEASURE, 0, 4, int(done // 25), 100.0, done, 100.0), *rounds]


def test_nothing_is_known_before_the_measuring():
    only = [Round(UnitKind.PREPARE, 0, 1, 0, 0.0, 0.0, None)]
    assert compute(only, SweepState.QUEUED, Phase.PREPARE, 100.0) == Progress(0.0, True, 0, 1, None)


def test_the_time_left_comes_from_the_measured_rate():
    progress = compute(measured(50.0), SweepState.RUNNING, Phase.MEASURE, 110.0)
    # 50 in 10 s; 50 to be measured and 15 expected for the verification
    assert progress.eta_seconds == 13.0
    assert progress.fraction == 0.46
    assert progress.estimated


def test_progress_never_runs_back_when_a_round_is_added():
    first = Round(UnitKind.VERIFY, 1, 1, 1, 10.0, 10.0, 120.0)
    second = Round(UnitKind.VERIFY, 2, 1, 0, 10.0, 0.0, None)
    before = compute(measured(100.0, rounds=(first,)), SweepState.RUNNING, Phase.SELECT, 130.0)
    after = compute(measured(100.0, rounds=(first, second)), SweepState.RUNNING, Phase.VERIFY, 131.0)
    assert before.fraction == after.fraction == 0.91


def test_a_sweep_that_succeeded_is_done():
    progress = compute(measured(100.0), SweepState.SUCCEEDED, Phase.REPORT, 200.0)
    assert (progress.fraction, progress.eta_seconds, progress.estimated) == (1.0, 0.0, False)
