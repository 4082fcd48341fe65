"""`zoo-bench compare`, and the rows of a report that it is made of, on records as they are on disk."""

import dataclasses
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from benchmarks.cli import COMMITTED, main
from benchmarks.record import RunRecord, load_records, save_record
from benchmarks.report import collect
from benchmarks.report.comparing import compare, verdict
from benchmarks.report.comparison_figure import comparison_svg
from benchmarks.report.intervals import gains_table
from benchmarks.report.uncertainty import uncertainty
from benchmarks.statistics import corrected_t_test
from benchmarks.suite import load_suite, plan
from datamodules.errors import UserError

SUITE = """
name: small
data: {name: set, root: /nowhere}
budget: {max_steps: 20, validate_every: 10}
seeds: [0, 1, 2]
references: [all_background]
blocks: {side: 1}
common: {method: deeplab, baseline: plain}
runs:
  - {name: plain}
  - {name: "<b>good", hyperparameters: {network: {inputs: both}}}
  - {name: alike, hyperparameters: {network: {inputs: image}}}
"""
RECALL = {"plain": 60, "<b>good": 80, "alike": 60, "all_background": 0}
UNITS = 30


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SUITE)
    return path


def record_of(spec, *, fold=None, **scores):
    values = {**spec.to_dict(), **({} if fold is None else {"fold": fold})}
    data = {"splits": {"train": {"windows": 80}, "test": {"windows": 20}}}
    return RunRecord(
        spec.key if fold is None else f"{spec.key}f{fold}", "finished", values, {"test": {"threshold": 0.5, **scores}}, data=data
    )


def tiles_of(spec, *, num=UNITS, first=0):
    generator = np.random.default_rng(spec.seed)  # the same tiles are hard for all methods
    tiles = {}
    for index in range(first, first + num):
        found = 0 if spec.is_reference else int(np.clip(RECALL[spec.name] + generator.integers(-3, 4), 0, 100))
        tile = np.zeros((2, 256), np.int64)
        tile[1, 200], tile[1, 0], tile[0, 200], tile[0, 0] = found, 100 - found, 0 if spec.is_reference else 10 + index % 5, 800
        tiles[f"s:{64 * index}:0"] = tile
    return tiles


@pytest.fixture
def report(file, tmp_path):
    suite, folder = load_suite(str(file)), tmp_path / "out" / "records"
    records = {}
    for spec in plan(suite, fingerprint="f"):
        records[spec.key] = record_of(spec)
        save_record(records[spec.key], folder, {"val": {}, "test": tiles_of(spec)})
    return collect(suite, records, folder)


def test_answers_in_one_sentence(report):
    found = compare(report, "<b>good", "plain", "recall")
    told = verdict(found)
    assert told.startswith("<b>good is better than plain by 20.")
    assert "p < 0.001; 30 units, 3 and 3 seeds)." in told
    assert told.replace("good", "x").count(".") > 3
    worse = verdict(compare(report, "plain", "<b>good", "recall"))
    assert worse.startswith("plain is worse than <b>good by 20.")
    low, high = found.method_interval
    assert low < 0.2 < high
    assert verdict(compare(report, "plain", "all_background", "recall")).startswith("plain is better than all_background by 6")


def test_says_where_nothing_is_shown(report):
    told = verdict(compare(report, "alike", "plain"))
    assert told.startswith("It is not shown that alike and plain differ: +")


def test_where_interval_and_p_disagree_p_decides(report):
    # Two seeds, and as much from the places as from the seeds: the interval covers as often as it says, p must not call luck a gain.
    hits = np.zeros((2, UNITS, 3), np.int64)
    hits[..., 0], hits[..., 2] = 600, 400
    seeds, places = np.array([[-4], [4]]), np.where(np.arange(UNITS) % 2, 20, -20)
    for row, gain in zip(report.rows[:2], (0, 20), strict=True):
        change = gain + seeds + places * (gain > 0)
        row.tested = dataclasses.replace(row.tested, seeds=[0, 1], counts=hits + np.stack([change, 0 * change, -change], -1))
    found = compare(report, "<b>good", "plain", "recall")
    assert found.method_interval[0] > 0
    assert found.difference.p_value > 0.05
    told = verdict(found)
    assert told.startswith("It is not shown that <b>good and plain differ: +2.0 points of recall")
    assert "p is stricter (Behrens and Fisher), and it decides" in told


def test_a_single_seed_says_nothing_of_a_method(report):
    for row in report.rows:
        row.tested = dataclasses.replace(row.tested, seeds=[0], counts=row.tested.counts[:1])
    found = compare(report, "<b>good", "plain")
    assert math.isnan(found.difference.p_value)
    assert "cannot be told from a single seed" in verdict(found)
    assert "NaN" not in comparison_svg(found)
    assert "nan" not in comparison_svg(found)


def test_unequal_seeds_are_compared_by_their_means(report):
    report.rows[1].tested = dataclasses.replace(report.rows[1].tested, seeds=[0, 1], counts=report.rows[1].tested.counts[:2])
    known = uncertainty(report)
    found = known.difference("<b>good", "plain", "recall")
    expected = np.mean(known.seed_scores("<b>good", "recall")) - np.mean(known.seed_scores("plain", "recall"))
    assert found.blocks.value == pytest.approx(expected)
    assert len(known.seed_scores("<b>good", "recall")) == 2


def test_gains_are_corrected_for_their_number(report):
    header, lines, without = gains_table(report, uncertainty(report))
    assert [line[0] for line in lines] == ["<b>good", "alike"], "the baseline is not compared with itself"
    assert without == []
    alike = dict(zip(header, lines[1], strict=True))
    assert float(alike["p (Holm)"]) >= float(alike["p"])
    single = uncertainty(report).difference("alike", "plain").p_value
    assert float(alike["p"]) == pytest.approx(single, abs=5e-4)


def test_rows_that_cannot_be_paired_say_why(report):
    good = report.rows[1]
    good.tested = dataclasses.replace(good.tested, tiles=frozenset([(None, "other:0:0")]))
    _, lines, without = gains_table(report, uncertainty(report))
    assert len(lines) == 1
    assert without == ["'<b>good' and 'plain' were tested on other tiles"]
    few = [dataclasses.replace(row, tested=dataclasses.replace(row.tested, counts=row.tested.counts[:, :1])) for row in report.rows]
    report.rows = few
    with pytest.raises(UserError, match=r"1 unit\(s\), and fewer than 20"):
        compare(report, "alike", "plain")


def test_folds_are_pooled_by_seed_and_tested_by_folds(file, tmp_path):
    suite, folder = load_suite(str(file)), tmp_path / "folds"
    report = collect(suite, {})
    for row, spec in zip(report.rows, [spec for spec in plan(suite) if spec.seed == 0], strict=True):
        for fold in range(5):
            if (row.spec.name, fold) == ("alike", 4):
                continue
            record = record_of(spec, fold=fold, iou_landslide=RECALL[spec.name] / 100 + 0.01 * fold * (spec.name == "plain"))
            save_record(record, folder, {"val": {}, "test": tiles_of(spec, num=6, first=6 * fold)})
            row.finished.append(record)
    from benchmarks.report.rows import _tested

    for row in report.rows:
        row.tested = _tested(row, folder, suite.blocks)
    assert report.rows[0].tested.counts.shape == (1, 30, 3)
    found = uncertainty(report).difference("<b>good", "plain")
    expected = corrected_t_test([0.2 - 0.01 * fold for fold in range(5)], test_share=0.25)
    assert found.p_value == pytest.approx(expected.p_value)
    assert "5 folds" in verdict(compare(report, "<b>good", "plain"))
    assert uncertainty(report).difference("alike", "plain") == "'alike' and 'plain' were tested on other tiles"


def test_command(report, file, tmp_path, capsys):
    arguments = ["compare", str(file), "<b>good", "plain", "--results", str(tmp_path / "out")]
    assert main([*arguments, "--metric", "recall", "--out", str(tmp_path / "figure.svg")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("<b>good is better than plain by 20.")
    assert "seeds of each that a difference of one point would need" in shown
    root = ET.fromstring((tmp_path / "figure.svg").read_text(encoding="utf-8"))
    space = {"s": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    assert root.find("s:desc", space).text == verdict(compare(report, "<b>good", "plain", "recall"))
    assert len(root.findall("s:circle", space)) == 3
    assert "A: <b>good" in [text.text for text in root.findall("s:text", space)], "a name is text, not markup"
    for line in root.findall("s:line", space):
        assert all(0 <= float(line.get(name)) <= 720 for name in ("x1", "x2", "y1", "y2"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["plane", "plain"], "did you mean plain"),
        (["plain", "plain"], "compared with itself"),
        (["alike", "plain", "--metric", "iou"], "did you mean iou_landslide"),
        (["alike", "plain", "--out", "figure.png"], "not an SVG"),
    ],
)
def test_what_cannot_be_compared_is_refused(report, file, tmp_path, changed, message):
    with pytest.raises(UserError, match=message) as refused:
        main(["compare", str(file), *changed, "--results", str(tmp_path / "out")])
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("name", ["demo", "mars"])
def test_committed_records_and_their_histograms_say_the_same(name):
    folder = COMMITTED / name / "records"
    report = collect(load_suite(name), load_records(folder), folder)
    known, checked = uncertainty(report), 0
    for row in [*report.references, *report.rows]:
        for metric in ("iou_landslide", "f1", "precision", "recall"):
            stated = [record.metrics["test"][metric] for record in row.finished]
            assert known.seed_scores(row.spec.name, metric) == pytest.approx(stated, nan_ok=True)
            checked += len(stated)
    assert checked > 0


def test_a_baseline_that_is_no_row_is_refused(tmp_path):
    (tmp_path / "wrong.yaml").write_text(SUITE.replace("baseline: plain", "baseline: plane"))
    with pytest.raises(UserError, match="did you mean plain"):
        load_suite(str(tmp_path / "wrong.yaml"))


def test_baseline_and_blocks_do_not_change_a_key(file, tmp_path):
    (tmp_path / "other.yaml").write_text(SUITE.replace(", baseline: plain", "").replace("blocks: {side: 1}\n", ""))
    assert [spec.key for spec in plan(load_suite(str(file)))] == [spec.key for spec in plan(load_suite(str(tmp_path / "other.yaml")))]
