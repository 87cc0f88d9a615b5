import re
from html.parser import HTMLParser

import pytest

from service.domain.file_check import FileCheck, FileScore
from service.domain.results import FoldingDifference
from service.domain.settings import SweepMode
from service.reports.page import to_html
from service.reports.report import CacheSection, CalibrationSection, MetricSection, Report
from tests.service.reports import sample

VOID = {"meta", "input", "br", "img", "link"}


class Structure(HTMLParser):
    """Tags in order; every end tag must close the last open one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_the_page_is_well_formed_and_says_the_verdict(report: Report) -> None:
    page = to_html(report).decode()
    Structure(page)
    assert "Keep 2 of 28 layers in floating point" in page
    assert "budget of 1.00\u00a0pp" in page


def test_the_page_needs_no_network(report: Report) -> None:
    page = to_html(report).decode()
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|src=", page)
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in page


def test_hostile_names_become_text(hostile: Report) -> None:
    page = to_html(hostile).decode()
    found = Structure(page)
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\u200b\u202e]", page)
    assert "nul\\x00bell\\x07line\\x0abreak" in page
    assert "left\\u202eright\\u200b" in page
    assert "{{ 7*7 }}" in page


def test_a_layers_statistics_are_told_at_its_name(report: Report) -> None:
    titles = {value for name, value in Structure(to_html(report).decode()).attributes if name == "title"}
    assert "node_0 · input −0.500 to 6.25 · weights max/mean 4.50 · local SQNR 31.8 dB" in titles
    assert "id of fc" in titles


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    assert to_html(report) == to_html(sample.report())


@pytest.mark.parametrize("mode", list(SweepMode))
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"decision": None, "controls": {}, "layers": ()}, id="nothing measured"),
        pytest.param({"decision": None, "layers": (sample.unmeasured("a", "pending", None),)}, id="pending"),
        pytest.param({"warnings": (), "skipped": (), "environment": {}}, id="bare"),
    ],
)
def test_partial_reports_render(mode: SweepMode, changes: dict[str, object]) -> None:
    settings = sample.report().settings.model_copy(update={"mode": mode})
    Structure(to_html(sample.report(settings=settings, **changes)).decode())


def test_undefined_intervals_render_with_their_reason() -> None:
    layer = sample.measured(0, "a", 0.1)
    assert layer.score is not None
    none = sample.undefined("metric is not defined on one class")
    score = layer.score.model_copy(update={"metric": none, "drop": none, "measures": {"kl": none}})
    layers = sample.ranked([layer.model_copy(update={"score": score, "significant": False})])
    chosen = sample.decision(layers).measured[0].model_copy(update={"score": score})
    decision = sample.decision(layers, chosen=chosen, measured=(chosen,), fallback=())
    page = to_html(sample.report(layers=layers, decision=decision, controls={"all_int8": score})).decode()
    Structure(page)
    assert "metric is not defined on one class" in page


def test_a_thousand_layers_are_all_in_the_table_and_forty_in_the_chart() -> None:
    layers = sample.ranked([sample.measured(index, f"block.{index}", 1 / (index + 2)) for index in range(1000)])
    page = to_html(sample.report(layers=layers, decision=sample.decision(layers))).decode()
    assert page.count("<tr data-flags=") == 1000
    assert page.count('<g class="bar') == 80  # forty each for the metric and for KL
    assert "960 less sensitive layers more" in page


def test_a_metric_that_should_be_low_increases_as_it_worsens() -> None:
    metric = MetricSection(name="mse", output="y", higher_is_better=False, unit="squared output units")
    assert "a mse increase of 0.00620" in to_html(sample.report(metric=metric)).decode()


def test_the_exported_file_stands_beside_the_variant_that_was_verified() -> None:
    verified = sample.scored("mixed", 0.006)
    score = FileScore(metric=verified.metric, difference=verified.drop, within=True)
    check = FileCheck(
        fallback_precision="fp16",
        samples=1024,
        variant=verified.metric,
        simulated=score,
        fused=None,
        failures={"fused": "ONNX Runtime cannot run it: <no kernel>"},
    )
    page = to_html(sample.report(exported=check)).decode()
    Structure(page)
    assert "mixed.onnx with fp16 fallback layers" in page
    assert "on the same 1,024 samples" in page
    assert "cannot run it: &lt;no kernel&gt;" in page
    assert "File, Q/DQ as they stand" in page
    assert "The exported file" not in to_html(sample.report()).decode()


def test_what_folding_changes_is_told_beside_the_count() -> None:
    difference = FoldingDifference(samples=8, max_abs=0.00012, relative_rms=3.1e-6)
    model = sample.report().model.model_copy(update={"folding_difference": difference})
    page = to_html(sample.report(model=model)).decode()
    assert (
        "20 batch norms folded (fp32 outputs differ by 3.1e-06 of their size in root mean square, by 1.2e-04 " in page
    )
    assert "at most, on 8 samples)" in page
    assert "fp32 outputs differ" not in to_html(sample.report()).decode()


def test_estimates_are_called_estimates() -> None:
    page = to_html(sample.probed_report()).decode()
    assert page.count('<span class="pill state">estimated</span>') == 27
    assert page.count("beyond the linear range") == 1
    assert "it is an estimate, to first order, by gradients" in page
    assert "<details open>" in page
    assert "it is an estimate" not in to_html(sample.report()).decode()


def test_a_calibration_cache_is_named_in_place_of_a_method(report: Report) -> None:
    digits, algorithm = "8510", "MinMaxCalibration"
    cache = CacheSection(
        id="cal_1", name="<b>net</b>", sha256="ef" * 32, algorithm=algorithm, tensorrt_version=digits, entries=2
    )
    section = CalibrationSection(
        method=None, percentile=None, dataset_id=None, dataset_name=None, samples=0, cache=cache
    )
    page = to_html(report.model_copy(update={"calibration": section})).decode()
    Structure(page)
    assert "cache <bdi>&lt;b&gt;net&lt;/b&gt;</bdi> (MinMaxCalibration, TensorRT 8510, 2 scales)</dd>" in page
