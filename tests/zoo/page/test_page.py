"""The page of a map as a file: one frame for all, no data see-through, a bound on its size, texts that stay texts."""

import json
import re

import cv2
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.overrides import Overrides
from tests.zoo.page.making import MARS, box, write_inventory, write_map, write_raster
from zoo.page import write_page
from zoo.page.frame import Frame
from zoo.page.landslides import outlines, read_landslides, unit_of
from zoo.page.page import MOST_BYTES
from zoo.page.pictures import hillshade_picture, image_picture, probability_picture

QUIET = {"say": lambda line: None}


def grid_of(width, height, x=10.0, y=10.0, crs="EPSG:32648"):
    return Grid(rasterio.crs.CRS.from_user_input(crs), Affine(x, 0, 5e5, 0, -y, 4e6), width, height, (x, y))


def decoded(picture):
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


@settings(deadline=None)
@given(st.integers(1, 9000), st.integers(1, 9000), st.floats(0.1, 300), st.floats(0.5, 2), st.integers(1, 2000))
def test_pictures_and_outlines_share_one_frame(width, height, x, stretch, side):
    grid = grid_of(width, height, x, x * stretch)
    frame = Frame.of(grid, side)
    pictures = frame.pictures
    assert max(pictures.width, pictures.height) <= side
    assert pictures.width <= width
    assert pictures.height <= height
    assert pictures.bounds == pytest.approx(grid.bounds)  # the same ground, so they may be stretched over each other
    # Units are square on the ground, and corners of pixels of the map are where the picture has them.
    assert frame.size == pytest.approx((width * x / frame.unit_m, height * x * stretch / frame.unit_m))
    corners = np.array([ground_of(grid, 0, 0), ground_of(grid, width, height), ground_of(grid, width / 3, height / 7)])
    shares = frame.place(corners) / frame.size
    assert shares == pytest.approx(np.array([[0, 0], [1, 1], [1 / 3, 1 / 7]]), abs=1e-6)


def ground_of(grid, column, row):
    return grid.transform.c + column * grid.transform.a, grid.transform.f + row * grid.transform.e


def test_a_small_map_is_drawn_pixel_by_pixel(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (30, 50))
    path = write_map(tmp_path / "p.tif", values)
    frame = Frame.of(grid_of(50, 30), 2000)
    assert frame.pictures == grid_of(50, 30)
    with rasterio.open(path) as dataset:
        assert (decoded(probability_picture(dataset, path, frame.pictures)) == values).all()


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_larger_pixels_are_means_of_what_is_known(tmp_path, kind):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 255, (40, 60))
    known = rng.random((40, 60)) > 0.6
    known[:8, :8] = False
    if kind == "uint8":
        path = write_map(tmp_path / "p.tif", np.where(known, values, 255))
    else:
        path = write_raster(tmp_path / "p.tif", np.where(known, values / 254, np.nan).astype(np.float32), nodata=np.nan)
    with rasterio.open(path) as dataset:
        drawn = decoded(probability_picture(dataset, path, Frame.of(grid_of(60, 40), 15).pictures))
    blocks = np.where(known, values, 0).reshape(10, 4, 15, 4).sum((1, 3))
    counts = known.reshape(10, 4, 15, 4).sum((1, 3))
    assert ((drawn == 255) == (counts == 0)).all()
    assert np.abs(drawn[counts > 0] - blocks[counts > 0] / counts[counts > 0]).max() <= 0.51


def test_what_is_no_probability_is_refused(tmp_path):
    path = write_raster(tmp_path / "elevation.tif", np.full((5, 5), 900, np.float32))
    with pytest.raises(UserError, match=r"elevation.tif: probability = 900.0: is no probability"):
        write_page(path, tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()


def test_images_without_data_are_see_through_whatever_says_so(tmp_path):
    values = np.full((3, 20, 30), 90, np.uint8)
    values[:, :, 10:] = 180
    values[:, 5:9, 5:9] = 0
    path = write_raster(tmp_path / "i.tif", values)
    stated = decoded(image_picture(path, grid_of(30, 20), Overrides(image_nodata=0)))
    assert (stated[..., 3] == np.where(values[0] == 0, 0, 255)).all()
    assert (decoded(image_picture(path, grid_of(30, 20), Overrides()))[..., 3:] == 255).all()  # a black pixel may be black
    assert stated[12, 2, 1] < 30
    assert stated[12, 25, 1] > 220


def test_the_hillshade_of_a_plane_is_that_of_its_slope_on_any_grid(tmp_path):
    dem = np.tile(1000 - 5.0 * np.arange(60), (40, 1)).astype(np.float32)  # falls east: 26.57 degrees on pixels of 10 m
    dem[:8, :8] = -9999
    path = write_raster(tmp_path / "d.tif", dem, nodata=-9999)
    slope, aspect = np.arctan(0.5), 90.0
    expected = np.sin(np.pi / 4) * np.cos(slope) + np.cos(np.pi / 4) * np.sin(slope) * np.cos(np.radians(315 - aspect))
    for side in (60, 15):
        picture = decoded(hillshade_picture(path, Frame.of(grid_of(60, 40), side).pictures, Overrides()))
        step = 60 // side
        inner = picture[8 // step + 3 : -2, 8 // step + 3 : -2]
        assert np.abs(inner[..., 0] / 255 - expected).max() < 0.02
        assert picture[0, 0, 3] == 0
        assert picture[-3, -3, 3] == 255


def test_outlines_are_where_the_pixels_are(tmp_path):
    hole = box(10, 10, 20, 10).difference(box(14, 12, 4, 4))
    path = write_inventory(tmp_path / "s.gpkg", [hole, box(0, 0, 4, 3)], {"id": np.array([1, 2])})
    landslides = read_landslides(path, Frame.of(grid_of(60, 40), 2000))
    assert landslides.boxes == [[10, 10, 30, 20], [0, 0, 4, 3]]
    rings = [np.array(ring.split(), float).reshape(-1, 2) for ring in re.findall(r"M([^Z]*)Z", landslides.paths[0])]
    assert len(rings) == 2
    assert shapely.Polygon(rings[0], [rings[1]]).area == 20 * 10 - 4 * 4
    halved = read_landslides(path, Frame.of(grid_of(60, 40), 30))
    assert halved.boxes == [[5, 5, 15, 10], [0, 0, 2, 1.5]]


def test_polygons_of_another_system_lie_where_they_are(tmp_path):
    import pyproj

    away = pyproj.Transformer.from_crs("EPSG:32648", "EPSG:32647", always_xy=True)
    moved = shapely.transform(box(10, 10, 20, 10), lambda at: np.column_stack(away.transform(at[:, 0], at[:, 1])))
    path = write_inventory(tmp_path / "s.gpkg", [moved], {"id": np.array([1])}, crs="EPSG:32647")
    assert read_landslides(path, Frame.of(grid_of(60, 40), 2000)).boxes == [[10, 10, 30, 20]]


def test_a_system_without_a_code(tmp_path):
    path = write_map(tmp_path / "p.tif", np.full((20, 30), 200), crs=MARS)
    slides = write_inventory(tmp_path / "s.gpkg", [box(3, 4, 5, 6)], {"id": np.array([7])}, crs=MARS)
    page = write_page(path, tmp_path / "p.html", inventory=slides, **QUIET)
    assert data_of(page)["landslides"]["boxes"] == [[3, 4, 8, 10]]
    assert "<dd>Valles</dd>" in page.read_text()


def test_all_attributes_are_told_with_their_units(tmp_path):
    fields = {
        "id": np.array([1, 2, 3]),
        "area_m2": np.array([1e4, 2e4, np.nan]),
        "threshold": np.full(3, 0.4),
        "name": np.array(["a", None, "c"], dtype=object),
        "seen": np.array(["2020-01-02", "2021-01-02", "2022-01-02"], dtype="datetime64[s]"),
    }
    path = write_inventory(tmp_path / "s.gpkg", [box(0, 0, 1 + n, 2) for n in range(3)], fields)
    landslides = read_landslides(path, Frame.of(grid_of(60, 40), 2000))
    assert landslides.columns == [("id", ""), ("area_m2", "m²"), ("name", ""), ("seen", "")]
    assert landslides.rows[1][:3] == [2, 2e4, None]
    assert landslides.rows[2][1] is None
    assert landslides.common == {"threshold": 0.4}
    units = {name: unit_of(name) for name in ("perimeter_m", "slope_deg", "area_km2", "m", "probability_mean", "id")}
    assert units == {"perimeter_m": "m", "slope_deg": "°", "area_km2": "km²", "m": "", "probability_mean": "", "id": ""}


def test_an_inventory_without_landslides(tmp_path):
    slides = write_inventory(tmp_path / "s.gpkg", [], {"id": np.zeros(0, int), "area_m2": np.zeros(0)})
    page = write_page(write_map(tmp_path / "p.tif", np.full((9, 9), 3)), tmp_path / "p.html", inventory=slides, **QUIET)
    assert "0 landslides" in page.read_text()
    assert data_of(page)["landslides"]["rows"] == []


def test_many_landslides_are_cut_to_the_largest_and_the_page_says_so(tmp_path):
    shapes = [box(n % 60, n // 60, 0.9, 0.9 if n != 5 else 0.1) for n in range(3001)]
    path = write_inventory(tmp_path / "s.gpkg", shapes, {"id": np.arange(3001)})
    landslides = read_landslides(path, Frame.of(grid_of(60, 60), 2000))
    assert [row[0] for row in landslides.rows] == [n for n in range(3001) if n != 5]
    page = write_page(write_map(tmp_path / "p.tif", np.full((60, 60), 3)), tmp_path / "p.html", inventory=path, **QUIET)
    assert "The 3,000 largest of 3,001 landslides" in page.read_text()


def test_outlines_are_simplified_until_they_are_short():
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    radius = 300 + 40 * np.sin(60 * angles)
    shape = shapely.Polygon(np.column_stack([400 + radius * np.cos(angles), 400 + radius * np.sin(angles)]))
    free, short = (outlines(np.array([shape]), most)[0] for most in (10**6, 800))
    assert len(short) <= 800 < len(free)
    points = np.array(free[1:-1].split(), float).reshape(-1, 2)
    assert shapely.hausdorff_distance(shapely.Polygon(points), shape) <= 0.6


@pytest.mark.parametrize("layers", [("a", "b"), ()])
def test_a_file_without_a_layer_of_landslides(tmp_path, layers):
    path = tmp_path / "s.gpkg"
    for layer in layers:
        write_inventory(path, [box(0, 0, 2, 2)], {"id": np.array([1])}, layer=layer)
    if not layers:
        path.write_text("no database")
    with pytest.raises(UserError, match=r"s\.gpkg: inventory"):
        write_page(write_map(tmp_path / "p.tif", np.full((9, 9), 3)), tmp_path / "p.html", inventory=path, **QUIET)


def test_names_and_values_stay_text(tmp_path):
    evil = "</script><script>alert(1)</script>"
    path = write_map(tmp_path / "<script>alert(2)<.tif", np.full((9, 9), 3), tags={"ZOO_METHOD": evil})
    fields = {f"{evil}_m": np.array([1.0, 2.0]), "name": np.array([evil, "b"], dtype=object), "same": np.array([evil] * 2, dtype=object)}
    slides = write_inventory(tmp_path / "s.gpkg", [box(0, 0, 2, 2), box(3, 3, 2, 2)], fields)
    text = write_page(path, tmp_path / "p.html", inventory=slides, **QUIET).read_text()
    assert re.findall(r"<script[^>]*>", text) == ['<script type="application/json" id="data">', "<script>"]
    assert len(re.findall(r"</script", text, re.IGNORECASE)) == 2


def test_the_page_names_no_place_in_the_network(tmp_path):
    text = write_page(write_map(tmp_path / "p.tif", np.full((9, 9), 3)), tmp_path / "p.html", **QUIET).read_text()
    assert "default-src 'none'" in text
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


@pytest.mark.parametrize(("out", "message"), [("p.pdf", "is no name of a page"), ("i.html", "would overwrite the image")])
def test_names_that_cannot_be(tmp_path, out, message):
    path = write_map(tmp_path / "p.tif", np.full((9, 9), 3))
    (tmp_path / "i.html").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=message):
        write_page(path, tmp_path / out, image=tmp_path / "i.html", **QUIET)


def test_an_image_without_a_place_is_left_out_and_said(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((9, 9, 3), np.uint8))
    said = []
    page = write_page(write_map(tmp_path / "p.tif", np.full((9, 9), 3)), tmp_path / "p.html", image=tmp_path / "photo.png", say=said.append)
    assert said == ["p.html: photo.png has no georeference, so the page does not show it"]
    assert "picture-image" not in page.read_text()


@pytest.mark.slow
def test_a_large_map_of_noise_stays_below_the_bound(tmp_path):
    rng = np.random.default_rng(2)
    values = rng.integers(0, 255, (4000, 4000), dtype=np.uint8)
    values[1500:2500, :3000] = 255
    path = write_map(tmp_path / "p.tif", values)
    image = write_raster(tmp_path / "i.tif", rng.integers(0, 255, (3, 4000, 4000), dtype=np.uint8))
    dem = write_raster(tmp_path / "d.tif", rng.normal(1000, 5, (4000, 4000)).astype(np.float32))
    wiggly = [box(20 * (n % 200), 20 * (n // 200), 15, 15).buffer(20, quad_segs=50) for n in range(4000)]
    slides = write_inventory(tmp_path / "s.gpkg", wiggly, {"id": np.arange(4000), "area_m2": rng.random(4000) * 1e5})
    page = write_page(path, tmp_path / "p.html", image=image, dem=dem, inventory=slides, **QUIET)
    assert page.stat().st_size <= MOST_BYTES
