"""What the base promises: one follow-up per optimiser step, exact resume, and the same scores for any number of processes."""

import math

import lightning as L
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.landslide import LandslideDataModule
from tests.zoo.conftest import write_folder
from zoo import create_method
from zoo.base import LandslideModule, OptimOptions, _schedule
from zoo.metrics.pixels import pixel_scores
from zoo.segmentor import NetworkOptions

TINY = {"encoder": "tu-test_efficientnet", "decoder_channels": 16}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False, "num_sanity_val_steps": 0}  # fmt: skip


class Counting(LandslideModule):
    """Notes the steps done before each follow-up."""

    def on_optimizer_step(self) -> None:
        self.followed = [*getattr(self, "followed", []), self.trainer.global_step]


def data(folder, **settings):
    return LandslideDataModule(root=str(folder), **{"tile_size": 64, "batch_size": 2, "samples_per_epoch": 8, "seed": 0, **settings})


@pytest.mark.parametrize(("accumulate", "expected"), [(1, [0, 1, 2, 3]), (4, [0])])
def test_one_follow_up_per_optimiser_step(data_folder, tmp_path, accumulate, expected):
    torch.manual_seed(0)
    module = Counting(network=NetworkOptions(**TINY))
    trainer = L.Trainer(
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
        **QUIET,
    )
    trainer.fit(module, datamodule=data(data_folder))
    assert module.followed == expected


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_schedules_rise_and_end_where_they_should(schedule):
    factor = _schedule(OptimOptions(schedule=schedule, warmup_share=0.1), 100)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == 1.0
    assert factor(10) == pytest.approx(1.0)
    end = {"poly": 0.0, "cosine": 0.0, "constant": 1.0}[schedule]
    assert factor(100) == pytest.approx(end)
    middle = {"poly": 0.5**0.9, "cosine": 0.5 * (1 + math.cos(math.pi / 2)), "constant": 1.0}[schedule]
    assert factor(55) == pytest.approx(middle)


def test_the_encoder_has_its_own_rate_and_only_weights_decay():
    module = create_method("deeplab", network=TINY, optim={"encoder_lr_factor": 0.1, "weight_decay": 0.5, "lr": 0.01})
    groups = list(module._parameter_groups())
    rates = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert len(rates) == sum(1 for _ in module.parameters())
    for name, parameter in module.named_parameters():
        assert rates[id(parameter)] == (0.001 if ".encoder." in name else 0.01, 0.5 if parameter.ndim > 1 else 0.0), name


def _train(folder, out, resume=None):
    torch.manual_seed(0)
    module = create_method("deeplab", network={**TINY, "dropout": 0.5})
    keep = ModelCheckpoint(dirpath=out, filename="{epoch}", save_top_k=-1)
    trainer = L.Trainer(max_steps=8, callbacks=[keep], default_root_dir=out, limit_val_batches=0, **QUIET)
    trainer.fit(module, datamodule=data(folder), ckpt_path=resume, weights_only=True if resume else None)
    assert trainer.global_step == 8
    return module


def test_a_run_resumed_after_its_first_epoch_equals_one_that_was_not_interrupted(data_folder, tmp_path):
    whole = _train(data_folder, tmp_path)
    resumed = _train(data_folder, tmp_path / "again", resume=tmp_path / "epoch=0.ckpt")
    for (name, expected), value in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, value), name


def _evaluate(rank: int, world_size: int, folder: str, out: str, tile_size: int) -> None:
    import os

    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT="29533", WORLD_SIZE=str(world_size), RANK=str(rank), LOCAL_RANK=str(rank), NODE_RANK="0"
    )
    torch.manual_seed(0)
    module = create_method("deeplab", network=TINY)
    strategy = {"strategy": "ddp", "devices": world_size} if world_size > 1 else {"devices": 1}
    trainer = L.Trainer(enable_checkpointing=False, **strategy, **QUIET)
    result = {}
    for split, evaluate in (("val", trainer.validate), ("test", trainer.test)):
        (logged,) = evaluate(module, datamodule=data(folder, tile_size=tile_size, batch_size=3), verbose=False)
        result[split] = {"logged": logged, "histograms": getattr(module, f"{split}_histograms"), "threshold": module.threshold}
    torch.save(result, f"{out}/{world_size}_{rank}.pt")


# Tiles of 48 on scenes of 64: four overlapping windows a scene.
@pytest.mark.parametrize(("scenes", "tile_size", "windows"), [(2, 48, 8), (5, 64, 5), (1, 64, 1)])
def test_two_processes_score_as_one_and_count_each_tile_once(scenes, tile_size, windows, tmp_path):
    folder = write_folder(tmp_path / "data", evaluated=scenes)
    _evaluate(0, 1, str(folder), str(tmp_path), tile_size)
    mp.spawn(_evaluate, args=(2, str(folder), str(tmp_path), tile_size), nprocs=2)
    for split in ("val", "test"):
        alone, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True)[split] for name in ("1_0", "2_0", "2_1"))
        for other in (first, second):
            assert other["logged"] == pytest.approx(alone["logged"], rel=1e-6, nan_ok=True)
            assert other["threshold"] == alone["threshold"]
            assert list(other["histograms"]) == list(alone["histograms"])
            assert all(torch.equal(other["histograms"][tile], alone["histograms"][tile]) for tile in alone["histograms"])
        assert len(alone["histograms"]) == windows
        pooled = sum(alone["histograms"].values())
        assert int(pooled.sum()) == scenes * 64 * 64
        assert pixel_scores(pooled, alone["threshold"])["iou_landslide"] == pytest.approx(alone["logged"][f"{split}/iou_landslide"])
