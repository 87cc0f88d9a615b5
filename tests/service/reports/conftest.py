import pytest

from service.reports.report import Report
from tests.service.reports import sample


@pytest.fixture
def report() -> Report:
    return sample.report()


@pytest.fixture
def hostile() -> Report:
    """Every text that comes with a model or a data set is an attack."""
    layers = sample.ranked([sample.measured(index, name, 0.02) for index, name in enumerate(sample.HOSTILE)])
    layers += tuple(sample.unmeasured("plain " + text, "failed", text) for text in sample.HOSTILE)
    plain = sample.report()
    return sample.report(
        layers=layers,
        decision=sample.decision(layers, explanation=sample.HOSTILE[0]),
        model=plain.model.model_copy(update={"name": sample.HOSTILE[1]}),
        dataset=plain.dataset.model_copy(update={"name": sample.HOSTILE[5]}),
        warnings=tuple(plain.warnings[0].model_copy(update={"message": text}) for text in sample.HOSTILE),
    )
