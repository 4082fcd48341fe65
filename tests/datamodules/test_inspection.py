"""`zoo-data check --full` lists every planted problem with its remedy, each once, and finds nothing in clean data."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine

from datamodules import cli
from datamodules.errors import UserError
from datamodules.inspection import inspect

SIZE = 64


def save(path, array, crs="EPSG:32648", column=0, **profile):
    array = np.asarray(array)
    array = array if array.ndim == 3 else array[None]
    shape = {"count": array.shape[0], "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    profile.setdefault("transform", Affine(10, 0, 5e5 + 10 * column, 0, -10, 4e6))
    with rasterio.open(path, "w", "GTiff", **shape, crs=crs, **profile) as file:
        file.write(array)


def image(seed=0, bands=3):
    return np.random.default_rng(seed).integers(1, 255, (bands, SIZE, SIZE), dtype=np.uint8)


def relief():
    return np.add.outer(np.arange(SIZE), 900.0 + np.arange(SIZE)).astype(np.float32)


def mask(value=1):
    label = np.zeros((SIZE, SIZE), np.uint8)
    label[20:40, 20:40] = value
    return label


@pytest.fixture
def data(tmp_path):
    """Three clean scenes; a test spoils some of their files."""
    rows = ["scene,image,dem,label,split,region"]
    for number, split in enumerate(("train", "val", "test")):
        save(tmp_path / f"i{number}.tif", image(number), column=600 * number)
        save(tmp_path / f"d{number}.tif", relief(), column=600 * number)
        save(tmp_path / f"l{number}.tif", mask(), column=600 * number)
        rows.append(f"s{number},i{number}.tif,d{number}.tif,l{number}.tif,{split},")
    (tmp_path / "scenes.csv").write_text("\n".join(rows))
    return tmp_path


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def polygons(folder):
    square = [(500200, 3999800), (500400, 3999800), (500400, 3999600), (500200, 3999600), (500200, 3999800)]
    features = [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [square]}}]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32648"}}
    (folder / "l0.geojson").write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    manifest = folder / "scenes.csv"
    manifest.write_text(manifest.read_text().replace("l0.tif", "l0.geojson"))


SPOILT = {
    "image truncated": (lambda at: cut(at / "i0.tif"), "error", "image", "truncated", "write the file anew"),
    "image in degrees": (lambda at: save(at / "i0.tif", image(), "EPSG:4326"), "error", "image", "degrees", "gdalwarp"),
    "image without system": (lambda at: save(at / "i0.tif", image(), None), "error", "image", "no coordinate system", "gdal_edit"),
    "image rotated": (
        lambda at: save(at / "i0.tif", image(), transform=Affine(10, 2, 5e5, 2, -10, 4e6)), "error", "image", "rotated", "gdalwarp"),
    "image only NaN": (
        lambda at: save(at / "i0.tif", np.full((3, SIZE, SIZE), np.nan, np.float32)), "error", "image", "no data anywhere", "nodata"),
    "image constant": (lambda at: save(at / "i0.tif", image() * 0 + 9), "warning", "image", "is 9 everywhere", "check the file"),
    "image with unstated gaps": (
        lambda at: save(at / "i0.tif", image() * (np.arange(SIZE) > 9).astype(np.uint8)), "warning", "image", "15.6 % of", "-a_nodata 0"),
    "other bands": (lambda at: save(at / "i0.tif", image(bands=1)), "error", "bands", "1 bands, most have 3", "same bands"),
    "dem truncated": (lambda at: cut(at / "d0.tif"), "error", "dem", "truncated", "write the file anew"),
    "dem elsewhere": (lambda at: save(at / "d0.tif", relief(), column=9000), "error", "dem", "does not overlap", "same place"),
    "dem without data": (lambda at: save(at / "d0.tif", relief() * np.nan), "error", "dem", "no data anywhere", "nodata"),
    "dem with untagged sentinel": (
        lambda at: save(at / "d0.tif", np.where(relief() > 930, relief(), -32768)), "error", "dem", "pixels hold -32768", "dem_nodata"),
    "dem with gaps": (
        lambda at: save(at / "d0.tif", np.where(relief() < 901, np.nan, relief())), "warning", "dem", "0.02 % of the image", "larger model"),
    "dem flat": (lambda at: save(at / "d0.tif", relief() * 0), "warning", "dem", "is flat", "dem column empty"),
    "label with strange values": (lambda at: save(at / "l0.tif", mask(3)), "error", "label", "holds 3", "0 (background)"),
    "label elsewhere": (lambda at: save(at / "l0.tif", mask(), column=9000), "error", "label", "does not overlap", "same place"),
    "label empty": (lambda at: save(at / "l0.tif", mask() * 0 + 255), "warning", "label", "labels no pixel", "remove the scene"),
    "file missing": (lambda at: (at / "d0.tif").unlink(), "error", "manifest", "file does not exist (line 2)", "relative"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_planted_problem_is_the_only_one_found(case, data):
    spoil, level, kind, detail, remedy = SPOILT[case]
    spoil(data)
    scenes, found = inspect(data)
    assert [(finding.level, finding.kind) for finding in found] == [(level, kind)]
    assert detail in found[0].detail
    assert remedy in found[0].remedy
    assert found[0].scenes == (() if kind == "manifest" else ("s0",))
    assert [scene.name for scene in scenes] == (["s1", "s2"] if level == "error" else ["s0", "s1", "s2"])


def test_clean_data_pass(data, capsys):
    polygons(data)
    assert inspect(data)[1] == []
    assert cli.main(["check", str(data), "--full"]) == 0
    assert "passed" in capsys.readouterr().out


def test_all_problems_at_once(data, capsys):
    cut(data / "i0.tif")
    cut(data / "d1.tif")
    save(data / "l1.tif", mask(7), column=600)
    save(data / "l2.tif", mask(8), column=1200)
    manifest = data / "scenes.csv"
    manifest.write_text(manifest.read_text() + "\ns2,i2.tif,,l2.tif,train,\ns4,i9.tif,,,train,\ns5,i2.tif,,l2.tif,training,")
    _, found = inspect(data)
    kinds = sorted((finding.kind, finding.scenes) for finding in found if finding.level == "error")
    assert kinds == [("dem", ("s1",)), ("image", ("s0",)), ("label", ("s1",)), ("label", ("s2",)), *[("manifest", ())] * 3]
    assert all(finding.remedy for finding in found)
    assert cli.main(["check", str(data), "--full"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "FAILED" in printed
    with pytest.raises(UserError, match="i9.tif|training|s2"):  # without --full the first one ends it
        cli.main(["check", str(data)])


def test_a_problem_of_one_file_is_told_once(data):
    manifest = data / "scenes.csv"
    save(data / "l0.tif", mask(5))
    manifest.write_text(manifest.read_text() + "\nagain,i0.tif,d0.tif,l0.tif,train,")
    (finding,) = inspect(data)[1]
    assert finding.scenes == ("s0", "again")


def test_folders_list_every_lacking_mask(tmp_path):
    for name in "ab":
        for role, array in (("images", image()), ("masks", mask())):
            (tmp_path / "train" / role).mkdir(parents=True, exist_ok=True)
            save(tmp_path / "train" / role / f"{name}.tif", array)
            if (role, name) == ("images", "b"):
                save(tmp_path / "train/images/c.tif", array)
    (tmp_path / "train/masks/b.tif").unlink()
    scenes, found = inspect(tmp_path)
    assert [scene.name for scene in scenes] == ["train/a"]
    assert [finding.remedy for finding in found] == ["add train/masks/b.tif", "add train/masks/c.tif"]


def test_shapefile_without_its_index(data):
    (data / "l0.shp").write_bytes(b"")
    manifest = data / "scenes.csv"
    manifest.write_text(manifest.read_text().replace("l0.tif", "l0.shp"))
    _, found = inspect(data)
    assert any(finding.level == "error" and ".shx file is missing" in finding.detail for finding in found)
