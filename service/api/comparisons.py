"""Several sweeps' layer tables against each other, pair by pair."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.api.deps import InServices
from service.api.problems import documented
from service.api.results import ended_or
from service.domain.comparison import TableComparison
from service.domain.errors import Conflict, InvalidInput
from service.domain.results import Interval, LayerResult
from service.domain.states import SweepState
from service.store import sweeps
from service.store.tables import SweepRow

router = APIRouter(prefix="/v1/sweeps", tags=["results"])

MOST = 10
SETTINGS = (
    "model",
    "dataset",
    "mode",
    "method",
    "probe",
    "weights",
    "quantization",
    "calibration",
    "metric",
    "include",
    "exclude",
    "fuse_bn",
    "samples",
    "seed",
)
"""What a layer table hangs on, beside the backend in force."""
Ids = Annotated[
    str,
    Query(
        max_length=400,
        description=f"Ids of 2 to {MOST} sweeps that have succeeded, with commas between them.",
        examples=["swp_4q8c1z0rk2vx,swp_7d2m5h9s3wqa"],
    ),
]


class SettingDifference(BaseModel):
    """A setting that the layer table hangs on, and that the two sweeps do not share."""

    setting: str
    first: Any
    second: Any


class PairComparison(BaseModel):
    """Two tables of layers, matched by name. ``settings``: what differs between the sweeps.

    Layers are ranked by the drop of their sweep's metric; where layers were probed, by the measure of the probes.
    """

    first: str
    second: str
    table: TableComparison
    settings: list[SettingDifference]


class SweepComparison(BaseModel):
    """Every pair once, in the order of the ids."""

    sweeps: list[str]
    pairs: list[PairComparison]


@router.get("/compare", responses=documented(404, 409))
def compare_sweeps(services: InServices, ids: Ids) -> SweepComparison:
    """How far the layer tables of sweeps agree: the correlation of ranks, and who differs beyond the intervals."""
    # here, since the service starts without the libraries that this needs
    from service.selection.compare import compare_tables

    wanted = _wanted(ids)
    with services.database.read() as session:
        rows = [sweeps.get(session, each) for each in wanted]
        tables = {row.id: _table(session, row) for row in rows}
    pairs = [
        PairComparison(
            first=one.id,
            second=other.id,
            table=compare_tables(tables[one.id], tables[other.id]),
            settings=list(_differences(_settings(one), _settings(other))),
        )
        for one, other in combinations(rows, 2)
    ]
    return SweepComparison(sweeps=wanted, pairs=pairs)


def _wanted(ids: str) -> list[str]:
    found = [each.strip() for each in ids.split(",")]
    if not 2 <= len(found) <= MOST:
        raise InvalidInput(f"ids: {len(found)} given; 2 to {MOST} sweeps are compared, as ids=a,b", field="ids")
    twice = [each for each in found if found.count(each) > 1]
    if twice:
        raise InvalidInput(f"ids: {twice[0]!r} is given twice; name each sweep once", field="ids")
    return found


def _table(session: Session, row: SweepRow) -> dict[str, Interval]:
    """Layer name → its sensitivity, in either mode larger where int8 does more; raises Conflict where there is none."""
    if row.state != SweepState.SUCCEEDED:
        message = f"sweep {row.id} is {row.state} (phase {row.phase}); its table is not complete"
        raise ended_or(row, Conflict(message, code="layers-not-ready"))
    scored = [each for each in sweeps.layers(session, row) if each.scored]
    if any(each.estimate for each in scored):
        measure = _probed_measure(scored, metric=row.settings["metric"]["name"])
        return {each.layer.name: _measure(each, measure) for each in scored}
    return {each.layer.name: each.score.drop for each in scored if each.score}


def _probed_measure(scored: Sequence[LayerResult], *, metric: str) -> str:
    """What probed layers are ranked by, whether they were measured too or not."""
    known = all(each.estimate is None or "kl" in each.estimate.measures for each in scored)
    return "kl" if known and metric != "mse" else "mse"


def _measure(each: LayerResult, measure: str) -> Interval:
    found = [side.measures[measure] for side in (each.score, each.estimate) if side and measure in side.measures]
    return found[0]


def _settings(row: SweepRow) -> dict[str, Any]:
    return {"backend": row.backend} | {name: row.settings.get(name) for name in SETTINGS}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[SettingDifference]:
    for name, value in one.items():
        if value != other[name]:
            yield SettingDifference(setting=name, first=value, second=other[name])
