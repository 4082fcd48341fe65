"""QGIS styles are XML with the renderers and ranges that QGIS expects."""

import itertools
from xml.etree import ElementTree as ET

import pytest

from zoo.qgis import inventory_style, plain_style, point_style, raster_style, write_style


@pytest.mark.parametrize(("layer", "top"), [("probability", 1.0), ("uncertainty", 0.5)])
def test_ramps_rise_from_nothing_to_the_top(layer, top):
    root = ET.fromstring(raster_style(layer))
    assert root.tag == "qgis"
    (renderer,) = root.findall("pipe/rasterrenderer")
    assert renderer.get("type") == "singlebandpseudocolor"
    assert (renderer.get("band"), float(renderer.get("classificationMin")), float(renderer.get("classificationMax"))) == ("1", 0, top)
    (shader,) = renderer.findall("rastershader/colorrampshader")
    assert shader.get("colorRampType") == "INTERPOLATED"
    values = [float(item.get("value")) for item in shader.findall("item")]
    assert values[0] == 0
    assert values[-1] == top
    assert values == sorted(set(values))


def test_classes_are_a_palette_of_0_and_1():
    (renderer,) = ET.fromstring(raster_style("class")).findall("pipe/rasterrenderer")
    assert renderer.get("type") == "paletted"
    entries = {entry.get("value"): (entry.get("alpha"), entry.get("label")) for entry in renderer.findall("colorPalette/paletteEntry")}
    assert entries == {"0": ("0", "no landslide"), "1": ("255", "landslide")}


@pytest.mark.parametrize("threshold", [0.0, 0.31, 0.5, 1.0])
def test_every_landslide_has_a_colour(threshold):
    (renderer,) = ET.fromstring(inventory_style(threshold)).findall("renderer-v2")
    assert (renderer.get("type"), renderer.get("attr")) == ("graduatedSymbol", "probability_mean")
    ranges = [(float(item.get("lower")), float(item.get("upper"))) for item in renderer.findall("ranges/range")]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 1
    for (_, high), (low, _) in itertools.pairwise(ranges):
        assert high == low
    used = {item.get("symbol") for item in renderer.findall("ranges/range")}
    assert used == {symbol.get("name") for symbol in renderer.findall("symbols/symbol")}


@pytest.mark.parametrize(("style", "kind"), [(plain_style("#1a9641"), "fill"), (point_style("#d7191c", "triangle"), "marker")])
def test_other_layers_have_one_symbol(style, kind):
    (renderer,) = ET.fromstring(style).findall("renderer-v2")
    assert renderer.get("type") == "singleSymbol"
    (symbol,) = renderer.findall("symbols/symbol")
    assert symbol.get("type") == kind
    colours = [option.get("value") for option in symbol.iter("Option") if option.get("name") == "color"]
    assert len(colours) == 1
    assert len(colours[0].split(",")) == 4


def test_a_style_takes_the_name_of_its_file(tmp_path):
    path = write_style(plain_style("#1a9641"), tmp_path / "prob_class.tif")
    assert [file.name for file in tmp_path.iterdir()] == [path.name] == ["prob_class.qml"]
