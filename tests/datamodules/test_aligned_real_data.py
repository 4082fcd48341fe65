"""Kashmir: 3819 surveyed polygons on an elevation model, from aligned files as from their sources."""

import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio

from datamodules.aligned_cache import AlignedCache
from datamodules.label_rules import LabelRules
from datamodules.reading import SceneReader
from datamodules.scene import Scene

pytestmark = [pytest.mark.realdata, pytest.mark.skipif("LANDSLIDE_DATA" not in os.environ, reason="LANDSLIDE_DATA is not set")]
FOLDER = Path(os.environ.get("LANDSLIDE_DATA", ".")) / "kashmir_inventory"
RULES = {"centres": LabelRules(), "touched": LabelRules(all_touched=True), "boundaries": LabelRules(boundary_ignore_m=40.0)}
MARGIN = 3


@pytest.mark.parametrize("name", RULES)
def test_windows_from_aligned_files_are_those_of_the_sources_to_the_bit(tmp_path, name):
    rules = RULES[name]
    scene = Scene("kashmir", FOLDER / "dem.tif", FOLDER / "dem.tif", FOLDER / "polygons" / "landslides.shp", "train")
    cache = AlignedCache(tmp_path / "cache", FOLDER, margin=MARGIN, dem_resampling="cubic", rules=rules, untiled=True)
    files = cache.files([scene])["kashmir"]
    assert all((files.image, files.dem, files.label))
    plain, aligned = (SceneReader(scene, 1, MARGIN, "cubic", rules, *given) for given in ((), (files,)))
    height, width = plain.grid.height, plain.grid.width
    rng = np.random.default_rng(0)
    places = [(0, 0, height, width, 0)]
    places += [(int(rng.integers(height - 128)), int(rng.integers(width - 128)), 128, 128, MARGIN) for _ in range(20)]
    with closing(plain), closing(aligned):
        for place in places:
            one, other = plain.layers(*place), aligned.layers(*place)
            for layer in ("image", "dem", "mask"):
                np.testing.assert_array_equal(getattr(one, layer), getattr(other, layer), strict=True)
        label = aligned.label(0, 0, height, width)
    if name == "centres":
        with rasterio.open(FOLDER / "mask.tif") as mask:  # drawn by rasterio, by the rule of pixel centres
            np.testing.assert_array_equal(label == 1, mask.read(1) == 1)
    else:
        assert (label == (255 if name == "boundaries" else 1)).mean() > 0.02
