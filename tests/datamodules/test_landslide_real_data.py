"""The data module on Mars: tiles in folders, and scenes with holes."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from datamodules.batch import validate_batch
from datamodules.landslide import LandslideDataModule
from tests.datamodules.landslide_scenes import manifest


@pytest.mark.slow
@pytest.mark.realdata
def test_mars_tiles():
    if not os.environ.get("LANDSLIDE_DATA"):
        pytest.skip("LANDSLIDE_DATA is not set")
    data = LandslideDataModule(str(Path(os.environ["LANDSLIDE_DATA"]) / "mars_mmls"), batch_size=8, seed=0)
    data.setup()
    summary = data.summary()
    # The figures of the data set's own README.
    assert {split: part.scenes for split, part in summary.items()} == {"train": 228, "val": 54, "test": 84}
    assert [round(summary[split].prevalence, 3) for split in ("train", "val", "test")] == [0.374, 0.330, 0.303]
    assert summary["train"].km2 == pytest.approx(228 * 128**2 * 0.232**2, rel=1e-6)
    batch = next(iter(data.train_dataloader()))
    validate_batch(batch)
    assert ((batch["pixel_size"] > 232 / 1.11) & (batch["pixel_size"] < 232 / 0.89)).all()


@pytest.mark.realdata
def test_mars_scenes_with_holes_count_each_valid_pixel_once(tmp_path):
    if not os.environ.get("LANDSLIDE_DATA"):
        pytest.skip("LANDSLIDE_DATA is not set")
    folder = Path(os.environ["LANDSLIDE_DATA"]) / "mars_scenes"
    rows = []
    for name, split in (("scene_full", "train"), ("scene_val_holes", "val"), ("scene_test_holes", "test")):
        rows.append([name, *(os.path.relpath(folder / name / f"{part}.tif", tmp_path) for part in ("rgb", "dem", "mask")), split, ""])
    manifest(tmp_path, rows)
    data = LandslideDataModule(str(tmp_path), seed=0, cache_mb=0)
    data.setup("test")
    counts = torch.zeros(256, dtype=torch.int64)
    for batch in data.test_dataloader():
        validate_batch(batch)
        counts += torch.bincount(batch["mask"].flatten().long(), minlength=256)
    with rasterio.open(folder / "scene_test_holes" / "mask.tif") as file:
        expected = np.bincount(file.read(1).ravel(), minlength=256)
    assert counts[:2].tolist() == expected[:2].tolist()
