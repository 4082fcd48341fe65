"""QGIS layer styles (.qml) of maps and inventories: a file beside each that QGIS applies when it opens the layer.

QGIS applies the scale of a band before it draws, so values are probabilities whatever the type in the file.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

SUFFIX: Final = ".qml"
_RAMP: Final = ((0.0, "#ffffb2"), (0.25, "#fecc5c"), (0.5, "#fd8d3c"), (0.75, "#f03b20"), (1.0, "#bd0026"))
"""ColorBrewer's YlOrRd of five classes, from light to dark."""
_GREYS: Final = ((0.0, "#f7f7f7"), (0.5, "#969696"), (1.0, "#252525"))
_RED: Final = "#bd0026"
_FAINTEST: Final = 0.1  # probabilities below fade out, so that what lies beneath shows
_HEAD: Final = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION: Final = "3.28.0"  # the oldest QGIS that the attributes below are written for


def raster_style(layer: str) -> str:
    """Style of a raster of a map.

    Args:
        layer: `probability`, `class` or `uncertainty`.
    """
    if layer == "class":
        root, renderer = _raster("paletted")
        palette = ET.SubElement(renderer, "colorPalette")
        for value, colour, alpha, label in ((0, "#ffffff", 0, "no landslide"), (1, _RED, 255, "landslide")):
            ET.SubElement(palette, "paletteEntry", value=str(value), color=colour, alpha=str(alpha), label=label)
        return _text(root)
    top, ramp = (1.0, _RAMP) if layer == "probability" else (0.5, _GREYS)
    root, renderer = _raster("singlebandpseudocolor", classificationMin="0", classificationMax=f"{top:g}")
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue="0",
        maximumValue=f"{top:g}",
    )
    if layer == "probability":
        ET.SubElement(shader, "item", value="0", color=ramp[0][1], alpha="0", label="0")
        ramp = ((_FAINTEST, ramp[0][1]), *ramp[1:])
    for share, colour in ramp:
        ET.SubElement(shader, "item", value=f"{share * top:g}", color=colour, alpha="255", label=f"{share * top:g}")
    return _text(root)


def inventory_style(threshold: float) -> str:
    """Style of landslides: coloured by their mean probability, in four equal steps from the threshold to 1.

    Args:
        threshold: Probability from which a pixel is landslide.
    """
    # Rounded and ensemble probabilities may fall a little below the threshold, and none may be left without a colour.
    low = min(threshold, 0.99)
    edges = [low + (1 - low) * step / 4 for step in range(5)]
    ranges = [(0.0 if step == 0 else edges[step], edges[step + 1], _RAMP[step + 1][1]) for step in range(4)]
    return _vector(ranges)


def plain_style(colour: str) -> str:
    """Style of polygons or points of one colour, `#rrggbb`."""
    root = _qgis("Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="singleSymbol", enableorderby="0", forceraster="0", symbollevels="0")
    _symbol(ET.SubElement(renderer, "symbols"), "0", colour)
    return _text(root)


def point_style(colour: str, shape: str) -> str:
    """Style of points.

    Args:
        colour: `#rrggbb`.
        shape: QGIS's name of a marker, such as `triangle`.
    """
    root = _qgis("Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="singleSymbol", enableorderby="0", forceraster="0", symbollevels="0")
    symbol = ET.SubElement(
        ET.SubElement(renderer, "symbols"), "symbol", type="marker", name="0", alpha="1", clip_to_extent="1", force_rhr="0"
    )
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "locked": "0", "pass": "0"})
    _options(layer, {"name": shape, "color": _rgb(colour), "outline_color": "35,35,35,255", "size": "2.5", "size_unit": "MM"})
    return _text(root)


def write_style(style: str, beside: Path) -> Path:
    """Write a style beside a file, whole or not at all.

    Args:
        style: The style.
        beside: The file, whose name the style takes.
    """
    path = beside.with_suffix(SUFFIX)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(style, encoding="utf-8")
    return temporary.replace(path)


def _vector(ranges: Sequence[tuple[float, float, str]]) -> str:
    """Polygons by ranges of the mean probability, each a lower end, an upper end and a colour."""
    root = _qgis("Symbology")
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="graduatedSymbol",
        attr="probability_mean",
        graduatedMethod="GraduatedColor",
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    listed, symbols = ET.SubElement(renderer, "ranges"), ET.SubElement(renderer, "symbols")
    for number, (low, high, colour) in enumerate(ranges):
        label = f"up to {high:.2f}" if number == 0 else f"{low:.2f} to {high:.2f}"
        ET.SubElement(listed, "range", lower=f"{low:.6f}", upper=f"{high:.6f}", symbol=str(number), label=label, render="true")
        _symbol(symbols, str(number), colour)
    return _text(root)


def _qgis(categories: str) -> ET.Element:
    return ET.Element("qgis", version=_VERSION, styleCategories=categories)


def _raster(kind: str, **attributes: str) -> tuple[ET.Element, ET.Element]:
    """Document and renderer of a raster."""
    root = _qgis("Symbology")
    pipe = ET.SubElement(root, "pipe")
    common = {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ET.SubElement(pipe, "rasterrenderer", common | attributes)
    return root, renderer


def _symbol(parent: ET.Element, name: str, colour: str) -> None:
    """A polygon that is filled faintly and outlined."""
    symbol = ET.SubElement(parent, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"})
    _options(
        layer,
        {
            "color": _rgb(colour, 90),
            "style": "solid",
            "outline_color": _rgb(colour),
            "outline_style": "solid",
            "outline_width": "0.4",
            "outline_width_unit": "MM",
        },
    )


def _options(layer: ET.Element, values: dict[str, str]) -> None:
    options = ET.SubElement(layer, "Option", type="Map")
    for name, value in values.items():
        ET.SubElement(options, "Option", type="QString", name=name, value=value)


def _rgb(colour: str, alpha: int = 255) -> str:
    """A colour as QGIS writes it in symbols."""
    return ",".join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5)) + f",{alpha}"


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return _HEAD + ET.tostring(root, encoding="unicode") + "\n"
