"""Reports: pure functions of records, byte for byte; what is not comparable stays apart."""

import csv
import io
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from benchmarks.cli import COMMITTED, READMES, main
from benchmarks.record import RunRecord, load_records, save_record
from benchmarks.report import collect, insert_into, marked_suites, report_markdown, results_block, write_report
from benchmarks.report.costs import costs_markdown
from benchmarks.report.objects import objects_markdown
from benchmarks.report.published import load_published, published_markdown
from benchmarks.report.tables import calibration_table, results_csv, results_table, to_terminal
from benchmarks.statistics import spread
from benchmarks.suite import load_suite, plan
from datamodules.errors import UserError

GOLDEN = Path(__file__).with_name("golden_report.md")
SUITE = """
name: fixed
title: A fixed suite
data: {name: set, root: /nowhere}
budget: {max_steps: 20, validate_every: 10}
seeds: [0, 1, 2]
references: [all_background, slope_threshold]
common: {method: deeplab}
blocks: {side: 1}
runs:
  - {name: image, hyperparameters: {network: {inputs: image}}}
  - {name: "both | <script>", baseline: image, hyperparameters: {network: {inputs: both}}}
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "fixed.yaml").write_text(SUITE)
    return load_suite(str(tmp_path / "fixed.yaml"))


def finished(spec, iou, date="2026-01-02", **scores):
    test = {"prevalence": 0.25, "precision": 0.5, "recall": 0.75, "f1": 2 * iou / (1 + iou), "iou_landslide": iou, "miou": 0.4, "ap": 0.6}
    git = {"commit": "0123456789abcdef", "dirty": False}
    return RunRecord(
        spec.key,
        "finished",
        spec.to_dict(),
        metrics={"val": dict.fromkeys(test, 0.5), "test": {**test, "threshold": 0.5, **scores}},
        model={"inputs": "dem" if spec.is_reference else spec.hyperparameters["network"]["inputs"]},
        cost={"seconds": 12.3}
        if spec.is_reference
        else {"seconds": 90.4, "train_seconds": 61.6, "parameters": 3412345, "peak_memory_mb": 812.0},
        environment={"git": git, "cpu": "a processor", "gpu": None, "threads": 1, "packages": {"torch": "2.15.0"}, "date": date},
        data={"name": "set", "fingerprint": "f", "splits": {"test": {"windows": 9, "scenes": 3, "km2": 1.5, "prevalence": 0.25}}},
    )


@pytest.fixture
def records(suite):
    background, slope, *runs = plan(suite, fingerprint="f")
    made = [finished(background, 0.0, precision=math.nan, ap=0.25), finished(slope, 0.45, threshold_deg=12.65)]
    made += [finished(spec, iou) for spec, iou in zip(runs[:4], (0.5, 0.6, 0.7, 0.3), strict=True)]
    made[-1].metrics["test"]["precision"] = math.nan  # one seed that predicted nothing
    error = {"line": "ValueError: a | b", "log": "runs/fixed/k/log.txt", "reason": "exit code 1"}
    made.append(RunRecord(runs[4].key, "failed", runs[4].to_dict(), cost={"seconds": 3.0}, error=error))
    return {record.key: record for record in made}


def histograms_of(record):
    """Of 24 tiles; the IoU of each differs, and that of all of them is near the record's."""
    iou = record.metrics["test"]["iou_landslide"]
    tiles = {}
    for index in range(24):
        tile = np.zeros((2, 256), np.int64)
        tile[1, 200] = round(100 * iou) + index
        tile[1, 10], tile[0, 200], tile[0, 10] = 40 - index, 60 - round(100 * iou), 500
        tiles[f"scene:{64 * index}:0"] = tile.clip(0)
    return {"val": {}, "test": tiles}


@pytest.fixture
def folder(records, tmp_path):
    for record in records.values():
        save_record(record, tmp_path / "out" / "records", histograms_of(record) if record.status == "finished" else None)
    return tmp_path / "out" / "records"


def test_golden(suite, records, folder):
    assert report_markdown(collect(suite, records, folder)) == GOLDEN.read_text(encoding="utf-8")


def test_what_was_not_run_stands_in_the_first_table_alone(suite, records, folder):
    left = {key: record for key, record in records.items() if record.spec["name"] != "both | <script>"}
    report = collect(suite, left, folder)
    assert "both | <script>" in {line[0] for line in results_table(report)[1]}, "a reader must see that it is missing"
    assert {line[0] for line in calibration_table(report)[1]} == {"image", "all_background", "slope_threshold"}
    assert report_markdown(report).count("&lt;script>") == 1 + 3, "and its three seeds in the list of runs"


def test_the_order_and_place_of_records_do_not_matter(suite, records, tmp_path):
    shuffled = list(records.items())
    random.Random(3).shuffle(shuffled)
    written = []
    for name, given in (("a", records), ("b", dict(shuffled))):
        paths = write_report(collect(suite, given), tmp_path / name)
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]


def test_a_score_that_one_seed_lacks_has_no_mean(suite, records):
    header, lines = results_table(collect(suite, records))
    both = dict(zip(header, lines[1], strict=True))
    assert both["P"] == "–"
    assert both["IoU"] == "0.300"
    assert both["seeds"] == "1 of 3, 1 failed"
    image = dict(zip(header, lines[0], strict=True))
    assert image["IoU"] == "0.600 ± 0.100"
    assert image["parameters"] == "3.4 M"


def test_a_renamed_row_keeps_its_records_and_changed_settings_lose_them(suite, records, tmp_path):
    text = SUITE.replace("name: image,", "name: renamed,").replace("baseline: image,", "baseline: renamed,")
    (tmp_path / "renamed.yaml").write_text(text)
    report = collect(load_suite(str(tmp_path / "renamed.yaml")), records)
    assert (report.rows[0].spec.name, len(report.rows[0].finished)) == ("renamed", 3)
    assert report.left_out == []
    (tmp_path / "changed.yaml").write_text(SUITE.replace("max_steps: 20", "max_steps: 40"))
    report = collect(load_suite(str(tmp_path / "changed.yaml")), records)
    assert [len(row.records) for row in report.rows] == [0, 0]
    assert len(report.left_out) == 5


def test_results_on_older_data_are_left_out(suite, records):
    newer = [finished(spec, 0.9, date="2026-02-01") for spec in plan(suite, fingerprint="g")[2:4]]
    report = collect(suite, {**records, **{record.key: record for record in newer}})
    assert [record.metrics["test"]["iou_landslide"] for record in report.rows[0].finished] == [0.9, 0.9]
    assert sorted(report.left_out) == sorted(records)


def test_csv_holds_every_run_and_reads_back(suite, records):
    rows = list(csv.DictReader(io.StringIO(results_csv(collect(suite, records)))))
    assert len(rows) == len(records)
    by_key = {row["key"]: row for row in rows}
    for key, record in records.items():
        row = by_key[key]
        assert (row["status"], row["seed"]) == (record.status, "" if record.spec["seed"] is None else str(record.spec["seed"]))
        for name, value in record.metrics.get("test", {}).items():
            assert row[f"test/{name}"] == ("" if math.isnan(value) else repr(float(value)))
    assert [row["error"] for row in rows if row["status"] == "failed"] == ["ValueError: a | b"]


def test_calibration_and_tiles_follow_from_the_histograms_of_any_record(suite, records, tmp_path):
    certain, none = np.zeros((2, 256), np.int64), np.zeros((2, 256), np.int64)
    certain[0, 10], certain[1, 230] = 60, 40  # on the right side of any threshold between, and less sure than right
    none[0, 10] = 100
    finished = {key: record for key, record in records.items() if record.status == "finished"}
    for record in finished.values():
        if record.model["inputs"] != "dem":
            record.metrics["test"]["brier"] = 0.1
        save_record(record, tmp_path, {"val": {"v": certain}, "test": {"s:0:0": certain, "s:0:64": none}})
    report = collect(suite, records, tmp_path)
    header, lines = calibration_table(report)
    cells = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    image = cells["image"]
    assert (image["tile F1"], image["tile accuracy"], image["landslide tiles"]) == ("1.000 ± 0.000", "1.000 ± 0.000", "0.500")
    assert image["oracle gap"] == "0.000 ± 0.000"
    error = (160 * 10.5 / 256 + 40 * (1 - 230.5 / 256)) / 200
    assert image["ECE, 16 widths"] == f"{error:.3f} ± 0.000"
    assert float(image["T"].split()[0]) < 1, "validation shows that it may be surer"
    assert image["ECE, 16 widths, at T"] == "0.000 ± 0.000"
    assert (cells["slope_threshold"]["ECE, 16 widths"], cells["slope_threshold"]["tile F1"]) == ("–", "1.000"), "a slope is no probability"
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(results_csv(report)))}
    for key, record in records.items():
        assert (rows[key]["test/tile_share_f1"] == "1.0") == (record.status == "finished")


def test_markup_in_names_is_inert(suite, records):
    markdown = report_markdown(collect(suite, records))
    assert "<script>" not in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("| both")]
    assert lines
    header, table = results_table(collect(suite, records))
    table[0][0] = "[red]x[/red]"
    output = io.StringIO()
    Console(file=output, width=200).print(to_terminal("t", header, table, left=3))
    assert "[red]x[/red]" in output.getvalue()


def test_the_readme_changes_between_its_markers_only(suite, records):
    report = collect(suite, records)
    text = "before\n<!-- results:fixed -->\nold\n<!-- /results:fixed -->\nafter\n<!-- results:other -->\nkept\n<!-- /results:other -->\n"
    assert marked_suites(text) == ["fixed", "other"]
    once = insert_into(text, report)
    assert once == text.replace("old", results_block(report).rstrip())
    assert insert_into(once, report) == once
    none = insert_into("<!-- results:fixed/mrife --><!-- /results:fixed/mrife -->", report)
    assert "No records of this method in `fixed` yet." in none
    one = insert_into("<!-- results:fixed/icssn --><!-- /results:fixed/icssn -->", report)
    assert "deeplab" not in one.replace("deeplab (", "")
    for broken in ("nothing", "<!-- results:fixed -->"):
        with pytest.raises(UserError, match="marker"):
            insert_into(broken, report)


def test_report_command(suite, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # of the terminal that the tests run in
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:fixed -->\n<!-- /results:fixed -->\n")
    arguments = ["report", str(tmp_path / "fixed.yaml"), "--results", str(tmp_path / "out"), "--readme", str(readme)]
    assert main(arguments) == 1, "a failed run is not a success"
    shown = capsys.readouterr().out
    assert "0.600 ± 0.100" in shown
    assert "runs/fixed/k/log.txt" in shown
    assert (tmp_path / "out" / "REPORT.md").read_text(encoding="utf-8") == GOLDEN.read_text(encoding="utf-8")
    assert "0.600 ± 0.100" in readme.read_text()


def test_a_report_without_records_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="zoo-bench run demo"):
        main(["report", "demo", "--runs", str(tmp_path)])


@pytest.mark.parametrize("folder", [path for path in sorted(COMMITTED.glob("*")) if path.is_dir()] or [None], ids=str)
def test_committed_reports_are_those_of_their_records(folder, tmp_path):
    if folder is None:
        pytest.skip("no committed results")
    (tmp_path / "records").symlink_to(folder / "records")
    assert main(["report", folder.name, "--results", str(tmp_path)]) == 0
    for name in ("REPORT.md", "results.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), f"run `zoo-bench report {folder.name} --results {folder}`"


def test_tables_in_readmes_are_those_of_the_committed_records():
    repository = COMMITTED.parents[1]
    for readme in sorted(path for pattern in READMES for path in repository.glob(pattern)):
        text = readme.read_text(encoding="utf-8")
        for name in marked_suites(text):
            records = load_records(COMMITTED / name / "records")
            if not records:
                assert f"<!-- results:{name} -->\n<!-- /results:{name} -->" in text, "numbers without records"
                continue
            report = collect(load_suite(name), records)
            assert insert_into(text, report) == text, f"{readme.relative_to(repository)}: run `make report`"


# ---- published numbers ---------------------------------------------------------------------------------------------------------------


def published_rows():
    return [(group.id, row) for group in load_published().groups for row in group.rows]


def test_every_published_row_with_both_satisfies_iou_of_f1():
    checked = 0
    for _, row in published_rows():
        if {"f1", "iou_landslide"} <= row.values.keys():
            f1, iou = row.values["f1"], row.values["iou_landslide"]
            # d IoU / d F1 = 2 / (2 - F1)^2
            slack = iou.tolerance + f1.tolerance * 2 / (2 - f1.number) ** 2
            assert abs(f1.number / (2 - f1.number) - iou.number) <= slack + 1e-9, row.method
            checked += 1
    assert checked == 5


def test_derived_recall_follows_from_precision_and_f1():
    for _, row in published_rows():
        if "recall" in row.values:
            f1, precision, recall = (row.values[name] for name in ("f1", "precision", "recall"))
            assert recall.mark == "derived"
            assert f1.number * precision.number / (2 * precision.number - f1.number) == pytest.approx(recall.number, abs=2e-3)


def test_groups_stay_apart_and_every_source_is_listed():
    published = load_published()
    assert [(group.id, [row.method for row in group.rows][-1]) for group in published.groups] == [
        ("A", "MRIFE"),
        ("B", "HPCL-Net"),
        ("C", "FFS-Net"),
    ]
    assert {source for _, row in published_rows() for source in row.sources} == published.sources.keys()
    assert {name for _, row in published_rows() for name in row.values} == published.columns.keys()
    markdown = published_markdown(published)
    tables = [block for block in markdown.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    assert not any("HPCL-Net" in table and "MRIFE" in table for table in tables)
    assert "*0.6285*" in markdown
    assert "0.874 †" in markdown


def test_published_numbers_are_text_so_that_digits_survive():
    content = yaml.safe_load(Path(load_published.__wrapped__.__defaults__[0]).read_text(encoding="utf-8"))
    assert json.dumps(content).count('"0.6610"') == 1


def test_spread_is_that_of_a_sample():
    values = spread([0.5, 0.6, 0.7])
    assert (values.mean, values.std, values.num) == (pytest.approx(0.6), pytest.approx(0.1), 3)
    assert math.isnan(spread([0.5]).std)
    assert math.isnan(spread([0.5, math.nan]).mean)
    assert math.isnan(spread([]).mean)


def test_outlines_and_objects_are_shown_where_a_record_has_them(suite, records):
    report = collect(suite, records)
    assert "Outlines" not in report_markdown(report)
    for value, record in zip((0.2, 0.4, 0.6), report.rows[0].finished, strict=True):
        record.metrics["test"] |= {
            "boundary_f1_10m": value,
            "object_f1_iou0.5": 0.5,
            "object_recall_coverage0.5": 0.25,
            "object_recall_coverage0.5_10000-100000m2": value,
            "object_recall_coverage0.5_1000000m2-": math.nan,
            "objects": 7.0,
        }
    lines = objects_markdown(report).splitlines()
    assert "| name | seeds | outline F1, 10m | object F1, iou0.5 | object R, coverage0.5 |" in lines
    assert "| image | 3 | 0.400 ± 0.200 | 0.500 ± 0.000 | 0.250 ± 0.000 |" in lines
    assert "Recall by area of the landslide (`coverage0.5`; 7 labelled objects):" in lines
    assert "| name | 10,000 to 100,000 m² |" in lines, "a class without objects has no column"
    assert "| image | 0.400 |" in lines


def test_costs_are_shown_where_a_record_knows_those_of_prediction(suite, records):
    report = collect(suite, records)
    assert costs_markdown(report) == ""
    for record in report.rows[0].finished:
        record.cost.update(tile_gflop=1.25, samples_per_second=7.5, predict_km2_per_hour=1200.4)
    assert "| image | 3.4 M | – | 1.250 | 7.50 | – | 1200 |" in costs_markdown(report).splitlines()
    assert costs_markdown(report) in report_markdown(report)
