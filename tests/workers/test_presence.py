import pytest

from service.domain.states import UnitState
from service.store import workers
from service.store.tables import WorkerRow
from tests.workers.installation import Installation, npz_bytes, wait_for
from workers.presence import Presence, leave

CAPABILITIES = (
    '[{"backend": "torch", "available": true, "devices": ["cpu"], "versions": {"torch": "2"}, "reason": null}]'
)


def live(installation: Installation) -> list[WorkerRow]:
    with installation.context.database.read() as session:
        return workers.live(session)


def test_a_worker_shows_what_it_serves_and_what_it_runs(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTSIEVE_CAPABILITIES", CAPABILITIES)
    presence = Presence(installation.context, ["torch", "data"])
    presence.start()
    wait_for(lambda: live(installation))
    first = live(installation)[0].seen_at
    wait_for(lambda: live(installation)[0].seen_at > first)
    presence.stop()
    presence.join()
    (row,) = live(installation)
    assert (row.id, row.queues) == ("wrk_test", ["data", "torch"])
    assert row.capabilities["torch"]["devices"] == ["cpu"]
    assert row.versions["torch"] == "2"
    assert "quantsieve" in row.versions


def test_a_worker_that_leaves_gives_all_back_without_counting_it(installation: Installation) -> None:
    for seed in (1, 2):
        installation.dataset(npz_bytes(seed=seed))
    mine = [installation.claim(), installation.claim()]
    other = installation.again()
    with installation.context.database.write() as session:
        workers.beat(session, workers.Heartbeat("wrk_test", "h", 1, [], {}, {}))
        workers.beat(session, workers.Heartbeat("wrk_other", "h", 2, [], {}, {}))
    installation.dataset(npz_bytes(seed=3))
    theirs = other.claim()
    leave(installation.context)
    for lease in mine:
        assert lease is not None
        unit = installation.unit(lease)
        assert (unit.state, unit.attempts, unit.owner) == (UnitState.QUEUED, 0, None)
        assert unit.token > lease.token
    assert theirs is not None
    assert installation.unit(theirs).state == UnitState.LEASED
    assert [each.id for each in live(installation)] == ["wrk_other"]
    assert installation.hints() == ["data", "data"]
    leave(installation.context)
    assert installation.hints() == []
    other.context.database.close()


def test_a_worker_that_died_a_day_ago_is_forgotten_when_another_comes(installation: Installation) -> None:
    with installation.context.database.write() as session:
        workers.beat(session, workers.Heartbeat("wrk_old", "h", 1, [], {}, {}))
        session.get_one(WorkerRow, "wrk_old").seen_at -= 90_000
    with installation.context.database.write() as session:
        workers.beat(session, workers.Heartbeat("wrk_new", "h", 2, [], {}, {}))
        assert session.get(WorkerRow, "wrk_old") is None
