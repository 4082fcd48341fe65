"""Mining in training: exact resume, any number of workers, one pool on all ranks."""

import os

import lightning as L
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from zoo import create_method

TINY = {"encoder": "tu-test_efficientnet", "decoder_channels": 16}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False, "num_sanity_val_steps": 0}  # fmt: skip
DATA = {"tile_size": 32, "train_stride": 8, "batch_size": 2, "samples_per_epoch": 8, "seed": 0, "landslide_share": 0.25}
MINED = {"hard_negative_share": 0.5, "hard_negatives": "mined", "mining_windows": 12, "hard_negative_pool": 0.25}


class Tiles(Callback):
    """Notes what was trained on."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch["tile"])


def train(folder, out, resume=None, *, trainer=None, **settings):
    torch.manual_seed(0)
    module = create_method("deeplab", network=TINY)
    tiles = Tiles()
    within = ModelCheckpoint(dirpath=out, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    after = ModelCheckpoint(dirpath=out, filename="validated-{step}", save_top_k=-1, save_on_train_epoch_end=False)
    data = LandslideDataModule(str(folder), **{**DATA, **MINED, **settings})
    runner = L.Trainer(**{"max_steps": 12, "callbacks": [within, after, tiles], "default_root_dir": out, **QUIET, **(trainer or {})})
    runner.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    return module, data, tiles.seen


@pytest.mark.parametrize("val_check_interval", [1.0, 0.5])
def test_a_resumed_training_mines_and_draws_as_one_that_was_not_interrupted(data_folder, tmp_path, val_check_interval):
    trainer = {"val_check_interval": val_check_interval}
    module, data, seen = train(data_folder, tmp_path / "whole", trainer=trainer)
    # One from after a validation that ends an epoch, one from between validations, with a pool already at work.
    for file, step in (("validated-step=4", 4), ("step=5", 5)):
        again, resumed, rest = train(data_folder, tmp_path / f"again{step}", tmp_path / f"whole/{file}.ckpt", trainer=trainer)
        assert rest == seen[step:]
        assert resumed.state_dict() == data.state_dict()
        for (name, expected), value in zip(module.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(expected, value), name
    with pytest.raises(UserError, match="before the validation of its step"):
        train(data_folder, tmp_path / "early", tmp_path / "whole/step=4.ckpt", trainer=trainer)


def test_the_stream_does_not_depend_on_workers_and_draws_from_the_pool(data_folder, tmp_path):
    _, data, seen = train(data_folder, tmp_path / "0")
    _, other, same = train(data_folder, tmp_path / "2", num_workers=2)
    assert same == seen
    assert other.state_dict() == data.state_dict()
    pools = data.hard_negative_pools
    assert 0 < len(pools.at(99)) <= 3
    assert set(pools.at(99)) <= set(pools.background)
    windows, _ = data.train_dataloader().sampler.order(99)
    drawn = [window in pools.at(99) for window in windows]
    assert sum(drawn) >= 0.5 * len(windows) - 1


def test_the_pool_holds_the_windows_with_the_highest_mean_probability(data_folder, tmp_path):
    # One epoch, so that the network is still the one that mined.
    module, data, _ = train(data_folder, tmp_path, trainer={"max_steps": 4}, mining_windows=10_000)
    module.eval()
    scores = {}
    background = data.hard_negative_pools.background
    with torch.no_grad():
        for position, batch in zip(background, (b for k in background for b in data.training_windows([k])), strict=True):
            known = batch["mask"] != 255
            scores[int(position)] = float(module.probabilities(batch)[known].mean())
    pool = set(data.hard_negative_pools.at(1).tolist())
    assert len(pool) == -(-len(background) // 4)
    assert min(scores[k] for k in pool) >= max(score for k, score in scores.items() if k not in pool) - 1e-5


@pytest.mark.parametrize("trainer", [{"limit_val_batches": 0}, {"limit_train_batches": 2}])
def test_trainings_that_cannot_mine_are_refused(data_folder, tmp_path, trainer):
    with pytest.raises(UserError, match=rf"trainer\.{next(iter(trainer))}"):
        train(data_folder, tmp_path, trainer=trainer)


def test_terrain_needs_elevation(folder_without_dem):
    data = LandslideDataModule(str(folder_without_dem), **DATA, hard_negative_share=0.25)
    with pytest.raises(UserError, match=r"add a dem .* data\.hard_negatives|data\.hard_negatives"):
        data.setup("fit")


def test_terrain_pool_is_the_same_with_and_without_cache(data_folder):
    pools = []
    for cache_mb in (0, 64):
        data = LandslideDataModule(str(data_folder), **DATA, cache_mb=cache_mb, hard_negative_share=0.25)
        data.setup("fit")
        pools.append(data.hard_negative_pools.at(3).tolist())
    assert pools[0] == pools[1]
    assert len(pools[0]) == -(-len(data.hard_negative_pools.background) // 5)


def _train_rank(rank, folder, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29547", WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), NODE_RANK="0")
    trainer = {"strategy": "ddp", "devices": 2, "max_steps": 8}
    _, data, seen = train(folder, out, trainer=trainer, batch_size=1)
    order = data.train_dataloader().sampler.order(1)[0].tolist()
    torch.save({"state": data.state_dict(), "seen": seen, "order": order}, f"{out}/rank{rank}.pt")


@pytest.mark.slow
def test_two_processes_have_one_pool_and_share_its_stream(data_folder, tmp_path):
    mp.spawn(_train_rank, args=(str(data_folder), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert first["state"] == second["state"]
    assert first["state"]["pools"]
    assert first["order"] == second["order"]
    assert len(first["seen"]) == len(second["seen"]) == 8
