"""Batches of tiles, and a trainer that says nothing, for the tests of methods."""

import torch

from datamodules.batch import validate_batch

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}


def collate(tiles: list[dict]) -> dict:
    batch = {key: [item[key] for item in tiles] if key == "tile" else torch.stack([item[key] for item in tiles]) for key in tiles[0]}
    validate_batch(batch)
    return batch
