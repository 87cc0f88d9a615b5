"""Fallback lists that a decision wants measured, as a round of units; and the curve that they are from."""

from collections.abc import Sequence

from service.domain.layers import ALL_INT8
from service.selection.candidates import Fallback
from service.store.kept import KeptResults
from workers.sweep.evidence import variant_of
from workers.sweep.job import Job
from workers.sweep.outcome import KeptCurve, NextRound
from workers.sweep.table import Measurements


def lists_to_measure(job: Job, done: Measurements, lists: Sequence[Fallback]) -> NextRound:
    """These lists on all samples, and beside them all layers in int8; what is in ``done`` already is left out."""
    wanted = dict.fromkeys([ALL_INT8, *(variant_of(each) for each in lists)])
    held = [set(each.variants) for each in (*done.shards, *done.held_out)]
    held += [set()] * (len(job.plan.shards) - len(held))
    missing = {shard: tuple(each for each in wanted if each not in held[shard]) for shard in range(len(held))}
    return NextRound({shard: variants for shard, variants in missing.items() if variants})


def kept_curve(kept: KeptResults) -> KeptCurve | None:
    """What is to be named in the unit's row; None where there was no curve."""
    return KeptCurve(kept.key, kept.sha256) if kept.key is not None and kept.sha256 is not None else None
