"""Synthetic scenes on disk: GeoTIFFs, polygons, manifest and metadata, written whole or not at all."""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import as_completed as completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from shapely import affinity

from datamodules.errors import UserError
from datamodules.synthetic import scene as recipe
from datamodules.synthetic.scene import Scene, make_scene

GENERATOR_VERSION: Final = 1
"""Goes up whenever the same seed gives other data."""
MANIFEST: Final = "scenes.csv"
METADATA: Final = "synthetic.json"
SPLIT_PATTERN: Final = ("train", "val", "test", "train")
"""Split of scene i is element i modulo 4, so that it does not depend on how many scenes there are; 8 scenes: 4 train, 2 val, 2 test."""
_COLUMNS: Final = ("scene", "image", "dem", "label", "split", "region")
_SMALLEST_SIZE: Final = 96


def synthesize(
    out: Path,
    *,
    scenes: int = 8,
    seed: int = 0,
    size: int = 1024,
    processes: int | None = None,
    split_pattern: Sequence[str] = SPLIT_PATTERN,
) -> Path:
    """Write a data set of synthetic relic-landslide scenes.

    Scene i follows from (seed, i, size) alone, whatever the number of scenes and processes; with the same versions of numpy, scipy and
    GDAL its files are identical byte by byte.

    Args:
        out: Folder to make. If it holds the data set of the same parameters already, nothing is done.
        scenes: Number of scenes, at least 3, so that training, validation and test have one each.
        seed: Of the whole data set, at least 0.
        size: Image pixels (of 2 m) a side, even, at least 96.
        processes: How many scenes are made at a time; default all processors, 1 works in this process.
        split_pattern: Scene i belongs to split `split_pattern[i % len(split_pattern)]`.

    Returns:
        The manifest `scenes.csv`.

    Raises:
        UserError: A parameter is out of range, or `out` holds something else.
    """
    out = Path(out)
    parameters = {"scenes": scenes, "seed": seed, "size": size, "split_pattern": list(split_pattern)}
    _check(parameters)
    if _is_there(out, parameters):
        Console(stderr=True).print(f"{out} already holds these scenes; nothing to do", highlight=False, soft_wrap=True)
        return out / MANIFEST
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        unfinished.chmod(0o755)
        entries = sorted(_make_all(unfinished, seed, scenes, size, processes), key=lambda entry: int(entry["index"]))
        for entry in entries:
            entry["split"] = split_pattern[entry["index"] % len(split_pattern)]
        _write_manifest(unfinished / MANIFEST, entries)
        metadata = {"generator": "landslide-zoo synthetic scenes", "generator_version": GENERATOR_VERSION, "parameters": parameters}
        (unfinished / METADATA).write_text(
            json.dumps({**metadata, "recipe": _recipe(), "scenes": entries}, indent=1) + "\n", encoding="utf-8"
        )
        (unfinished / "README.md").write_text(_readme(parameters, entries), encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out / MANIFEST


def _check(parameters: dict[str, Any]) -> None:
    smallest = {"scenes": 3, "seed": 0, "size": _SMALLEST_SIZE}
    for field, least in smallest.items():
        if parameters[field] < least:
            raise UserError(f"must be at least {least}", f"choose {least} or more", field=field, value=parameters[field], exit_code=2)
    if parameters["size"] % 2:
        raise UserError("must be even", f"choose {parameters['size'] + 1}", field="size", value=parameters["size"], exit_code=2)
    pattern = parameters["split_pattern"]
    used = {pattern[index % len(pattern)] for index in range(parameters["scenes"])} if pattern else set()
    if used != {"train", "val", "test"}:
        remedy = "name train, val and test, each within the first scenes"
        raise UserError("every split needs a scene and no other names are known", remedy, field="split_pattern", value=pattern, exit_code=2)


def _is_there(out: Path, parameters: dict[str, Any]) -> bool:
    """Whether the folder holds just this data set; False where there is nothing.

    Raises:
        UserError: There is something else.
    """
    remedy = "choose another folder, or remove this one"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / METADATA).is_file() or not (out / MANIFEST).is_file():
        raise UserError("exists and holds no synthetic scenes", remedy, file=out)
    try:
        metadata = json.loads((out / METADATA).read_text(encoding="utf-8"))
        found = {**metadata["parameters"], "generator_version": metadata["generator_version"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("is no metadata of synthetic scenes", remedy, file=out / METADATA) from error
    wanted = {**parameters, "generator_version": GENERATOR_VERSION}
    other = ", ".join(f"{key} = {found.get(key)} instead of {value}" for key, value in wanted.items() if found.get(key) != value)
    if other:
        raise UserError(f"holds synthetic scenes of other parameters: {other}", remedy, file=out)
    return True


def _make_all(folder: Path, seed: int, scenes: int, size: int, processes: int | None) -> Iterator[dict[str, Any]]:
    """Make and write the scenes, in any order, and show how far it is."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    workers = min(processes or os.cpu_count() or 1, scenes)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("synthesizing scenes", total=scenes)
        if workers == 1:
            for index in range(scenes):
                yield _make_one(folder, seed, index, size)
                progress.advance(task)
            return
        # Spawned, not forked: the caller may run threads (torch, GDAL), which a fork would copy in an undefined state.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for future in completed([pool.submit(_make_one, folder, seed, index, size) for index in range(scenes)]):
                yield future.result()
                progress.advance(task)


def _make_one(folder: Path, seed: int, index: int, size: int) -> dict[str, Any]:
    """Make one scene, write its files and return its entry of the metadata."""
    made = make_scene(seed, index, size)
    name = f"scene_{index:03d}"
    paths = {kind: f"{kind}s/{name}.tif" for kind in ("image", "dem", "label")}
    for path in paths.values():
        (folder / path).parent.mkdir(exist_ok=True)
    _write_raster(folder / paths["image"], made.image, made.image_transform, nodata=0, predictor=2)
    _write_raster(folder / paths["dem"], made.dem[None], made.dem_transform, nodata=recipe.DEM_NODATA, predictor=3)
    _write_raster(folder / paths["label"], made.label[None], made.image_transform, nodata=255, predictor=1)
    _write_polygons(folder / paths["label"].replace(".tif", ".gpkg"), made)
    counted = made.label != 255
    return {
        "scene": name,
        "index": index,
        **paths,
        "region": made.region.name,
        "prevalence": round(float((made.label[counted] == 1).mean()), 6),
        "landslides": len(made.slides),
        "image_has_gap": recipe.image_has_gap(index),
        "dem_has_hole": recipe.dem_has_hole(index),
        "sky": asdict(made.sky),
    }


def _write_raster(path: Path, bands: NDArray[Any], transform: Affine, *, nodata: float, predictor: int) -> None:
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": predictor}
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype.name}
    with rasterio.open(path, "w", **profile, **shape, crs=f"EPSG:{recipe.EPSG}", transform=transform, nodata=nodata) as file:
        file.write(bands)


def _write_polygons(path: Path, made: Scene) -> None:
    """The landslides as GeoPackage in the CRS of the image."""
    here = [made.image_transform.c, made.image_transform.f]
    polygons = [affinity.translate(slide.polygon, *here) for slide in made.slides]
    columns: dict[str, NDArray[Any]] = {
        "landslide": np.array([slide.landslide for slide in made.slides], dtype=np.int32),
        "certainty": np.array([slide.certainty for slide in made.slides], dtype=object),
        "age": np.array([slide.age for slide in made.slides], dtype=np.float64),
        "area_m2": np.array([round(polygon.area, 1) for polygon in polygons], dtype=np.float64),
    }
    # A GeoPackage carries the time of writing, the one thing in it that a rerun would change.
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"})
    try:
        geometry = np.array(shapely.to_wkb(polygons), dtype=object)
        options = {"driver": "GPKG", "layer": "landslides", "geometry_type": "Polygon", "crs": f"EPSG:{recipe.EPSG}"}
        pyogrio.raw.write(path, geometry, list(columns.values()), list(columns), **options)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def _write_manifest(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)


def _recipe() -> dict[str, Any]:
    """Constants that the scenes are made with."""
    return {
        "image_pixel_m": recipe.IMAGE_PIXEL_M,
        "dem_pixel_m": recipe.DEM_PIXEL_M,
        "epsg": recipe.EPSG,
        "landslide_area_m2": [recipe.SMALLEST_M2, recipe.LARGEST_M2],
        "landslide_area_power": recipe.AREA_POWER,
        "regions": [region._asdict() for region in recipe.REGIONS],
    }


def _readme(parameters: dict[str, Any], entries: Sequence[dict[str, Any]]) -> str:
    share = float(np.mean([entry["prevalence"] for entry in entries]))
    size = parameters["size"]
    return f"""# Synthetic relic-landslide scenes

Invented data: no place on Earth looks like this. Made by `zoo-data synthesize` (generator version {GENERATOR_VERSION}) with seed
{parameters["seed"]}; the same version and parameters give the same rasters. Parameters and constants: `{METADATA}`.

- `{MANIFEST}`: scene, image, dem, label, split, region (paths relative to this folder). {len(entries)} scenes, {share:.1%} landslide.
- `images/`: uint8, red, green, blue, {size} x {size} pixels of 2 m, EPSG:{recipe.EPSG}; 0 = no data.
- `dems/`: float32 metres, pixels of 8 m on a grid of its own that reaches {recipe.DEM_OVERLAP_M:.0f} m beyond the image; -9999 = no data.
- `labels/*.tif`: 0 background, 1 landslide (certain or probable), 255 ignored (possible landslide, or no image).
- `labels/*.gpkg`: the same landslides as polygons with landslide (number), certainty (certain, probable, possible), age (0 fresh to
  1 nearly levelled) and area_m2.

Terraces, gully heads, colluvial aprons, roads and fields are there to be mistaken for landslides; they have no label.
"""
