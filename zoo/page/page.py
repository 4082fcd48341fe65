"""The page: pictures, landslides and facts put into the templates beside this file, within a bound on its size."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from html import escape
from importlib import resources
from os import PathLike
from pathlib import Path
from string import Template
from typing import Final

from rasterio.io import DatasetReader

from datamodules.alignment import ElevationModel
from datamodules.errors import UserError
from datamodules.grid import Grid, georeferenced, image_grid
from datamodules.overrides import Overrides
from datamodules.preview.page import STYLE
from datamodules.rasters import open_raster
from datamodules.scene import Scene
from zoo.page.frame import Frame
from zoo.page.landslides import Landslides, read_landslides
from zoo.page.pictures import data_uri, hillshade_picture, image_picture, probability_picture

File = str | PathLike[str]
NOTHING_STATED: Final = Overrides()
MOST_BYTES: Final = 8_000_000
_SIDES: Final = (2000, 1400, 1000, 700, 500)
"""Pixels of the longer side of a picture: the first with which the page is small enough is taken. Noise at 700 is."""
_FACTS: Final = {
    "ZOO_METHOD": "Method",
    "ZOO_MODEL_SHA256": "Model (SHA-256)",
    "ZOO_THRESHOLD": "Threshold",
    "ZOO_TTA": "Test-time augmentation",
    "ZOO_VERSION": "Version",
}


@dataclass(frozen=True)
class _Sources:
    """What a page is made of."""

    probability: Path
    image: Path | None
    dem: Path | None
    inventory: Path | None
    overrides: Overrides


def require_page(out: Path, scene: Scene, grid: Grid) -> None:
    """Refuse, before a map is made, what would keep its page from being made.

    Args:
        out: The page.
        scene: Whose map it will show.
        grid: Of the map.

    Raises:
        UserError: A name that cannot be, or an elevation model that cannot be read.
    """
    _require_name(out, {"image": scene.image, "elevation model": scene.dem, "label": scene.label})
    if scene.dem is not None:
        with closing(ElevationModel(scene.dem, grid, 1, "bilinear", scene.overrides)) as model:
            model.check()


def _require_name(out: Path, inputs: Mapping[str, Path | None]) -> None:
    """Refuse a name that is not of a page, or of one of the inputs."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError("is no name of a page", "end it with .html", field="html", value=str(out), exit_code=2)
    for role, file in inputs.items():
        if file is not None and file.resolve() == out.resolve():
            raise UserError(f"would overwrite the {role}", "choose another name", file=file, field="html", exit_code=2)


def write_page(
    probability: File,
    out: File,
    *,
    image: File | None = None,
    dem: File | None = None,
    inventory: File | None = None,
    overrides: Overrides = NOTHING_STATED,
    say: Callable[[str], None] = print,
) -> Path:
    """Write a map as one HTML page below 8 MB that works from a disk, without a network.

    It shows the image or the hillshade, over it the probability from a threshold and at an opacity that sliders choose, and the outlines of the
    landslides beside the table of all their attributes. Rasters are averaged to at most 2,000 pixels a side, outlines are simplified by half
    a pixel of these, and of more than 3,000 landslides the largest are shown.

    Args:
        probability: Map of `zoo map`, or any raster of probabilities from 0 to 1 on a projected, north-up grid.
        out: The page; whole or absent under its name.
        image: Background, on any grid.
        dem: Elevation model for the hillshade, on any grid.
        inventory: GeoPackage with the landslides.
        overrides: What is stated about image and elevation model.
        say: Takes remarks a user should hear, a line each.

    Returns:
        The page.

    Raises:
        UserError: An input that cannot be read, does not lie on the map, or is no probability.
    """
    of = _Sources(Path(probability), _path(image), _path(dem), _path(inventory), overrides)
    out = Path(out)
    _require_name(out, {"map": of.probability, "image": of.image, "elevation model": of.dem, "inventory": of.inventory})
    if of.image is not None and not _can_be_placed(of.image):
        say(f"{out.name}: {of.image.name} has no georeference, so the page does not show it")
        of = replace(of, image=None)
    with open_raster(of.probability) as dataset:
        grid = image_grid(dataset, of.probability, NOTHING_STATED)
        for side in _SIDES:
            content = _page(dataset, Frame.of(grid, side), of).encode()
            if len(content) <= MOST_BYTES:
                break
        else:
            raise UserError(
                f"has attributes so long that the page would be over {MOST_BYTES // 10**6} MB",
                "leave some of its columns out",
                file=of.inventory,
                field="inventory",
            )
    _write(out, content)
    return out


def _path(file: File | None) -> Path | None:
    return Path(file) if file is not None else None


def _can_be_placed(image: Path) -> bool:
    with open_raster(image) as file:
        return georeferenced(file)


def _page(dataset: DatasetReader, frame: Frame, of: _Sources) -> str:
    """The page with pictures of one size."""
    grid, tags = frame.pictures, dataset.tags()
    pictures = {}
    if of.image is not None:
        pictures["image"] = data_uri(image_picture(of.image, grid, of.overrides), "webp")
    if of.dem is not None:
        pictures["hillshade"] = data_uri(hillshade_picture(of.dem, grid, of.overrides), "webp")
    landslides = read_landslides(of.inventory, frame) if of.inventory is not None else None
    shown = None
    if landslides is not None:
        units = [unit for _, unit in landslides.columns]
        shown = {"units": units, "rows": landslides.rows, "paths": landslides.paths, "boxes": landslides.boxes}
    data = {
        "frame": frame.size,
        "unit_m": frame.unit_m,
        "bounds": frame.grid.bounds,
        "threshold": _threshold(tags, of.probability),
        "colours": _colours(),
        "landslides": shown,
    }
    style, script = STYLE + _template("page.css"), _template("page.js")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    return Template(_template("page.html")).substitute(
        policy=policy,
        title=escape(of.probability.name),
        style=style,
        script=script,
        data=_inert(data),
        backgrounds=_choices(list(pictures)),
        pictures=_images(pictures, data_uri(probability_picture(dataset, of.probability, grid), "png")),
        outlines_box="" if landslides is None else '<label><input id="outlines" type="checkbox" checked> Landslide outlines</label>',
        panes="" if landslides is None else "two",
        table="" if landslides is None else _table(landslides),
        facts=_facts(frame, of, tags),
    )


def _threshold(tags: Mapping[str, str], path: Path) -> float:
    """Where the slider starts: at the threshold of the map, or half where it states none."""
    text = tags.get("ZOO_THRESHOLD", "0.5")
    try:
        return float(text)
    except ValueError as error:
        raise UserError("is no number", "make the map anew", file=path, field="ZOO_THRESHOLD", value=text) from error


def _colours() -> str:
    """256 colours of equal perceived steps, as hexadecimal digits."""
    from matplotlib import colormaps  # noqa: PLC0415 - nobody who only trains needs it

    colours = colormaps["viridis"](range(256), bytes=True)[:, :3]
    return bytes(colours.ravel().tolist()).hex()


def _choices(names: list[str]) -> str:
    """Radio buttons of the backgrounds; the first is chosen."""
    return " ".join(
        f'<label><input type="radio" name="background" value="{name}"{" checked" if number == 0 else ""}> {name}</label>'
        for number, name in enumerate([*names, "none"])
    )


def _images(pictures: Mapping[str, str], probability: str) -> str:
    """Pictures of the map; the first background shows, the probability is drawn by the script."""
    shown = [
        f'<img class="layer" id="picture-{name}" alt="{name} of the scene" src="{source}"{" hidden" if number else ""}>'
        for number, (name, source) in enumerate(pictures.items())
    ]
    return "\n".join([*shown, f'<img id="probability" alt="" hidden src="{probability}">'])


def _table(landslides: Landslides) -> str:
    """Head of the table, whose rows the script writes, and what all landslides have in common."""
    head = "".join(
        f'<th scope="col"><button type="button">{escape(_heading(name, unit))}</button></th>' for name, unit in landslides.columns
    )
    shown = len(landslides.rows)
    count = f"{shown} landslides" if shown == landslides.total else f"The {shown:,} largest of {landslides.total:,} landslides"
    common = "; ".join(f"{name} {'empty' if value is None else value}" for name, value in landslides.common.items())
    caption = escape(f"{count}. A row shows its landslide on the map." + (f" The same for all: {common}." if common else ""))
    return (
        f'<section id="table-pane" aria-label="Landslides"><div class="wide"><table role="grid"><thead><tr>{head}</tr></thead>'
        f'<tbody id="rows"></tbody></table></div><p>{caption}</p></section>'
    )


def _heading(name: str, unit: str) -> str:
    """An attribute in words."""
    stem = name.rpartition("_")[0] if unit else name
    return stem.replace("_", " ") + (f" ({unit})" if unit else "")


def _facts(frame: Frame, of: _Sources, tags: Mapping[str, str]) -> str:
    """What the page shows and where it comes from, as the terms and descriptions of a list."""
    grid = frame.grid
    code = grid.crs.to_epsg()
    size = " x ".join(f"{metres:g}" for metres in grid.pixel_size)
    drawn = " x ".join(f"{metres:.4g}" for metres in frame.pictures.pixel_size)
    facts = {
        "Map": f"{of.probability.name}, {grid.width} x {grid.height} pixels of {size} m, drawn in pixels of {drawn} m",
        "Coordinate system": f"EPSG:{code}" if code else grid.crs.to_wkt().split('"')[1],
        **{role: file.name for role, file in (("Image", of.image), ("Elevation model", of.dem), ("Inventory", of.inventory)) if file},
        **{word: tags[tag] for tag, word in _FACTS.items() if tag in tags},
    }
    return "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in facts.items())


def _inert(data: object) -> str:
    """JSON that cannot end the element it stands in, whatever texts it holds."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    """How a content security policy names the one style or script that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _template(name: str) -> str:
    return resources.files("zoo.page").joinpath(name).read_text(encoding="utf-8")


def _write(path: Path, content: bytes) -> None:
    """Write a file that is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
