"""MRIFE in training: teacher, warm-up, resume."""

import copy

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.landslide import LandslideDataModule
from tests.zoo.mrife.building import QUIET, mrife
from zoo.mrife.network import RecoveringPath


def train(folder, out, *, max_steps=8, accumulate=1, resume=None, watch=None, **enhancement):
    module = mrife(optim={"lr": 0.01}, **enhancement)
    keep = ModelCheckpoint(dirpath=out, filename="{epoch}", save_top_k=-1)
    callbacks = [keep, *([watch] if watch else [])]
    data = LandslideDataModule(root=str(folder), tile_size=64, batch_size=2, samples_per_epoch=8, seed=0)
    trainer = L.Trainer(max_steps=max_steps, accumulate_grad_batches=accumulate, callbacks=callbacks, default_root_dir=out, **QUIET)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    assert trainer.global_step == max_steps
    return module


class Watch(L.Callback):
    """Follows the teacher in float64, by the schedule as it is stated: .996 to 1 by a half cosine over the optimiser steps."""

    def __init__(self, total):
        self.total, self.momenta, self.steps, self.expected = total, [], 0, None

    def on_train_start(self, trainer, module):
        path = RecoveringPath(module.network, module._branch())
        self.expected = [parameter.detach().double().clone() for parameter in path.parameters()]

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = module.distillation.teacher.step
        if trainer.global_step > self.steps:
            self.follow(trainer, module)

    def on_train_end(self, trainer, module):
        self.follow(trainer, module)

    def follow(self, trainer, module):
        momentum = 1 - (1 - 0.996) * (np.cos(np.pi * self.steps / self.total) + 1) / 2
        self.steps += 1
        assert module.distillation.teacher.step == self.steps == trainer.global_step
        path = RecoveringPath(module.network, module._branch())
        for mean, parameter in zip(self.expected, path.parameters(), strict=True):
            mean.mul_(momentum).add_(parameter.detach().double(), alpha=1 - momentum)
        self.momenta.append(momentum)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_teacher_is_the_moving_average_once_per_optimiser_step(data_folder, tmp_path, accumulate):
    watch = Watch(total=4)
    module = train(data_folder, tmp_path, max_steps=4, accumulate=accumulate, watch=watch)
    assert watch.steps == 4
    for parameter, expected in zip(module.distillation.teacher.network.parameters(), watch.expected, strict=True):
        assert torch.allclose(parameter.double(), expected, atol=1e-6)
    buffers = dict(RecoveringPath(module.network, module._branch()).named_buffers())
    for name, value in module.distillation.teacher.network.named_buffers():
        assert torch.equal(value, buffers[name]), name


def test_weights_rise_over_the_warm_up(data_folder, tmp_path):
    class Rise(L.Callback):
        def __init__(self):
            self.shares = []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            values = {name: value.item() for name, value in trainer.callback_metrics.items()}
            self.shares.append((values["train/total"] - values["train/segmentation"]) / values["train/mfm"])

    watch = Rise()
    train(data_folder, tmp_path, watch=watch, warmup_share=0.5, contrast_weight=0.0, mfm_weight=2.0)
    assert watch.shares == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0], rel=1e-3)


def test_a_resumed_run_keeps_teacher_centre_and_schedule_to_the_bit(data_folder, tmp_path):
    whole = train(data_folder, tmp_path, mfm_loss="ibot")
    resumed = train(data_folder, tmp_path / "again", mfm_loss="ibot", resume=tmp_path / "epoch=0.ckpt")
    assert resumed.distillation.teacher.step == 8
    assert whole.distillation.centre.abs().sum() > 0
    states = whole.state_dict(), resumed.state_dict()
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_copy_of_the_module_has_each_weight_once():
    module = mrife()
    names = list(copy.deepcopy(module).state_dict())
    assert len(names) == len(set(names))
    addresses = [parameter.data_ptr() for parameter in module.parameters()]
    assert len(addresses) == len(set(addresses))
