"""Layouts of public data sets: recognised, converted without touching the source, readable, and refused in one line."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from datamodules import cli
from datamodules.batch import validate_batch
from datamodules.errors import UserError
from datamodules.importers import IMPORTERS, LAYOUTS, recognise
from datamodules.importers.converting import PLACE_UNKNOWN
from datamodules.landslide import LandslideDataModule
from datamodules.scene import read_scenes

MARS = (
    'PROJCS["SimpleCylindrical_Mars",GEOGCS["GCS_Mars_2000_Sphere",DATUM["D_Mars",SPHEROID["Mars",3396190,0]],PRIMEM["Reference_Meridian",0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Equirectangular"],UNIT["metre",1]]'
)
SENTINEL = np.float32(-3.4e38)


def save(path, array, driver="GTiff", **options):
    array = np.asarray(array)
    array = array if array.ndim == 3 else array[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    options.setdefault("transform", Affine(1, 0, 0, 0, 1, 0))
    profile = {"count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    with rasterio.open(path, "w", driver=driver, **profile, **options) as file:
        file.write(array)


def picture(seed, height=40, width=50):
    return np.random.default_rng(seed).integers(1, 255, (3, height, width), dtype=np.uint8)


def blot(height=40, width=50, value=255):
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[5:15, 10:30] = value
    return mask


def bijie_original(root):
    for k in range(2):
        save(root / "landslide/image" / f"df{k}.png", picture(k, 40 + k), "PNG")
        save(root / "landslide/mask" / f"df{k}.png", blot(40 + k), "PNG")
        save(root / "non-landslide/image" / f"df{k}.png", picture(9 + k), "PNG")
    save(root / "landslide/dem/df0.png", np.full((40, 50), 1500, dtype=np.uint16), "PNG")
    save(root / "non-landslide/dem/df0.png", np.full((40, 50), 150, dtype=np.uint8), "PNG")


def bijie_copy(root):
    for split in ("train", "val", "test"):
        for name, mask in (("ls_0001", blot()), ("nls_0001", np.zeros((40, 50), dtype=np.uint8))):
            save(root / split / "images" / f"{name}.png", picture(1), "PNG")
            save(root / split / "masks" / f"{name}.png", mask, "PNG")


def landslide4sense(root):
    h5py = pytest.importorskip("h5py")
    for split, labelled in (("TrainData", True), ("ValidData", True), ("TestData", False)):
        for kind in ("img", "mask") if labelled else ("img",):
            (root / split / kind).mkdir(parents=True)
        for number in (2, 10):
            values = np.random.default_rng(number).normal(1, 0.3, (128, 128, 14))
            with h5py.File(root / split / "img" / f"image_{number}.h5", "w") as file:
                file["img"] = values
            if labelled:
                with h5py.File(root / split / "mask" / f"mask_{number}.h5", "w") as file:
                    file["mask"] = blot(128, 128, value=1)


def mmls(root, splits=("train", "val", "test")):
    for k, split in enumerate(splits):
        bands = np.random.default_rng(k).integers(18, 255, (7, 40, 50)).astype(np.float32)
        bands[2] = 3000 + 10 * np.arange(50)
        bands[1, 0, :5] = SENTINEL
        bands[2, 3, 4] = SENTINEL
        place = {"crs": MARS, "transform": Affine(232, 0, 1e5 * k, 0, -232, 0)}
        save(root / split / "images/a.tif", bands, **place)
        save(root / split / "masks/a.tif", blot(value=1), nodata=0, **place)


def image_mask(root):
    for k, split in enumerate(("train", "val", "test")):
        save(root / split / "img" / "x.png", picture(k), "PNG")
        save(root / split / "label" / "x.png", blot(), "PNG")


def gvlm(root):
    for site in ("A", "B"):
        save(root / site / "im1.png", picture(1), "PNG")
        save(root / site / "im2.png", picture(2), "PNG")
        save(root / site / "ref.png", blot(), "PNG")


def aoi(root):
    place = {"crs": "EPSG:32643", "transform": Affine(2, 0, 5e5, 0, -2, 4e6)}
    save(root / "ortho_2020.tif", picture(0), **place)
    save(root / "dem.tif", np.full((40, 50), 900, dtype=np.float32), **place)
    save(root / "mask.tif", blot(value=1), **place)


def folders(root):
    place = {"crs": "EPSG:32643", "transform": Affine(2, 0, 5e5, 0, -2, 4e6)}
    for split in ("train", "val", "test"):
        save(root / split / "images/x.tif", picture(0), **place)
        save(root / split / "masks/x.tif", blot(value=1), **place)


MADE_UP = {
    "bijie": (bijie_original, ["--split", "train"]),
    "bijie copy": (bijie_copy, []),
    "landslide4sense": (landslide4sense, []),
    "mmls": (mmls, []),
    "image_mask": (image_mask, ["--resolution-m", "0.5"]),
    "image_mask gvlm": (gvlm, ["--resolution-m", "0.59", "--split", "test"]),
    "aoi": (aoi, ["--split", "train"]),
    "folders": (folders, []),
}


def digest(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def values(path):
    with rasterio.open(path) as file:
        return file.read(), file.nodata, file.tags(), file.res


def index(root, out, *options):
    assert cli.main(["index", str(root), "--out", str(out), *options]) == 0
    return {scene.name: scene for scene in read_scenes(out)}


@pytest.mark.parametrize("case", MADE_UP)
def test_auto_recognises_a_layout_and_leaves_the_source_alone(case, tmp_path, capsys):
    make, options = MADE_UP[case]
    root, out = tmp_path / "source", tmp_path / "out"
    make(root)
    before = digest(root)
    assert [name for name, importer in IMPORTERS.items() if importer is recognise(root)] == [case.split()[0]]
    scenes = index(root, out, *options)
    assert digest(root) == before
    assert f"layout {case.split()[0]}" in capsys.readouterr().out
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "a temporary folder was left behind"
    for scene in scenes.values():
        if scene.label is not None:
            assert set(np.unique(values(scene.label)[0])) <= {0, 1}
            assert values(scene.label)[1] is None


def test_bijie_uses_elevation_in_metres_only(tmp_path, capsys):
    bijie_original(tmp_path / "source")
    scenes = index(tmp_path / "source", tmp_path / "out", "--split", "train")
    assert sorted(scenes) == ["train/ls_df0", "train/ls_df1", "train/nls_df0", "train/nls_df1"]
    assert [name for name, scene in scenes.items() if scene.dem] == ["train/ls_df0"]
    dem, nodata, _, resolution = values(scenes["train/ls_df0"].dem)
    assert (dem == 1500).all()
    assert (nodata, resolution) == (-9999, (0.8, 0.8))
    said = capsys.readouterr().out
    assert "1 elevation files hold 8-bit grey levels" in said
    assert "elevations of 1 scenes were taken as metres" in said
    assert "3 of 4 scenes have no elevation" in said
    assert np.array_equal(values(scenes["train/ls_df1"].image)[0], picture(1, 41))
    assert np.array_equal(values(scenes["train/ls_df1"].label)[0][0] == 1, blot(41) == 255)
    assert not values(scenes["train/nls_df0"].label)[0].any()


def test_tiles_of_unknown_place_say_so_and_lie_apart(tmp_path):
    bijie_copy(tmp_path / "source")
    scenes = index(tmp_path / "source", tmp_path / "out", "--resolution-m", "0.5")
    bounds = []
    for scene in scenes.values():
        with rasterio.open(scene.image) as file:
            assert PLACE_UNKNOWN in file.crs.to_wkt()
            assert file.tags()["GEOREFERENCE"] == PLACE_UNKNOWN
            assert file.tags()["RESOLUTION_M_ASSUMED"] == "0.5"
            bounds.append(file.bounds)
    for k, one in enumerate(bounds):
        assert all(max(abs(one.left - two.left), abs(one.top - two.top)) >= 10_000 for two in bounds[:k])


def test_landslide4sense_has_no_elevation_and_keeps_the_bands(tmp_path):
    landslide4sense(tmp_path / "source")
    scenes = index(tmp_path / "source", tmp_path / "out")
    assert {scene.split for scene in scenes.values()} == {"train", "val", "predict"}
    assert all(scene.dem is None for scene in scenes.values())
    expected = np.random.default_rng(10).normal(1, 0.3, (128, 128, 14)).astype(np.float32).transpose(2, 0, 1)
    image, _, tags, resolution = values(scenes["train/image_10"].image)
    assert np.array_equal(image, expected[:12])
    assert "not metres" in tags["ELEVATION"]
    assert resolution == (10, 10)
    assert values(scenes["val/image_2"].label)[0].sum() == 200
    kept = index(tmp_path / "source", tmp_path / "kept", "--terrain-bands")
    assert np.array_equal(values(kept["train/image_10"].image)[0], expected)


def test_landslide4sense_mirror_layout_finds_its_masks(tmp_path):
    landslide4sense(tmp_path / "original")
    for theirs, split in (("TrainData", "train"), ("ValidData", "validation")):
        for kind, name in (("img", "images"), ("mask", "annotations")):
            (tmp_path / "mirror" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "original" / theirs / kind).rename(tmp_path / "mirror" / name / split)
    scenes = index(tmp_path / "mirror", tmp_path / "out")
    assert sorted(scenes) == ["train/image_10", "train/image_2", "val/image_10", "val/image_2"]


def test_mmls_mends_nodata(tmp_path):
    mmls(tmp_path / "source")
    scenes = index(tmp_path / "source", tmp_path / "out")
    dem, nodata, _, _ = values(scenes["train/a"].dem)
    assert nodata == -9999
    assert np.argwhere(dem[0] == nodata).tolist() == [[3, 4]]
    assert dem[dem != nodata].min() == 3000
    image = values(scenes["train/a"].image)[0]
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.random.default_rng(0).integers(18, 255, (7, 40, 50))[4:])
    data = LandslideDataModule(str(tmp_path / "out"), tile_size=32, batch_size=2, seed=0)
    data.setup("fit")
    validate_batch(next(iter(data.train_dataloader())))


def test_masks_with_ones_keep_255_as_ignore(tmp_path):
    image_mask(tmp_path / "source")
    mask = blot(value=1)
    mask[30:] = 255
    save(tmp_path / "source/val/label/x.png", mask, "PNG")
    (tmp_path / "source/train/label/x.png").unlink()
    save(tmp_path / "source/train/label/x.png", blot(value=1), "PNG")
    (tmp_path / "source/test/label/x.png").unlink()
    save(tmp_path / "source/test/label/x.png", blot(value=1), "PNG")
    scenes = index(tmp_path / "source", tmp_path / "out", "--resolution-m", "1")
    assert np.array_equal(values(scenes["val/x"].label)[0][0], mask)


def spoil(name):
    """A made-up folder with one mistake, the options, and what the message must hold."""

    def stray(root):
        (root / "notes.txt").write_text("nothing")

    def no_mask(root):
        bijie_original(root)
        (root / "landslide/mask/df1.png").unlink()

    def lossy(root):
        image_mask(root)
        save(root / "val/label/x.png", blot(value=131), "PNG")

    def truncated(root):
        image_mask(root)
        file = root / "val/img/x.png"
        file.write_bytes(file.read_bytes()[:60])

    def other_size(root):
        image_mask(root)
        save(root / "val/label/x.png", blot(41), "PNG")

    def two_images(root):
        aoi(root)
        (root / "ortho_2020.tif").rename(root / "geology.tif")
        save(root / "landcover.tif", picture(0))

    def broken_h5(root):
        landslide4sense(root)
        (root / "TrainData/img/image_2.h5").write_bytes(b"not HDF5")

    def one_label_gone(root):
        landslide4sense(root)
        (root / "TrainData/mask/mask_2.h5").unlink()

    size = ["--resolution-m", "1"]
    return {
        "unknown": (stray, [], "no layout that is known"),
        "no split": (bijie_original, [], "--split train"),
        "no mask": (no_mask, ["--split", "train"], "df1.png"),
        "no resolution": (image_mask, [], "--resolution-m"),
        "lossy mask": (lossy, size, "holds 131"),
        "truncated": (truncated, size, "x.png"),
        "other size": (other_size, size, "50 x 41"),
        "no image": (two_images, ["--layout", "aoi", "--split", "train"], "geology.tif, landcover.tif"),
        "broken HDF5": (broken_h5, [], "image_2.h5"),
        "label gone": (one_label_gone, [], "image_2.h5"),
    }[name]


@pytest.mark.parametrize(
    "name",
    ["unknown", "no split", "no mask", "no resolution", "lossy mask", "truncated", "other size", "no image", "broken HDF5", "label gone"],
)
def test_mistakes_are_refused_in_one_line_and_write_nothing(name, tmp_path):
    make, options, expected = spoil(name)
    root = tmp_path / "source"
    root.mkdir()
    make(root)
    before = digest(root)
    with pytest.raises(UserError) as caught:
        cli.main(["index", str(root), "--out", str(tmp_path / "out"), *options])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert digest(root) == before


def test_out_is_never_overwritten_nor_in_the_source(tmp_path):
    root, full = tmp_path / "source", tmp_path / "full"
    mmls(root)
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    for out, expected in ((full, "not empty"), (root / "converted", "never changed")):
        with pytest.raises(UserError, match=expected):
            cli.main(["index", str(root), "--out", str(out)])
    with pytest.raises(UserError, match="give --out DIR"):
        cli.main(["index", str(root)])
    assert [path.name for path in full.iterdir()] == ["thesis.txt"]


def test_two_sets_in_one_folder_are_ambiguous(tmp_path):
    bijie_original(tmp_path)
    landslide4sense(tmp_path)
    with pytest.raises(UserError, match="may be bijie or landslide4sense"):
        recognise(tmp_path)


def test_the_command_line_offers_every_layout(capsys):
    with pytest.raises(SystemExit):
        cli.main(["index", "--help"])
    assert "{" + ",".join(LAYOUTS) + "}" in "".join(capsys.readouterr().out.split())


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "options", "channels", "count"),
    [
        ("mars_mmls_original", ["--split", "test"], 3, 12),
        ("l4s_h5", [], 12, 4),
        ("hokkaido_rgb", ["--resolution-m", "3"], 3, 20),
        ("bijie_rgb", [], 3, 325),
        ("mars_scenes", ["--split", "test"], 3, 3),
    ],
)
def test_public_sets_give_batches(name, options, channels, count, tmp_path):
    if not os.environ.get("LANDSLIDE_DATA"):
        pytest.skip("LANDSLIDE_DATA is not set")
    scenes = index(Path(os.environ["LANDSLIDE_DATA"]) / name, tmp_path / "out", *options)
    assert len(scenes) == count
    data = LandslideDataModule(str(tmp_path / "out"), tile_size=128, batch_size=2, image_channels=channels, cache_mb=0, seed=0)
    splits = {scene.split for scene in scenes.values()}
    stage = "fit" if "train" in splits else "test" if "test" in splits else "predict"
    data.setup(stage)
    loader = {"fit": data.train_dataloader, "test": data.test_dataloader, "predict": data.predict_dataloader}[stage]()
    batch = next(iter(loader))
    validate_batch(batch)
    assert batch["image"].shape[1] == channels
    assert not (np.abs(np.nan_to_num(batch["dem"].numpy())) > 1e4).any()
