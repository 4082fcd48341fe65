"""Rasters on disk, and networks whose answer is known: what the mapping tests compare with."""

import functools
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from datamodules.reading import SceneReader
from datamodules.scene import Scene
from zoo import create_method
from zoo.cli import main
from zoo.segmentor import NetworkOptions, Segmentor

ROOT = Path(__file__).parents[3]
PLACE = from_origin(500_000, 4_000_000, 2, 2)


class Smoothing(Segmentor):
    """Mean of the image over a square of `2 reach + 1` pixels, beyond the tile zero: translation-equivariant but for its rim."""

    reach = 0

    def forward(self, image, dem, pixel_size):
        side = 2 * self.reach + 1
        grey = torch.nan_to_num(image).mean(1, keepdim=True)
        mean = F.conv2d(grey, torch.full((1, 1, side, side), 1 / side**2), padding=self.reach)
        return (mean - 128) / 32


class Terrain(Segmentor):
    """The terrain layers that the network derives, summed: equivariant where the halo is right."""

    def forward(self, image, dem, pixel_size):
        return self.preprocessing(image, dem, pixel_size)[1].sum(1, keepdim=True)


def build(kind=Smoothing, *, reach=0, inputs="image", terrain=("slope",), channels=3, threshold=0.5):
    options = NetworkOptions(
        encoder="tu-test_efficientnet", inputs=inputs, terrain=terrain, image_channels=channels, decoder="unet", decoder_channels=16
    )
    module = create_method("deeplab", network={"encoder": "tu-test_efficientnet", "decoder_channels": 16})
    module.network = kind(options)
    module.network.reach = reach
    module.decision_threshold.fill_(threshold)
    return module.eval()


def write_raster(path: Path, values, *, nodata=None, crs="EPSG:32648", transform=PLACE, **extra) -> Path:
    values = np.asarray(values)
    values = values if values.ndim == 3 else values[None]
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs=crs, transform=transform, nodata=nodata, **extra
    ) as target:  # fmt: skip
        target.write(values)
    return path


@pytest.fixture(name="build")
def build_fixture():
    return build


@pytest.fixture(name="write_raster")
def write_raster_fixture():
    return write_raster


@pytest.fixture
def networks():
    return {"smoothing": Smoothing, "terrain": Terrain}


@pytest.fixture
def open_scene(tmp_path):
    """Image (C, H, W) and elevation (H, W) as a scene on disk, open."""
    readers = []

    def opened(image, dem=None, *, margin=0, **extra):
        name = f"scene_{len(readers)}"
        files = [write_raster(tmp_path / f"{name}.tif", image, **extra), None]
        if dem is not None:
            files[1] = write_raster(tmp_path / f"{name}_dem.tif", dem.astype(np.float32), nodata=-9999)
        readers.append(SceneReader(Scene(name, *files, None, "predict"), None, margin, "cubic"))
        return readers[-1]

    yield opened
    for reader in readers:
        reader.close()


@pytest.fixture(scope="session")
def trained(data_folder, tmp_path_factory):
    """Makes checkpoints as the trainer writes them, after three steps on pixels of 2 m in tiles of 64; by inputs and seed."""

    @functools.cache
    def make(inputs="both", seed=0):
        folder = tmp_path_factory.mktemp(f"fit_{inputs}_{seed}")
        arguments = [
            "fit", f"--config={ROOT}/zoo/configs/deeplab.yaml", f"--seed_everything={seed}", f"--data.root={data_folder}",
            "--model.network.encoder=tu-test_efficientnet", "--model.network.weights=null", "--model.network.decoder_channels=16",
            f"--model.network.inputs={inputs}", "--data.tile_size=64", "--data.batch_size=2", "--data.num_workers=0",
            "--trainer.max_steps=3", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false", f"--trainer.logger.init_args.save_dir={folder}",
        ]  # fmt: skip
        assert main(arguments) == 0
        return next(folder.rglob("last.ckpt"))

    return make


@pytest.fixture
def survey(tmp_path):
    """An image with a hole, and its elevation model on a coarser grid in another system with a hole of its own; 150 x 200 pixels of 2 m."""
    rng = np.random.default_rng(1)
    image = rng.integers(1, 255, (3, 150, 200)).astype(np.uint8)
    image[:, 30:60, :50] = 0
    rows, columns = np.mgrid[:150, :200]
    dem = (800 + rows * 0.7 + 10 * np.sin(columns / 9)).astype(np.float32)
    write_raster(tmp_path / "image.tif", image, nodata=0)
    write_raster(tmp_path / "fine.tif", dem)
    with (
        rasterio.open(tmp_path / "fine.tif") as fine,
        WarpedVRT(fine, crs="EPSG:32647", resolution=6, add_alpha=False, nodata=-9999) as other,
    ):
        values = other.read(1)
        values[20:24, 30:35] = -9999
        write_raster(tmp_path / "dem.tif", values, nodata=-9999, crs=other.crs, transform=other.transform)
    return tmp_path / "image.tif", tmp_path / "dem.tif"
