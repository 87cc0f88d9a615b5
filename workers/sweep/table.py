"""The layer table, made from the shards that are measured so far, and kept in the database for whoever polls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.orm import Session

from service.domain.layers import CONTROLS, LAYER_PREFIX, Layer
from service.domain.results import LayerResult
from service.domain.settings import SweepMethod
from service.domain.states import UnitKind, UnitState
from service.selection.ranking import Ranked, is_sensitive, rank_layers
from service.store import units
from service.store.tables import LayerRow, ScoreRow, SweepRow
from workers.metrics.scores import layer_scores
from workers.metrics.shard_result import ShardResult, merge
from workers.sweep.job import Job
from workers.sweep.outcome import Decided, Measured, NextRound, Outcome, Probed, Table
from workers.sweep.probed import NOT_PROBED, ProbedShards, known, probe_sums


def refresh(job: Job, outcome: Outcome) -> Table | None:
    """The table as it is after this unit; None where the unit adds nothing to it.

    Workers that finish units at the same time don't see each other's: the first selection completes the table.
    """
    if isinstance(outcome, Probed):
        return make(job, Measurements(), probe_sums(job, {job.lease.ordinal: outcome.sums}), {})
    if isinstance(outcome, Measured) and outcome.kind is UnitKind.MEASURE:
        return make(job, measurements(job, outcome.result), _probes(job), {}) if _grown(job) else None
    if isinstance(outcome, NextRound | Decided):
        done = measurements(job)
        if job.settings.method is not SweepMethod.EXACT or job.plan.shards_in_table < done.units:
            return make(job, done, _probes(job), outcome.stopped)
    return None


def _probes(job: Job) -> ProbedShards:
    return probe_sums(job) if job.settings.method.probes else NOT_PROBED


def _grown(job: Job) -> bool:
    """Whether a tenth more is measured than the table holds: it is made of all shards, too many to read each time."""
    with job.context.database.read() as session:
        done = units.count_done(session, job.lease.subject_id, UnitKind.MEASURE)
    return done + 1 >= job.plan.shards_in_table + max(1, job.plan.shards_in_table // 10)


@dataclass(frozen=True)
class Measurements:
    """What was measured so far: each shard's result, in order.

    ``held_out``: of the shards that are held out, which the table is not about. ``units``: how many of the table's
    units ``shards`` holds.
    """

    shards: tuple[ShardResult, ...] = ()
    held_out: tuple[ShardResult, ...] = ()
    units: int = 0


def measurements(job: Job, own: ShardResult | None = None) -> Measurements:
    """All that is stored for the unit's subject, for the table or for the decision.

    ``own``: this unit's, which is not stored yet.
    """
    with job.context.database.read() as session:
        rows = [
            row
            for kind in (UnitKind.MEASURE, UnitKind.VERIFY)
            for row in units.units_of(session, job.lease.subject_id, kind)
            if row.state == UnitState.DONE and row.result_sha256
        ]
        stored = [(row.ordinal, row.result_sha256) for row in rows]
    found: dict[int, list[ShardResult]] = {}
    if own is not None:
        found[job.plan.shard_of(job.lease.ordinal)] = [own]
    for ordinal, sha256 in stored:
        results = found.setdefault(job.plan.shard_of(ordinal), [])
        results.append(ShardResult.from_bytes(job.context.blobs.read(sha256 or "")))
    of_table = sum(row.kind == UnitKind.MEASURE for row in rows) + (own is not None)
    merged = {shard: merge(found[shard]) for shard in sorted(found)}
    searched = job.plan.searched
    return Measurements(
        tuple(result for shard, result in merged.items() if shard in searched),
        tuple(result for shard, result in merged.items() if shard not in searched),
        of_table,
    )


def _ranking(job: Job, shards: Sequence[ShardResult]) -> tuple[Ranked, ...]:
    """The layers' order, by the intervals of one look: what all samples would be ranked by."""
    mode = job.settings.mode
    scores = layer_scores(job.course.board(shards, held=False), mode)
    return rank_layers(scores, mode, divergence=job.metric().is_divergence)


def make(job: Job, done: Measurements, probes: ProbedShards, stopped: Mapping[str, str]) -> Table:
    """The table over what is measured; ``stopped``: layer id → why it is measured on no more shards."""
    plan, failed, amax, statistics = job.plan, job.failed, job.amax, job.statistics
    board = job.board(done.shards)
    failed |= {
        name.removeprefix(LAYER_PREFIX): why for name, why in board.failures.items() if name.startswith(LAYER_PREFIX)
    }
    scores = layer_scores(board, job.settings.mode)
    found = None if probes.sums is None else known(probes.sums, board, metric=job.metric().name)
    ranking = _ranking(job, done.shards) if found is None else found.ranking
    divergence = job.metric().is_divergence
    ranks = {each.layer_id: place for place, each in enumerate(ranking, start=1)}

    def row(layer: Layer) -> LayerResult:
        score = scores.get(layer.id)
        state, reason = "measured" if score else "pending" if found is None else "estimated", None
        if layer.id in plan.excluded:
            state, reason = "excluded", plan.excluded[layer.id]
        elif layer.id in failed:
            state, reason = "failed", failed[layer.id]
        return LayerResult(
            layer=layer,
            state=state,
            reason=reason,
            rank=ranks.get(layer.id),
            significant=is_sensitive(score, job.settings.mode, divergence=divergence) if score else None,
            amax={edge: amax[edge] for edge in layer.activations if edge in amax},
            statistics=statistics.get(layer.id),
            stopped=stopped.get(layer.id),
            estimate=found.estimates.get(layer.id) if found is not None else None,
            score=score,
        )

    controls = tuple(board.score(name) for name in CONTROLS if name in board.variants)
    return Table(tuple(row(layer) for layer in plan.layers), controls, probes.shards + done.units)


def store(session: Session, sweep: SweepRow, table: Table) -> None:
    """Replace the stored table, unless one over more units is there already (workers finish in any order)."""
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
