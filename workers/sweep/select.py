"""Phase 4: from the measured table to the next question, or to the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.domain.costs import CostModel, CostName
from service.domain.layers import ALL_INT8, FP32, LAYER_PREFIX
from service.domain.results import Decision, Interval, VariantScore
from service.domain.settings import SweepMethod, SweepMode
from service.selection.budget import limit_of
from service.selection.candidates import Fallback
from service.selection.decide import Question, next_step
from service.selection.evidence import Evidence
from service.selection.evidence import step as step_by_evidence
from service.selection.ranking import Ranked, rank_layers
from service.store.kept import KeptResults
from workers.metrics.scores import Scoreboard, layer_scores
from workers.metrics.shard_result import ShardResult
from workers.sweep import evidence, latency, probed, race, reselect
from workers.sweep.course import Course
from workers.sweep.failures import check_failures
from workers.sweep.job import Job
from workers.sweep.lists import kept_curve, lists_to_measure
from workers.sweep.measure import MIXED_PREFIX, fallback_of, mixed_name
from workers.sweep.outcome import Chosen, Decided, NextRound
from workers.sweep.table import Measurements, measurements


def run(job: Job) -> NextRound | Decided | Chosen:
    """One step of the decision, from all that is measured so far."""
    if job.selection is not None:
        return reselect.run(job)
    done = measurements(job)
    board = job.board(done.shards)
    check_failures(job.course, job.board((*done.shards, *done.held_out)))
    if job.settings.method.probes:
        return _probed(job, done, board)
    if job.settings.predicts:
        return _predicted(job, done, _evidence(job, done, board, _costs(job)))
    found = step(job.course, done.shards)
    if isinstance(found, Decided) and job.settings.method is SweepMethod.EXACT:
        return replace(found, evidence=_evidence(job, done, board, job.plan.costs))
    return found


def step(course: Course, shards: Sequence[ShardResult]) -> NextRound | Decided:
    """One step along the ranking, where nothing was probed: from the results of the shards alone."""
    board = course.board(shards)
    check_failures(course, board)
    mode = course.settings.mode
    scores = layer_scores(course.board(shards, held=False), mode)
    sensitivities = {layer: score.drop for layer, score in scores.items()}
    ranking = rank_layers(scores, mode, divergence=course.metric.is_divergence)
    question = _question(course, board, ranking, sensitivities)
    variants = _along_the_ranking(course, board, question)
    if course.settings.method is SweepMethod.RACING:
        return race.step(course, shards, question, variants)
    answer = next_step(question, _scores(board, variants))
    if isinstance(answer, Decision):
        return Decided(answer)
    names = tuple(mixed_name(each) for each in answer)
    return NextRound(dict.fromkeys(range(len(shards)), names))


def _costs(job: Job) -> CostModel:
    """With latencies where these are what is to be kept small, which are measured before lists are proposed."""
    costs = job.plan.costs
    wanted = job.settings.selection.cost is CostName.LATENCY and not costs.timed
    return latency.run(job) if wanted else costs


def _evidence(job: Job, done: Measurements, board: Scoreboard, costs: CostModel) -> Evidence:
    return evidence.of_measurements(job, done, board, layer_scores(board, job.settings.mode), costs)


def _predicted(job: Job, done: Measurements, known: Evidence) -> NextRound | Decided:
    assert job.settings.budget is not None, "nothing is predicted without one"
    kept = KeptResults(job.context.database, job.context.blobs)
    answer = step_by_evidence(known, job.settings.selection_in_force, job.settings.budget, kept)
    found = Decided(answer, evidence=known) if isinstance(answer, Decision) else lists_to_measure(job, done, answer)
    return replace(found, costs=known.costs, curve=kept_curve(kept))


def _probed(job: Job, done: Measurements, board: Scoreboard) -> NextRound | Decided:
    sums = probed.probe_sums(job).sums
    assert sums is not None
    found = probed.known(sums, board, metric=job.metric().name)
    exact = job.settings.method is SweepMethod.PROBE_THEN_EXACT
    if exact and (doubtful := probed.doubtful(found)):
        return _layers(job, doubtful)
    how = f"layers ranked by probes, of which {len(found.scores)} of {len(found.values)} were measured too"
    if job.settings.predicts:
        known = evidence.of_probes(job, done, board, found, sums, _costs(job))
        return _explained(_predicted(job, done, known), how)
    question = _question(job.course, board, found.ranking, found.values)
    answer = next_step(question, _scores(board, _along_the_ranking(job.course, board, question)))
    if not isinstance(answer, Decision):
        return lists_to_measure(job, done, answer)
    if exact and (missing := probed.at_the_end(found, answer.fallback)):
        return _layers(job, missing)
    known = evidence.of_probes(job, done, board, found, sums, job.plan.costs)
    return _explained(Decided(answer, evidence=known), how)


def _explained(found: NextRound | Decided, how: str) -> NextRound | Decided:
    if isinstance(found, NextRound):
        return found
    explanation = f"{found.decision.explanation}; {how}"
    return replace(found, decision=found.decision.model_copy(update={"explanation": explanation}))


def _layers(job: Job, layers: Sequence[str]) -> NextRound:
    """These layers on the samples of the choice."""
    return NextRound(dict.fromkeys(job.plan.searched, tuple(LAYER_PREFIX + each for each in layers)))


def _question(
    course: Course, board: Scoreboard, ranking: tuple[Ranked, ...], sensitivities: Mapping[str, Interval]
) -> Question:
    names = {each.id: each.name for each in course.plan.layers}
    budget = course.settings.budget
    return Question(
        selection=course.settings.selection_in_force,
        limit=limit_of(budget, board.score(FP32).metric) if budget is not None else None,
        ranking=ranking,
        sensitivities=dict(sensitivities),
        names={each.layer_id: names[each.layer_id] for each in ranking},
        most=None if course.settings.method is SweepMethod.EXACT else race.places(len(ranking)),
    )


def _scores(board: Scoreboard, variants: Mapping[Fallback, str]) -> dict[Fallback, VariantScore]:
    return {fallback: board.score(name) for fallback, name in variants.items()}


def _along_the_ranking(course: Course, board: Scoreboard, question: Question) -> dict[Fallback, str]:
    """Fallback list → the variant that shows it: the controls and lone layers of the table, and verified lists."""
    every = tuple(each.layer_id for each in question.ranking)
    found = {(): ALL_INT8, every: FP32}
    if course.settings.mode is SweepMode.ONE_OFF:
        found |= {(layer,): LAYER_PREFIX + layer for layer in every}
    return found | {fallback_of(name): name for name in board.variants if name.startswith(MIXED_PREFIX)}
