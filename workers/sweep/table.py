"""The layer table, made from the shards that are measured so far, and kept in the database for whoever polls."""

from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.orm import Session

from service.domain.layers import CONTROLS, LAYER_PREFIX, Layer
from service.domain.results import LayerResult
from service.domain.states import UnitKind, UnitState
from service.selection.ranking import Ranked, rank_layers
from service.store import units
from service.store.tables import LayerRow, ScoreRow, SweepRow
from workers.metrics.scores import Scoreboard
from workers.metrics.shard_result import ShardResult
from workers.sweep.job import Job
from workers.sweep.outcome import Decided, Measured, NextRound, Outcome, Table


def refresh(job: Job, outcome: Outcome) -> Table | None:
    """The table as it is after this unit; None where the unit adds nothing to it.

    Workers that finish shards at the same time don't see each other's: the first selection completes the table.
    """
    if isinstance(outcome, Measured) and outcome.kind is UnitKind.MEASURE:
        done = {**measured_shards(job), job.lease.ordinal: outcome.result}
    elif isinstance(outcome, NextRound | Decided) and job.plan.shards_in_table < len(job.plan.shards):
        done = measured_shards(job)
    else:
        return None
    return make(job, [done[each] for each in sorted(done)])


def measured_shards(job: Job) -> dict[int, ShardResult]:
    """Ordinal → result of each shard that is done."""
    with job.context.database.read() as session:
        rows = units.units_of(session, job.sweep_id, UnitKind.MEASURE)
        done = {row.ordinal: row.result_sha256 for row in rows if row.state == UnitState.DONE}
    return {
        ordinal: ShardResult.from_bytes(job.context.blobs.read(sha256)) for ordinal, sha256 in done.items() if sha256
    }


def make(job: Job, shards: Sequence[ShardResult]) -> Table:
    """The table over these shards."""
    plan, failed, amax = job.plan, job.failed, job.amax
    board = Scoreboard(shards, job.metric())
    failed |= {name.removeprefix(LAYER_PREFIX): why for name, why in board.failures.items() if name not in CONTROLS}
    scores = {
        name.removeprefix(LAYER_PREFIX): board.sensitivity(name, job.settings.mode)
        for name in board.variants
        if name not in CONTROLS
    }
    ranks = {ranked.layer_id: (place, ranked) for place, ranked in enumerate(rank_layers(scores), start=1)}

    def row(layer: Layer) -> LayerResult:
        state, reason = "measured", None
        if layer.id in plan.excluded:
            state, reason = "excluded", plan.excluded[layer.id]
        elif layer.id in failed:
            state, reason = "failed", failed[layer.id]
        place: tuple[int, Ranked] | None = ranks.get(layer.id)
        return LayerResult(
            layer=layer,
            state=state,
            reason=reason,
            rank=place[0] if place else None,
            significant=place[1].significant if place else None,
            amax={edge: amax[edge] for edge in layer.activations if edge in amax},
            score=scores.get(layer.id),
        )

    controls = tuple(board.score(name) for name in CONTROLS if name in board.variants)
    return Table(tuple(row(layer) for layer in plan.layers), controls, len(shards))


def store(session: Session, sweep: SweepRow, table: Table) -> None:
    """Replace the stored table, unless one over more shards is there already (workers finish in any order)."""
    if sweep.plan.get("shards_in_table", 0) > table.shards:
        return
    sweep.plan = {**sweep.plan, "shards_in_table": table.shards}
    session.execute(delete(LayerRow).where(LayerRow.sweep_id == sweep.id))
    session.execute(delete(ScoreRow).where(ScoreRow.sweep_id == sweep.id, ScoreRow.variant.in_(CONTROLS)))
    for position, each in enumerate(table.layers):
        score = each.score
        session.add(
            LayerRow(
                sweep_id=sweep.id,
                position=position,
                layer_id=each.layer.id,
                name=each.layer.name,
                state=each.state,
                metric=score.metric.value if score else None,
                drop=score.drop.value if score else None,
                document=each.model_dump(mode="json"),
            )
        )
    for control in table.scores:
        session.add(ScoreRow(sweep_id=sweep.id, variant=control.variant, document=control.model_dump(mode="json")))
