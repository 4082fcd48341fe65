"""A tiny data set on disk: enough to go through the real data module and the real command line."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin


def write_folder(root: Path, *, tiles: int = 4, evaluated: int = 2, size: int = 64, bands: int = 3, dem: bool = True) -> Path:
    """Tiles in the folder layout; a landslide is a dark bowl, so that something can be learned within a few steps."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    for number, split in enumerate(("train", "val", "test")):
        for folder in ("images", "dem", "masks"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for tile in range(tiles if split == "train" else evaluated):
            row, column = rng.integers(size // 4, 3 * size // 4, 2)
            distance = np.hypot(rows - row, columns - column)
            mask = (distance < size / 6).astype(np.uint8)
            image = rng.integers(80, 160, (bands, size, size)) - 60 * mask
            elevation = 1000 + columns * 0.5 - 15 * np.exp(-((distance / (size / 6)) ** 2)) + rng.normal(0, 0.2, (size, size))
            place = from_origin(500_000 + 10_000 * number, 4_000_000 - 1_000 * tile, 2, 2)
            profile = {"driver": "GTiff", "height": size, "width": size, "crs": "EPSG:32648", "transform": place}
            name = f"tile_{tile}.tif"
            layers = {"images": image.astype(np.uint8), "masks": mask[None]}
            if dem:
                layers["dem"] = elevation[None].astype(np.float32)
            for folder, values in layers.items():
                extra = {"nodata": -9999} if folder == "dem" else {}
                with rasterio.open(root / split / folder / name, "w", count=len(values), dtype=values.dtype, **profile, **extra) as target:
                    target.write(values)
        if not dem:
            (root / split / "dem").rmdir()
    return root


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folder_without_dem(tmp_path) -> Path:
    return write_folder(tmp_path / "no_dem", dem=False)
