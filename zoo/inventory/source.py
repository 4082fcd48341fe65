"""A map of `zoo map`, or any raster of probabilities, read by rows; and the terrain under these rows."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from pyproj.exceptions import ProjError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from datamodules.alignment import DemResampling, ElevationModel
from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.overrides import Overrides
from datamodules.rasters import open_raster, probe, read_window
from datamodules.terrain import halo_of, terrain_layers
from zoo.inventory.ground import STEP_M, Ground
from zoo.mapping.maps import DEM_RESAMPLING, FINGERPRINT
from zoo.mapping.raster import layers_of

Array = npt.NDArray[Any]
TERRAIN: Final = ("slope", "aspect_sin", "aspect_cos")
_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class Rows:
    """Rows of a map.

    Args:
        first: The first of them.
        probability: float32 (rows, W), of landslide; NaN = no data.
        landslide: bool (rows, W); never where there is no data.
        uncertainty: float32 (rows, W), NaN = no data; None if the map has none.
    """

    first: int
    probability: Array
    landslide: Array
    uncertainty: Array | None


@dataclass(frozen=True)
class Terrain:
    """The ground under rows of a map, float32 (rows, W) each, NaN = no data.

    Args:
        elevation: Metres.
        slope_deg: Degrees.
        aspect_sin, aspect_cos: Of the downslope azimuth from grid north; both 0 on flat ground.
    """

    elevation: Array
    slope_deg: Array
    aspect_sin: Array
    aspect_cos: Array


class MapReader:
    """Probability, class and uncertainty of a scene.

    The class raster beside the map decides what is landslide, since it was made before probabilities were rounded. Another threshold than
    the map's, or a map without a class raster, is applied to the probabilities as they are stored.

    Args:
        path: GeoTIFF of the probability.
        threshold: Probability from which a pixel is landslide; None = the one that the map was made with.

    Attributes:
        grid: Of the map; its pixel size is that on the ground at the middle.
        ground: The globe under it.
        threshold: As applied.
        model: SHA-256 of the checkpoints as the map's tags say; None if they do not.
        dem_resampling: How an elevation model came onto the map's grid for its networks, by the tags; cubic if they do not say.
        remarks: What a user should hear of the above.

    Raises:
        UserError: No map, files that do not belong together, no threshold, or no place on the ground.
    """

    def __init__(self, path: Path, threshold: float | None) -> None:
        self._path = path
        with ExitStack() as files:
            self._probability = files.enter_context(open_raster(path))
            tags = self._probability.tags()
            self.model: str | None = tags.get("ZOO_MODEL_SHA256")
            self.dem_resampling: DemResampling = "bilinear" if tags.get(DEM_RESAMPLING) == "bilinear" else "cubic"
            own = float(tags["ZOO_THRESHOLD"]) if "ZOO_THRESHOLD" in tags else None
            self.ground, self.grid = _placed(self._probability, path)
            if threshold is None and own is None:
                raise UserError("does not say its threshold", "give one with --threshold", file=path, field="threshold", exit_code=2)
            self.threshold = threshold if threshold is not None else own or 0.0
            if not 0 <= self.threshold <= 1:
                raise UserError("is out of range", "choose a number from 0 to 1", field="threshold", value=self.threshold, exit_code=2)
            beside = {layer.name: layer.path(path) for layer in layers_of("uint8", uncertainty=True)}
            as_mapped = own is not None and math.isclose(self.threshold, own, abs_tol=1e-9)
            self._class = self._opened(beside["class"], files) if as_mapped else None
            self._uncertainty = self._opened(beside["uncertainty"], files)
            self.remarks = [] if self._class else [f"threshold {self.threshold:.3g} is applied to the probabilities as stored"]
            for role, opened in (("class", self._class), ("uncertainty", self._uncertainty)):
                if opened is None or self._is_of_this_map(opened):
                    continue
                if role == "class":
                    raise UserError(f"does not belong to {path.name}", "map the scene again, or move it away", file=beside[role])
                self._uncertainty = None  # one that an earlier ensemble has left
                self.remarks.append(f"{beside[role].name} does not belong to {path.name} and is left out")
            self._files = files.pop_all()

    def _opened(self, path: Path, files: ExitStack) -> DatasetReader | None:
        """A raster beside the map; None if there is none."""
        if not path.is_file():
            return None
        dataset = files.enter_context(open_raster(path))
        probe(dataset, path)
        return dataset

    def _is_of_this_map(self, dataset: DatasetReader) -> bool:
        """Whether a raster was made together with the probability."""
        ours = self._probability
        grid = dataset.shape == ours.shape and dataset.transform == ours.transform
        return bool(grid and dataset.tags().get(FINGERPRINT) == ours.tags().get(FINGERPRINT))

    def units(self, metres: float) -> float:
        """Metres on the ground as map units, in the middle of the map."""
        return metres * self.grid.transform.a / self.grid.pixel_size[0]

    @property
    def step(self) -> float:
        """Most map units between two vertices of a line whose place on the globe matters."""
        return self.units(STEP_M)

    def read(self, rows: slice) -> Rows:
        """Rows start to stop.

        Raises:
            UserError: A damaged file, or numbers that are no probabilities.
        """
        probability = self._values(self._probability, rows)
        known = ~np.isnan(probability)
        if known.any() and not (probability[known].min() >= -_ROUNDING and probability[known].max() <= 1 + _ROUNDING):
            low, high = float(probability[known].min()), float(probability[known].max())
            raise UserError(
                f"holds {low:g} to {high:g}, which are no probabilities",
                "state the factor to 0...1 with `gdal_edit.py -scale`, and no data with `-a_nodata`",
                file=self._path,
            )
        if self._class is None:
            landslide = probability >= np.float32(self.threshold - _ROUNDING)
        else:
            landslide = (self._raw(self._class, rows) == 1) & known
        return Rows(rows.start, probability, landslide, None if self._uncertainty is None else self._values(self._uncertainty, rows))

    def _raw(self, dataset: DatasetReader, rows: slice) -> Array:
        """Numbers as they are stored."""
        return read_window(dataset, Path(dataset.name), Window(0, rows.start, self.grid.width, rows.stop - rows.start))

    def _values(self, dataset: DatasetReader, rows: slice) -> Array:
        """Numbers by the scale of their band, float32, NaN = no data."""
        raw = self._raw(dataset, rows)
        values: Array = (raw * dataset.scales[0] + dataset.offsets[0]).astype(np.float32)
        window = Window(0, rows.start, self.grid.width, rows.stop - rows.start)
        values[dataset.read_masks(1, window=window) == 0] = np.nan
        return values

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TerrainReader:
    """Elevation, slope and aspect on the grid of a map.

    Slopes are of true metres: the pixel size of a band of rows is that on the ground in its middle.

    Args:
        path: Elevation model, on any grid.
        grid: Of the map.
        ground: The globe under it.
        overrides: What the user states about the model.
        resampling: How it comes onto the grid.

    Raises:
        UserError: A model that cannot be used, and what to do.
    """

    def __init__(self, path: Path, grid: Grid, ground: Ground, overrides: Overrides, resampling: DemResampling = "cubic") -> None:
        self._grid, self._ground = grid, ground
        self._halo = halo_of(TERRAIN, grid.pixel_size)
        self._dem = ElevationModel(path, grid, self._halo, resampling, overrides)
        self._dem.check()

    def read(self, rows: slice) -> Terrain:
        """Rows start to stop."""
        halo, count = self._halo, rows.stop - rows.start
        elevation = self._dem.read(rows.start - halo, -halo, count + 2 * halo, self._grid.width + 2 * halo)
        size = self._ground.pixel_size(self._grid.transform, self._grid.width / 2, (rows.start + rows.stop) / 2)
        layers = terrain_layers(torch.from_numpy(elevation)[None, None], size, TERRAIN)[0].numpy()
        inside = np.s_[halo : halo + count, halo : halo + self._grid.width]
        return Terrain(elevation[inside], *(layer[inside] for layer in layers))

    def close(self) -> None:
        """Close the file."""
        self._dem.close()


def _placed(dataset: DatasetReader, path: Path) -> tuple[Ground, Grid]:
    """The globe under a map, and its grid in true metres."""
    at, crs = dataset.transform, dataset.crs
    if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in "uif":
        raise UserError(f"has {dataset.count} bands of {dataset.dtypes[0]}", "give one band of probabilities", file=path)
    if crs is None:
        raise UserError("has no coordinate system", "assign it with `gdal_edit.py -a_srs EPSG:CODE`", file=path, field="crs")
    if at.b or at.d or at.a <= 0 or at.e >= 0:
        raise UserError("is rotated or not north up", "warp it with gdalwarp", file=path, field="transform", value=tuple(at)[:6])
    probe(dataset, path)
    ground = Ground(crs)
    try:
        pixel_size = ground.pixel_size(at, dataset.width / 2, dataset.height / 2)
        for column, row in ((0, 0), (dataset.width, 0), (0, dataset.height), (dataset.width, dataset.height)):
            ground.pixel_size(at, column, row)
    except ProjError as error:
        raise UserError(
            "lies beyond the globe of its coordinate system", "check both with gdalinfo", file=path, field="crs", value=str(crs)[:60]
        ) from error
    return ground, Grid(crs, at, dataset.width, dataset.height, pixel_size)
