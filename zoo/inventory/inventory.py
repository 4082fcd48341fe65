"""From the map of a scene to the files of its inventory."""

import math
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final

import pyogrio.errors
import rasterio

from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.overrides import Overrides
from datamodules.scene import Scene
from zoo.inventory.files import VectorLayer, is_inventory, write_geojson, write_geopackage
from zoo.inventory.ground import Ground
from zoo.inventory.layers import compared_layers, landslide_layers
from zoo.inventory.reference import MatchRule, Reference
from zoo.inventory.source import MapReader, TerrainReader
from zoo.inventory.survey import survey
from zoo.mapping.prediction import CACHE_MB
from zoo.mapping.raster import layers_of
from zoo.qgis import SUFFIX, inventory_style, plain_style, point_style, write_style

File = str | PathLike[str]
NOTHING_STATED: Final = Overrides()
_ELSEWHERE: Final = "the map has no place on the Earth, and GeoJSON (RFC 7946) knows no other"


@dataclass(frozen=True)
class InventoryOptions:
    """How an inventory is made.

    Args:
        threshold: Probability from which a pixel is landslide; None = as in the map.
        min_area_m2: Least geodesic area of a landslide, before simplification.
        simplify_m: Leave out vertices that change an area by less than the square of this; 0 keeps the outlines of pixels.
        reference: Vector file of known landslides to compare with.
        reference_layer: Layer of that file; "" if it has one.
        match: Rule of the comparison: `iou0.5`, `coverage0.5` or with another share.
        geojson: Whether to write GeoJSON too; None = where the map has a place on the Earth.
    """

    threshold: float | None = None
    min_area_m2: float = 0.0
    simplify_m: float = 0.0
    reference: Path | None = None
    reference_layer: str = ""
    match: str = "iou0.5"
    geojson: bool | None = None

    def check(self) -> None:
        """Refuse what makes no sense, before any file is opened.

        Raises:
            UserError: A value out of its range.
        """
        for name in ("min_area_m2", "simplify_m"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError("is out of range", "give a number from 0 on", field=name, value=getattr(self, name), exit_code=2)
        MatchRule.of(self.match)
        if self.reference is not None and not self.reference.exists():
            raise UserError("no such file", "check the path", file=self.reference, field="reference")


@dataclass(frozen=True)
class Inventory:
    """What was written.

    Args:
        geopackage: The file with the layers.
        geojson: The landslides as GeoJSON; None if it was not written.
        landslides: How many.
        area_m2: All together.
        threshold: Probability from which a pixel is landslide.
        comparison: Number of matched, missed and false ones; None without a reference.
    """

    geopackage: Path
    geojson: Path | None
    landslides: int
    area_m2: float
    threshold: float
    comparison: dict[str, int] | None = None


def require_inventory(out: Path, probability: Path, grid: Grid, scene: Scene, options: InventoryOptions) -> None:
    """Refuse, before a map is made, what would keep its inventory from being made.

    Args:
        out: The GeoPackage.
        probability: Where the map will be.
        grid: Of the map.
        scene: Whose map it will be.
        options: Of the inventory.

    Raises:
        UserError: What is wrong, and what to do.
    """
    _require_out(out, probability, {"image": scene.image, "elevation model": scene.dem, "reference": options.reference})
    ground = Ground(grid.crs)
    _require_earth(ground, scene.image, options)
    if scene.dem is not None:
        TerrainReader(scene.dem, grid, ground, scene.overrides).close()
    if options.reference is not None:
        Reference(options.reference, options.reference_layer, grid, 0)


def _require_out(out: Path, probability: Path, inputs: dict[str, Path | None]) -> None:
    """Refuse an output that is no GeoPackage by its name, or would overwrite an input or a style of the map."""
    if out.suffix.lower() != ".gpkg":
        raise UserError("is no name of a GeoPackage", "end it with .gpkg", field="inventory", value=str(out), exit_code=2)
    for role, file in inputs.items():
        if file is not None and file.resolve() in {out.with_suffix(suffix).resolve() for suffix in (out.suffix, ".geojson")}:
            raise UserError(f"would overwrite the {role}", "choose another name", file=file, field="inventory", exit_code=2)
    for layer in layers_of("uint8", uncertainty=True):
        style = layer.path(probability).with_suffix(SUFFIX)
        if style.resolve() == out.with_suffix(SUFFIX).resolve():
            raise UserError(
                f"would need the name of the map's style, {style.name}", "choose another", field="inventory", value=str(out), exit_code=2
            )


def _require_earth(ground: Ground, path: Path, options: InventoryOptions) -> None:
    """Refuse GeoJSON that is asked for where it cannot be."""
    if options.geojson and not ground.on_earth:
        raise UserError(_ELSEWHERE, "leave out --geojson; the GeoPackage holds all", file=path, field="geojson", exit_code=2)


def write_inventory(
    probability: File,
    out: File,
    dem: File | None = None,
    *,
    options: InventoryOptions = InventoryOptions(),
    overrides: Overrides = NOTHING_STATED,
    say: Callable[[str], None] = print,
) -> Inventory:
    """Make an inventory of a map.

    Writes `out`, a GeoPackage in the coordinate system of the map with the layers `landslides`, `crowns` and `toes` and, with a reference,
    `matched`, `missed` and `false`; beside it NAME.geojson (WGS 84) where the map has a place on the Earth, and NAME.qml, the
    style for QGIS. All are whole or absent under their names. The map is read by bands of rows: memory holds one band, and the outlines
    of the landslides.

    Args:
        probability: Map of `zoo map`, or any raster of probabilities from 0 to 1.
        out: The GeoPackage.
        dem: Elevation model, on any grid.
        options: How.
        overrides: What is stated about the elevation model.
        say: Takes remarks a user should hear, a line each.

    Raises:
        UserError: An input that cannot be used, and what to do.
    """
    probability, out, dem = Path(probability), Path(out), Path(dem) if dem is not None else None
    options.check()
    _require_out(out, probability, {"map": probability, "elevation model": dem, "reference": options.reference})
    with ExitStack() as opened:
        opened.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_MB))
        source = opened.enter_context(MapReader(probability, options.threshold))
        _require_earth(source.ground, probability, options)
        terrain = None
        if dem is not None:
            terrain = TerrainReader(dem, source.grid, source.ground, overrides, source.dem_resampling)
            opened.enter_context(closing(terrain))
        missing = [] if dem else ["no elevation model: slope, aspect, elevation, crowns and toes stay empty"]
        for remark in source.remarks + missing:
            say(f"{out.name}: {remark}")
        found = survey(
            source,
            terrain,
            (options.reference, options.reference_layer) if options.reference else None,
            min_area_m2=options.min_area_m2,
            simplify_m=options.simplify_m,
        )
    layers, remarks = landslide_layers(source, found), []
    area_m2 = float(layers[0].fields["area_m2"].sum())
    counts: dict[str, int] = {}
    if options.reference is not None:
        rule = MatchRule.of(options.match)
        compared, comparison = compared_layers(source, found, layers[0], rule, options.min_area_m2)
        layers += compared
        counts = {layer.name: len(layer.geometries) for layer in compared}
        unseen = int((~comparison.seen).sum())
        remarks.append(
            f"{options.reference.name}, {rule}: {', '.join(f'{number} {name}' for name, number in counts.items())}"
            + (f"; {unseen} known ones without a pixel of data left out" if unseen else "")
        )
    geojson = options.geojson is not False and source.ground.on_earth
    if options.geojson is None and not geojson:
        remarks.append(f"{out.name}: no GeoJSON, since {_ELSEWHERE}")
    try:
        _write(out, layers, source, options, geojson=geojson)
    except (OSError, sqlite3.Error, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise UserError(
            f"cannot be written ({error})", "check the folder and the space on the disk", file=out, field="inventory"
        ) from error
    left = out.with_suffix(".geojson")
    if not geojson and is_inventory(left):
        left.unlink()
        remarks.append(f"{left.name} of an earlier inventory is removed: this one has no GeoJSON")
    say(f"{out}: {len(found.polygons)} landslides, {area_m2 / 1e6:,.4g} km2, threshold {source.threshold:.3g}")
    for remark in remarks:
        say(remark)
    return Inventory(
        out, out.with_suffix(".geojson") if geojson else None, len(found.polygons), area_m2, source.threshold, comparison=counts or None
    )


def _write(out: Path, layers: list[VectorLayer], source: MapReader, options: InventoryOptions, *, geojson: bool) -> None:
    """All files of an inventory, made in a folder beside and renamed; the GeoPackage comes last, so that where it is, the others are."""
    wkt = source.grid.crs.to_wkt()
    statements = {
        "landslide": "8-connected pixels of the class landslide",
        "threshold": f"{source.threshold:.9g}",
        "min_area_m2": f"{options.min_area_m2:g}",
        "simplify_m": f"{options.simplify_m:g}",
        "model": source.model or "not stated",
    }
    if options.reference is not None:
        statements |= {"reference": options.reference.name, "match": options.match}
    style = inventory_style(source.threshold)
    styles = {"landslides": style, "matched": plain_style("#1a9641"), "missed": plain_style("#2c7bb6"), "false": plain_style("#d7191c")}
    styles |= {"crowns": point_style("#d7191c", "triangle"), "toes": point_style("#2c7bb6", "circle")}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        made = Path(folder) / out.name
        write_geopackage(made, layers, wkt, statements, {layer.name: styles[layer.name] for layer in layers})
        if geojson:
            write_geojson(made.with_suffix(".geojson"), layers[0], wkt, source.step)
        write_style(style, made)
        for suffix in (".geojson", SUFFIX, out.suffix):
            file = made.with_suffix(suffix)
            if file.is_file():
                with file.open("rb") as content:
                    os.fsync(content.fileno())
                file.replace(out.with_suffix(suffix))
