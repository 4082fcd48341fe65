"""report.html: the same bytes for the same records, nothing fetched, names inert, charts with the right numbers."""

import math
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from benchmarks.record import RunRecord, load_records, save_record
from benchmarks.report import collect
from benchmarks.report.page import page_html
from benchmarks.report.page.charts import Plot, Strip, log_ticks, ticks
from benchmarks.report.tables import to_latex
from benchmarks.suite import load_suite, plan
from benchmarks.tiles import Tile, save_tiles
from zoo.metrics.pixels import pixel_scores

SUITE = """
name: paged
title: A & B <script>document.title = "owned"</script>
data: {name: set, root: set}
budget: {max_steps: 20, validate_every: 10, batch_size: 2}
seeds: [0, 1, 2]
references: [slope_threshold]
common: {method: deeplab}
runs:
  - {name: "<script>alert(1)</script>", hyperparameters: {network: {inputs: image}}}
  - {name: both, baseline: "<script>alert(1)</script>", hyperparameters: {network: {inputs: both}}}
  - {name: broken, hyperparameters: {network: {inputs: dem}}}
"""


def finished(spec, quality, generator):
    """Histograms of 30 tiles of 10 scenes, drawn so that landslides have the higher scores, and their true scores."""
    import torch

    tiles = {}
    for index in range(30):
        histogram = np.zeros((2, 256), np.int64)
        for label, (count, mean) in enumerate(((700, 0.5 - quality), (300, 0.5 + quality))):
            bins = np.clip(generator.normal(mean, 0.15, count) * 256, 0, 255).astype(int)
            np.add.at(histogram[label], bins, 1)
        tiles[f"scene{index // 3}:{index % 3 * 64}:0"] = histogram
    pooled = torch.from_numpy(sum(tiles.values()))
    extra = {"object_recall_coverage0.5_0-10000m2": quality, "object_recall_coverage0.5_10000-100000m2": 2 * quality, "objects": 9.0}
    record = RunRecord(
        spec.key,
        "finished",
        spec.to_dict(),
        metrics={"val": pixel_scores(pooled, 0.5), "test": {**pixel_scores(pooled, 0.5), **extra}},
        model={"inputs": "dem" if spec.is_reference else spec.hyperparameters["network"]["inputs"]},
        cost={"seconds": 90.0} if spec.is_reference else {"seconds": 90.0, "train_seconds": 60.0 + 100 * quality, "parameters": 3412345},
        environment={
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "cpu": "c",
            "gpu": None,
            "threads": 1,
            "packages": {},
            "date": "2026-01-02",
        },
        data={"name": "set", "fingerprint": "f", "splits": {"test": {"windows": 30, "scenes": 10, "km2": 1.5, "prevalence": 0.3}}},
    )
    return record, {"val": tiles, "test": tiles}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "paged.yaml").write_text(SUITE)
    generator = np.random.default_rng(0)
    slope, *runs = plan(load_suite(str(tmp_path / "paged.yaml")), fingerprint="f")
    for spec, quality in [
        (slope, 0.1),
        *((spec, 0.15 + 0.02 * spec.seed) for spec in runs[:3]),
        *((spec, 0.22 + 0.02 * spec.seed) for spec in runs[3:6]),
    ]:
        record, histograms = finished(spec, quality, generator)
        save_record(record, tmp_path / "records", histograms)
    picture = cv2.imencode(".webp", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    for spec in (runs[0], runs[3]):
        scores = generator.integers(0, 256, (40, 40)).astype(np.uint8)
        label = (np.arange(1600).reshape(40, 40) % 3 == 0).astype(np.uint8)
        tiles = {name: Tile(0.33, (2.0, 2.0), label, picture, picture, scores) for name in ("scene0:0:0", "scene<1>:0:0")}
        save_tiles(spec.key, tiles, tmp_path / "records")
    error = {"line": "ValueError: a <b> c", "log": "runs/k/log.txt", "reason": "exit code 1", "attempts": 2, "remedy": "mend <it>"}
    error["tail"] = ["Traceback", "</pre><script>last words</script>"]
    save_record(RunRecord(runs[6].key, "failed", runs[6].to_dict(), error=error), tmp_path / "records")
    return tmp_path


def page_of(folder):
    report = collect(load_suite(str(folder / "paged.yaml")), load_records(folder / "records"), folder / "records")
    return page_html(report, folder / "records")


class Tags(HTMLParser):
    """What a browser would find: open tags in order, and whether each is closed."""

    VOID = frozenset({"meta", "input", "img"})

    def __init__(self, text):
        super().__init__()
        self.stack, self.seen, self.text = [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_the_same_bytes_for_the_same_records_and_asks_for_nothing(folder):
    page = page_of(folder)
    assert page == page_of(folder)
    assert len(page.encode()) < 8e6
    assert not re.search(r"\b(src=(?!\"data:)|href=)|@import|url\(|fetch\(", page)


def test_names_and_errors_are_text(folder):
    tags = Tags(page_of(folder))
    assert [tag for tag, _ in tags.seen].count("script") == 1
    told = "".join(tags.text)
    assert "<script>alert(1)</script>" in told
    assert "ValueError: a <b> c" in told
    assert "</pre><script>last words</script>" in told, "the end of the log is shown"
    assert "mend <it>" in told


def test_curves_go_through_the_chosen_thresholds(folder):
    """The dot of a single run lies on its own curve, and words beside it state its scores."""
    tags = Tags(page_of(folder))
    records = load_records(folder / "records")
    slope = next(record for record in records.values() if record.spec["method"] == "slope_threshold")
    scores = slope.metrics["test"]
    words = f"slope threshold: precision {scores['precision']:.3f}, recall {scores['recall']:.3f}"
    dot = next(attributes for tag, attributes in tags.seen if tag == "circle" and attributes.get("data-told") == words)
    near = next(attributes for tag, attributes in tags.seen if tag == "circle" and attributes.get("data-told") == f"{words} at 0.50")
    assert (dot["cx"], dot["cy"]) == (near["cx"], near["cy"])


def test_every_row_can_be_hidden_in_every_chart(folder):
    tags = Tags(page_of(folder))
    toggled = {attributes["data-toggles"] for tag, attributes in tags.seen if "data-toggles" in attributes}
    assert toggled == {"0", "1", "3"}, "the broken row has nothing to show"
    drawn = {attributes["data-row"] for tag, attributes in tags.seen if tag in ("path", "circle") and "data-row" in attributes}
    assert drawn == toggled


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.55, 0.75), (-0.03, 0.021), (3, 4000)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 13
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    steps = np.diff(found)
    assert steps == pytest.approx(steps[0])
    assert f"{steps[0]:e}"[0] in "125"


def test_log_ticks_and_places():
    assert log_ticks(30, 700) == [50, 100, 200, 500]
    plot = Plot("t", "x", "y", x_range=(10, 1000), log_x=True)
    assert plot.x(100) == pytest.approx((plot.x(10) + plot.x(1000)) / 2)
    strip = Strip(0, 1).svg(0, 0.5, [math.nan, 0.25], (0.2, 0.8))
    assert strip.count("<circle") == 1
    assert 'cx="42.0"' in strip


def test_latex_escapes_what_names_may_hold():
    table = to_latex(["name", "IoU"], [["a_b & 50 % {x}^~", "0.5 ± 0.1"], ["\\\\", "−0.1"]], left=1)
    assert r"a\_b \& 50 \% \{x\}\textasciicircum{}\textasciitilde{} & 0.5 $\pm$ 0.1 \\" in table
    assert r"\textbackslash{}\textbackslash{} & $-$0.1 \\" in table
    assert table.startswith(r"\begin{tabular}{lr}")


@pytest.mark.browser
def test_the_page_sorts_tells_and_hides_without_a_word_on_the_console(folder, browser):
    page = folder / "report.html"
    page.write_text(page_of(folder))
    browser.open(page)
    title = browser.run("return document.title")
    assert title.startswith("A & B <script>"), "a name is text and owns nothing"
    names = "return [...document.querySelectorAll('#leaderboard tbody tr')].map(row => row.cells[0].textContent)"
    before = browser.run(names)
    iou = browser.run("return [...document.querySelectorAll('#leaderboard th')].findIndex(head => head.textContent === 'IoU')")
    click = "document.querySelectorAll('#leaderboard th button')[arguments[0]].click()"
    browser.run(click, iou)
    descending = browser.run(names)
    browser.run(click, iou)
    ascending = browser.run(names)
    assert descending[:2] == ["both", "<script>alert(1)</script>"]
    assert descending[-1] == ascending[-1] == "broken", "what has no score stays below"
    assert descending[:-1] == ascending[:-1][::-1]
    assert sorted(before) == sorted(ascending)
    hover = "document.querySelector('svg.plot .dot').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
    assert browser.run("return document.getElementById('told').hidden")
    browser.run(hover)
    assert "precision" in browser.run("return document.getElementById('told').hidden ? '' : document.getElementById('told').textContent")
    shown = "return [...document.querySelectorAll('svg.plot [data-row=\"1\"]')].filter(mark => getComputedStyle(mark).display !== 'none').length"
    assert browser.run(shown) > 10
    browser.find("input[data-toggles='1']").click()
    assert browser.run(shown) == 0
    browser.find("input[data-toggles='1']").click()
    assert browser.run(shown) > 10
    browser.run("document.querySelector('svg.plot').focus()")
    browser.press("\ue014")  # arrow to the right
    assert "precision" in browser.run("return document.getElementById('told').textContent")
    panels = (
        "return [...document.querySelectorAll('figure.tile .panel')].filter(panel => getComputedStyle(panel).display !== 'none').length"
    )
    assert browser.run(panels) == 2 * 4, "two tiles: image, label and two rows that kept some"
    browser.find("input[data-toggles='1']").click()
    assert browser.run(panels) == 2 * 3
    pictures = "return [...document.images].map(image => image.complete && image.naturalWidth).filter(width => width === 40).length"
    assert browser.run(pictures) == 2 * (3 + 2 * 2), "image, hillshade and label; probability and errors of each row"
    printed = "return [...document.querySelectorAll('details table, details pre')].map(part => part.checkVisibility())"
    assert not any(browser.run(printed))
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert all(browser.run(printed)), "nothing stays folded on paper"
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
