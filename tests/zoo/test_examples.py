"""The examples that CONTRIBUTING points to, by class path and without a change to the zoo."""

from pathlib import Path

import pytest
import scipy.ndimage
import torch

from zoo import create_method, load_checkpoint
from zoo.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


def test_the_band_is_what_scipy_finds():
    from boundary_weighted import boundary_band

    mask = torch.zeros(2, 40, 50, dtype=torch.uint8)
    mask[0, 10:25, 20:33] = 1
    mask[1, 30:, :12] = 1  # at the edge of the window, which is no boundary
    mask[0, :5] = 255
    square = [[1] * 5] * 5
    for index in range(2):
        landslide = mask[index].numpy() == 1
        grown = scipy.ndimage.binary_dilation(landslide, square)
        shrunk = scipy.ndimage.binary_erosion(landslide, square, border_value=1)
        expected = grown & ~shrunk & (mask[index].numpy() != 255)
        assert (boundary_band(mask, 2)[index].numpy().astype(bool) == expected).all()


def test_an_own_method_and_an_own_backbone_train_and_come_back_from_their_checkpoint(data_folder, tmp_path):
    network = {"encoder": "pooling_encoder.PoolingEncoder", "decoder_channels": 16}
    module = create_method("boundary_weighted.BoundaryWeighted", network=network, boundary={"weight": 2.0})
    assert module.boundary.weight == 2.0
    arguments = [
        "--model=boundary_weighted.BoundaryWeighted",
        "--model.network.encoder=pooling_encoder.PoolingEncoder",
        "--model.network.decoder_channels=16",
        "--model.boundary.radius=5",
        f"--data.root={data_folder}",
        "--data.tile_size=64",
        "--data.batch_size=2",
        "--trainer.max_steps=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.callbacks=ModelCheckpoint",
        f"--trainer.logger.init_args.save_dir={tmp_path}",
    ]
    assert main(["fit", *arguments]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    loaded = load_checkpoint(checkpoint)
    assert type(loaded).__name__ == "BoundaryWeighted"
    assert loaded.boundary.radius == 5
