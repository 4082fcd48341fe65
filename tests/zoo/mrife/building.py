"""Modules and batches for the tests of MRIFE."""

import torch

from tests.zoo import batches
from zoo import create_method

TINY = {"encoder": "tu-test_efficientnet", "terrain": ["elevation", "slope"], "decoder_channels": 16, "inputs": "image"}
SMALL = {"recover_channels": 16, "block_size": 16}
OFF = {"mfm_weight": 0.0, "contrast_weight": 0.0, "interaction": "none"}
QUIET = {**batches.QUIET, "use_distributed_sampler": False, "limit_val_batches": 0}


def mrife(network=None, optim=None, **enhancement):
    torch.manual_seed(0)
    return create_method("mrife", network={**TINY, **(network or {})}, optim=optim or {}, enhancement={**SMALL, **enhancement})


def make_batch(size=2, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size, side, side, dtype=torch.uint8)
    mask[0, 10:40, 5:45] = 1
    mask[1:, 20:60, 30:64] = 1
    mask[:, :4] = 255
    return {
        "image": torch.rand(size, 3, side, side, generator=generator) * 255,
        "dem": 1000 + 20 * torch.randn(size, 1, side + 4, side + 4, generator=generator),
        "mask": mask,
        "pixel_size": torch.full((size, 2), 2.0),
        "tile": [f"scene:{index}:0" for index in range(size)],
    }
