"""What programs read: report.json and its schema, layers.csv, fallback_layers.json."""

import csv
import io
import json
from pathlib import Path

import jsonschema

from service.domain.results import Interaction, LayerResult
from service.reports.fallback import fallback_layers
from service.reports.interactions_csv import to_csv as interactions_to_csv
from service.reports.layers_csv import to_csv
from service.reports.report import Report, json_schema, to_json
from tests.service.reports import sample

SCHEMA = Path(__file__).parents[3] / "docs" / "report.schema.json"
REGENERATE = (
    "docs/report.schema.json is not current; write it anew: python -c 'import json; "
    "from service.reports.report import json_schema; "
    "print(json.dumps(json_schema(), indent=1, sort_keys=True, ensure_ascii=False))' > docs/report.schema.json"
)


def test_the_committed_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(json_schema())), REGENERATE


def test_report_json_is_valid_and_reads_back(report: Report, hostile: Report) -> None:
    for each in (report, hostile):
        written = to_json(each)
        jsonschema.Draft202012Validator(json_schema()).validate(json.loads(written))
        assert Report.model_validate_json(written) == each
        assert to_json(each) == written


def test_csv_has_a_line_for_each_layer_and_no_formula(report: Report, hostile: Report) -> None:
    for each in (report, hostile):
        rows = list(csv.DictReader(io.StringIO(to_csv(each.layers), newline="")))
        assert len(rows) == len(each.layers)
        assert not [row["name"] for row in rows if row["name"].startswith(("=", "+", "-", "@", "\t"))]
    assert '\'=HYPERLINK("x")' in {row["name"] for row in rows}


def test_csv_numbers_read_back_exactly(report: Report) -> None:
    row = next(csv.DictReader(io.StringIO(to_csv(report.layers), newline="")))
    score = report.layers[0].score
    assert score is not None
    assert (row["rank"], row["name"]) == ("1", "conv1")
    assert (float(row["drop"]), float(row["kl_low"])) == (score.drop.value, score.measures["kl"].low)


def test_csv_has_the_statistics_and_leaves_free_what_there_is_not(report: Report) -> None:
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(to_csv(report.layers), newline=""))}
    names = ("activation_low", "activation_high", "weight_ratio", "sqnr_db")
    assert [rows["conv1"][each] for each in names] == ["-0.5", "6.25", "4.5", "31.75"]
    assert rows["layer1.0.add"]["weight_ratio"] == ""
    assert [rows["fc"][each] for each in names] == [""] * 4


def test_a_layer_that_was_stored_without_statistics_still_loads(report: Report) -> None:
    stored = report.layers[0].model_dump(mode="json", exclude={"statistics"})
    assert LayerResult.model_validate(stored).statistics is None


def test_the_fallback_list_names_every_layer_once(report: Report) -> None:
    found = fallback_layers(report)
    assert found["schema_version"] == 1
    assert found["status"] == "met"
    assert {each["name"] for each in found["fallback"]} == {"conv1", "layer2.0.downsample.0"}
    assert len(found["int8"]) == 26
    assert found["verified_drop"]["value"] == 0.0062


def test_without_a_decision_the_fallback_list_says_so() -> None:
    found = fallback_layers(sample.report(decision=None))
    assert (found["status"], found["fallback"], found["verified_drop"]) == (None, [], None)


def test_csv_keeps_estimates_apart_from_what_was_measured() -> None:
    layers = sample.probed_report().layers
    rows = {row["rank"]: row for row in csv.DictReader(io.StringIO(to_csv(layers), newline=""))}
    first = next(each for each in layers if each.rank == 1)
    assert first.estimate is not None
    assert (rows["1"]["state"], rows["1"]["kl"], rows["1"]["drop"]) == ("estimated", "", "")
    assert float(rows["1"]["estimated_kl_high"]) == first.estimate.measures["kl"].high
    assert (rows["1"]["beyond_linear"], rows["3"]["beyond_linear"]) == ("True", "False")
    assert (rows["2"]["state"], rows["2"]["estimated_kl"]) == ("measured", "")


def test_a_layer_that_was_only_estimated_is_in_the_list_as_any_other() -> None:
    found = fallback_layers(sample.probed_report())
    assert len(found["int8"]) == 26
    assert {each["name"] for each in found["fallback"]} == {"conv1", "layer2.0.downsample.0"}


def test_interactions_have_a_line_for_each_pair_and_no_formula() -> None:
    pair = Interaction(layers=("n1", "n2"), measure="mse", value=0.25, standard_error=0.125, shrunk=0.1875)
    text = interactions_to_csv([pair], {"n1": "conv1", "n2": '=HYPERLINK("x")'})
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["measure"], row["layer"], row["other_layer"]) == ("mse", "conv1", '\'=HYPERLINK("x")')
    assert [float(row[each]) for each in ("value", "standard_error", "shrunk")] == [0.25, 0.125, 0.1875]
