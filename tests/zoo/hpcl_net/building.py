"""Tiles, loaders and trainings for the tests of HPCL-Net."""

import copy

import lightning as L
import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import DataLoader

from tests.zoo.batches import QUIET, collate
from zoo import create_method
from zoo.hpcl_net import HPCLNet

NETWORK = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "fusion": "concat_ca", "fusion_levels": "deep", "dropout": 0.5}
SMALL = {"projection_dim": 8, "queue_length": 32, "warmup_share": 0.0}
SIZE, HALO, STRIDE = 96, 2, 16


def tile(number: int) -> dict:
    """A landslide of a few cells on a slope, at another place for each number."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    row, column = 40 + 4 * number, 60 - 5 * number
    mask = ((rows - row) ** 2 + (columns - column) ** 2 < 26**2).to(torch.uint8)
    mask[:, : 3 * number] = 255
    fall = 2000 - torch.arange(SIZE + 2 * HALO).float()[:, None].expand(-1, SIZE + 2 * HALO)
    return {
        "image": torch.rand(3, SIZE, SIZE, generator=generator) * 200 - 60 * mask,
        "dem": fall[None] + torch.rand(1, SIZE + 2 * HALO, SIZE + 2 * HALO, generator=generator),
        "mask": mask,
        "pixel_size": torch.tensor([2.0, 2.0]),
        "tile": f"scene:{number}:0",
    }


def make_batch(size: int = 2) -> dict:
    return collate([tile(number) for number in range(size)])


def loader(num: int = 4, batch_size: int = 2) -> DataLoader:
    return DataLoader([tile(number % 4) for number in range(num)], batch_size=batch_size, collate_fn=collate)


def build(network: dict | None = None, **contrast) -> HPCLNet:
    torch.manual_seed(0)
    return create_method("hpcl_net", network={**NETWORK, **(network or {})}, contrast={**SMALL, **contrast})


def train(module, path, steps, *, callbacks=(), resume=None, tiles=4, **trainer):
    torch.manual_seed(7)
    trainer = L.Trainer(max_steps=steps, max_epochs=-1, callbacks=list(callbacks), default_root_dir=path, **{**QUIET, **trainer})
    trainer.fit(module, loader(tiles), ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def reference_cells(mask: np.ndarray, radius: int = STRIDE) -> tuple[np.ndarray, np.ndarray]:
    """Inner and outer boundary cells of one mask by morphology on the pixel grid."""
    square = np.ones((2 * radius + 1, 2 * radius + 1), bool)
    landslide, background = mask == 1, mask == 0
    band = (landslide & ndimage.binary_dilation(background, square)) | (background & ndimage.binary_dilation(landslide, square))
    cells = mask.reshape(SIZE // STRIDE, STRIDE, SIZE // STRIDE, STRIDE).swapaxes(1, 2)
    touched = band.reshape(SIZE // STRIDE, STRIDE, SIZE // STRIDE, STRIDE).any((1, 3))
    valid = (cells != 255).all((2, 3))
    share = (cells == 1).mean((2, 3))
    return touched & valid & (share >= 0.5), touched & valid & (share == 0)


def reference_keys(module: HPCLNet, batch: dict, *, training: bool) -> torch.Tensor:
    """Unit vectors of every cell, float64 (B, h w, D), by a copy of the whole network and the head."""
    twin = copy.deepcopy(module).train(training)
    with torch.no_grad():
        deep = twin.network.features(batch["image"], batch["dem"], batch["pixel_size"])[-1]
        vectors = twin.hyper_pixels.projection(deep).double()
    return torch.nn.functional.normalize(vectors.flatten(2).transpose(1, 2), dim=-1)
