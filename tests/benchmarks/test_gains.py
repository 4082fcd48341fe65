"""Gains over the own baseline, and published numbers beside measured ones where, and only where, the data are declared to be theirs."""

import dataclasses
import math

import numpy as np
import pytest
import yaml
from scipy import stats

from benchmarks.record import RunRecord
from benchmarks.report import collect, report_markdown
from benchmarks.report.gains import by_seed, estimate, gain, gains_table
from benchmarks.report.published import load_published
from benchmarks.suite import Budget, Data, Run, Suite, load_suite, plan, with_data
from datamodules.errors import UserError

SUITE = Suite(
    "s",
    Data("set", root="/nowhere"),
    Budget(4, 2),
    [0, 1, 2],
    [Run("base", "deeplab"), Run("ICSSN", "icssn", baseline="base"), Run("MRIFE", "mrife", baseline="base"), Run("HPCL", "hpcl_net")],
)
IOU = {"base": (0.30, 0.32, 0.34), "ICSSN": (0.36, 0.37, 0.41), "MRIFE": (0.40, 0.38, 0.39), "HPCL": (0.5, 0.5, 0.5)}


def records(suite, iou=IOU):
    made = {}
    for spec in plan(suite, fingerprint="f"):
        value = iou[spec.name][spec.seed] + 0.01 * (spec.fold or 0)
        test = {**dict.fromkeys(("prevalence", "precision", "recall", "f1", "miou", "ap", "threshold"), 0.5), "iou_landslide": value}
        environment = {"git": {"commit": None}, "cpu": "c", "gpu": None, "threads": 1, "packages": {}, "date": "2026-01-01"}
        data = {"name": "set", "fingerprint": "f", "splits": {}}
        made[spec.key] = RunRecord(spec.key, "finished", spec.to_dict(), {"val": test, "test": test}, environment=environment, data=data)
    return made


def cells(markdown):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_that_of_student(count):
    values = np.random.default_rng(count).normal(size=count).tolist()
    low, high = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
    found = estimate(values)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


def test_one_seed_has_no_interval_and_a_missing_score_no_mean():
    assert math.isnan(estimate([0.5]).half_width)
    assert math.isnan(estimate([0.5, math.nan]).mean)
    assert math.isnan(estimate([]).mean)


def test_gains_are_those_of_equal_seeds():
    report = collect(
        SUITE, {key: record for key, record in records(SUITE).items() if (record.spec["name"], record.spec["seed"]) != ("base", 1)}
    )
    rows = {row.spec.name: row for row in report.rows}
    assert gain(rows["ICSSN"], rows["base"], "iou_landslide") == estimate([0.36 - 0.30, 0.41 - 0.34])
    header, lines = gains_table(report)
    assert [line[:3] for line in lines] == [["ICSSN", "base", "2"], ["MRIFE", "base", "2"]]
    low, high = stats.t.interval(0.95, 1, 0.065, stats.sem([0.06, 0.07]))
    assert dict(zip(header, lines[0], strict=True))["IoU"] == f"+0.065 [{low:+.3f}, {high:+.3f}]"


def test_folds_are_averaged_within_a_seed_and_a_seed_that_lacks_one_is_left_out():
    suite = dataclasses.replace(SUITE, data=dataclasses.replace(SUITE.data, folds=3))
    made = {key: one for key, one in records(suite).items() if (one.spec["name"], one.spec["fold"], one.spec["seed"]) != ("base", 2, 1)}
    row = collect(suite, made).rows[0]
    assert by_seed(row, "iou_landslide") == pytest.approx({0: 0.31, 2: 0.35})


def test_without_a_baseline_and_a_declaration_the_report_says_nothing_of_either():
    suite = dataclasses.replace(SUITE, runs=[dataclasses.replace(run, baseline=None) for run in SUITE.runs])
    report = report_markdown(collect(suite, records(suite)))
    assert "own baseline" not in report
    assert "Published and measured" not in report
    assert "## Published numbers: other data; not comparable" in report


def test_gains_stand_there_always_published_numbers_only_beside_declared_data():
    report = report_markdown(collect(SUITE, records(SUITE)))
    assert "## Gains in each score over the same baseline" in report
    assert "Published and measured" not in report


@pytest.mark.parametrize("how", ["the suite", "every record"])
def test_declared_data_bring_published_measured_difference_and_interval_together(how):
    suite = with_data(SUITE, published_set="icssn_mrife")
    found = records(suite)
    report = report_markdown(collect(suite if how == "the suite" else SUITE, found))
    beside = report[report.index("## Published and measured") : report.index("Gain over the baseline")]
    lines = {tuple(line[:3]): line[3:] for line in cells(beside)}
    half = stats.t.ppf(0.975, 2) * stats.sem(IOU["ICSSN"])
    assert lines["ICSSN", "ICSSN", "IoU"] == ["0.3743", "0.380", "3", f"+0.006 [{0.0057 - half:+.3f}, {0.0057 + half:+.3f}]"]
    assert lines["ICSSN", "ICSSN", "P"][0] == "*≈ 0.457*"
    assert "MRIFE" in {name for name, _, _ in lines}
    assert not any("HPCL" in name for name, _, _ in lines), "of another test set"
    gains = report[report.index("published gain") :]
    (iou,) = (line for line in cells(gains) if line[:3] == ["MRIFE", "MRIFE", "IoU"])
    assert iou[3] == f"{0.3934 - 0.3381:+.3f}"
    assert iou[4].startswith("+0.070 [")
    assert "not comparable" not in report
    assert "ranked against those of sets other than icssn_mrife" in report


def test_the_other_set():
    suite = with_data(SUITE, published_set="hpcl")
    report = report_markdown(collect(suite, records(suite)))
    lines = cells(report[report.index("## Published and measured") : report.index("## Calibration")])
    assert ["HPCL-Net", "HPCL", "IoU", "0.394", "0.500", "3", "+0.106 [+0.106, +0.106]"] in lines
    assert not any(line[0] in ("ICSSN", "MRIFE") for line in lines)


def test_records_that_disagree_declare_nothing():
    one, other = with_data(SUITE, published_set="hpcl"), SUITE
    mixed = {**records(other), **{key: record for key, record in records(one).items() if record.spec["seed"] == 0}}
    assert "Published and measured" not in report_markdown(collect(SUITE, mixed))


def test_synthetic_scenes_cannot_be_declared_to_be_a_published_set():
    with pytest.raises(UserError, match="synthetic scenes are no published set"):
        with_data(load_suite("demo"), published_set="hpcl")
    assert with_data(load_suite("demo"), root="/x", published_set="hpcl").data.synthesize is None


def test_a_declaration_is_a_mere_name():
    declared = with_data(SUITE, published_set="hpcl")
    assert [spec.key for spec in plan(declared, fingerprint="f")] == [spec.key for spec in plan(SUITE, fingerprint="f")]


def test_every_published_row_of_a_named_set_stands_beside_a_method_and_the_first_is_the_baseline():
    groups = [group for group in load_published().groups if group.set]
    assert {group.set for group in groups} == {"icssn_mrife", "hpcl"}
    for group in groups:
        assert next(row.ours for row in group.rows) == "deeplab"
        assert all(row.ours for row in group.rows)


def test_a_suite_may_name_one_baseline_for_all_rows(tmp_path):
    content = {
        "name": "c",
        "data": {"name": "d", "root": "/x"},
        "budget": {"max_steps": 2, "validate_every": 2},
        "seeds": [0],
        "common": {"method": "deeplab", "baseline": "a"},
        "runs": [{"name": "a"}, {"name": "b", "method": "m"}, {"name": "c", "method": "n", "baseline": "b"}],
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    assert load_suite(str(tmp_path / "c.yaml")).baselines() == {"b": "a", "c": "b"}
