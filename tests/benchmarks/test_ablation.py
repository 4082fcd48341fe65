"""Ablations: which rows are switches of which whole, what they change, and bars as long as the differences."""

import re

import numpy as np
import pytest

from benchmarks.record import RunRecord, load_records, save_record
from benchmarks.report import collect
from benchmarks.report.ablation import ablations
from benchmarks.report.page.waterfall import waterfalls
from benchmarks.report.uncertainty import uncertainty
from benchmarks.suite import load_suite, plan

SUITE = """
name: parts
data: {name: set, root: /nowhere}
budget: {max_steps: 20, validate_every: 10}
seeds: [0, 1, 2]
blocks: {side: 1}
common: {method: deeplab, baseline: whole, hyperparameters: {network: {inputs: both, fusion: concat}}}
runs:
  - {name: whole}
  - {name: "no <DEM>", hyperparameters: {network: {inputs: image}}}
  - {name: more steps, budget: {max_steps: 40}}
  - {name: waits, hyperparameters: {network: {fusion: add}}}
  - {name: other method, method: mrife}
"""
FOUND = {"whole": 70, "no <DEM>": 50, "more steps": 75, "other method": 90}


@pytest.fixture
def make(tmp_path):
    def make(text=SUITE, found=FOUND):
        (tmp_path / "parts.yaml").write_text(text)
        suite, folder = load_suite(str(tmp_path / "parts.yaml")), tmp_path / "records"
        for spec in plan(suite, fingerprint="f"):
            if spec.name in found:
                generator, tiles = np.random.default_rng(spec.seed), {}
                for index in range(30):
                    hits, tile = found[spec.name] + int(generator.integers(-3, 4)), np.zeros((2, 256), np.int64)
                    tile[1, 200], tile[1, 0], tile[0, 200], tile[0, 0] = hits, 100 - hits, 10 + index % 5, 800
                    tiles[f"s:{64 * index}:0"] = tile
                total = sum(tiles.values())
                scores = {"threshold": 0.5, "iou_landslide": total[1, 200] / (total[1].sum() + total[0, 200])}
                record = RunRecord(spec.key, "finished", spec.to_dict(), {"test": scores}, model={"hyperparameters": spec.hyperparameters})
                save_record(record, folder, {"val": {}, "test": tiles})
        return collect(suite, load_records(folder), folder)

    return make


def test_rows_of_the_baselines_method_are_its_switches_and_say_what_they_change(make):
    report = make()
    (found,) = ablations(report, uncertainty(report))
    assert found.whole.spec.name == "whole"
    assert [(switch.row, switch.name) for switch in found.switches] == [(1, "no <DEM>"), (2, "more steps"), (3, "waits")]
    assert [switch.changed for switch in found.switches] == [
        ("network.inputs: image instead of both",),
        ("budget.max_steps: 40 instead of 20",),
        ("network.fusion: add instead of concat",),
    ]
    assert found.switches[2].difference is None, "it has no finished run"
    pooled = [report.rows[place].score("iou_landslide").mean for place in (0, 1)]
    assert found.switches[0].difference.blocks.value == pytest.approx(pooled[1] - pooled[0], abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        SUITE.replace("baseline: whole, ", ""),
        SUITE.replace('  - {name: "no', '  - {method: mrife, name: "no').replace("  - {name: more", "  - {method: icssn, name: more"),
    ],
    ids=["no baseline", "one row of the method"],
)
def test_a_suite_that_compares_methods_is_no_ablation(make, text):
    report = make(text)
    assert waterfalls(report, uncertainty(report)) == ""


def test_bars_hang_from_the_whole_the_largest_loss_first(make):
    report = make()
    known = uncertainty(report)
    page = waterfalls(report, known)
    assert "<DEM>" not in page
    bars = re.findall(r'<rect class="bar (c\d)" data-row="(\d)".*? x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', page)
    assert [(colour, row) for colour, row, *_ in bars] == [("c1", "1"), ("c0", "2")]
    (loss_x, loss_width), (gain_x, gain_width) = [(float(x), float(width)) for *_, x, width in bars]
    assert loss_x + loss_width == pytest.approx(gain_x, abs=0.2), "both end at the whole"
    loss, gain = (known.difference(name, "whole").blocks.value for name in ("no <DEM>", "more steps"))
    assert loss_width / gain_width == pytest.approx(-loss / gain, rel=0.02)
    assert page.count("<tr data-row") == 3, "the row that waits stands in the table"


def test_an_ablation_without_any_run_says_so(make):
    report = make(found={})
    assert "No row can be compared with whole yet." in waterfalls(report, uncertainty(report))
