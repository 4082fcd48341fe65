"""Whole scenes: each pixel once, one tile as its window, objects across tiles, any number of processes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import scipy.ndimage
import torch
import torch.distributed
import torch.multiprocessing as mp
from rasterio.transform import from_origin

from benchmarks.scenes import evaluate_scenes
from benchmarks.tiles import load_tiles, save_tiles
from datamodules.landslide import LandslideDataModule
from zoo import create_method
from zoo.mapping import Ensemble
from zoo.metrics.pixels import score_histogram

THRESHOLD = 0.5


class Brightness:
    """Probability = first band / 255: a predictor of single pixels, whose map is the same however it is cut."""

    size, reads_dem = 1, False

    def halo(self, pixel_size):
        return 0

    def __call__(self, batch):
        return torch.nan_to_num(batch["image"][:, :1]) / 255


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Scenes of 150 x 90 and 64 x 64 pixels, so tiles of 64 neither divide the first nor are larger than the second."""
    root, generator = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    lines = ["scene,image,dem,label,split"]
    for index, (split, shape) in enumerate(
        [("train", (64, 64)), ("val", (64, 64)), ("test", (150, 90)), ("test", (64, 64)), ("test", (30, 70))]
    ):
        smooth = scipy.ndimage.gaussian_filter(generator.normal(size=shape), 5)
        label = (smooth > np.quantile(smooth, 0.7)).astype(np.uint8)
        image = np.clip(90 + 70 * label + generator.normal(0, 30, (3, *shape)), 0, 255).astype(np.uint8)
        label[: shape[0] // 8, : shape[1] // 4] = 255
        layers = {"image": image, "dem": 100 + 10 * smooth[None].astype(np.float32), "label": label[None]}
        for name, values in layers.items():
            profile = {
                "driver": "GTiff",
                "count": len(values),
                "height": shape[0],
                "width": shape[1],
                "dtype": values.dtype,
                "crs": "EPSG:32648",
            }
            with rasterio.open(
                root / f"{name}{index}.tif", "w", transform=from_origin(500_000 + 3_000 * index, 4_000_000, 5, 5), **profile
            ) as file:
                file.write(values)
        lines.append(f"scene{index},image{index}.tif,dem{index}.tif,label{index}.tif,{split}")
    (root / "scenes.csv").write_text("\n".join(lines) + "\n")
    return root


def count(landslide):
    """8-connected objects of 16 pixels or more."""
    return int((np.bincount(scipy.ndimage.label(landslide, np.ones((3, 3)))[0].ravel())[1:] >= 16).sum())


def opened(root):
    data = LandslideDataModule(str(root / "scenes.csv"), tile_size=64, batch_size=1, seed=0)
    data.setup("test")
    return data


def test_windows_of_the_blended_map_count_each_pixel_once(root, tmp_path):
    found = evaluate_scenes(Brightness(), opened(root), THRESHOLD, tmp_path)
    expected = {}
    for batch in opened(root).test_dataloader():
        expected.update(zip(batch["tile"], score_histogram(Brightness()(batch)[:, 0], batch["mask"]).numpy(), strict=True))
    assert set(found.histograms) == set(expected)
    assert len(expected) == 3 * 2 + 1 + 2
    for window, histogram in expected.items():
        np.testing.assert_array_equal(found.histograms[window], histogram)
    assert list(tmp_path.iterdir()) == [], "maps on disk go when they are scored"


def test_tiles_to_be_looked_at_are_windows_of_the_map_and_its_label(root, tmp_path):
    found = evaluate_scenes(Brightness(), opened(root), THRESHOLD, tmp_path).tiles
    for name, tile in found.items():
        scene, row, column = name.split(":")
        window = np.s_[int(row) : int(row) + 64, int(column) : int(column) + 64]
        with rasterio.open(root / f"label{scene.removeprefix('scene')}.tif") as file:
            label = file.read(1)[window]
        with rasterio.open(root / f"image{scene.removeprefix('scene')}.tif") as file:
            image = file.read()[(slice(None), *window)]
        np.testing.assert_array_equal(tile.label, label)
        # Probability = first band / 255, in float32 as the map has it.
        np.testing.assert_array_equal(tile.scores, np.minimum(image[0].astype(np.float32) / np.float32(255) * 256, 255).astype(np.uint8))
        assert tile.landslide == pytest.approx((label == 1).sum() / (label != 255).sum())
        assert tile.pixel_m == (5, 5)
        shown = cv2.imdecode(np.frombuffer(tile.image, np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown.shape[:2] == label.shape
        assert np.corrcoef(shown[..., 2].ravel(), image[0].ravel())[0, 1] > 0.8, "red is the first band, compressed with losses"
        assert cv2.imdecode(np.frombuffer(tile.hillshade, np.uint8), cv2.IMREAD_UNCHANGED).shape[:2] == label.shape
    assert len(found) == 6
    assert evaluate_scenes(Brightness(), opened(root), THRESHOLD, tmp_path, pictures=False).tiles == {}


def test_an_object_is_whole_across_tiles(root, tmp_path):
    """Labelled objects are those of the whole label, not of its tiles."""
    found = evaluate_scenes(Brightness(), opened(root), THRESHOLD, tmp_path)
    whole, cut = 0, 0
    for index in (2, 3, 4):
        with rasterio.open(root / f"label{index}.tif") as file:
            label = file.read(1) == 1
        tiles = [
            label[row : row + 64, column : column + 64] for row in range(0, label.shape[0], 64) for column in range(0, label.shape[1], 64)
        ]
        whole += count(label)
        cut += sum(map(count, tiles))
    assert found.scores["objects"] == whole < cut
    assert 0 < found.scores["boundary_f1_10m"] < found.scores["boundary_f1_20m"] < 1
    assert not any(name.startswith("iou") for name in found.scores)


@pytest.mark.parametrize("method", ["deeplab", "hpcl_net", "icssn", "mrife"])
def test_a_scene_of_one_tile_scores_as_its_window(root, tmp_path, method):
    torch.manual_seed(0)
    network = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "inputs": "both", "terrain": ["slope"]}
    fusion = {"fusion": "concat_ca", "fusion_levels": "deep"} if method == "hpcl_net" else {}
    model = create_method(method, network={**network, **fusion}).eval()
    found = evaluate_scenes(Ensemble([model]), opened(root), THRESHOLD, tmp_path)
    for batch in opened(root).test_dataloader():
        if batch["tile"] == ["scene3:0:0"]:
            with torch.inference_mode():
                expected = score_histogram(model.probabilities(batch), batch["mask"])[0].numpy()
            np.testing.assert_array_equal(found.histograms["scene3:0:0"], expected)
            return
    pytest.fail("the scene was not among the windows")


def test_two_processes_give_what_one_gives(root, tmp_path):
    mp.spawn(_rank, args=(str(root), str(tmp_path)), nprocs=2)
    alone = evaluate_scenes(Brightness(), opened(root), THRESHOLD, tmp_path)
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["scores"] == pytest.approx(alone.scores, nan_ok=True)
        assert found["histograms"] == {window: histogram.tolist() for window, histogram in alone.histograms.items()}
    kept = [load_tiles(str(rank), tmp_path) for rank in range(2)]
    save_tiles("alone", alone.tiles, tmp_path)
    assert (tmp_path / "0.tiles.npz").read_bytes() == (tmp_path / "1.tiles.npz").read_bytes() == (tmp_path / "alone.tiles.npz").read_bytes()
    assert list(kept[0]) == list(alone.tiles) != []


def _rank(rank, root, out):
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=2)
    work = Path(out) / str(rank)
    work.mkdir()
    found = evaluate_scenes(Brightness(), opened(Path(root)), THRESHOLD, work)
    histograms = {window: histogram.tolist() for window, histogram in found.histograms.items()}
    save_tiles(str(rank), found.tiles, Path(out))
    (Path(out) / f"rank{rank}.json").write_text(json.dumps({"scores": found.scores, "histograms": histograms}))
    torch.distributed.destroy_process_group()
