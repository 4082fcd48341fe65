"""The data module end to end on small GeoTIFFs: contract, streams, shards, bad input."""

import csv
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from datamodules import cli
from datamodules.batch import validate_batch
from datamodules.classes import IGNORE
from datamodules.errors import UserError, one_line
from datamodules.landslide import LandslideDataModule
from datamodules.scene import COLUMNS, fingerprint, read_scenes, write_manifest
from datamodules.windows import stack

UTM = "EPSG:32648"
ORIGIN = 500000.0, 4000000.0
TENSORS = "image", "dem", "mask", "pixel_size"
THREE = list(enumerate(("train", "val", "test")))


def write(path, array, *, pixel=2.0, origin=ORIGIN, crs=UTM, nodata=None, **options):
    array = np.asarray(array)
    array = array if array.ndim == 3 else array[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = options.pop("transform", Affine(pixel, 0, origin[0], 0, -pixel, origin[1]))
    profile = {"driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata, **options) as file:
        file.write(array)


def manifest(root, rows):
    with (root / "scenes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def make_scene(root, name, height=70, width=90, seed=0, **image_options):
    """Random image, a tilted plane on an 8 m grid 10 pixels wider than the image, one square landslide in the upper left."""
    generator = np.random.default_rng(seed)
    write(root / name / "image.tif", generator.integers(1, 255, (3, height, width), dtype=np.uint8), **image_options)
    rows, columns = height // 4 + 20, width // 4 + 20
    x = ORIGIN[0] - 80 + 8 * (np.arange(columns) + 0.5)
    y = ORIGIN[1] + 80 - 8 * (np.arange(rows) + 0.5)
    plane = 0.3 * (x - ORIGIN[0])[None] + 0.4 * (y - ORIGIN[1])[:, None] + 1000
    write(root / name / "dem.tif", plane.astype(np.float32), pixel=8.0, origin=(ORIGIN[0] - 80, ORIGIN[1] + 80), nodata=-9999)
    label = np.zeros((height, width), dtype=np.uint8)
    label[:16, :16] = 1
    write(root / name / "label.tif", label)
    return [name, f"{name}/image.tif", f"{name}/dem.tif", f"{name}/label.tif"]


@pytest.fixture
def root(tmp_path):
    rows = [[*make_scene(tmp_path, f"s{k}", seed=k), split, "r"] for k, split in enumerate(("train", "train", "val", "test"))]
    manifest(tmp_path, rows)
    return tmp_path


def data_of(root, **options):
    return LandslideDataModule(str(root), **{"tile_size": 32, "batch_size": 4, "seed": 3, **options})


def stream(data, epoch=0):
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def equal(one, other):
    return len(one) == len(other) and all(
        a["tile"] == b["tile"]
        and all(torch.equal(a[key].nan_to_num(-1), b[key].nan_to_num(-1)) for key in ("image", "dem", "mask", "pixel_size"))
        for a, b in zip(one, other, strict=True)
    )


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


@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_does_not_depend_on_workers(root, workers):
    assert equal(stream(data_of(root)), stream(data_of(root, num_workers=workers)))


def test_the_stream_depends_on_seed_and_epoch_alone(root):
    first = stream(data_of(root))
    assert equal(first, stream(data_of(root)))
    assert equal(first, stream(data_of(root, cache_mb=0)))
    assert not equal(first, stream(data_of(root, seed=4)))
    assert not equal(first, stream(data_of(root), epoch=1))


def test_seed_everything_governs_without_a_seed(root):
    streams = []
    for seed in (1, 1, 2):
        L.seed_everything(seed, verbose=False)
        streams.append(stream(data_of(root, seed=None)))
    assert equal(streams[0], streams[1])
    assert not equal(streams[0], streams[2])


def test_training_windows_lie_at_many_offsets_within_the_scene(root):
    data = data_of(root, geometry=False, colour=False, samples_per_epoch=64)
    places = {tuple(map(int, tile.split(":")[1:])) for batch in stream(data) for tile in batch["tile"]}
    assert len(places) > 30
    assert all(0 <= row <= 70 - 32 and 0 <= column <= 90 - 32 for row, column in places)


def test_landslide_share_reaches_the_masks(root):
    data = data_of(root, geometry=False, colour=False, train_stride=32, samples_per_epoch=64, landslide_share=0.5)
    data.setup("fit")
    loader = data.train_dataloader()
    landslide = data._windows["train"].landslide >= 0.005
    windows, _ = loader.sampler.order(0)
    assert landslide[windows].mean() == 0.5


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


def test_the_folder_layout_gives_one_window_a_file_and_no_jitter(tmp_path):
    for split in ("train", "val", "test"):
        for k in range(2):
            write(tmp_path / split / "images" / f"{k}.tif", np.full((3, 32, 32), 9, dtype=np.uint8))
            write(tmp_path / split / "dem" / f"{k}.tif", np.zeros((32, 32), dtype=np.float32))
            write(tmp_path / split / "masks" / f"{k}.tif", np.eye(32, dtype=np.uint8))
    data = data_of(tmp_path, geometry=False, colour=False)
    batches = stream(data)
    assert sorted(tile for batch in batches for tile in batch["tile"]) == ["train/0:0:0"] * 2 + ["train/1:0:0"] * 2
    assert cli.main(["index", str(tmp_path)]) == 0
    assert [scene.name for scene in read_scenes(tmp_path)] == [scene.name for scene in data.scenes]


def test_the_fingerprint_follows_the_contents_and_not_the_place(root, tmp_path_factory):
    scenes = read_scenes(root)
    before = fingerprint(scenes)
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    root.rename(moved)
    assert fingerprint(read_scenes(moved)) == before
    with rasterio.open(moved / "s0/label.tif", "r+") as file:
        label = file.read(1)
        label[5, 5] = 0
        file.write(label, 1)
    assert fingerprint(read_scenes(moved)) != before


def test_a_written_manifest_reads_back(root):
    scenes = read_scenes(root)
    (root / "sub").mkdir()
    write_manifest(scenes, root / "sub" / "scenes.csv")
    again = read_scenes(root / "sub")
    assert [(s.name, s.image.resolve(), s.split, s.region) for s in again] == [
        (s.name, s.image.resolve(), s.split, s.region) for s in scenes
    ]


def test_readers_survive_pickling(root):
    data = data_of(root)
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    again = pickle.loads(pickle.dumps(dataset))
    assert equal([stack([again[0, 5]])], [stack([dataset[0, 5]])])


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


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def image_of(root, bands=3, **options):
    write(root / "s0/image.tif", np.ones((bands, 70, 90), dtype=np.uint8), **options)


def label_of(root, value, dtype=np.uint8, **options):
    write(root / "s0/label.tif", np.full((70, 90), value, dtype=dtype), **options)


def dem_of(root, value, **options):
    write(root / "s0/dem.tif", np.full((70, 90), value, dtype=np.float32), **options)


def edit(root, old, new, count=-1):
    path = root / "scenes.csv"
    path.write_text(path.read_text().replace(old, new, count))


DEGREES = Affine(1e-5, 0, 105, 0, -1e-5, 36)
ROTATED = Affine(2, 0.5, ORIGIN[0], 0.5, -2, ORIGIN[1])
# Mistake: how to make it, and words that the message must hold.
MISTAKES = {
    "missing file": (lambda root: (root / "s0/dem.tif").unlink(), ["scenes.csv", "dem", "s0/dem.tif", "does not exist"]),
    "truncated image": (lambda root: truncate(root / "s0/image.tif"), ["image.tif", "truncated"]),
    "truncated dem": (lambda root: truncate(root / "s0/dem.tif"), ["dem.tif", "truncated"]),
    "truncated label": (lambda root: truncate(root / "s0/label.tif"), ["label.tif", "truncated"]),
    "no raster": (lambda root: (root / "s0/image.tif").write_text("hello"), ["image.tif", "cannot be opened"]),
    "label elsewhere": (lambda root: label_of(root, 0, origin=(700000.0, 4000000.0)), ["label.tif", "does not overlap"]),
    "dem without crs": (lambda root: dem_of(root, 0, crs=None), ["dem.tif", "crs", "no coordinate system"]),
    "four bands": (lambda root: image_of(root, 4, photometric="MINISBLACK"), ["image.tif", "image_channels = 3", "4 bands"]),
    "label values": (lambda root: label_of(root, 7), ["label.tif", "7", "0 (background), 1 (landslide) or 255"]),
    "wide label values": (lambda root: label_of(root, 256, np.int16), ["label.tif", "256"]),
    "dem all nodata": (
        lambda root: dem_of(root, -9999, nodata=-9999),
        ["dem.tif", "nodata", "no data anywhere", "leave the dem column empty"],
    ),
    "degrees": (lambda root: image_of(root, crs="EPSG:4326", transform=DEGREES), ["image.tif", "degrees"]),
    "rotated": (lambda root: image_of(root, transform=ROTATED), ["image.tif", "rotated"]),
    "empty split": (lambda root: edit(root, ",val,", ",train,"), ["split = 'val'", "no scene"]),
    "unknown split": (lambda root: edit(root, ",val,", ",dev,"), ["scenes.csv", "split = 'dev'"]),
    "missing column": (lambda root: edit(root, "label", "mask", 1), ["scenes.csv", "label", "column is missing"]),
    "twice the same name": (lambda root: edit(root, "s1,", "s0,", 1), ["scenes.csv", "scene = 's0'", "more than once"]),
}


def spoil(root, what):
    """Make one mistake; returns words that the message must hold."""
    mistake, words = MISTAKES[what]
    mistake(root)
    return words


@pytest.mark.parametrize("cache_mb", [0, 64])
@pytest.mark.parametrize("what", MISTAKES)
def test_bad_input_is_one_line_that_says_what_to_do(root, what, cache_mb):
    words = spoil(root, what)
    with pytest.raises(UserError) as caught:
        data_of(root, cache_mb=cache_mb).setup()
    message = one_line(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in str(caught.value)
    assert ";" in message  # a remedy follows


@pytest.mark.parametrize("what", [what for what in MISTAKES if what not in ("four bands", "empty split")])
def test_describe_refuses_bad_input_with_exit_code_1(root, what, capsys):
    words = spoil(root, what)
    from datamodules.errors import exit_with

    with pytest.raises(SystemExit) as left:
        exit_with(cli.main, ["describe", str(root)])
    assert left.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words if not word.startswith("image_channels")), error


@pytest.mark.slow
def test_the_command_line_has_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "datamodules", "describe", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parents[1],
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr
    assert "zoo-data synthesize" in done.stderr


def test_a_file_damaged_after_setup_is_one_line_from_a_worker(root):
    data = data_of(root, cache_mb=0, num_workers=1)
    data.setup("fit")
    (root / "s0/image.tif").unlink()
    (root / "s1/image.tif").unlink()
    with pytest.raises(UserError) as caught:
        list(data.train_dataloader())
    assert "image.tif" in one_line(caught.value)
    assert "Traceback" not in one_line(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tile_size", 0),
        ("batch_size", 0),
        ("landslide_share", 1.5),
        ("scale", 0.9),
        ("halo", -1),
        ("samples_per_epoch", 0),
        ("train_stride", 0),
    ],
)
def test_senseless_options_are_refused_at_once(option, value):
    with pytest.raises(UserError, match=f"data.{option}") as caught:
        LandslideDataModule("x", **{option: value})
    assert caught.value.exit_code == 2


def test_describe_counts_what_is_there(root, capsys):
    assert cli.main(["describe", str(root), "--tile-size", "32", "--by-scene"]) == 0
    text = capsys.readouterr().out
    assert "s3" in text
    assert f"{100 * 256 / (70 * 90):.2f} %" in text
    assert f"{2 * 70 * 90 * 4 / 1e6:.2f}" in text  # km2 of the training scenes


@pytest.mark.slow
@pytest.mark.realdata
def test_mars_tiles():
    if not os.environ.get("LANDSLIDE_DATA"):
        pytest.skip("LANDSLIDE_DATA is not set")
    data = LandslideDataModule(str(Path(os.environ["LANDSLIDE_DATA"]) / "mars_mmls"), batch_size=8, seed=0)
    data.setup()
    summary = data.summary()
    # The figures of the data set's own README.
    assert {split: part.scenes for split, part in summary.items()} == {"train": 228, "val": 54, "test": 84}
    assert [round(summary[split].prevalence, 3) for split in ("train", "val", "test")] == [0.374, 0.330, 0.303]
    assert summary["train"].km2 == pytest.approx(228 * 128**2 * 0.232**2, rel=1e-6)
    batch = next(iter(data.train_dataloader()))
    validate_batch(batch)
    assert ((batch["pixel_size"] > 232 / 1.11) & (batch["pixel_size"] < 232 / 0.89)).all()


@pytest.mark.realdata
def test_mars_scenes_with_holes_count_each_valid_pixel_once(tmp_path):
    if not os.environ.get("LANDSLIDE_DATA"):
        pytest.skip("LANDSLIDE_DATA is not set")
    folder = Path(os.environ["LANDSLIDE_DATA"]) / "mars_scenes"
    rows = []
    for name, split in (("scene_full", "train"), ("scene_val_holes", "val"), ("scene_test_holes", "test")):
        rows.append([name, *(os.path.relpath(folder / name / f"{part}.tif", tmp_path) for part in ("rgb", "dem", "mask")), split, ""])
    manifest(tmp_path, rows)
    data = LandslideDataModule(str(tmp_path), seed=0, cache_mb=0)
    data.setup("test")
    counts = torch.zeros(256, dtype=torch.int64)
    for batch in data.test_dataloader():
        validate_batch(batch)
        counts += torch.bincount(batch["mask"].flatten().long(), minlength=256)
    with rasterio.open(folder / "scene_test_holes" / "mask.tif") as file:
        expected = np.bincount(file.read(1).ravel(), minlength=256)
    assert counts[:2].tolist() == expected[:2].tolist()


class Recorder(L.LightningModule):
    """Writes down which windows come."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.tiles = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch, _):
        self.tiles["train"].append((self.current_epoch, tuple(batch["tile"]), float(batch["image"].nan_to_num().sum())))
        return self.weight * 0

    def validation_step(self, batch, _):
        self.tiles["val"] += batch["tile"]

    def test_step(self, batch, batch_idx):
        self.tiles["test"] += batch["tile"]

    def predict_step(self, batch, _):
        self.tiles["predict"] += batch["tile"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(root, **trainer_options):
    module, data = Recorder(), data_of(root)
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    trainer = L.Trainer(**silent, use_distributed_sampler=False, **trainer_options)
    trainer.fit(module, datamodule=data, **({"ckpt_path": trainer_options.get("ckpt")} if "ckpt" in trainer_options else {}))
    return trainer, module, data


def test_lightning_gives_each_epoch_its_own_order_and_every_evaluation_window(root):
    trainer, module, data = trained(root, max_epochs=2, enable_checkpointing=False)
    epochs = [[entry[1:] for entry in module.tiles["train"] if entry[0] == epoch] for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    for epoch in (0, 1):
        assert [entry[0] for entry in epochs[epoch]] == [tuple(batch["tile"]) for batch in stream(data_of(root), epoch)]
    trainer.test(module, datamodule=data, verbose=False)
    trainer.predict(module, datamodule=data)
    every = [f"s3:{row}:{column}" for row in (0, 32, 38) for column in (0, 32, 58)]
    assert module.tiles["test"] == every
    assert module.tiles["predict"] == every
