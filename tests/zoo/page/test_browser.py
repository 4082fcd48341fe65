"""The page of a map in a browser; the fixture fails a test whose page complains or asks the network for anything."""

import numpy as np
import pytest

from tests.zoo.page.making import box, write_inventory, write_map, write_raster
from zoo.page import write_page

pytestmark = pytest.mark.browser
READY = "return document.documentElement.dataset.ready === 'yes'"
EVIL = "</script><img src=x onerror=alert(1)><script>alert(1)</script>"
ALPHA = """
const overlay = document.getElementById("overlay");
const copy = document.createElement("canvas");
[copy.width, copy.height] = [overlay.width, overlay.height];
const context = copy.getContext("2d", { willReadFrequently: true });
context.drawImage(overlay, 0, 0);
const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
return Array.from({ length: pixels.length / 4 }, (_, place) => pixels[4 * place + 3]);
"""
SELECTED = """
const numbers = (selector) => [...document.querySelectorAll(selector)].map((element) => Number(element.dataset.at));
return [numbers("#rows tr[aria-selected=true]"), numbers("#shapes path.selected")];
"""


@pytest.fixture(scope="module")
def probability():
    values = np.tile(np.linspace(0, 254, 120).round(), (80, 1))
    values[60:, :30] = 255
    return values


@pytest.fixture(scope="module")
def page(tmp_path_factory, probability):
    folder = tmp_path_factory.mktemp("page")
    rows, columns = np.mgrid[:80, :120]
    path = write_map(folder / "<b>map.tif", probability, tags={"ZOO_THRESHOLD": "0.5", "ZOO_METHOD": EVIL})
    image = write_raster(folder / "i.tif", np.stack([columns, rows, columns + rows]).astype(np.uint8))
    dem = write_raster(folder / "d.tif", (1000 + 3.0 * columns).astype(np.float32))
    fields = {
        "id": np.array([1, 2, 3]),
        "area_m2": np.array([4e4, 9e6, np.nan]),
        "name": np.array([EVIL, "b", "c"], dtype=object),
    }
    slides = write_inventory(folder / "s.gpkg", [box(10, 10, 20, 20), box(60, 5, 30, 60), box(100, 70, 5, 5)], fields)
    return write_page(path, folder / "page.html", image=image, dem=dem, inventory=slides, say=lambda line: None)


@pytest.fixture
def opened(browser, page):
    browser.open(page, READY)
    return browser


def alpha(browser):
    return np.array(browser.run(ALPHA)).reshape(80, 120)


def set_slider(browser, name, value):
    browser.run(
        "const slider = document.getElementById(arguments[0]); slider.value = arguments[1]; slider.dispatchEvent(new Event('input'))",
        name,
        value,
    )
    browser.frames()


def view_of(browser):
    return [float(number) for number in browser.run("return document.getElementById('shapes').getAttribute('viewBox')").split()]


def test_the_slider_moves_the_overlay(opened, probability):
    for threshold in (0.5, 0.8, 0.0, 1.0):
        if threshold != 0.5:  # that of the map, where the slider starts
            set_slider(opened, "threshold", threshold)
        assert (alpha(opened) == np.where((probability >= threshold * 254) & (probability != 255), 255, 0)).all()
    opened.find("#threshold").click()
    opened.press("\ue012")  # left arrow
    opened.frames()
    assert 0 < float(opened.find("#threshold-value").text) < 1
    set_slider(opened, "opacity", 0.3)
    assert opened.run("return getComputedStyle(document.getElementById('overlay')).opacity") == "0.3"


def test_a_row_selects_its_polygon_and_a_polygon_its_row(opened):
    whole = view_of(opened)
    opened.find("#rows tr:nth-child(3)").click()
    assert opened.run(SELECTED) == [[2], [2]]
    x, y, width, height = view_of(opened)
    assert width < whole[2] / 2
    assert x <= 100
    assert x + width >= 105
    assert y <= 70
    assert y + height >= 75
    opened.find("[data-zoom='0']").click()
    assert view_of(opened) == whole
    opened.find("#shapes path[data-at='0']").click()
    assert opened.run(SELECTED) == [[0], [0]]
    opened.find("#map").send_keys("\ue00c")  # Escape
    assert opened.run(SELECTED) == [[], []]


def test_keys_do_what_the_mouse_does(opened):
    opened.run("document.querySelector('#rows tr').focus()")
    opened.press("\ue015", "\ue007")  # down, Enter
    assert opened.run(SELECTED) == [[1], [1]]
    opened.run("document.getElementById('map').focus()")
    opened.press("0")
    before = view_of(opened)
    opened.press("+", "\ue014")  # right arrow
    after = view_of(opened)
    assert after[2] == pytest.approx(before[2] / 2)
    assert after[0] + after[2] / 2 > before[0] + before[2] / 2


def test_a_click_on_a_head_sorts_by_numbers_with_empty_ones_last(opened):
    order = "return [...document.querySelectorAll('#rows tr')].map((row) => Number(row.dataset.at))"
    head = opened.find("thead th:nth-child(2) button")
    assert head.text.startswith("area (m²)")
    head.click()
    assert opened.run(order) == [0, 1, 2]
    head.click()
    assert opened.run(order) == [1, 0, 2]
    assert opened.find("thead th:nth-child(2)").get_attribute("aria-sort") == "descending"
    assert opened.find("#rows tr td:nth-child(2)").text == "9,000,000"
    opened.find("#rows tr").click()
    assert opened.run(SELECTED) == [[1], [1]]  # the row that was clicked, wherever it stands now


def test_background_is_chosen_and_the_outlines_can_go(opened):
    shown = "return [...document.querySelectorAll('#map img.layer')].filter((picture) => !picture.hidden).map((picture) => picture.id)"
    assert opened.run(shown) == ["picture-image"]
    for name in ("hillshade", "none"):
        opened.find(f"input[value={name}]").click()
        assert opened.run(shown) == ([] if name == "none" else ["picture-hillshade"])
    opened.find("#outlines").click()
    assert not opened.find("#shapes").is_displayed()


def test_all_layers_lie_on_each_other_at_any_zoom(opened):
    boxes = """return [...document.querySelectorAll('#map .layer')].filter((layer) => !layer.hidden).map((layer) => {
      const box = layer.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })"""
    corner = """const shape = document.querySelector("#shapes path[data-at='0']").getBoundingClientRect(); return [shape.x, shape.y]"""
    for _ in range(2):
        (first, *others) = opened.run(boxes)
        assert others
        assert all(other == pytest.approx(first, abs=0.1) for other in others)
        assert opened.run(corner) == pytest.approx([first[0] + 10 / 120 * first[2], first[1] + 10 / 80 * first[3]], abs=1)
        opened.find("[data-zoom='0.5']").click()


def test_the_scale_bar_is_as_long_as_it_says(opened):
    for _ in range(3):
        text, bar, width = opened.run(
            "return [bar.dataset.length, bar.getBoundingClientRect().width, document.querySelector('.layer').getBoundingClientRect().width]"
        )
        metres = float(text.split()[0]) * (1000 if text.endswith("km") else 1)
        assert bar / width == pytest.approx(metres / 1200, rel=0.02)
        opened.find("[data-zoom='0.5']").click()


def test_texts_of_files_are_inert(opened):
    assert opened.find("#rows td:nth-child(3)").get_attribute("textContent") == EVIL
    assert opened.find("h1").text == "<b>map.tif"
    assert opened.run("return document.querySelectorAll('img').length") == 3
    assert opened.run("return document.scripts.length") == 2


def test_the_fixture_hears_errors_and_requests(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><img src='https://example.invalid/a.png'><script>throw new Error('oh')</script>")
    browser.open(page)
    browser.frames()
    complaints = " ".join(browser.complaints())
    assert "request: https://example.invalid/a.png" in complaints
    assert "Uncaught Error: oh" in complaints
    browser.complaints()
