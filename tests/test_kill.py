"""The short form of ``make chaos``: workers that are stopped and killed change nothing of what a sweep finds.

How findings are compared, and what else is looked at after each, stands in ``tests/chaos/drill.py``. Kills in every
phase by a whole worker and by a child, and all other faults, are in the long form.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import onnx
import pytest

from service.domain.conversion import ConversionSettings
from service.domain.selections import SelectionQuestion
from service.domain.settings import BackendName, Budget, SelectionSettings
from service.domain.states import UnitState
from tests.chaos.cluster import PATIENCE_SECONDS, Part
from tests.chaos.drill import DIGITS, Drill
from tests.chaos.embedded import EmbeddedCluster
from tests.chaos.faults import Blow, killing
from tests.chaos.watch import Watch
from workers.backends.protocol import Capability
from workers.capabilities import PUBLISHED, to_document

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the pool's child in /proc")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    with EmbeddedCluster(tmp_path_factory.mktemp("kill") / "set-up") as cluster:
        yield Drill.begin(cluster)


def test_sigterm_gives_the_unit_back_at_once_and_counts_no_attempt(drill: Drill) -> None:
    cluster = drill.cluster
    with cluster.without_workers():  # another one would take the unit at once
        worker = cluster.workers[0]
        worker.start()
        sweep_id = drill.submit()
        watch = Watch(cluster.database, sweep_id)
        unit = watch.do_in("measure", lambda pid: os.kill(pid, signal.SIGTERM))
        assert worker.process is not None
        assert worker.process.wait(timeout=PATIENCE_SECONDS) == 0
        after = watch.unit(unit.id)
        assert (after.state, after.attempts, after.owner) == (UnitState.QUEUED, unit.attempts - 1, None)
        assert after.token > unit.token
    drill.wait(sweep_id)
    drill.check(sweep_id)


def test_workers_and_their_children_killed_at_random_change_nothing(drill: Drill) -> None:
    killed = 0
    for part in (Part.WORKER, Part.CHILD):
        sweep_id = drill.submit()
        killed += killing(part, most=2)(Blow(drill, sweep_id, Random(part)))
        drill.wait(sweep_id)
        drill.check(sweep_id)
    assert killed


def test_a_worker_that_dies_before_the_work_and_in_the_commit_changes_nothing(drill: Drill) -> None:
    cluster = drill.cluster
    with cluster.without_workers():  # or they would take the units of the one that dies
        sweep_id = drill.submit()
        command = [sys.executable, "-m", "tests.dying_worker", sweep_id]
        short = {"QUANTSIEVE_LEASE_SECONDS": "0.4", "QUANTSIEVE_HEARTBEAT_SECONDS": "0.1"}
        # versions stand in the report, and the drill's workers tell none either
        told = {PUBLISHED: json.dumps([to_document(Capability(BackendName.ONNXRUNTIME, True, ("cpu",), {}))])}
        environment = cluster.environment(cluster.settings) | short | told
        done = subprocess.run(
            command, env=environment, cwd=ROOT, timeout=PATIENCE_SECONDS, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert min(Watch(cluster.database, sweep_id).attempts_lost().values()) >= 2
    drill.wait(sweep_id)
    drill.check(sweep_id)


def test_workers_killed_while_they_measure_for_a_selection_change_nothing(drill: Drill) -> None:
    cluster, client = drill.cluster, drill.cluster.client
    sweep_id = drill.submit()
    drill.wait(sweep_id)
    question = SelectionQuestion(budget=Budget(max_drop=0.03), selection=SelectionSettings(cost="macs"), verify=True)
    asked = client.select(sweep_id, question)
    watch = Watch(cluster.database, asked["id"])
    watch.do_in("verify", lambda pid: cluster.worker_of(pid).send(signal.SIGKILL))
    watch.do_in("verify", lambda pid: cluster.kill_children(cluster.worker_of(pid)))
    disturbed = client.wait_selected(asked, timeout=PATIENCE_SECONDS)
    assert disturbed["state"] == "done"
    assert sum(watch.attempts_lost().values()) >= 2
    alone = client.wait_selected(client.select(sweep_id, question), timeout=PATIENCE_SECONDS)
    assert disturbed["result"] == alone["result"]
    assert drill.open_units(sweep_id) == []
    drill.delete(sweep_id)


def test_workers_killed_while_they_convert_change_nothing(drill: Drill, tmp_path: Path) -> None:
    cluster, cache = drill.cluster, tmp_path / "digits.cache"
    client = cluster.client
    cache.write_text("".join(["TRT-100300-EntropyCalibration2\n", *(f"{name}: 3d4ccccd\n" for name in tensors())]))
    calibration = client.upload_calibration(cache)
    asked = ConversionSettings(model=drill.settings.model, calibration=calibration["id"])
    made = client.create_conversion(asked)
    watch = Watch(cluster.database, made["id"])
    watch.do_in("convert", lambda pid: cluster.worker_of(pid).send(signal.SIGKILL))
    watch.do_in("convert", lambda pid: cluster.kill_children(cluster.worker_of(pid)))
    disturbed = client.wait_converted(made, timeout=PATIENCE_SECONDS)
    assert watch.attempts_lost() == {"convert": 2}
    alone = client.wait_converted(client.create_conversion(asked), timeout=PATIENCE_SECONDS)
    assert disturbed["summary"] == alone["summary"]
    assert [(each["name"], each["sha256"]) for each in disturbed["files"]] == [
        (each["name"], each["sha256"]) for each in alone["files"]
    ]


def tensors() -> list[str]:
    graph = onnx.load(DIGITS / "digits.onnx").graph
    held = {each.name for each in graph.initializer}
    return sorted({name for node in graph.node for name in node.input if name} - held)
