"""Real image and elevation files: nodata in every form, units, sentinels, grids in degrees and rotated, and no georeference at all."""

import math

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.warp import transform

from datamodules.errors import UserError
from datamodules.overrides import Overrides, read_overrides
from datamodules.reading import SceneReader
from datamodules.scene import COLUMNS, Scene, fingerprint, read_manifest, write_manifest

UTM = "EPSG:32648"
NORTH_UP = Affine(2, 0, 500000, 0, -2, 4000000)


def write(path, array, *, crs=UTM, transform=NORTH_UP, alpha=None, mask=None, **options):
    array = np.asarray(array)
    array = array if array.ndim == 3 else array[None]
    profile = {"driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    options.setdefault("photometric", "MINISBLACK")  # GDAL's default for four bytes a pixel is RGBA
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile, crs=crs, transform=transform, **options) as file:
        if alpha is not None:
            file.colorinterp = [ColorInterp.alpha if band == alpha else ColorInterp.gray for band in range(1, len(array) + 1)]
        file.write(array)
        if mask is not None:
            file.write_mask(mask)
    return path


def reader_of(image, dem=None, label=None, **stated):
    return SceneReader(Scene("s", image, dem, label, "predict", overrides=Overrides(**stated)), None, 0, "cubic")


def layers_of(*files, **stated):
    reader = reader_of(*files, **stated)
    layers = reader.layers(0, 0, reader.grid.height, reader.grid.width)
    reader.close()
    return layers


def holes(height=30, width=40):
    gone = np.zeros((height, width), dtype=bool)
    gone[:7, 5:] = gone[20:23, 3:9] = True
    return gone


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 3, 4, 8])
@pytest.mark.parametrize("way", ["tag", "stated", "alpha", "mask"])
def test_missing_pixels_of_any_image_are_found_and_are_no_others(tmp_path, dtype, bands, way):
    gone = holes()
    values = np.random.default_rng(bands).integers(1, 100, (bands, *gone.shape)).astype(dtype)
    values[:, gone] = 0
    stated, options = {}, {}
    if way == "tag":
        options["nodata"] = 0
    elif way == "stated":
        stated, options = {"image_nodata": 0.0}, {"nodata": 77}  # a wrong tag, whose value is a measurement
        values[:, 15, 15] = 77
    elif way == "alpha":
        values = np.concatenate([values, np.where(gone, 0, 200)[None].astype(dtype)])
        options["alpha"] = bands + 1
    else:
        options["mask"] = ~gone
    layers = layers_of(write(tmp_path / "i.tif", values, **options), **stated)
    assert layers.image.shape == (*gone.shape, bands)
    assert np.array_equal(layers.mask == 254, gone)
    assert np.array_equal(layers.image[~gone], values[:bands, ~gone].T)


def test_a_wrong_tag_is_switched_off_and_a_value_of_another_type_refused(tmp_path):
    values = np.zeros((3, 30, 40), dtype=np.uint8)
    image = write(tmp_path / "i.tif", values, nodata=0)
    assert (layers_of(image).mask == 254).all()
    assert (layers_of(image, image_nodata="none").mask != 254).all()
    with pytest.raises(UserError, match="image_nodata.*-9999.*uint8"):
        reader_of(image, image_nodata=-9999.0)


def test_nodata_in_one_band_counts_unless_it_may_be_a_colour(tmp_path):
    for dtype, missing in (("uint8", 0), ("int16", 1), ("float32", 1)):
        values = np.ones((3, 30, 40), dtype=dtype)
        values[1, 4, 4] = 0
        assert (layers_of(write(tmp_path / "i.tif", values, nodata=0)).mask == 254).sum() == missing


def test_untagged_huge_values_of_an_image_are_refused_and_mended(tmp_path):
    values = np.ones((2, 30, 40), dtype=np.float32)
    values[1, 4, 4:6] = -3.4028235e38
    image = write(tmp_path / "i.tif", values)
    with pytest.raises(UserError, match=r"2 values.*image_nodata = -3\.4028235e\+38"):
        layers_of(image)
    assert (layers_of(image, image_nodata=-3.4028235e38).mask == 254).sum() == 2


PLANE = (1000 + np.add.outer(np.arange(30) * 0.5, np.arange(40) * 0.25)).astype(np.float64)


@pytest.mark.parametrize(("unit", "factor"), [("m", 1), ("ft", 0.3048), ("us-ft", 1200 / 3937), ("dm", 0.1), ("cm", 0.01), ("0.5", 0.5)])
def test_units_become_metres(tmp_path, unit, factor):
    image = write(tmp_path / "i.tif", np.ones((1, 30, 40), np.uint8))
    dem = write(tmp_path / "d.tif", (PLANE / factor).astype(np.float32))
    assert np.allclose(layers_of(image, dem, dem_unit=unit).dem, PLANE, atol=2e-4)


def test_the_file_states_its_unit_scale_and_mask(tmp_path):
    image = write(tmp_path / "i.tif", np.ones((1, 30, 40), np.uint8))
    gone = holes()
    dem = write(tmp_path / "d.tif", np.where(gone, 0, np.round(PLANE * 10 - 5000)).astype(np.int16), mask=~gone)
    with rasterio.open(dem, "r+") as file:
        file.scales, file.offsets = (0.1,), (500,)
    read = layers_of(image, dem).dem
    assert np.array_equal(np.isnan(read), gone)
    assert np.abs(read - PLANE)[~gone].max() <= 0.051
    with rasterio.open(dem, "r+") as file:
        file.units = ("US survey foot",)
    assert np.abs(layers_of(image, dem).dem - PLANE * 1200 / 3937)[~gone].max() <= 0.051
    with rasterio.open(dem, "r+") as file:
        file.units = ("fathom",)
    with pytest.raises(UserError, match="unit = 'fathom'.*dem_unit"):
        layers_of(image, dem)


@pytest.mark.parametrize("pixel", [2.0, 5.0])  # on the grid of the image, and warped onto it
@pytest.mark.parametrize(
    ("dtype", "sentinel", "stated"),
    [
        ("float32", -3.4028234663852886e38, "-3.4028235e+38"),
        ("float32", -9999, "-9999.0"),
        ("int16", -32768, "-32768"),
        ("uint16", 65535, "65535"),
    ],
)
def test_sentinels_are_refused_by_name_and_mended_by_the_remedy(tmp_path, dtype, sentinel, stated, pixel):
    image = write(tmp_path / "i.tif", np.ones((1, 30, 40), np.uint8))
    heights = np.full((30, 40), 1500, dtype=dtype)
    heights[3, 3:8] = sentinel
    dem = write(tmp_path / "d.tif", heights, transform=Affine(pixel, 0, 500000, 0, -pixel, 4000000))
    with pytest.raises(UserError) as caught:
        layers_of(image, dem)
    message = str(caught.value)
    assert "d.tif" in message
    assert f"5 pixels hold {stated}" in message
    assert f"dem_nodata = {stated}" in message
    read = layers_of(image, dem, dem_nodata=float(stated)).dem
    assert np.isnan(read).any()
    assert np.allclose(read[~np.isnan(read)], 1500, atol=1e-2)


def test_impossible_heights_count_after_the_unit_and_true_ones_can_be_vouched_for(tmp_path):
    image = write(tmp_path / "i.tif", np.ones((1, 30, 40), np.uint8))
    high = write(tmp_path / "d.tif", np.full((30, 40), 26000, np.float32))
    with pytest.raises(UserError, match="dem_unit"):
        layers_of(image, high)
    assert np.allclose(layers_of(image, high, dem_unit="ft").dem, 26000 * 0.3048)
    deep = write(tmp_path / "e.tif", np.full((30, 40), -9999, np.float32))
    assert np.allclose(layers_of(image, deep, dem_nodata="none").dem, -9999)


def rotated(degrees, pixel):
    return Affine.translation(500000, 4000000) @ Affine.rotation(degrees) @ Affine.scale(pixel, -pixel)


@pytest.mark.parametrize("case", ["degrees", "rotated", "south up", "web mercator"])
def test_regrid_shows_each_place_where_it_was(tmp_path, case):
    """The image holds metres east and north of a point; read on the new grid, its values must agree with the coordinates of the pixels."""
    crs, at = {
        "degrees": ("EPSG:4326", Affine(3e-4, 0, 105.0, 0, -2e-4, 36.1)),
        "rotated": (UTM, rotated(25, 20.0)),
        "south up": (UTM, Affine(20, 0, 500000, 0, 20, 4000000)),
        "web mercator": ("EPSG:3857", Affine(30, 0, 11688546, 0, -30, 4300621)),
    }[case]
    columns, rows = np.meshgrid(np.arange(60) + 0.5, np.arange(50) + 0.5)
    x, y = at.a * columns + at.b * rows + at.c, at.d * columns + at.e * rows + at.f
    east, north = (np.reshape(part, x.shape) for part in transform(crs, UTM, x.ravel(), y.ravel()))
    values = np.stack([east - 500000, north - 3990000]).astype(np.float32)
    gone = holes(50, 60)
    values[:, gone] = -9999
    image = write(tmp_path / "i.tif", values, crs=crs, transform=at, nodata=-9999)
    with pytest.raises(UserError, match=r"data\.regrid.*reproject"):
        reader_of(image)
    reader = reader_of(image, regrid="reproject")
    grid = reader.grid
    assert grid.pixel_size[0] == pytest.approx(grid.pixel_size[1])
    assert not grid.transform.b
    assert grid.transform.e < 0 < grid.transform.a
    layers = reader.layers(0, 0, grid.height, grid.width)
    known = layers.mask != 254
    assert known.sum() * math.prod(grid.pixel_size) == pytest.approx((~gone).sum() * abs(ground_pixel(east, north)), rel=0.03)
    at = grid.transform
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    expected = np.stack(transform(grid.crs, UTM, (at.c + at.a * columns)[known], (at.f + at.e * rows)[known]), axis=1)
    error = np.abs(layers.image[known] - (expected - [500000, 3990000]))
    assert np.median(error) < 0.03 * grid.pixel_size[0]
    assert error.max() < 1.1 * grid.pixel_size[0]  # beside holes and edges, bilinear leans on the side that has data


def ground_pixel(east, north):
    """Mean area of a pixel, from the diagonals of the centres' quadrilateral."""
    one, other = (np.array([east[a] - east[b], north[a] - north[b]]) for a, b in (((-1, -1), (0, 0)), ((0, -1), (-1, 0))))
    return 0.5 * (one[0] * other[1] - one[1] * other[0]) / (49 * 59)


def test_scenes_of_one_system_ask_proj_once(tmp_path, monkeypatch):
    # A system of another planet takes PROJ .2 s, which 366 tiles of Mars made a minute of every run.
    image = write(tmp_path / "i.tif", np.ones((8, 8), np.uint8), crs="EPSG:32642")
    asked, from_crs = [], pyproj.Transformer.from_crs
    monkeypatch.setattr(pyproj.Transformer, "from_crs", lambda *systems, **options: asked.append(systems) or from_crs(*systems, **options))
    grids = {reader_of(image).grid for _ in range(5)}
    assert len(grids) == 1
    assert len(asked) <= 1


@pytest.mark.parametrize("kind", ["nodata", "alpha"])
def test_regrid_never_mixes_what_is_missing_into_values(tmp_path, kind):
    gone = holes(50, 60)
    values = np.where(gone, 0, 100).astype(np.uint8)
    bands = np.stack([values] * 3 + ([np.where(gone, 0, 255).astype(np.uint8)] if kind == "alpha" else []))
    options = {"alpha": 4} if kind == "alpha" else {"nodata": 0}
    layers = layers_of(write(tmp_path / "i.tif", bands, transform=rotated(25, 20.0), **options), regrid="reproject")
    known = layers.mask != 254
    assert layers.image.shape[2] == 3
    assert known.any()
    assert (layers.image[known] == 100).all()


def test_a_stated_system_is_used(tmp_path):
    image = write(tmp_path / "i.tif", np.ones((1, 30, 40), np.uint8), crs="EPSG:4326", transform=Affine(3e-4, 0, 107.9, 0, -2e-4, 36.1))
    assert reader_of(image, regrid="reproject").grid.crs == "EPSG:32648"
    assert reader_of(image, regrid="EPSG:32649").grid.crs == "EPSG:32649"


def test_files_without_georeference_are_laid_on_each_other_pixel_by_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 30, 40), dtype=np.uint8)
    image = tmp_path / "i.png"
    with rasterio.open(image, "w", driver="PNG", count=3, height=30, width=40, dtype="uint8") as file:
        file.write(pixels)
    dem = write(tmp_path / "d.tif", PLANE.astype(np.float32), crs=None, transform=Affine.identity())
    with pytest.raises(UserError, match="i.png.*resolution_m"):
        reader_of(image, dem)
    reader = reader_of(image, dem, resolution_m=0.8)
    layers = reader.layers(0, 0, 30, 40)
    assert reader.grid.pixel_size == (0.8, 0.8) == reader.dem_pixel_size_m
    assert not reader.grid.placed
    assert np.array_equal(layers.image, pixels.transpose(1, 2, 0))
    assert np.allclose(layers.dem, PLANE)
    assert reader_of(image, resolution_m=0.8).grid == reader.grid
    small = write(tmp_path / "small.tif", PLANE[:20].astype(np.float32), crs=None, transform=Affine.identity())
    with pytest.raises(UserError, match="another size"):
        reader_of(image, small, resolution_m=0.8)
    placed = write(tmp_path / "placed.tif", PLANE.astype(np.float32))
    with pytest.raises(UserError, match="has a place on the map, the image has none"):
        reader_of(image, placed, resolution_m=0.8)
    bare = write(tmp_path / "bare.tif", pixels, crs=None)
    aside = write(tmp_path / "aside.tif", PLANE.astype(np.float32), crs=None, transform=Affine(2, 0, 500010, 0, -2, 4000000))
    with pytest.raises(UserError, match="another geotransform"):
        reader_of(bare, aside, resolution_m=2.0)
    (tmp_path / "cut.png").write_bytes(image.read_bytes()[:-40])
    with pytest.raises(UserError, match="truncated"):
        reader_of(tmp_path / "cut.png", resolution_m=0.8)


def test_a_stated_resolution_must_not_contradict_the_file(tmp_path):
    image = write(tmp_path / "i.tif", np.ones((1, 30, 40), np.uint8))
    assert reader_of(image, resolution_m=2.0).grid.pixel_size == (2.0, 2.0)
    with pytest.raises(UserError, match=r"resolution_m = 0\.8: the file's georeference says 2 x 2 m"):
        reader_of(image, resolution_m=0.8)


def test_optional_columns_read_back_and_count_in_the_fingerprint(tmp_path):
    image = write(tmp_path / "i.tif", np.ones((1, 30, 40), np.uint8))
    stated = Overrides(image_nodata="none", dem_nodata=-3.4028235e38, dem_unit="us-ft", resolution_m=2.0, regrid="EPSG:32648")
    scenes = [Scene("a", image, None, None, "predict", overrides=stated), Scene("b", image, None, None, "predict")]
    write_manifest(scenes, tmp_path / "scenes.csv")
    again = read_manifest(tmp_path / "scenes.csv")
    assert [scene.overrides for scene in again] == [stated, Overrides()]
    assert fingerprint(again) == fingerprint(scenes)
    plain = [Scene(scene.name, image, None, None, "predict") for scene in scenes]
    assert fingerprint(plain) != fingerprint(scenes)
    write_manifest(plain, tmp_path / "plain.csv")
    assert (tmp_path / "plain.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image_nodata", "black"),
        ("dem_unit", "yards"),
        ("dem_unit", "-1"),
        ("resolution_m", "0"),
        ("resolution_m", "nan"),
        ("regrid", "EPSG:4326"),
    ],
)
def test_senseless_statements_name_column_and_value(tmp_path, column, value):
    with pytest.raises(UserError, match=f"scenes.csv: {column} = '{value}'.*line 7"):
        read_overrides({column: value}, tmp_path / "scenes.csv", 7)
