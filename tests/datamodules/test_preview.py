"""Pictures of a data set: they show what the files hold, say what is missing, and have the same bytes for the same seed."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import rasterio
from affine import Affine
from matplotlib.image import imread

from datamodules import cli
from datamodules.errors import UserError
from datamodules.grid import nowhere
from datamodules.preview import FILES, preview
from datamodules.preview.choosing import choose
from datamodules.preview.contact_sheet import contact_sheet, shown_bands
from datamodules.preview.drawing import length_text, round_length
from datamodules.preview.split_map import split_map
from datamodules.reading import SceneReader
from datamodules.scene import Scene, read_scenes, write_manifest
from datamodules.windows import index_windows


def save(path, array, column=0, crs="EPSG:32648", **profile):
    array = array if array.ndim == 3 else array[None]
    shape = {"count": array.shape[0], "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    with rasterio.open(path, "w", "GTiff", **shape, crs=crs, transform=Affine(10, 0, 5e5 + 10 * column, 0, -10, 4e6), **profile) as file:
        file.write(array)


def place(folder, number, split, *, bands=3, dtype="uint8", dem=True, label=True, slide=True, crs="EPSG:32648", size=100):
    rng = np.random.default_rng(number)
    save(folder / f"i{number}.tif", (rng.uniform(0.1, 0.9, (bands, size, size)) * 200).astype(dtype), 300 * number, crs)
    mask = np.zeros((size, size), np.uint8)
    mask[20:60, 30:70] = slide
    if label:
        save(folder / f"l{number}.tif", mask, 300 * number, crs)
    if dem:
        save(folder / f"d{number}.tif", np.add.outer(np.arange(size), np.arange(size) * 2.0).astype(np.float32), 300 * number, crs)
    file = lambda kind, there: folder / f"{kind}{number}.tif" if there else None  # noqa: E731
    return Scene(f"s{number}", folder / f"i{number}.tif", file("d", dem), file("l", label), split)


@pytest.fixture
def mixed(tmp_path):
    scenes = [
        place(tmp_path, 0, "train"),
        place(tmp_path, 1, "val", bands=7, dtype="float32", dem=False),
        place(tmp_path, 2, "test", bands=1, dtype="uint16", slide=False),
        place(tmp_path, 3, "predict", label=False, crs=nowhere()),
    ]
    write_manifest(scenes, tmp_path / "scenes.csv")
    return tmp_path


def opened(root):
    readers = [SceneReader(scene, None, 1, "bilinear") for scene in read_scenes(root)]
    return readers, index_windows(readers, 64, 64, once=False)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.requests, self.cells = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.cells += tag == "td"
        if tag == "img":
            self.images.append(attributes)
        if tag in {"script", "link", "iframe", "object"}:
            self.requests.append(tag)
        self.requests += [value for key, value in attrs if key in {"src", "href"} and not value.startswith("data:")]


def test_the_page_holds_everything_and_asks_for_nothing(mixed, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["preview", str(mixed), "--out", str(out), "--windows", "4", "--tile-size", "64"]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)  # nothing temporary is left
    text = (out / "index.html").read_text()
    page = Page(text)
    assert not page.requests
    assert not re.search(r"url\(|@import", text)
    assert len(page.images) == 2
    assert all(len(image["alt"]) > 40 and image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert "prefers-color-scheme: dark" in text
    assert "no known place" in text  # of the scene without georeference
    assert page.cells > 4 * 9
    assert "contact_sheet.png" in capsys.readouterr().out


def test_same_seed_same_bytes(mixed, tmp_path):
    first, again, other = (
        preview(mixed, tmp_path / name, windows=2, tile_size=64, seed=seed) for name, seed in (("a", 1), ("b", 1), ("a", 2))
    )
    assert [path.read_bytes() for path in again] != [path.read_bytes() for path in other]
    third = preview(mixed, tmp_path / "c", windows=2, tile_size=64, seed=1)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in third]
    assert first == other  # files of an earlier run were replaced


def test_windows_with_and_without_landslides_from_all_splits(mixed):
    readers, index = opened(mixed)
    views = choose(readers, index, tile_size=64, number=6, splits=(), seed=0)
    assert len(views) == len(set(views)) == 6
    masks = [readers[view.scene].label(view.row, view.column, view.height, view.width) for view in views]
    assert sum((mask == 1).any() for mask in masks) == 3
    assert {readers[view.scene].scene.split for view in views} == {"train", "val", "test"}
    assert all(view.row + view.height <= 100 and view.column + view.width <= 100 for view in views)
    only = choose(readers, index, tile_size=64, number=99, splits=("test",), seed=0)
    assert {view.scene for view in only} == {2}
    assert len(only) == 4


def test_rows_say_what_is_missing(mixed):
    readers, index = opened(mixed)
    views = choose(readers, index, tile_size=64, number=16, splits=(), seed=0)
    _, rows = contact_sheet(readers, views, ())
    notes = {row.scene: row.notes for row in rows}
    assert notes["s0"] == ()
    assert notes["s1"] == ("no elevation model",)
    assert notes["s2"] == ("bands 1",)
    assert notes["s3"] == ("no label",)
    share = {row.scene: row.landslide for row in rows if row.place == (0, 0)}
    assert share["s0"] == pytest.approx(40 * 34 / 64**2)
    assert share["s3"] is None


def test_cells_show_image_hillshade_and_outline(tmp_path):
    image = np.zeros((3, 64, 64), np.uint8)
    image[0], image[1, 32:], image[2, :, 32:] = 100, 50, 50
    save(tmp_path / "i.tif", image)
    save(tmp_path / "d.tif", np.full((64, 64), 7, np.float32))
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 1
    save(tmp_path / "l.tif", mask)
    write_manifest([Scene("s", *(tmp_path / f"{kind}.tif" for kind in "idl"), "train")], tmp_path / "scenes.csv")
    readers, index = opened(tmp_path)
    sheet, _ = contact_sheet(readers, choose(readers, index, tile_size=64, number=1, splits=(), seed=0), ())
    pixels = (imread(io.BytesIO(sheet))[..., :3] * 255).round().astype(int)
    cells = pixels[-40 - 256 - 256 : -40, :]
    yellow = (cells == (255, 214, 0)).all(axis=2)
    assert yellow[:, 540:].sum() >= 4 * 120  # a square outline of 128 pixels a side, in the third cell
    assert not yellow[:, :540].any()
    assert (abs(cells[:, 290:530] - round(255 * np.sin(np.pi / 4))) <= 1).all(axis=2).sum() > 200 * 200  # flat ground: sin 45 degrees


def test_no_data_are_hatched_and_not_drawn_as_dark(tmp_path):
    image = np.full((1, 64, 64), np.nan, np.float32)
    image[:, :, :32] = 0.5
    save(tmp_path / "i.tif", image, nodata=np.nan)
    save(tmp_path / "l.tif", np.zeros((64, 64), np.uint8))
    write_manifest([Scene("s", tmp_path / "i.tif", None, tmp_path / "l.tif", "train")], tmp_path / "scenes.csv")
    readers, index = opened(tmp_path)
    sheet, _ = contact_sheet(readers, choose(readers, index, tile_size=64, number=1, splits=(), seed=0), ())
    pixels = (imread(io.BytesIO(sheet))[..., :3] * 255).round().astype(int)
    assert (pixels == 215).all(axis=2).sum() > 2 * 100 * 200  # right halves of the first and the third cell
    assert (pixels == 110).all(axis=2).sum() > 1000


def test_bands_by_number_by_tag_or_the_first_three(mixed, tmp_path):
    readers, _ = opened(mixed)
    assert shown_bands(readers[1], (5, 4, 3)) == [4, 3, 2]
    assert shown_bands(readers[1], ()) == [0, 1, 2]
    assert shown_bands(readers[2], ()) == [0]
    for wrong in ((8, 1, 2), (1, 2)):
        with pytest.raises(UserError, match="--bands"):
            shown_bands(readers[1], wrong)


def test_map_shows_splits_in_their_colours_and_says_what_has_no_place(mixed):
    plan, notes = split_map(opened(mixed)[0], 64)
    assert notes == ["1 scenes have no known place: they stand in a grid, and distances between them mean nothing"]
    assert imread(io.BytesIO(plan)).shape[1] == 820


def test_refusals_write_nothing(mixed, tmp_path):
    (mixed / "i2.tif").write_bytes((mixed / "i2.tif").read_bytes()[:400])
    for options, message in (({}, "i2.tif"), ({"splits": ["nowhere"]}, "split")):
        with pytest.raises(UserError, match=message):
            preview(mixed, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


def test_round_lengths():
    assert [round_length(limit) for limit in (0.7, 1, 4.9, 5, 33_000)] == [0.5, 1, 2, 5, 20_000]
    assert (length_text(200), length_text(5000)) == ("200 m", "5 km")
