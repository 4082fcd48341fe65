"""Tiles, loaders and trainings for the tests of ICSSN."""

import math

import lightning as L
import torch
from torch.utils.data import DataLoader

from tests.zoo.batches import QUIET, collate
from zoo import create_method
from zoo.icssn import ICSSN

NETWORK = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "inputs": "image", "dropout": 0.5}
SMALL = {"ocl_dim": 8, "socl_dim": 8}
SIZE, STRIDE = 96, 16
CLASSIFICATION, SEGMENTATION = "classification", "segmentation"


def tile(number: int) -> dict:
    """A landslide in the upper left of every second tile, at another place for each number."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    row, column = 28 + 3 * number, 30 - 2 * number
    mask = ((rows - row) ** 2 + (columns - column) ** 2 < 18**2).to(torch.uint8) * (number % 2 == 0)
    mask[:, : 3 * number] = 255
    return {
        "image": torch.rand(3, SIZE, SIZE, generator=generator) * 200 - 60 * mask,
        "dem": 1000 + torch.rand(1, SIZE + 4, SIZE + 4, generator=generator),
        "mask": mask,
        "pixel_size": torch.tensor([2.0, 2.0]),
        "tile": f"scene:{number}:0",
    }


def make_batch(*numbers: int) -> dict:
    return collate([tile(number) for number in numbers or (0, 1)])


def loader(num: int = 4) -> DataLoader:
    return DataLoader([tile(number % 4) for number in range(num)], batch_size=2, collate_fn=collate)


def build(network: dict | None = None, **iteration) -> ICSSN:
    torch.manual_seed(0)
    return create_method("icssn", network={**NETWORK, **(network or {})}, iteration={**SMALL, **iteration})


def train(module, path, steps, *, callbacks=(), tiles=4, **trainer):
    torch.manual_seed(7)
    trainer = L.Trainer(
        max_steps=steps, max_epochs=-1, callbacks=list(callbacks), default_root_dir=path, enable_checkpointing=False, **{**QUIET, **trainer}
    )
    trainer.fit(module, loader(tiles))
    return trainer


def unit_vectors(projector, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.nn.functional.normalize(projector(inputs).double(), dim=1)


def info_nce_loop(queries: list[tuple[int, torch.Tensor]], keys: list[tuple[int, torch.Tensor]], temperature: float) -> float:
    """Mean over queries and their positives; query number i is key number i."""
    losses = []
    for place, (label, query) in enumerate(queries):
        others = [pair for number, pair in enumerate(keys) if number != place]
        negatives = sum(math.exp(float(query @ key) / temperature) for other, key in others if other != label)
        positives = [math.exp(float(query @ key) / temperature) for other, key in others if other == label]
        losses.append(sum(-math.log(positive / (positive + negatives)) for positive in positives) / len(positives))
    return sum(losses) / len(losses)
