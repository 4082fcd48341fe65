"""Aligned layers hold what the sources give, to the bit, and are made anew when anything that decides it changes, and only then."""

import os
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.enums import ColorInterp

from datamodules import cli
from datamodules.aligned import UNFINISHED, is_whole
from datamodules.aligned_cache import AlignedCache
from datamodules.errors import UserError
from datamodules.label_rules import LabelColumns, LabelRules
from datamodules.landslide import LandslideDataModule
from datamodules.overrides import Overrides
from datamodules.reading import SceneReader
from datamodules.scene import Scene, write_manifest

HEIGHT, WIDTH = 300, 530
MARGIN = 5
UTM = Affine(2, 0, 500000, 0, -2, 4000000)
DEGREES = Affine(2e-5, 0, 105.0, 0, -2e-5, 36.0)
RULES = LabelRules(certainty={"certain": 1.0, "probable": 0.5, "possible": "ignore"}, boundary_ignore_m=5.0)


def write(path, array, transform, crs="EPSG:32648", mask=None, alpha=False, **options):
    array = array if array.ndim == 3 else array[None]
    profile = {"count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name, "crs": crs}
    options = {"driver": "GTiff", "photometric": "MINISBLACK", **options}
    if options["driver"] == "PNG":
        del options["photometric"]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile, transform=transform, **options) as file:
        if alpha:
            file.colorinterp = [*[ColorInterp.gray] * (len(array) - 1), ColorInterp.alpha]
        file.write(array)
        if mask is not None:
            file.write_mask(mask)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A DEM in feet with holes on a rotated grid of 7 m, landslide polygons, and images of each kind."""
    rng = np.random.default_rng(0)
    data = tmp_path_factory.mktemp("made")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    gone = (rows - 280) ** 2 + (columns - 100) ** 2 < 300  # not in the first row of tiles
    bands = rng.integers(1, 200, (4, HEIGHT, WIDTH))
    write(data / "bytes.tif", bands.astype("uint8"), UTM)
    write(data / "words.tif", np.where(gone, 7, bands * 100).astype("uint16"), UTM, nodata=7)
    write(data / "floats.tif", np.where(gone, np.nan, bands / 7).astype("float32"), UTM)
    write(data / "masked.tif", bands[:3].astype("uint8"), UTM, mask=~gone)
    write(data / "degrees.tif", np.concatenate([bands[:3], np.where(gone, 0, 255)[None]]).astype("uint8"), DEGREES, "EPSG:4326", alpha=True)
    write(data / "picture.png", bands[:3].astype("uint8"), UTM, driver="PNG")
    height = 3000 + 40 * np.sin(np.arange(270) / 9)[:, None] + np.arange(270)
    height[70:80, 80:90] = -32768
    turned = Affine.translation(499800, 4000300) @ Affine.rotation(5) @ Affine.scale(7, -7)
    write(data / "feet.tif", height.astype("int16"), turned, nodata=-32768)
    write(data / "dem.tif", np.kron(np.abs(height), np.ones((2, 2))).clip(0, 4000).astype("float32"), UTM)
    corners = np.array([[100, 300, 260, 450], [200, 380, 420, 560], [730, 480, 900, 560], [440, 100, 760, 240]])
    shapes = shapely.box(500000 + corners[:, 0], 4000000 - corners[:, 3], 500000 + corners[:, 2], 4000000 - corners[:, 1])
    names = np.array(["certain", "possible", "probable", "certain"], dtype=object)
    for name in ("slides.gpkg", "slides.shp"):
        pyogrio.raw.write(data / name, shapely.to_wkb(shapes), [names], ["how"], geometry_type="Polygon", crs="EPSG:32648", layer="slides")
    write(data / "codes.tif", rng.choice([0, 1, 2, 255], (HEIGHT // 2, WIDTH // 2)).astype("uint8"), UTM @ Affine.scale(2))
    write(data / "label.tif", (rng.random((HEIGHT, WIDTH)) < 0.3).astype("uint8"), UTM)
    return data


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "data"))


def scene_of(folder, image="bytes.tif", dem="feet.tif", label="slides.gpkg", columns=None, **stated):
    if columns is None:
        columns = LabelColumns(certainty_field="how") if label and label.startswith("slides") else LabelColumns()
    files = [folder / name if name else None for name in (image, dem, label)]
    overrides = Overrides(**({"dem_unit": "ft"} | stated))
    return Scene("s", *files, "train", overrides=overrides, labels=columns)


def cache_at(path, root=Path("nowhere"), *, untiled=False, margin=MARGIN, resampling="cubic", rules=RULES):
    return AlignedCache(path, root, margin=margin, dem_resampling=resampling, rules=rules, untiled=untiled)


SCENES = {
    "drawn and warped": {},
    "four bands": {"image": "words.tif", "dem": "dem.tif", "label": "slides.shp"},
    "floats": {"image": "floats.tif", "label": "label.tif"},
    "mask band": {"image": "masked.tif", "label": "codes.tif", "columns": LabelColumns(landslide_values="1=certain;2=probable")},
    "degrees and alpha": {"image": "degrees.tif", "dem": None, "label": None, "regrid": "reproject"},
    "picture": {"image": "picture.png", "label": None},
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("untiled", [False, True])
def test_windows_are_equal_to_the_bit(folder, tmp_path, name, untiled):
    scene = scene_of(folder, **SCENES[name])
    files = cache_at(tmp_path / "cache", untiled=untiled).files([scene])["s"]
    assert files.image is None or untiled or name == "degrees and alpha"
    plain, aligned = (SceneReader(scene, None, MARGIN, "cubic", RULES, *given) for given in ((), (files,)))
    assert (plain.weighted, plain.dem_pixel_size_m, plain.grid) == (aligned.weighted, aligned.dem_pixel_size_m, aligned.grid)
    height, width = plain.grid.height, plain.grid.width
    rng = np.random.default_rng(1)
    places = [(0, 0, height, width), (height - 90, width - 100, 90, 100)]
    places += [(int(rng.integers(-MARGIN, height - 140)), int(rng.integers(-MARGIN, width - 140)), 140 + MARGIN, 140) for _ in range(6)]
    with closing(plain), closing(aligned):
        for place in places:
            one, other = plain.layers(*place), aligned.layers(*place)
            for layer in ("image", "dem", "mask", "weight"):
                ours, theirs = getattr(one, layer), getattr(other, layer)
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    assert ours.dtype == theirs.dtype
                    np.testing.assert_array_equal(ours, theirs, strict=True)
            wide = (-MARGIN, -MARGIN, height + 2 * MARGIN, width + 2 * MARGIN)
            np.testing.assert_array_equal(plain.dem(*wide), aligned.dem(*wide), strict=True)


def test_only_what_must_be_computed_is_kept_unless_asked(folder, tmp_path):
    def roles(untiled, rules=RULES, **files):
        return {layer.role for layer in cache_at(tmp_path / "cache", untiled=untiled, rules=rules).layers([scene_of(folder, **files)])}

    assert roles(untiled=False) == {"dem", "label"}
    assert roles(untiled=True) == {"image", "dem", "label"}
    on_grid = {"dem": "dem.tif", "label": "label.tif"}
    assert roles(untiled=False, **on_grid) == {"label"}  # boundaries that are ignored are computed
    assert roles(untiled=False, rules=LabelRules(), **on_grid) == set()
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with rasterio.open(folder / "bytes.tif") as file:
        write(folder / "tiles.tif", file.read(), UTM, **tiled)
    assert roles(untiled=True, image="tiles.tif", dem=None, label=None) == set()


def names(cache, scene):
    return {layer.role: layer.path.name for layer in cache.layers([scene])}


STATED = {
    "image_nodata": ({"image_nodata": 3.0}, {"image"}),
    "dem_nodata": ({"dem_nodata": 3001.0}, {"dem"}),
    "dem_unit": ({"dem_unit": "m"}, {"dem"}),
    "certainty_field": ({"columns": LabelColumns()}, {"label"}),
    "label_layer": ({"columns": LabelColumns(certainty_field="how", label_layer="slides")}, {"label"}),
}
SETTINGS = {
    "margin": ({"margin": 6}, {"dem"}),
    "dem_resampling": ({"resampling": "bilinear"}, {"dem"}),
    "all_touched": ({"rules": replace(RULES, all_touched=True)}, {"label"}),
    "boundary_ignore_m": ({"rules": replace(RULES, boundary_ignore_m=7.0)}, {"label"}),
    "certainty": ({"rules": replace(RULES, certainty={"possible": 1, "probable": 0.5, "certain": 1})}, {"label"}),
    "landslide_values": ({"rules": replace(RULES, landslide_values="1;2")}, {"label"}),
    "ignore_values": ({"rules": replace(RULES, ignore_values="3")}, {"label"}),
}


@pytest.mark.parametrize("what", [*STATED, *SETTINGS])
def test_each_setting_changes_the_layers_that_it_decides(folder, tmp_path, what):
    stated, settings = STATED.get(what, ({}, set())), SETTINGS.get(what, ({}, set()))
    before = names(cache_at(tmp_path / "cache", untiled=True), scene_of(folder))
    after = names(cache_at(tmp_path / "cache", untiled=True, **settings[0]), scene_of(folder, **stated[0]))
    assert {role for role in before if before[role] != after[role]} == stated[1] | settings[1]


def test_another_grid_changes_all_layers(folder, tmp_path):
    cache = cache_at(tmp_path / "cache", untiled=True)
    one, other = (names(cache, scene_of(folder, "degrees.tif", None, None, regrid=regrid)) for regrid in ("reproject", "EPSG:32649"))
    assert one.keys() == other.keys() == {"image"}
    assert one["image"] != other["image"]
    with rasterio.open(folder / "bytes.tif") as file:
        values = file.read()
    before = names(cache, scene_of(folder))
    write(folder / "bytes.tif", values, Affine.translation(0, 0.5) @ UTM)
    after = names(cache, scene_of(folder))
    assert all(before[role] != after[role] for role in ("image", "dem", "label"))


@pytest.mark.parametrize(
    ("file", "role", "label"),
    [("bytes.tif", "image", "slides.shp"), ("feet.tif", "dem", "slides.shp"), ("slides.dbf", "label", "slides.shp")],
)
def test_a_changed_source_changes_its_layer_alone(folder, tmp_path, file, role, label):
    cache = cache_at(tmp_path / "cache", untiled=True)
    before = names(cache, scene_of(folder, label=label))
    if file.endswith(".tif"):
        with rasterio.open(folder / file, "r+") as dataset:
            pixel = dataset.read(1)
            pixel[3, 3] += 1
            dataset.write(pixel, 1)
    else:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content.replace(b"certain ", b"possible", 1))
    after = names(cache, scene_of(folder, label=label))
    assert {name for name in before if before[name] != after[name]} == {role}


def test_a_sidecar_file_of_the_source_counts(folder, tmp_path):
    cache = cache_at(tmp_path / "cache", untiled=True)
    before = names(cache, scene_of(folder))
    (folder / "feet.tif.aux.xml").write_text("<PAMDataset><PAMRasterBand band='1'><UnitType>m</UnitType></PAMRasterBand></PAMDataset>")
    after = names(cache, scene_of(folder))
    assert {name for name in before if before[name] != after[name]} == {"dem"}


def test_names_places_and_times_of_files_change_nothing(folder, tmp_path):
    cache = cache_at(tmp_path / "cache", untiled=True)
    before = names(cache, scene_of(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    for file in ("bytes.tif", "feet.tif", "slides.gpkg"):
        os.utime(moved / file, (1, 1))
    (moved / "feet.tif").rename(moved / "height.tif")
    after = names(cache, replace(scene_of(moved, dem="height.tif"), name="other", split="test", region="far"))
    assert before == after


def test_what_is_there_is_not_made_again_and_what_is_damaged_is(folder, tmp_path):
    cache, scenes = cache_at(tmp_path / "cache", untiled=True), [scene_of(folder)]
    layers = cache.layers(scenes)
    assert cache.build(layers) == 3
    content = {layer.path: layer.path.read_bytes() for layer in layers}
    assert cache.build(layers) == 0
    cut, swapped, kept = (layer.path for layer in layers)
    kept_at = kept.stat().st_mtime_ns
    cut.write_bytes(content[cut][:-5000])
    swapped.write_bytes(content[kept])
    assert not is_whole(cut, layers[0].fingerprint)
    assert cache.build(layers) == 2
    assert {path: path.read_bytes() for path in content} == content
    assert kept.stat().st_mtime_ns == kept_at


def test_sources_stay_as_they_are_and_the_cache_among_them_is_refused(folder, tmp_path):
    scene = scene_of(folder)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*")}
    cache_at(tmp_path / "cache", untiled=True).files([scene])
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*")} == before
    for place, root in (
        (folder, Path("nowhere")),
        (folder / "deep" / "cache", Path("nowhere")),
        (tmp_path / "root" / "x", tmp_path / "root"),
    ):
        with pytest.raises(UserError, match="among the data"):
            cache_at(place, root).files([scene])
        assert not (folder / "deep").exists()


def test_a_mistake_in_a_source_is_told_as_without_the_cache_and_leaves_no_file(folder, tmp_path):
    with rasterio.open(folder / "feet.tif", "r+") as dataset:
        pixels = dataset.read(1)
        pixels[100:140, 100:140] = -9999
        dataset.write(pixels, 1)
    scene = scene_of(folder)
    with pytest.raises(UserError, match=r"-9999.*no elevation.*dem_nodata"):
        cache_at(tmp_path / "cache").files([scene])
    assert [file.name.split("-")[0] for file in (tmp_path / "cache").glob("*.tif")] in ([], ["label"])
    assert not list((tmp_path / "cache" / UNFINISHED).glob("*.tif"))


def manifest(folder, place):
    scenes = [replace(scene_of(folder), name=split, split=split) for split in ("train", "val", "test")]
    place.mkdir()
    write_manifest(scenes, place / "scenes.csv")
    return place


def test_data_module_prepares_the_layers_and_reads_them(folder, tmp_path):
    root = manifest(folder, tmp_path / "set")
    options = {"tile_size": 64, "image_channels": 4, "halo": MARGIN, "cache_mb": 0, "seed": 3, "landslide_share": 0.5}
    options |= {"certainty": dict(RULES.certainty), "boundary_ignore_m": 5.0, "samples_per_epoch": 16}
    plain = LandslideDataModule(str(root), **options)
    cached = LandslideDataModule(str(root), **options, cache_dir=str(tmp_path / "cache"), cache_untiled=True)
    cached.prepare_data()
    assert len(list((tmp_path / "cache").glob("*.tif"))) == 3  # three scenes of the same files share them
    for data in (plain, cached):
        data.setup("fit")
    assert plain.settings() == cached.settings()
    assert plain.fingerprint == cached.fingerprint
    assert plain.statistics == cached.statistics
    assert plain.summary() == cached.summary()
    for one, other in zip(plain.train_dataloader(), cached.train_dataloader(), strict=True):
        assert one.keys() == other.keys()
        assert one["tile"] == other["tile"]
        for key in one.keys() - {"tile"}:
            np.testing.assert_array_equal(one[key].numpy(), other[key].numpy(), strict=True)
    for data in (plain, cached):
        data.teardown()


def test_align_command_makes_what_training_takes(folder, tmp_path, capsys):
    root, place = manifest(folder, tmp_path / "set"), tmp_path / "cache"
    labels = ["--certainty", "certain=1", "probable=0.5", "possible=ignore", "--boundary-ignore-m", "5"]
    command = ["align", str(root), "--cache-dir", str(place), "--halo", str(MARGIN), *labels]
    assert cli.main(command) == 0
    assert "2 aligned layers" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert ", 0 of them new" in capsys.readouterr().out
    before = sorted(place.glob("*.tif"))
    data = LandslideDataModule(
        str(root), image_channels=4, halo=MARGIN, certainty=dict(RULES.certainty), boundary_ignore_m=5.0, cache_dir=str(place)
    )
    data.prepare_data()
    assert sorted(place.glob("*.tif")) == before
