"""A tiny data set on disk for whole runs."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin


@pytest.fixture(scope="session")
def scenes_of_bowls(tmp_path_factory):
    """Folder layout of 64x64 tiles: landslides are steep."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    rows, columns = np.mgrid[:64, :64]
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for index in range(count):
            centre = generator.uniform(16, 48, 2)
            bowl = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / 200)
            layers = {
                "images": (generator.integers(60, 90, (3, 64, 64)) + 40 * bowl).astype(np.uint8),
                "dem": (1000 - 80 * bowl + generator.normal(0, 0.1, (64, 64))).astype(np.float32)[None],
                "masks": (bowl > 0.5).astype(np.uint8)[None],
            }
            for folder, values in layers.items():
                path = root / split / folder / f"tile{index}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                transform = from_origin(500_000 + index * 1_000, 4_000_000 + len(split) * 10_000, 5, 5)
                profile = {"driver": "GTiff", "width": 64, "height": 64, "count": len(values), "dtype": values.dtype, "crs": "EPSG:32648"}
                with rasterio.open(path, "w", transform=transform, **profile) as file:
                    file.write(values)
    return root
