"""The metric that ranks the layers: one of ours, computed from per-sample measures, or one of torchmetrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.errors import InvalidInput
from service.domain.settings import MetricSettings
from workers.metrics.corpus import CorpusMetric, open_corpus_metric


@dataclass(frozen=True)
class TaskMetric:
    """``measure``: the per-sample measure whose mean it is (None for corpus metrics); ``output``: the scored output."""

    name: str
    output: str
    higher_is_better: bool
    unit: str
    measure: str | None = None
    corpus: CorpusMetric | None = None
    needs_labels: bool = False

    @property
    def is_divergence(self) -> bool:
        """Whether it is a distance from fp32's output on a continuous scale, rather than a count of answers."""
        return self.measure in DIVERGENCES

    def missing(self, measure: str) -> str:
        """What to say where the data does not give the measure."""
        return (
            f"metric.name: {self.name} needs {measure} of every sample, which output {self.output!r} and the labels do "
            "not give: it wants class scores of shape (N, C) or (N, C, ...), C >= 2 (top5: C > 5), and integer labels"
        )


DIVERGENCES = ("mse", "cosine", "kl")

OWN = {
    "top1": ("correct", True, "share of samples", True),
    "top5": ("correct5", True, "share of samples", True),
    "mse": ("mse", False, "squared output units", False),
    "sqnr": ("mse", True, "dB", False),
    "cosine": ("cosine", True, "cosine", False),
    "kl": ("kl", False, "nats", False),
    "agreement": ("agreement", True, "share of samples", False),
}


def resolve_metric(settings: MetricSettings, *, has_labels: bool, output_names: Sequence[str]) -> TaskMetric:
    """The metric that the settings name; raises InvalidInput that names the field and what would be right."""
    output = settings.output or output_names[0]
    if output not in output_names:
        raise InvalidInput(
            f"metric.output: the model has no output {output!r}; it has {', '.join(output_names)}",
            field="metric.output",
        )
    if settings.name in OWN:
        if settings.args:
            raise InvalidInput(f"metric.args: {settings.name} takes none", field="metric.args")
        measure, higher, unit, needs_labels = OWN[settings.name]
        metric = TaskMetric(settings.name, output, higher, unit, measure=measure, needs_labels=needs_labels)
    else:
        corpus = open_corpus_metric(settings.name, settings.args, own=tuple(OWN))
        metric = TaskMetric(
            settings.name, output, corpus.higher_is_better, "metric's own", corpus=corpus, needs_labels=True
        )
    if metric.needs_labels and not has_labels:
        without = ", ".join(name for name, each in OWN.items() if not each[3])
        raise InvalidInput(
            f"metric.name: {settings.name} needs labels and the evaluation set has none; without them: {without}",
            field="metric.name",
        )
    return metric
