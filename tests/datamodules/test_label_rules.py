"""What values of labels mean: codes of rasters, certainties, and what settings and scenes.csv say of them."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import cli
from datamodules.errors import UserError
from datamodules.grid import Grid, image_grid
from datamodules.label_raster import LabelRaster
from datamodules.label_rules import CERTAINTY, LabelColumns, LabelRules, raster_codes
from datamodules.landslide import LandslideDataModule
from datamodules.overrides import Overrides
from datamodules.rasters import open_raster
from datamodules.scene import LABEL_COLUMNS, Scene, fingerprint, read_scenes, write_manifest

UTM = "EPSG:32648"


def write(path, array, *, pixel=2.0, nodata=None, left=500000.0, crs=UTM):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    array = array if array.ndim == 3 else array[None]
    profile = {"driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    with rasterio.open(path, "w", **profile, crs=crs, transform=Affine(pixel, 0, left, 0, -pixel, 4000000), nodata=nodata) as file:
        file.write(array)
    return path


def grid_of(path) -> Grid:
    with open_raster(path) as file:
        return image_grid(file, path, Overrides())


@pytest.mark.parametrize(
    ("columns", "rules", "landslide", "ignore"),
    [
        ({}, {}, {1: ""}, {255}),
        ({"landslide_values": "255"}, {}, {255: ""}, set()),  # what is landslide is not ignored by convention
        ({"landslide_values": "1; 2"}, {}, {1: "", 2: ""}, {255}),
        ({"ignore_values": "3"}, {}, {1: ""}, {3}),
        ({"ignore_values": "3;255"}, {"landslide_values": 2}, {2: ""}, {3, 255}),
        ({"landslide_values": "7"}, {"landslide_values": "255"}, {7: ""}, {255}),  # the scene comes first
        ({"landslide_values": "1=Certain;2= possible "}, {}, {1: "certain", 2: "possible"}, {255}),
        ({}, {"ignore_values": "-1"}, {1: ""}, {-1}),
    ],
)
def test_codes(columns, rules, landslide, ignore):
    codes = raster_codes(LabelColumns(**columns), LabelRules(**rules), None)
    assert codes.landslide == landslide
    assert codes.ignore == ignore


@pytest.mark.parametrize(
    "rules",
    [
        {"landslide_values": "0"},
        {"landslide_values": "one"},
        {"landslide_values": "1;1"},
        {"landslide_values": "1,2"},
        {"landslide_values": "nan"},
        {"ignore_values": "1"},
        {"ignore_values": "3=certain"},
        {"certainty": {"certain": 0}},
        {"certainty": {"certain": 1.5}},
        {"certainty": {"certain": float("nan")}},
        {"certainty": {"certain": "skip"}},
        {"certainty": {"Certain": 1, "certain ": 1}},
        {"certainty": {"a;b": 1}},
        {"boundary_ignore_m": -1},
        {"boundary_ignore_m": float("inf")},
    ],
)
def test_settings_that_cannot_be_meant(rules):
    with pytest.raises(UserError) as caught:
        LabelRules(**rules)
    assert caught.value.exit_code == 2
    assert next(iter(rules)) in str(caught.value)


def test_more_certain_wins_whatever_the_order_of_the_map():
    rules = LabelRules(certainty={"possible": "ignore", "probable": 0.5, "CERTAIN": 1, "sure": 1})
    assert rules.ordered({"possible": 1, "sure": 1, "probable": 3, "certain": 2}, "field", "x") == (
        "certain",
        "sure",
        "probable",
        "possible",
    )
    with pytest.raises(UserError, match=r"guess \(4\).*'guess' has no weight"):
        rules.ordered({"guess": 4, "certain": 1}, "field", "x")
    with pytest.raises(UserError, match=r"\(empty\) \(1\)"):
        rules.ordered({"": 1}, "field", "x")
    assert dict(LabelRules().certainty) == dict(CERTAINTY) == {"certain": 1, "probable": 1, "possible": "ignore"}


CODES = st.sampled_from([0, 1, 2, 3, 7, 255])


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(CODES, min_size=24, max_size=24),
    landslide=st.sets(st.sampled_from([1, 2, 255]), min_size=1),
    ignored=st.sets(st.sampled_from([3, 7])),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    warped=st.booleans(),
    tag=st.sampled_from([None, 0, 1, 255, 2]),
)
def test_raster_against_a_plain_lookup(tmp_path_factory, values, landslide, ignored, dtype, warped, tag):
    folder = tmp_path_factory.mktemp("codes")
    raw = np.array(values).reshape(4, 6)
    image = write(folder / "image.tif", np.zeros((4, 6), np.uint8))
    if warped:  # four pixels for one, a quarter pixel off: nearest neighbour gives back the values
        label = write(folder / "label.tif", raw.repeat(2, 0).repeat(2, 1).astype(dtype), pixel=1.0, left=500000.25, nodata=tag)
    else:
        label = write(folder / "label.tif", raw.astype(dtype), nodata=tag)
    columns = LabelColumns(";".join(map(str, sorted(landslide))), ";".join(map(str, sorted(ignored))))
    explained = {0: 0} | dict.fromkeys(ignored or {255} - landslide, 255)
    if tag is not None and tag not in (0, *landslide):
        explained[tag] = 255
    explained |= dict.fromkeys(landslide, 1)
    stray = set(values) - explained.keys()
    source = LabelRaster(label, grid_of(image), columns)
    if stray:
        with pytest.raises(UserError) as caught:
            source.read(0, 0, 4, 6)
        assert "label.tif" in str(caught.value)
        assert all(f"{value} (" in str(caught.value) for value in stray)
        if not warped:
            assert all(f"{value} ({values.count(value)} pixels)" in str(caught.value) for value in stray)
    else:
        assert np.array_equal(source.read(0, 0, 4, 6), np.vectorize(explained.__getitem__)(raw))
        assert (source.read(-2, 0, 2, 6) == 255).all()
    source.close()


def test_columns_of_scenes_csv(tmp_path):
    image = write(tmp_path / "image.tif", np.zeros((4, 6), np.uint8))
    plain = Scene("a", image, None, image, "train")
    stated = Scene("b", image, None, image, "val", labels=LabelColumns("1=certain;2=possible", "3;255"))
    write_manifest([plain, plain], tmp_path / "plain.csv")
    assert not any(column in (tmp_path / "plain.csv").read_text() for column in LABEL_COLUMNS)
    write_manifest([plain, stated], tmp_path / "scenes.csv")
    header = (tmp_path / "scenes.csv").read_text().splitlines()[0]
    assert header == "scene,image,dem,label,split,region,landslide_values,ignore_values"
    assert [scene.labels for scene in read_scenes(tmp_path)] == [LabelColumns(), stated.labels]
    other = Scene("b", image, None, image, "val", labels=LabelColumns("2=certain;1=possible", "3;255"))
    assert fingerprint([stated]) != fingerprint([other]) != fingerprint([Scene("b", image, None, image, "val")])


def folders(root, *masks, nodata=None):
    """The folder layout, one tile a split."""
    for number, (split, mask) in enumerate(zip(("train", "val", "test"), masks, strict=True)):
        image = np.random.default_rng(number).integers(1, 250, (3, *mask.shape), dtype=np.uint8)
        write(root / split / "images" / "t.tif", image)
        write(root / split / "masks" / "t.tif", mask, nodata=nodata)
    return root


def test_masks_of_0_and_255_are_never_guessed(tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 4:9] = 255
    root = folders(tmp_path / "d", mask, mask, mask)
    with pytest.raises(UserError, match=r"holds only 0 and 255.*data\.landslide_values"):
        LandslideDataModule(str(root), tile_size=16).setup("fit")
    with pytest.raises(UserError, match="holds only 0 and 255"):
        LandslideDataModule(str(root), tile_size=16).setup("test")
    for options, share in (({"landslide_values": 255}, 25 / 256), ({"ignore_values": "255"}, 0.0)):
        data = LandslideDataModule(str(root), tile_size=16, **options)
        data.setup()
        assert data.summary()["test"].prevalence == pytest.approx(share)
    tagged = LandslideDataModule(str(folders(tmp_path / "tagged", mask, mask, mask, nodata=255)), tile_size=16)
    tagged.setup()  # the file itself says that 255 is no data
    one = np.where(mask == 255, 1, 0).astype(np.uint8)
    LandslideDataModule(str(folders(tmp_path / "mixed", mask, mask, one)), tile_size=16).setup()  # 255 beside 1 is ignore


def test_zoo_data_reports_codes(tmp_path, capsys):
    mask = np.zeros((140, 140), np.uint8)
    mask[40:90, 40:90] = 255
    strange = np.where(mask == 255, 9, 0).astype(np.uint8)
    root = folders(tmp_path / "d", mask, strange, mask)
    assert cli.main(["check", str(root)]) == 1
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "codes" in printed
    assert "2,500 pixels" in printed
    with pytest.raises(UserError, match=r"val.masks.t\.tif: label: holds 9 \(2,500 pixels\)"):
        cli.main(["describe", str(root)])
    assert cli.main(["describe", str(root), "--landslide-values", "255;9=possible", "--certainty", "possible=0.5"]) == 0
    printed = capsys.readouterr().out
    assert "possible" in printed
    assert "0.5" in printed
