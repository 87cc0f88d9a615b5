"""Metrics for Prometheus: computed from the database at each scrape, so that every API tells the same."""

from collections.abc import Iterable, Mapping

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service import __version__
from service.api.deps import InInstallation
from service.domain.protocol import PROTOCOL
from service.domain.states import SweepState
from service.store.installation import code_speaks
from service.store.measures import Measures, measure

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text for Prometheus."}},
)
def get_metrics(services: InInstallation) -> Response:
    """Units, sweeps, workers and bytes of all projects. Needs no key where the operator made it public."""
    with services.database.read() as session:
        measures = measure(session)
    registry = CollectorRegistry()
    registry.register(_Collector(measures))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


class _Collector:
    """All are gauges: rows are deleted with their sweeps, so that no number only grows."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterable[Metric]:
        found = self._measures
        said = {"version": __version__, "schema_revision": code_speaks().schema or "", "protocol": str(PROTOCOL)}
        yield InfoMetricFamily("quantsieve", "The API that answers.", value=said)
        yield from self._units()
        sweeps = {state.value: found.sweeps.get(state, 0) for state in SweepState}
        yield _gauge("quantsieve_sweeps", "Sweeps by state.", "state", sweeps)
        by_backend = "Live workers that take work, by a backend that they offer."
        yield _gauge("quantsieve_backend_workers", by_backend, "backend", found.workers)
        workers = {"taking": found.live_workers - found.refused_workers, "refused": found.refused_workers}
        yield _gauge("quantsieve_workers", "Live workers; refused: of another release.", "state", workers)
        stored = "Bytes of uploads and produced files, by project; the largest 100 by name."
        yield _gauge("quantsieve_stored_bytes", stored, "project", found.stored_bytes)

    def _units(self) -> Iterable[Metric]:
        labels = ["queue", "kind", "state"]
        count = GaugeMetricFamily("quantsieve_units", "Work units by queue, kind and state.", labels=labels)
        attempts = GaugeMetricFamily("quantsieve_unit_attempts", "How often these units were begun.", labels=labels)
        for each in self._measures.units:
            count.add_metric([each.queue, each.kind, each.state], each.count)
            attempts.add_metric([each.queue, each.kind, each.state], each.attempts)
        yield count
        yield attempts
        oldest = "Age of the oldest unit that waits for a worker; no line where none waits."
        yield _gauge("quantsieve_oldest_queued_unit_age_seconds", oldest, "queue", self._measures.oldest_queued)
        labels = ["kind", "backend"]
        done = GaugeMetricFamily("quantsieve_recent_units", "Units done within the last hour.", labels=labels)
        seconds = GaugeMetricFamily("quantsieve_recent_unit_seconds", "The time they took, in sum.", labels=labels)
        for each_ in self._measures.durations:
            done.add_metric([each_.kind, each_.backend], each_.count)
            seconds.add_metric([each_.kind, each_.backend], each_.seconds)
        yield done
        yield seconds


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    made = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        made.add_metric([value], number)
    return made
