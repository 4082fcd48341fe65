"""Splits by column and of polygons: no landslide is cut, not by scenes, not by strips, not by ignored gaps; certainties survive."""

import json

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyogrio.raw import write as write_vector
from scipy.ndimage import label as components

from datamodules import cli
from datamodules.components import GAP_M, survey, whole_landslides
from datamodules.errors import UserError
from datamodules.label_rules import LabelColumns
from datamodules.landslide import LandslideDataModule
from datamodules.reading import SceneReader
from datamodules.scene import Scene, read_scenes, write_manifest

UTM, PIXEL, LEFT, TOP = "EPSG:32648", 10.0, 500000.0, 4000000.0


def raster(path, array, column=0):
    profile = {"driver": "GTiff", "count": 1, "height": array.shape[0], "width": array.shape[1], "dtype": "uint8", "crs": UTM}
    with rasterio.open(path, "w", **profile, transform=Affine(PIXEL, 0, LEFT + PIXEL * column, 0, -PIXEL, TOP)) as file:
        file.write(array, 1)
    return path


def image(folder, name, shape, column=0):
    return raster(folder / f"{name}.tif", np.random.default_rng(len(name)).integers(1, 255, shape, dtype=np.uint8), column)


def vector(path, shapes, certainty):
    fields = [np.array(certainty, dtype=object)]
    write_vector(path, shapely.to_wkb(np.array(shapes, dtype=object)), fields, ["sure"], geometry_type="Polygon", crs=UTM, layer="slides")
    return path


def square(row, column, height, width):
    return shapely.box(LEFT + PIXEL * column, TOP - PIXEL * (row + height), LEFT + PIXEL * (column + width), TOP - PIXEL * row)


def with_column(manifest, name, values):
    head, *rows = manifest.read_text().splitlines()
    lines = [f"{head},{name}", *(f"{row},{value}" for row, value in zip(rows, values, strict=True))]
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def six_scenes(folder, polygons):
    """Scenes of 40 x 40 pixels, 60 pixels apart, all labelled by one inventory."""
    path = vector(folder / "slides.gpkg", polygons, ["certain"] * len(polygons))
    scenes = [Scene(f"s{k}", image(folder, f"i{k}", (40, 40), 100 * k), None, path, "train", f"r{k}") for k in range(6)]
    write_manifest(scenes, folder / "scenes.csv")
    return folder / "scenes.csv"


def split(manifest, out, *options):
    return cli.main(["split", str(manifest), "--folds", "3", "--out", str(out), *options])


def test_column_keeps_scenes_together(tmp_path):
    valleys = ["north", "north", "south", "south", "west", "west"]
    manifest = with_column(six_scenes(tmp_path, [square(5, 100 * k + 5, 9, 9) for k in range(6)]), "valley", valleys)
    assert split(manifest, tmp_path / "out", "--by", "column", "--column", "valley") == 0
    tested = []
    for fold in range(3):
        scenes = read_scenes(tmp_path / "out" / f"fold{fold}")
        of = {scene.name: scene.split for scene in scenes}
        assert all(of[f"s{k}"] == of[f"s{k + 1}"] for k in (0, 2, 4))
        assert sorted(set(of.values())) == ["test", "train", "val"]
        tested += [name for name, role in of.items() if role == "test"]
        assert all(scene.label.is_file() for scene in scenes)
    assert sorted(tested) == [f"s{k}" for k in range(6)]
    summary = json.loads((tmp_path / "out" / "split.json").read_text())
    assert sorted(name for fold in summary["folds"] for name in fold["tests"]) == ["north", "south", "west"]
    assert [fold["test"]["landslide"] for fold in summary["folds"]] == [2 * 81] * 3
    with pytest.raises(UserError, match=r"scenes\.csv: basin: is missing or empty"):
        split(manifest, tmp_path / "other", "--by", "column", "--column", "basin")


def test_no_column_parts_a_landslide_that_two_scenes_show(tmp_path):
    """One polygon goes on beyond the gap between the images, further than any buffer."""
    polygons = [square(5, 100 * k + 5, 9, 9) for k in range(6)] + [square(20, 120, 3, 100)]
    manifest = six_scenes(tmp_path, polygons)
    with_column(manifest, "valley", ["a", "b", "c", "a", "b", "c"])
    with pytest.raises(UserError, match=r"valley: a landslide reaches from scene s1 \(b\) into s2 \(c\)"):
        split(manifest, tmp_path / "out", "--by", "column", "--column", "valley")
    with pytest.raises(UserError, match="region: a landslide reaches"):
        split(manifest, tmp_path / "out", "--by", "region")
    assert split(manifest, tmp_path / "out", "--by", "scene", "--buffer-m", "0") == 0
    for fold in range(3):
        of = {scene.name: scene.split for scene in read_scenes(tmp_path / "out" / f"fold{fold}")}
        assert of["s1"] == of["s2"]


@pytest.mark.parametrize("seed", range(3))
def test_blocks_never_cut_a_polygon_and_keep_certainties(tmp_path, seed):
    rng = np.random.default_rng(seed)
    places = rng.integers([0, 0, 1, 1], [280, 150, 50, 50], (30, 4))
    polygons, sure = [square(*place) for place in places], rng.choice(["certain", "probable", "possible"], 30).tolist()
    thin = shapely.union_all(
        [square(100, 10, 30, 30), square(170, 60, 30, 30), shapely.LineString([(5.00200e5, 3.99885e6), (5.00700e5, 3.99820e6)]).buffer(0.5)]
    )
    polygons, sure = [*polygons, thin], [*sure, "possible"]  # two parts, joined by a neck that is thinner than a pixel
    scene = Scene("s", image(tmp_path, "i", (300, 160)), None, vector(tmp_path / "slides.gpkg", polygons, sure), "train")
    write_manifest([Scene(**{**vars(scene), "labels": LabelColumns(certainty_field="sure")})], tmp_path / "scenes.csv")
    assert split(tmp_path / "scenes.csv", tmp_path / "out", "--block-m", "400", "--buffer-m", "0", "--seed", str(seed)) == 0
    source = SceneReader(read_scenes(tmp_path)[0], None, 0, "cubic")
    raw = source.opened_labels().grades_at(0, 0, 300, 160)
    names = np.array(["background", *source.opened_labels().grades])
    for fold in range(3):
        roles = np.full((300, 160), "", dtype="<U5")
        for one in read_scenes(tmp_path / "out" / f"fold{fold}"):
            reader = SceneReader(one, None, 0, "cubic")
            labels = reader.opened_labels()
            grades = labels.grades_at(0, 0, 300, 160)
            known = grades != 255
            assert (np.array(["background", *labels.grades])[grades[known]] == names[raw[known]]).all()
            assert (roles[known] == "").all()
            roles[known] = one.split
        for polygon in polygons:
            drawn = rasterio.features.rasterize([polygon], (300, 160), transform=source.grid.transform).astype(bool)
            assert len(set(roles[drawn])) <= 1
        assert (roles[raw > 0] != "").mean() > 0.5  # of landslides whose boxes touch, only those of one split are kept
    data = LandslideDataModule(
        str(tmp_path / "out" / "fold0"), image_channels=1, tile_size=32, certainty={"certain": 1, "probable": 0.5, "possible": 0.2}
    )
    data.setup("fit")
    values = {round(value, 3) for batch in data.train_dataloader() for value in batch["weight"].unique().tolist()}
    assert {0.0, 1.0} < values <= {0.0, 0.2, 0.5, 1.0}


def parts(folder, label):
    """Number of whole landslides of a label raster."""
    shape = label.shape
    scene = Scene("s", image(folder, "i", shape), None, raster(folder / "label.tif", label), "train")
    one = survey(SceneReader(scene, None, 0, "cubic"), 400.0)
    return len(set(whole_landslides([one], [0]).tolist())), one


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("at", [100, 252, 256, 260])  # strips are 256 rows high
def test_ignored_gaps_do_not_cut(tmp_path, at, turned):
    wide = int(GAP_M / PIXEL)
    for gap, code, expected in ((wide - 1, 255, 1), (wide + 2, 255, 2), (wide - 1, 0, 2), (1, 0, 2)):
        label = np.zeros((400, 400), np.uint8)
        label[at - 30 : at + gap + 30, 250:260] = 1
        label[at : at + gap, 245:270] = code
        number, one = parts(tmp_path, label.T.copy() if turned else label)
        assert number == expected
        assert one.piece_blocks[:, 3].sum() == 600


def test_without_ignored_pixels_landslides_are_connected_pieces(tmp_path):
    label = (np.random.default_rng(0).random((600, 90)) < 0.25).astype(np.uint8)
    assert parts(tmp_path, label)[0] == components(label, structure=np.ones((3, 3)))[1]


def test_parts_across_an_ignored_band_share_a_split(tmp_path):
    label = np.zeros((120, 300), np.uint8)
    label[50:60, 20:280] = 1
    label[:, 118:123] = 255  # a band of 50 m, near a border of blocks
    label[:, 158:163] = 255
    scene = Scene("s", image(tmp_path, "i", label.shape), None, raster(tmp_path / "label.tif", label), "train")
    write_manifest([scene], tmp_path / "scenes.csv")
    assert split(tmp_path / "scenes.csv", tmp_path / "out", "--block-m", "400", "--buffer-m", "0") == 0
    for fold in range(3):
        holders = []
        for one in read_scenes(tmp_path / "out" / f"fold{fold}"):
            with rasterio.open(one.label) as file:
                holders += [one.split] if (file.read(1) == 1).any() else []
        assert len(holders) == 1
