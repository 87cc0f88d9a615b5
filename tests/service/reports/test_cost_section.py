"""What the layers cost, in the page, in layers.csv and in report.json: literal numbers."""

import csv
import io
import re
from typing import Any

import pytest

from service.domain.costs import Boundary, CostModel, Group, LayerCost, Precision, TimedGraph
from service.domain.results import Interval
from service.reports.cost_section import cost_section
from service.reports.layers_csv import to_csv
from service.reports.page import to_html
from service.reports.report import Report, to_json
from tests.service.reports import sample


def seconds(value: float | None, method: str = "order statistics of the median") -> Interval:
    ends = (None, None) if value is None else (value * 0.75, value * 1.5)
    return Interval(value=value, low=ends[0], high=ends[1], method=method, samples=30)


def costs(*, timed: bool = True, **changes: Any) -> CostModel:
    """Of the first layers of the sample report, ``node_0`` (conv1) and so on."""
    latency = {Precision.FP32: seconds(64e-6), Precision.INT8: seconds(16e-6)} if timed else {}
    layers = [LayerCost(layer=f"node_{index}", macs=2_000_000, weights=1500, latency=latency) for index in range(3)]
    graphs = (
        TimedGraph(precision=Precision.FP32, wall=seconds(800e-6), layers=0.9, conversions=0.0, other={}, outside=0.1),
        TimedGraph(
            precision=Precision.INT8,
            wall=seconds(400e-6),
            layers=0.75,
            conversions=0.125,
            other={"Pad": 0.05, "<b>": 0.025},
            outside=0.05,
        ),
    )
    found = CostModel(
        layers=tuple(layers),
        boundaries=(Boundary(source="node_0", target="node_1", elements=24, latency=1e-6),),
        groups=(Group(name="added up in layer1.0.add", layers=("node_1", "node_2"), reason="residual_add"),),
        measured_on="cpu (Some Processor, 1 threads), ONNX Runtime 1.32.0" if timed else None,
        batch_size=16 if timed else None,
        timed=graphs if timed else (),
        notes=("float16 was not timed",),
    )
    return found.model_copy(update=changes)


@pytest.fixture
def whole() -> Report:
    return sample.report(costs=costs())


class TestSection:
    def test_what_was_not_planned_has_none(self, report: Report) -> None:
        assert cost_section(None, report.layers) is None
        assert cost_section(CostModel(layers=()), report.layers) is None

    def test_totals_are_told_whether_something_was_timed_or_not(self, report: Report) -> None:
        found = cost_section(costs(timed=False), report.layers)
        assert found is not None
        assert found.summary.startswith("6.00\u00a0M MACs per sample and 4.50\u00a0k weights; 1 tensor to convert")
        assert (found.measured_on, found.graphs) == (None, ())

    def test_macs_that_nobody_knows_are_told(self, report: Report) -> None:
        model = costs()
        unknown = model.layers[0].model_copy(update={"macs": None})
        found = cost_section(model.model_copy(update={"layers": (unknown, *model.layers[1:])}), report.layers)
        assert found is not None
        assert "4.00\u00a0M MACs per sample (of 1 layer not known)" in found.summary

    def test_each_graph_has_its_time_and_where_it_went(self, report: Report) -> None:
        found = cost_section(costs(), report.layers)
        assert found is not None
        fp32, int8 = found.graphs
        assert (fp32.latency, fp32.interval, fp32.speedup) == ("800\u00a0µs", "600 to 1200", "")
        assert (int8.latency, int8.speedup) == ("400\u00a0µs", "2.00×")
        assert (int8.layers, int8.conversions, int8.outside) == ("75.0\u00a0%", "12.5\u00a0%", "5.0\u00a0%")
        assert int8.other == "7.5\u00a0% (Pad 5.0\u00a0%, <b> 2.5\u00a0%)"
        assert fp32.other == "–"

    def test_the_device_and_the_batch_are_named(self, report: Report) -> None:
        found = cost_section(costs(), report.layers)
        assert found is not None
        assert found.measured_on == "cpu (Some Processor, 1 threads), ONNX Runtime 1.32.0, 16 samples in a batch"

    def test_groups_are_named_by_their_layers(self, report: Report) -> None:
        found = cost_section(costs(), report.layers)
        assert found is not None
        (group,) = found.groups
        assert group.layers == (report.layers[1].layer.name, report.layers[2].layer.name)


class TestCsv:
    def rows(self, report: Report) -> dict[str, dict[str, str]]:
        text = to_csv(report.layers, report.costs)
        return {row["id"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}

    def test_a_layer_has_its_latencies_with_their_intervals_in_seconds(self, whole: Report) -> None:
        row = self.rows(whole)["node_0"]
        assert [float(row[f"latency_fp32{end}"]) for end in ("", "_low", "_high")] == [64e-6, 48e-6, 96e-6]
        assert float(row["latency_int8"]) == 16e-6
        assert row["latency_fp16"] == ""

    def test_groups_stand_beside_their_layers(self, whole: Report) -> None:
        rows = self.rows(whole)
        assert [rows[f"node_{index}"]["group"] for index in range(4)] == ["", *["added up in layer1.0.add"] * 2, ""]

    @pytest.mark.parametrize("model", [None, costs(timed=False)], ids=["no costs", "nothing timed"])
    def test_what_is_not_known_is_left_free(self, model: CostModel | None) -> None:
        row = self.rows(sample.report(costs=model))["node_0"]
        assert [row[f"latency_{each}{end}"] for each in ("int8", "fp16", "fp32") for end in ("", "_low", "_high")] == (
            [""] * 9
        )


class TestPage:
    def test_the_section_and_the_columns_are_there(self, whole: Report) -> None:
        page = to_html(whole).decode()
        assert "What the layers cost" in page
        assert "Timed on cpu (Some Processor, 1 threads)" in page
        assert "Float16 was not timed." in page
        assert '<th class="num" scope="col">int8, µs</th>' in page
        assert '<td class="num" data-key="1.6e-05">16.0</td>' in page
        assert "&lt;b&gt; 2.5" in page

    def test_without_latencies_there_are_no_columns_for_them(self) -> None:
        page = to_html(sample.report(costs=costs(timed=False))).decode()
        assert "What the layers cost" in page
        assert not re.search(r"(int8|fp32), µs", page)

    def test_without_costs_there_is_nothing(self, report: Report) -> None:
        assert "What the layers cost" not in to_html(report).decode()


def test_a_report_with_costs_reads_back(whole: Report) -> None:
    assert Report.model_validate_json(to_json(whole)) == whole


def test_a_report_of_before_costs_still_loads(report: Report) -> None:
    stored = report.model_dump(mode="json", exclude={"costs"})
    assert Report.model_validate(stored).costs is None
