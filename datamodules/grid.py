"""The pixels of a scene on the ground: the image's own grid, a stated one, or a north-up one in metres laid over the image.

Terrain needs pixels whose sides are metres along the axes of the raster. An image in degrees, in Web Mercator (where a metre at 36
degrees of latitude is 1.24 m on paper) or a rotated one is refused, or, with `regrid: reproject`, read through a virtual north-up grid of
square pixels that keeps their mean area: in its own system where that is metric, else in the UTM zone of its centre (polar
stereographic beyond 84 N and 80 S, transverse Mercator on another planet). `regrid: EPSG:CODE` states the system instead.

An image without georeference gets its stated pixel size and an arbitrary place far from any real one: the same image always the same.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader

from datamodules.errors import UserError
from datamodules.overrides import REFUSE, REPROJECT, Overrides
from datamodules.scene import content_digest

Array = npt.NDArray[Any]
PLACE_UNKNOWN: Final = "place unknown, position arbitrary"
"""Name of the coordinate system of images without georeference."""

_REMEDY_REGRID: Final = "set data.regrid (--regrid, or column regrid of scenes.csv) to reproject or EPSG:CODE, or warp it with gdalwarp"
_CELL_M: Final = 100_000.0
_CELLS: Final = 2**20
_SAME_SIZE: Final = 0.01
_MOST_STRETCH: Final = 1.05  # UTM stays below 1.001, the Mars tiles of 14 degrees south at 1.033, Web Mercator passes it at 18 degrees
_PIXEL_M: Final = (0.001, 1000.0)
_MOST_OBLONG: Final = 10.0
_EDGE_POINTS: Final = 65
_EARTH_RADIUS_M: Final = 6_378_137.0


@dataclass(frozen=True)
class Grid:
    """The pixels of an image on the ground.

    Args:
        crs: Projected coordinate system.
        transform: Pixel to map coordinates; north up.
        width: Pixels a row.
        height: Rows.
        pixel_size: Metres (x, y).
        bare_transform: Geotransform that an image without coordinate system carries; None where the place is known.
    """

    crs: CRS
    transform: Affine
    width: int
    height: int
    pixel_size: tuple[float, float]
    bare_transform: Affine | None = None

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Map coordinates (left, bottom, right, top)."""
        left, top = self.transform.c, self.transform.f
        right, bottom = left + self.transform.a * self.width, top + self.transform.e * self.height
        return left, bottom, right, top

    @property
    def placed(self) -> bool:
        """Whether the place on the ground is known; distances to scenes of unknown place mean nothing."""
        return PLACE_UNKNOWN not in self.crs.to_wkt()

    def transform_at(self, row: int, column: int) -> Affine:
        """The transform of a window whose upper left pixel is (row, column)."""
        at = self.transform
        return Affine(at.a, at.b, at.c + column * at.a, at.d, at.e, at.f + row * at.e)

    def widened(self, margin: int) -> "Grid":
        """The same grid with `margin` more pixels on each side."""
        return Grid(self.crs, self.transform_at(-margin, -margin), self.width + 2 * margin, self.height + 2 * margin, self.pixel_size)


def same_crs(one: CRS, other: CRS) -> bool:
    """Whether two systems are one, also where neither has an EPSG code."""
    return bool(one == other or one.to_wkt() == other.to_wkt())


def on_earth(crs: pyproj.CRS) -> bool:
    """Whether a system is of the Earth, told by the size of its ellipsoid."""
    return crs.ellipsoid is not None and abs(crs.ellipsoid.semi_major_metre / _EARTH_RADIUS_M - 1) <= _SAME_SIZE


def georeferenced(dataset: DatasetReader) -> bool:
    """Whether a raster says where it lies: a coordinate system and a geotransform."""
    return dataset.crs is not None and not dataset.transform.is_identity


def outline(dataset: DatasetReader) -> Array:
    """Points along the edges of a raster in its own map coordinates, float64 (N, 2); right for rotated rasters too."""
    along = np.linspace(0, 1, _EDGE_POINTS)
    columns = np.concatenate([along, along, np.zeros_like(along), np.ones_like(along)]) * dataset.width
    rows = np.concatenate([np.zeros_like(along), np.ones_like(along), along, along]) * dataset.height
    at = dataset.transform
    return np.column_stack([at.c + at.a * columns + at.b * rows, at.f + at.d * columns + at.e * rows])


def outline_in(dataset: DatasetReader, crs: CRS) -> Array:
    """`outline` in another coordinate system; infinite where that cannot be.

    Raises:
        ProjError: There is no way from one system to the other.
    """
    points = outline(dataset)
    return np.column_stack(transform_points(dataset.crs, crs, points[:, 0], points[:, 1]))


def transform_points(source: CRS, target: CRS, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
    """Points in another coordinate system, float64; infinite where that does not reach, as with metres that are taken for degrees.

    Raises:
        ProjError: There is no way from one system to the other, as between planets.
    """
    if same_crs(source, target):
        return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    east, north = transformer(source.to_wkt(), target.to_wkt()).transform(np.asarray(x, np.float64), np.asarray(y, np.float64))
    return np.asarray(east), np.asarray(north)


# The scenes of a data set share a few systems. One that PROJ knows by name takes it 2 ms a scene, one of another planet 220; what it
# makes of them may be shared by threads.
@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """Between two systems, x before y in both.

    Args:
        source: Anything that pyproj takes for a system, as WKT.
        target: Likewise.

    Raises:
        ProjError: There is no such system, or no way from one to the other.
    """
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def image_grid(dataset: DatasetReader, path: Path, overrides: Overrides) -> Grid:
    """The grid on which a scene is read.

    Args:
        dataset: The open image.
        path: Its file.
        overrides: What the user states about it.

    Raises:
        UserError: No georeference and no stated resolution, one that contradicts the file, a grid that is not north up in metres, or
            pixels of no size or of one that no image has.
    """
    if not georeferenced(dataset):
        return _unplaced(dataset, path, overrides.resolution_m)
    require_invertible(dataset, path)
    problem = _unsuitable(dataset)
    if problem is None:
        metres, at = dataset.crs.linear_units_factor[1], dataset.transform
        grid = Grid(dataset.crs, at, dataset.width, dataset.height, (at.a * metres, -at.e * metres))
        _require_pixel_size(grid, path)
    elif overrides.regrid in (None, REFUSE):
        field, value = ("transform", tuple(dataset.transform)[:6]) if "rotated" in problem else ("crs", str(dataset.crs)[:60])
        raise UserError(problem, _REMEDY_REGRID, file=path, field=field, value=value)
    else:
        grid = _laid_over(dataset, path, _metric_crs(dataset, path, str(overrides.regrid)))
        _require_pixel_size(grid, path)
    stated = overrides.resolution_m
    if stated is not None and any(abs(size / stated - 1) > _SAME_SIZE for size in grid.pixel_size):
        sizes = " x ".join(f"{size:.6g}" for size in grid.pixel_size)
        raise UserError(f"the file's georeference says {sizes} m", "leave the column empty", file=path, field="resolution_m", value=stated)
    return grid


def require_invertible(dataset: DatasetReader, path: Path, role: str = "") -> None:
    """Refuse a geotransform by which no pixel has a place.

    Args:
        dataset: The open raster, with a coordinate system.
        path: Its file.
        role: What it is to the scene, for the message; "" for the image.

    Raises:
        UserError: Numbers that are not finite, or pixels without area.
    """
    at = dataset.transform
    if not (np.isfinite(tuple(at)).all() and at.determinant):
        raise UserError(
            "gives pixels no place or no area",
            "mend it with `gdal_edit.py -a_ullr LEFT TOP RIGHT BOTTOM`",
            file=path,
            field=f"{role} transform".strip(),
            value=tuple(float(part) for part in at[:6]),
        )


def _require_pixel_size(grid: Grid, path: Path) -> None:
    """Refuse pixels in which no landslide could be seen, or that no camera has: a slip of units or of the geotransform."""
    small, large = sorted(grid.pixel_size)
    if small < _PIXEL_M[0] or large > _PIXEL_M[1] or large > _MOST_OBLONG * small:
        raise UserError(
            f"makes pixels of {grid.pixel_size[0]:.6g} x {grid.pixel_size[1]:.6g} m, which cannot be meant",
            f"check the unit and the geotransform; sides may be from {_PIXEL_M[0]:g} to {_PIXEL_M[1]:g} m, "
            f"one at most {_MOST_OBLONG:g} times the other",
            file=path,
            field="transform",
            value=tuple(float(part) for part in grid.transform[:6]),
        )


def _unplaced(dataset: DatasetReader, path: Path, resolution_m: float | None) -> Grid:
    """A grid for an image that does not say where it lies."""
    if resolution_m is None:
        lacks, field = ("coordinate system", "crs") if dataset.crs is None else ("geotransform", "transform")
        raise UserError(
            f"has no {lacks}",
            "state its metres a pixel in column resolution_m of scenes.csv, or mend it with `gdal_edit.py -a_srs EPSG:CODE -a_ullr ...`",
            file=path,
            field=field,
        )
    if max(dataset.width, dataset.height) * resolution_m >= _CELL_M:
        raise UserError(
            f"is {max(dataset.width, dataset.height)} pixels wide or high: over {_CELL_M / 1000:g} km without georeference",
            "check the resolution, or assign a georeference with gdal_translate",
            file=path,
            field="resolution_m",
            value=resolution_m,
        )
    # By content: a copy in another split then lies on the same ground, and two folds of one image agree.
    place = int.from_bytes(hashlib.sha256(content_digest(path)).digest()[:8])
    column, row = 1000 + place % _CELLS, 1000 + place // _CELLS % _CELLS
    transform = Affine(resolution_m, 0, column * _CELL_M, 0, -resolution_m, row * _CELL_M)
    return Grid(nowhere(), transform, dataset.width, dataset.height, (resolution_m, resolution_m), dataset.transform)


def nowhere() -> CRS:
    """A metric system for images of unknown place.

    The zoo asks a coordinate system for its unit, which GDAL answers for projected systems only: hence a projection, with the truth in its name.
    """
    return CRS.from_wkt(
        f'PROJCS["{PLACE_UNKNOWN}",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
        'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
        'PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",0],PARAMETER["scale_factor",1],'
        'PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1]]'
    )


def _unsuitable(dataset: DatasetReader) -> str | None:
    """What keeps the raster's own grid from being one of metres, north up; None if nothing does."""
    if dataset.crs.is_geographic:
        return "is in degrees, so that slopes would be wrong"
    if not dataset.crs.is_projected:
        return "is in a system that is no map projection, so that its metres are unknown"
    at = dataset.transform
    if at.b or at.d or at.a <= 0 or at.e >= 0:
        return "is rotated or not north up"
    stretch = _stretch(dataset)
    if stretch > _MOST_STRETCH:
        return f"is in a projection that stretches distances {stretch:.2f} times here, so that slopes would be wrong"
    return None


def _stretch(dataset: DatasetReader) -> float:
    """Largest ratio of distances on the map to those on the ground, or the other way, at the centre; 1 where the place is unknown."""
    wkt = dataset.crs.to_wkt()
    if PLACE_UNKNOWN in wkt:
        return 1.0
    try:
        longitude, latitude = _centre(dataset)
        factors = pyproj.Proj(_system(wkt)).get_factors(longitude, latitude)
    except (ProjError, CRSError, RasterioError):
        return 1.0  # a private system that PROJ cannot invert: its unit is all there is to go by
    scales = [scale for scale in (factors.meridional_scale, factors.parallel_scale) if 0 < scale < math.inf]
    return max((max(scale, 1 / scale) for scale in scales), default=1.0)


def _centre(dataset: DatasetReader) -> tuple[float, float]:
    """Longitude and latitude of the middle of a raster, degrees, on its own datum."""
    wkt = dataset.crs.to_wkt()
    geodetic = _geodetic(wkt)
    (x, y) = outline(dataset).mean(axis=0).tolist()
    if geodetic is None:
        return x, y
    longitude, latitude = transformer(wkt, geodetic.to_wkt()).transform(x, y)
    return float(longitude), float(latitude)


@lru_cache(maxsize=64)
def _system(wkt: str) -> pyproj.CRS:
    return pyproj.CRS.from_wkt(wkt)


@lru_cache(maxsize=64)
def _geodetic(wkt: str) -> pyproj.CRS | None:
    """Longitude and latitude on the datum of a system; None for one that is not of a globe."""
    return _system(wkt).geodetic_crs


def _metric_crs(dataset: DatasetReader, path: Path, regrid: str) -> CRS:
    """The coordinate system of the new grid of an image that needs one."""
    if regrid != REPROJECT:
        return CRS.from_user_input(regrid)
    if dataset.crs.is_projected and _stretch(dataset) <= _MOST_STRETCH:
        return dataset.crs
    geodetic = _geodetic(dataset.crs.to_wkt())
    try:
        longitude, latitude = _centre(dataset)
    except ProjError:
        longitude = latitude = math.inf
    if geodetic is None or geodetic.ellipsoid is None or not (abs(longitude) <= 360 and abs(latitude) <= 90):
        raise UserError(
            "cannot be laid on a grid of metres: its place on the globe cannot be told",
            "check its coordinate system and geotransform, or give data.regrid EPSG:CODE",
            file=path,
            field="crs",
            value=str(dataset.crs)[:60],
        )
    radius, minor = geodetic.ellipsoid.semi_major_metre, geodetic.ellipsoid.semi_minor_metre
    if not on_earth(geodetic):
        return CRS.from_proj4(f"+proj=tmerc +lat_0={latitude:.3f} +lon_0={longitude:.3f} +k=1 +a={radius} +b={minor} +units=m +no_defs")
    if not -80 <= latitude <= 84:
        return CRS.from_epsg(32661 if latitude > 0 else 32761)
    zone = int((longitude + 180) // 6) % 60 + 1
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + zone)


def _laid_over(dataset: DatasetReader, path: Path, crs: CRS) -> Grid:
    """A north-up grid of square pixels over a raster, of the mean area that its pixels have on the ground."""
    try:
        points = outline_in(dataset, crs)
        top_left, top_right, bottom_left, bottom_right = (
            points[edge * _EDGE_POINTS - shift] for edge, shift in ((0, 0), (1, 1), (1, 0), (2, 1))
        )
    except ProjError as error:
        raise UserError(
            "cannot be brought into the stated system", "give another", file=path, field="regrid", value=str(crs)[:60]
        ) from error
    one, other = bottom_right - top_left, top_right - bottom_left
    area = 0.5 * abs(float(one[0] * other[1] - one[1] * other[0]))  # of a quadrilateral, from its diagonals
    if not (np.isfinite(points).all() and 0 < area < math.inf):
        raise UserError(
            "cannot be laid on a grid of metres", "give data.regrid EPSG:CODE of its place", file=path, field="regrid", value=str(crs)[:60]
        )
    side = math.sqrt(area / (dataset.width * dataset.height))
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    width, height = (max(1, math.ceil(length / side - _SAME_SIZE)) for length in (right - left, top - bottom))
    metres = crs.linear_units_factor[1]
    return Grid(crs, Affine(side, 0, left, 0, -side, top), width, height, (side * metres, side * metres))
