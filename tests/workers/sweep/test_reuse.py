from typing import Any

from service.domain.layers import FP32, FP32_REPEATED, Layer, Operation, Variant
from service.domain.states import SweepState
from service.store import projects
from service.store.tables import ProjectRow, SweepRow, UnitRow
from tests.workers.installation import Installation, npz_bytes
from workers.sweep.reuse import identities

LAYERS = [Layer(id=each, name=each, op=Operation.CONV, activations=(f"{each}:0",)) for each in ("a", "b")]
AMAX = {"a:0": 1.0, "b:0": 2.0}


def identity(name: str, *int8: str, **amax: Any) -> str:
    (found,) = identities([Variant(name=name, int8=frozenset(int8))], LAYERS, amax or AMAX)
    return found


def test_a_variant_is_its_layers_with_their_ranges_whatever_it_is_called() -> None:
    assert identity("layer:a", "a") == identity("mixed:b", "a")
    assert identity("all_int8", "a", "b") == identity("mixed:", "b", "a")
    assert identity("layer:a", "a") != identity("layer:a", "b")
    assert identity("layer:a", "a") != identity("layer:a", "a", **{"a:0": 1.5, "b:0": 2.0})
    assert identity("layer:a", "a") == identity("layer:a", "a", **{"a:0": 1.0, "b:0": 2.5})


def test_the_repeated_control_is_never_taken_for_the_first() -> None:
    assert identity(FP32) == identity("mixed:a\nb")
    assert identity(FP32) != identity(FP32_REPEATED)


def found_in(installation: Installation, project: str) -> int:
    """Sweep the same bytes once more, for this project; how many of its results were found."""
    sweep_id = installation.sweep(dataset=installation.dataset(npz_bytes(32)))
    with installation.context.database.write() as session:
        session.get_one(SweepRow, sweep_id).project_id = project
    installation.run_until()
    assert installation.state(sweep_id) is SweepState.SUCCEEDED
    with installation.context.database.read() as session:
        results = [row.result for row in session.query(UnitRow).filter_by(sweep_id=sweep_id)]
    return sum(int(result.get("found") or 0) for result in results)


def test_nothing_is_found_of_another_project(installation: Installation) -> None:
    with installation.context.database.write() as session:
        projects.create(session, ProjectRow(id="other"))
    found = [found_in(installation, project) for project in ("default", "other", "default", "other")]
    assert found[0] == found[1] < found[2] == found[3]
