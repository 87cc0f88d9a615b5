import io
import threading
import zipfile

import numpy as np
import onnx
import pytest
from PIL import Image
from sqlalchemy import update

from service.domain.states import ResourceState, SweepState, UnitKind, UnitState
from service.store.measures import measure
from service.store.tables import UnitRow
from tests.workers.installation import Installation, npz_bytes, wait_for, waiting_for_the_lock
from workers.tasks import work


def test_a_hint_leads_to_one_unit_and_a_stale_one_to_none(installation: Installation) -> None:
    installation.dataset()
    assert work(installation.context, "onnxruntime") == 0
    assert work(installation.context, "data") == 1
    assert work(installation.context, "data") == 0


def test_each_unit_that_follows_is_hinted_at(installation: Installation) -> None:
    installation.sweep()
    lease = installation.run_until(UnitKind.CALIBRATE)
    assert lease is not None
    installation.hints()
    installation.run(lease)
    assert installation.hints() == ["onnxruntime"] * 3


def test_an_error_that_nobody_foresaw_is_tried_again_and_then_ends_the_sweep(installation: Installation) -> None:
    sweep_id = installation.sweep()
    lease = installation.run_until(UnitKind.MEASURE)
    assert lease is not None
    # the storage of the files is gone: no fault of the caller's
    for file in installation.context.blobs.folder.glob("*/*"):
        file.unlink()
    opened_before(installation)
    installation.hints()
    for attempt in (1, 2, 3):
        installation.run(lease)
        unit = installation.unit(lease)
        assert unit.error is not None
        assert "No such file" in unit.error
        assert unit.attempts == attempt
        if attempt < 3:
            assert installation.state(sweep_id) is SweepState.RUNNING
            assert unit.state == UnitState.QUEUED
            assert installation.hints() == ["onnxruntime"]
            again = installation.claim()
            assert again is not None
            lease = again
    sweep = installation.row(sweep_id)
    assert (sweep.state, sweep.problem_code) == (SweepState.FAILED, "phase-failed")
    assert sweep.problem is not None
    assert sweep.problem.startswith("the phase measure failed 3 times, last with ")
    assert installation.claim() is None


def opened_before(installation: Installation) -> None:
    """Forget what this process holds open."""
    from workers.sweep import job

    job._open_model.cache_clear()
    job._open_dataset.cache_clear()


def test_a_check_that_fails_for_no_fault_of_the_file_is_tried_again_and_then_rejects(
    installation: Installation,
) -> None:
    dataset = installation.dataset()
    installation.context.blobs.delete(installation.resource(dataset).sha256)
    for attempt in (1, 2, 3):
        assert installation.resource(dataset).state == ResourceState.CHECKING, attempt
        installation.step()
    row = installation.resource(dataset)
    assert row.state == ResourceState.REJECTED
    assert row.problem is not None
    assert row.problem.startswith("checking failed 3 times, last with FileNotFoundError")


@pytest.mark.parametrize(
    ("settings", "code", "problem"),
    [
        ({"include": ["nothing*"]}, "pattern-matches-nothing", "include: the pattern 'nothing*' matches no layer"),
        ({"samples": 1000}, "invalid-input", "samples: 1000 were asked for, but the evaluation set holds 48"),
        ({"metric": {"name": "top5"}}, "metric-not-applicable", "metric.name: top5 needs correct5"),
        ({"metric": {"name": "mse", "output": "y"}}, "invalid-input", "metric.output: the model has no output 'y'"),
    ],
    ids=["pattern", "samples", "metric", "output"],
)
def test_what_concerns_the_whole_sweep_ends_it_at_the_first_attempt(
    installation: Installation, settings: dict[str, object], code: str, problem: str
) -> None:
    sweep_id = installation.sweep(**settings)
    installation.run_until()
    row = installation.row(sweep_id)
    assert (row.state, row.problem_code) == (SweepState.FAILED, code)
    assert row.problem is not None
    assert row.problem.startswith(problem)
    assert all(states <= {UnitState.DONE, UnitState.FAILED} for states in installation.unit_states(sweep_id).values())


def test_a_sweep_that_needs_labels_and_has_none_is_told_what_goes_without(installation: Installation) -> None:
    unlabelled = installation.dataset(npz_bytes(x=[[0.0] * 4] * 8))
    sweep_id = installation.sweep(dataset=unlabelled, metric={"name": "top1"})
    installation.run_until()
    problem = installation.row(sweep_id).problem
    assert problem is not None
    assert "needs labels and the evaluation set has none; without them: mse" in problem


def test_an_image_that_cannot_be_decoded_ends_the_sweep_when_it_is_met(installation: Installation) -> None:
    """The check of the upload decodes one image only."""
    network = """g (float[N,3,4,4] x) => (float[N,3] scores)
    { c = Conv(x, w)
      scores = Flatten(c) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{network}')
    weights = np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    good, bad = image_zip(None), image_zip(5)
    sweep_id = installation.sweep(
        model=installation.model(model.SerializeToString()),
        dataset=installation.dataset(bad, "image_zip", layout="NHWC", dtype="float32"),
        calibration={"dataset": installation.dataset(good, "image_zip", layout="NHWC", dtype="float32")},
    )
    installation.run_until()
    row = installation.row(sweep_id)
    assert (row.state, row.phase, row.problem_code) == (SweepState.FAILED, "measure", "image-damaged")
    assert row.problem is not None
    assert "a/5.png" in row.problem


def image_zip(broken: int | None) -> bytes:
    """Eight images of 4×4 in two classes; the one of number ``broken`` is none."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(8):
            image = io.BytesIO(b"no image")
            if number != broken:
                pixels = np.random.default_rng(number).integers(256, size=(4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(image, "png")
            archive.writestr(f"{'ba'[number % 2]}/{number}.png", image.getvalue())
    return buffer.getvalue()


def test_workers_that_finish_the_last_shards_at_the_same_time_leave_a_complete_table(
    installation: Installation,
) -> None:
    """Neither sees the other's shard when it makes the table: both wait here, tables in hand, to commit."""
    sweep_id = installation.sweep(shard_size=24)
    leases = [installation.run_until(UnitKind.MEASURE) for _ in range(2)]
    workers = [installation, installation.again()]  # what is open in one process, one thread uses at a time
    threads = [threading.Thread(target=each.run, args=(lease,)) for each, lease in zip(workers, leases, strict=True)]
    locker = installation.again()
    waiting = [waiting_for_the_lock(each.context.database) for each in workers]
    with locker.context.database.write() as session:
        session.connection()  # takes the lock
        for thread in threads:
            thread.start()
        wait_for(lambda: all(each.ident in there for each, there in zip(threads, waiting, strict=True)), seconds=60)
    for thread in threads:
        thread.join()
    for each in (workers[1], locker):
        each.context.database.close()
    assert installation.row(sweep_id).plan["shards_in_table"] == 1, "the test missed the moment"
    installation.run_until()
    report = installation.report(sweep_id)
    assert {each["score"]["metric"]["samples"] for each in report["layers"]} == {48}
    assert {each["metric"]["samples"] for each in report["controls"].values()} == {48}


def test_a_unit_during_which_the_clock_was_set_back_took_no_time(installation: Installation) -> None:
    sweep_id = installation.sweep()
    last = installation.run_until(UnitKind.REPORT)
    with installation.context.database.write() as session:
        later = UnitRow.finished_at + 10_800
        session.execute(update(UnitRow).where(UnitRow.kind == UnitKind.MEASURE).values(started_at=later))
    installation.run(last)
    seconds = installation.report(sweep_id)["cost"]["seconds"]
    assert seconds["measure"] == 0.0
    assert seconds["calibrate"] > 0.0
    with installation.context.database.read() as session:
        durations = {each.kind: each.seconds for each in measure(session).durations}
    assert durations["measure"] == 0.0
