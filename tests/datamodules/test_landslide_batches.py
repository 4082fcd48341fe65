"""Batches of the data module hold what the files hold: image, elevation, labels, no data."""

import math

import numpy as np
import pytest
import rasterio
import torch
from rasterio.crs import CRS

from datamodules.batch import validate_batch
from datamodules.classes import IGNORE
from tests.datamodules.landslide_scenes import ORIGIN, THREE, UTM, data_of, make_scene, manifest, write


@pytest.mark.parametrize("cache_mb", [0, 64])
@pytest.mark.parametrize("halo", [0, 1, 3])
def test_every_batch_keeps_the_contract(root, cache_mb, halo):
    data = data_of(root, cache_mb=cache_mb, halo=halo)
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        for batch in loader:
            validate_batch(batch)
            assert batch["image"].shape[1:] == (3, 32, 32)
            assert batch["dem"].shape[1:] == (1, 32 + 2 * halo, 32 + 2 * halo)
            assert batch["image"].is_contiguous()


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_evaluation_counts_every_pixel_once_and_shows_the_files(root, cache_mb):
    data = data_of(root, cache_mb=cache_mb)
    data.setup("test")
    with rasterio.open(root / "s3/image.tif") as file:
        image = file.read()
    with rasterio.open(root / "s3/label.tif") as file:
        label = file.read(1)
    counted = np.zeros(label.shape, dtype=int)
    for batch in data.test_dataloader():
        for tile, pixels, mask in zip(batch["tile"], batch["image"], batch["mask"], strict=True):
            row, column = map(int, tile.split(":")[1:])
            assert np.array_equal(pixels.numpy(), image[:, row : row + 32, column : column + 32])
            here = counted[row : row + 32, column : column + 32]
            valid = mask.numpy() != IGNORE
            here += valid
            assert np.array_equal(mask.numpy()[valid], label[row : row + 32, column : column + 32][valid])
    assert (counted == 1).all()


def test_the_dem_has_its_analytic_heights_on_the_image_grid_and_in_the_halo(root):
    data = data_of(root, halo=2, cache_mb=0)
    data.setup("test")
    for batch in data.test_dataloader():
        for tile, dem in zip(batch["tile"], batch["dem"], strict=True):
            row, column = map(int, tile.split(":")[1:])
            x = 2 * (np.arange(column - 2, column + 34) + 0.5)
            y = -2 * (np.arange(row - 2, row + 34) + 0.5)
            # Also beyond the image's edge, where the elevation model goes on.
            np.testing.assert_allclose(dem[0].numpy(), 0.3 * x[None] + 0.4 * y[:, None] + 1000, atol=2e-3)


def test_a_scene_smaller_than_a_window_is_padded(tmp_path):
    rows = [[*make_scene(tmp_path, f"s{k}", 20, 50, seed=k), split, ""] for k, split in THREE]
    manifest(tmp_path, rows)
    data = data_of(tmp_path, batch_size=1)
    data.setup()
    seen = 0
    for batch in data.test_dataloader():
        validate_batch(batch)
        assert (batch["mask"][:, 20:] == IGNORE).all()
        assert batch["image"][:, :, 20:].isnan().all()
        assert not batch["image"][:, :, :20].isnan().any()
        seen += int((batch["mask"] != IGNORE).sum())
    assert seen == 20 * 50
    for batch in data.train_dataloader():
        validate_batch(batch)


def test_image_nodata_is_nan_and_ignored(tmp_path):
    rows = []
    for k, split in THREE:
        rows.append([*make_scene(tmp_path, f"s{k}", seed=k), split, ""])
        with rasterio.open(tmp_path / f"s{k}/image.tif") as file:
            image = file.read()
        image[:, 30:40] = 0
        write(tmp_path / f"s{k}/image.tif", image, nodata=0)
    manifest(tmp_path, rows)
    for cache_mb in (0, 64):
        data = data_of(tmp_path, cache_mb=cache_mb)
        data.setup()
        for batch in data.test_dataloader():
            for tile, image, mask in zip(batch["tile"], batch["image"], batch["mask"], strict=True):
                rows_here = torch.arange(32) + int(tile.split(":")[1])
                gap = (rows_here >= 30) & (rows_here < 40)
                assert image[:, gap].isnan().all()
                assert not image[:, ~gap].isnan().any()
                assert (mask[gap] == IGNORE).all()
        for batch in data.train_dataloader():
            # No blend of nodata and image survives the interpolation: the darkest real value is 1.
            assert float(batch["image"].nan_to_num(255).min()) >= 0
            assert (batch["mask"][batch["image"].isnan().any(1)] == IGNORE).all()
        # 10 of 70 rows have no image, 256 pixels of the others are landslide.
        assert data.summary()["test"].prevalence == pytest.approx(256 / (60 * 90), rel=1e-5)
        assert data.summary()["test"].km2 == pytest.approx(60 * 90 * 4 / 1e6, rel=1e-5)


def test_statistics_are_those_of_numpy(root):
    data = data_of(root)
    data.setup("fit")
    pixels = []
    for name in ("s0", "s1"):
        with rasterio.open(root / name / "image.tif") as file:
            pixels.append(file.read().reshape(3, -1).astype(np.float64))
    joined = np.concatenate(pixels, axis=1)
    np.testing.assert_allclose(data.statistics.image_mean, joined.mean(1), rtol=1e-12)
    np.testing.assert_allclose(data.statistics.image_std, joined.std(1), rtol=1e-12)
    assert data.statistics.elevation_std > 0
    assert data.smallest_pixel_m == 2
    assert data.has_dem


def test_a_scene_without_dem_is_nan_everywhere(tmp_path):
    rows = [[*make_scene(tmp_path, f"s{k}", seed=k)[:2], "", f"s{k}/label.tif", split, ""] for k, split in THREE]
    manifest(tmp_path, rows)
    data = data_of(tmp_path)
    data.setup()
    assert not data.has_dem
    assert math.isnan(data.statistics.elevation_mean)
    for loader in (data.train_dataloader(), data.test_dataloader()):
        for batch in loader:
            validate_batch(batch)
            assert batch["dem"].isnan().all()


def test_prediction_needs_no_label(tmp_path, root):
    rows = [[*make_scene(tmp_path, "p")[:3], "", "predict", ""]]
    folder = tmp_path / "predicted"
    folder.mkdir()
    manifest(folder, [[rows[0][0], *(f"../{path}" for path in rows[0][1:3]), "", "predict", ""]])
    data = data_of(folder)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    for batch in batches:
        validate_batch(batch)
        assert (batch["mask"] == IGNORE).all()
        assert not batch["image"].isnan().any()
    assert sum(len(batch["tile"]) for batch in batches) == 9


def test_a_custom_crs_without_code_and_another_crs_for_the_dem(tmp_path):
    """Heights are a quadric of map coordinates in UTM; the model is given on a grid of another projection."""
    mars = CRS.from_wkt(
        'PROJCS["Local",GEOGCS["G",DATUM["D",SPHEROID["S",6378137,298.257223563]],PRIMEM["R",0],UNIT["degree",0.0174532925199433]],'
        'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",36],PARAMETER["central_meridian",105.02],PARAMETER["scale_factor",1],'
        'PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    )
    from rasterio.warp import transform

    rows = []
    for split in ("train", "val", "test"):
        rows.append([*make_scene(tmp_path, split), split, ""])
        xs, ys = transform(UTM, mars, [ORIGIN[0] + 90], [ORIGIN[1] - 70])
        left, top = xs[0] - 400, ys[0] + 400
        column, row = np.meshgrid(left + 5 * (np.arange(160) + 0.5), top - 5 * (np.arange(160) + 0.5))
        x, y = (np.array(v).reshape(160, 160) for v in transform(mars, UTM, column.ravel(), row.ravel()))
        write(tmp_path / split / "dem.tif", quadric(x, y).astype(np.float32), pixel=5.0, origin=(left, top), crs=mars, nodata=-9999)
    manifest(tmp_path, rows)
    for resampling, tolerance in (("cubic", 0.02), ("bilinear", 0.12)):
        data = data_of(tmp_path, dem_resampling=resampling)
        data.setup("test")
        for batch in data.test_dataloader():
            for tile, dem in zip(batch["tile"], batch["dem"], strict=True):
                row, column = map(int, tile.split(":")[1:])
                x = ORIGIN[0] + 2 * (np.arange(column - 1, column + 33) + 0.5)
                y = ORIGIN[1] - 2 * (np.arange(row - 1, row + 33) + 0.5)
                assert np.abs(dem[0].numpy() - quadric(x[None], y[:, None])).max() < tolerance


def quadric(x, y):
    u, v = x - ORIGIN[0] - 90, y - ORIGIN[1] + 70
    return 1200 + 0.2 * u - 0.3 * v + 0.002 * u**2 - 0.001 * u * v + 0.003 * v**2


def test_polygons_are_labels(root):
    pyogrio = pytest.importorskip("pyogrio")
    import shapely

    # 10 x 6 pixels from pixel (row 4, column 8); edges on pixel edges, so that centres decide without doubt.
    box = shapely.box(ORIGIN[0] + 16, ORIGIN[1] - 20, ORIGIN[0] + 36, ORIGIN[1] - 8)
    pyogrio.raw.write(
        root / "s3/label.gpkg",
        geometry=np.array([shapely.to_wkb(box)]),
        field_data=[],
        fields=[],
        geometry_type="Polygon",
        crs=UTM,
        driver="GPKG",
    )
    scenes = [
        [name, f"{name}/image.tif", f"{name}/dem.tif", f"{name}/label.tif", split, ""] for name, split in (("s0", "train"), ("s2", "val"))
    ]
    manifest(root, [*scenes, ["s3", "s3/image.tif", "s3/dem.tif", "s3/label.gpkg", "test", ""]])
    for cache_mb in (0, 64):
        data = data_of(root, tile_size=96, cache_mb=cache_mb)
        data.setup("test")
        mask = next(iter(data.test_dataloader()))["mask"][0]
        expected = torch.full((96, 96), IGNORE, dtype=torch.uint8)
        expected[:70, :90] = 0
        expected[4:10, 8:18] = 1
        assert torch.equal(mask, expected)
