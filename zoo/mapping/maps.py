"""From checkpoints and rasters to the files of a map: the checks before, the run that may be interrupted, the files after."""

import hashlib
import importlib.metadata
import json
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import torch

from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.overrides import regridded, require_regrid
from datamodules.reading import SceneReader
from datamodules.scene import Scene
from datamodules.scene import fingerprint as content_of
from zoo.mapping import checkpoints as models
from zoo.mapping.draft import Draft, folder_of
from zoo.mapping.ensemble import Ensemble, Precision, Tta
from zoo.mapping.prediction import Band, predict_scene
from zoo.mapping.raster import Dtype, encode, layers_of, require_space, write_cog
from zoo.mapping.source import coarser_or_finer, require_own_grid, resampled
from zoo.qgis import SUFFIX, raster_style, write_style

FINGERPRINT: Final = "ZOO_FINGERPRINT"
DEM_RESAMPLING: Final = "ZOO_DEM_RESAMPLING"
File = str | PathLike[str]


@dataclass(frozen=True)
class MapOptions:
    """How a scene is mapped.

    Args:
        tile: Pixels of a tile along each axis; None = that of training.
        overlap: Share of a tile that the next one overlaps, in [0, 0.5].
        batch_size: Tiles that are predicted together, at most a row of tiles.
        tta: `d4` averages over the eight turns and mirrorings of each tile.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `float32`, or `bf16` on recent GPUs.
        threshold: Probability from which a pixel is landslide; None = that of the checkpoint, of an ensemble the mean of its members'.
        dtype: Of the probability in the file: `uint8` in steps of 1/254, or `float32`.
        resample_to_model: Resample an image whose pixel size the network was not trained on, instead of refusing it.
        image_nodata: Value of image pixels without data, instead of what the file says.
        regrid: Of an image in degrees, in a stretching projection or rotated: `refuse`, `reproject` (the map is then on a north-up grid in
            metres), or a coordinate system for that grid such as EPSG:32645.
        context: Pixels around a tile that the network sees and that are not mapped from it; see `zoo.mapping.tiles`.
    """

    tile: int | None = None
    overlap: float = 0.25
    batch_size: int = 4
    tta: Tta = "none"
    device: str = "auto"
    precision: Precision = "float32"
    threshold: float | None = None
    dtype: Dtype = "uint8"
    resample_to_model: bool = False
    image_nodata: float | None = None
    regrid: str = "refuse"
    context: int = 0


@dataclass(frozen=True)
class SceneMap:
    """The map of a scene.

    Args:
        probability: GeoTIFF of the probability of landslide; see `zoo.mapping.raster` for what its numbers mean.
        classes: GeoTIFF of 0, 1 and 255 (no data).
        uncertainty: GeoTIFF of the standard deviation over the members; None for a single one.
        threshold: Probability from which a pixel is landslide.
        km2: Area with data that was predicted in this run; 0 if nothing was left to do.
        seconds: What it took, files included.
    """

    probability: Path
    classes: Path
    uncertainty: Path | None
    threshold: float
    km2: float
    seconds: float

    @property
    def km2_per_hour(self) -> float:
        """Speed."""
        return self.km2 / self.seconds * 3600


def map_scene(
    checkpoints: File | Sequence[File],
    image: File,
    dem: File | None = None,
    *,
    out: File,
    options: MapOptions = MapOptions(),
    say: Callable[[str], None] = print,
    progress: Callable[[int, int], None] | None = None,
) -> SceneMap:
    """Map the landslides of a scene.

    Writes `out` (probability), beside it `NAME_class.tif` and, for an ensemble or with TTA, `NAME_uncertainty.tif`: Cloud-Optimised GeoTIFFs
    on the grid of the image, whole or absent under their names, each with a style for QGIS (.qml). Pixels without image data, and without elevation where a network sees
    it, are no data in all of them. Memory depends on the tile and on the width of the scene. An interrupted run continues when called again
    with the same inputs; a finished one is kept.

    Args:
        checkpoints: One, or several that make an ensemble.
        image: Raster on a projected, north-up grid, with the bands that the networks were trained on.
        dem: Elevation model in metres, on any grid; needed where a network sees it.
        out: The GeoTIFF to write.
        options: How.
        say: Takes remarks a user should hear, a line each.
        progress: Takes the number of finished rows and of all rows.

    Returns:
        Where the files are, and how fast it went.

    Raises:
        UserError: An input that cannot be mapped by these checkpoints, and what to do; or too little space on the disk.

    Example:
        See `examples/map_scene.py`.
    """
    paths = [checkpoints] if isinstance(checkpoints, (str, PathLike)) else checkpoints
    mapper = Mapper([Path(path) for path in paths], options, say)
    scene = Scene(Path(image).stem.replace(":", "_"), Path(image), Path(dem) if dem is not None else None, None, "predict")
    return mapper.map(mapper.plan(scene, Path(out)), progress)


@dataclass(frozen=True)
class Plan:
    """A scene that has passed all checks, and where its map goes.

    Args:
        scene: As it is given.
        grid: Of the map.
        pixel_m: Pixel size onto which the image is resampled; None = its own.
        out: The GeoTIFF of the probability.
        fingerprint: Of all that decides the map.
    """

    scene: Scene
    grid: Grid
    pixel_m: tuple[float, float] | None
    out: Path
    fingerprint: str


class Mapper:
    """Checkpoints that are loaded once and map scene after scene.

    Args:
        paths: Checkpoints.
        options: How to map.
        say: Takes remarks, a line each.

    Attributes:
        threshold: Probability from which a pixel is landslide.
        tile: Pixels of a tile.

    Raises:
        UserError: A checkpoint or an option that cannot be used.
    """

    def __init__(self, paths: Sequence[Path], options: MapOptions, say: Callable[[str], None] = print) -> None:
        _require_options(options)
        self._checkpoints, self._options, self._say = models.load(paths), options, say
        self._ensemble = Ensemble(
            [checkpoint.module for checkpoint in self._checkpoints], options.tta, _device(options.device), options.precision
        )
        self._dem_resampling = models.dem_resampling_of(self._checkpoints)
        self.tile = options.tile or models.tile_of(self._checkpoints)
        own = [checkpoint.module.threshold for checkpoint in self._checkpoints]
        self.threshold = sum(own) / len(own) if options.threshold is None else options.threshold
        self._layers = layers_of(options.dtype, uncertainty=self._ensemble.size > 1)
        for checkpoint in self._checkpoints:
            if checkpoint.training_pixel_m is None:
                say(f"{checkpoint.path.name} does not say on which pixel size it was trained: that of the scene is not checked")

    def plan(self, scene: Scene, out: Path) -> Plan:
        """Check a scene; reads the heads of its files and a hash of their content.

        Args:
            scene: Image and elevation model.
            out: The GeoTIFF to write.

        Raises:
            UserError: What keeps these checkpoints from mapping it, and what to do.
        """
        given = scene
        scene = replace(scene, image=scene.image.resolve(), dem=scene.dem.resolve() if scene.dem and self._ensemble.reads_dem else None)
        _require_out(out, given)
        if given.dem is not None and scene.dem is None:
            self._say(f"{given.dem.name}: no network reads an elevation model, so the map is made without")
        (scene,) = regridded([scene], self._options.regrid)
        if self._options.image_nodata is not None:
            scene = replace(scene, overrides=replace(scene.overrides, image_nodata=self._options.image_nodata))
        with closing(SceneReader(scene, None, 0, self._dem_resampling)) as reader:
            grid, bands = reader.grid, reader.num_bands
        pixel_m: tuple[float, float] | None = None
        for checkpoint in self._checkpoints:
            models.require_layers(checkpoint, scene, bands)
            if self._options.resample_to_model:
                pixel_m = pixel_m or models.fitting_pixel_m(checkpoint, grid)
            else:
                models.require_pixel_size(checkpoint, scene, grid)
        if pixel_m == grid.pixel_size:
            pixel_m = None
        if pixel_m is not None:
            require_own_grid(scene)
            grid = coarser_or_finer(grid, pixel_m)
            for checkpoint in self._checkpoints:
                models.require_pixel_size(checkpoint, scene, grid)
            self._say(f"{given.image.name}: resampled to pixels of {pixel_m[0]:g} x {pixel_m[1]:g} m, and so is the map")
        decides = {
            "version": importlib.metadata.version("landslide-zoo"),
            "content": content_of([replace(scene, name="scene", label=None, split="predict", region="")]),
            "checkpoints": [checkpoint.sha256 for checkpoint in self._checkpoints],
            "options": {key: value for key, value in asdict(self._options).items() if key not in ("batch_size", "device")},
            "tile": self.tile,
            "threshold": self.threshold,
            "pixel_m": pixel_m,
        }
        fingerprint = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return Plan(scene, grid, pixel_m, out, fingerprint)

    def map(self, plan: Plan, progress: Callable[[int, int], None] | None = None) -> SceneMap:
        """Map a scene that `plan` has checked.

        Args:
            plan: What to do.
            progress: Takes the number of finished rows and of all rows.
        """
        start, grid, out, layers = time.perf_counter(), plan.grid, plan.out, self._layers
        files = {layer.name: layer.path(out) for layer in layers}
        if _is_finished(out, plan.fingerprint) and all(file.is_file() for file in files.values()):
            self._say(f"{out} is the map of these inputs already and is kept")
            return self._result(files, 0.0, time.perf_counter() - start)
        out.parent.mkdir(parents=True, exist_ok=True)
        present = sum(file.stat().st_size for file in folder_of(out).glob("*.raw"))
        require_space(out.parent, grid, layers, present)
        pixels = 0
        with Draft(out, plan.fingerprint, {layer.name: grid.width * layer.pixel_bytes for layer in layers}) as draft:
            if draft.outdated:
                self._say(f"{out}: inputs, checkpoints or options have changed since the run that was interrupted; starting anew")
            elif draft.rows:
                self._say(f"{out}: {draft.rows} of {grid.height} rows are there from a run that was interrupted; continuing")
            with closing(self._reader(plan, draft.folder)) as reader, closing(self._predict(reader, draft.rows)) as bands:
                for band in bands:
                    draft.append(encode(band, layers, self.threshold))
                    pixels += int(np.count_nonzero(band.valid))
                    if progress is not None:
                        progress(draft.rows, grid.height)
            tags = self._tags(plan)
            self._remove_outdated(out)
            for layer in layers:
                write_style(raster_style(layer.name), files[layer.name])
                write_cog(draft.file(layer.name), grid, layer, tags, files[layer.name])
            draft.discard()
        return self._result(files, pixels * math.prod(grid.pixel_size) / 1e6, time.perf_counter() - start)

    def _reader(self, plan: Plan, folder: Path) -> SceneReader:
        """The scene as the networks are to see it."""
        scene = plan.scene
        if plan.pixel_m is not None:
            scene = resampled(scene, plan.grid, folder / "resampled.vrt")
        return SceneReader(scene, None, self._ensemble.halo(plan.grid.pixel_size), self._dem_resampling)

    def _predict(self, reader: SceneReader, first_row: int) -> Generator[Band, None, None]:
        """Bands of the scene, from a row on."""
        options = self._options
        return predict_scene(
            self._ensemble,
            reader,
            tile=self.tile,
            overlap=options.overlap,
            batch_size=options.batch_size,
            first_row=first_row,
            context=options.context,
        )

    def _tags(self, plan: Plan) -> dict[str, str]:
        """What a reader of the file must know of its origin."""
        members = self._checkpoints
        return {
            "ZOO_METHOD": ", ".join(member.method for member in members),
            "ZOO_MODEL_SHA256": ", ".join(member.sha256 for member in members),
            "ZOO_MODEL_THRESHOLD": ", ".join(f"{member.module.threshold:g}" for member in members),
            "ZOO_THRESHOLD": f"{self.threshold:.9g}",
            "ZOO_TTA": self._options.tta,
            "ZOO_TILE": f"{self.tile} pixels, overlap {self._options.overlap:g}, context {self._options.context}",
            DEM_RESAMPLING: self._dem_resampling,
            "ZOO_VERSION": importlib.metadata.version("landslide-zoo"),
            FINGERPRINT: plan.fingerprint,
        }

    def _remove_outdated(self, out: Path) -> None:
        """Remove what an earlier map of this name has and this one has not: an uncertainty would be taken for that of this map."""
        made = {layer.name for layer in self._layers}
        for layer in layers_of("uint8", uncertainty=True):
            file = layer.path(out)
            if layer.name in made or _fingerprint_of(file) is None:
                continue
            for outdated in (file, file.with_suffix(SUFFIX)):
                outdated.unlink(missing_ok=True)
            self._say(f"{file.name} of an earlier map is removed: this one has no {layer.name}")

    def _result(self, files: dict[str, Path], km2: float, seconds: float) -> SceneMap:
        return SceneMap(files["probability"], files["class"], files.get("uncertainty"), self.threshold, km2, seconds)


def _device(name: str) -> torch.device:
    """A device by name; `auto` is a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch says "not compiled with CUDA" by an assertion
        raise UserError("there is no such device here", "choose cpu, or auto", field="device", value=name, exit_code=2) from error
    return device


def _require_options(options: MapOptions) -> None:
    """Refuse values that make no sense, before any file is opened."""
    for name in ("tile", "batch_size"):
        value: Any = getattr(options, name)
        if value is not None and value < 1:
            raise UserError("is below 1", "choose a larger number", field=name, value=value, exit_code=2)
    if options.context < 0:
        raise UserError("is below 0", "choose 0 or more pixels", field="context", value=options.context, exit_code=2)
    for name, high in (("overlap", 0.5), ("threshold", 1.0)):
        value = getattr(options, name)
        if value is not None and not 0 <= value <= high:
            raise UserError("is out of range", f"choose a number from 0 to {high:g}", field=name, value=value, exit_code=2)
    choices: dict[str, tuple[str, ...]] = {"tta": ("none", "d4"), "precision": ("float32", "bf16"), "dtype": ("uint8", "float32")}
    for name, known in choices.items():
        if getattr(options, name) not in known:
            raise UserError("is not known", f"choose {' or '.join(known)}", field=name, value=getattr(options, name), exit_code=2)
    try:
        require_regrid(options.regrid)
    except ValueError as error:
        raise UserError("cannot be used", str(error), field="regrid", value=options.regrid, exit_code=2) from error


def _require_out(out: Path, scene: Scene) -> None:
    """Refuse an output that is no GeoTIFF by its name, or one of the inputs."""
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise UserError("is no name of a GeoTIFF", "end it with .tif", field="out", value=str(out), exit_code=2)
    for role, file in (("image", scene.image), ("dem", scene.dem), ("label", scene.label)):
        for layer in layers_of("uint8", uncertainty=True):
            if file is not None and layer.path(out).resolve() == file.resolve():
                raise UserError(f"would overwrite the {role}", "choose another name", file=file, field="out", exit_code=2)


def _is_finished(out: Path, fingerprint: str) -> bool:
    """Whether a map of the same inputs is there."""
    return _fingerprint_of(out) == fingerprint


def _fingerprint_of(file: Path) -> str | None:
    """Of the map that a file is of; None if it is none of ours, or not there."""
    if not file.is_file():
        return None
    try:
        with rasterio.open(file) as dataset:
            fingerprint: str | None = dataset.tags().get(FINGERPRINT)
            return fingerprint
    except rasterio.errors.RasterioError:
        return None
