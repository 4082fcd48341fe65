"""HPCL-Net in training: baseline, teacher, warm-up, resume, processes."""

import os

import lightning as L
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.zoo.hpcl_net.building import NETWORK, SMALL, build, make_batch, train
from zoo import create_method
from zoo.hpcl_net import HPCLNet, HPCLOptions


@pytest.mark.parametrize(("contrast", "equal"), [({"contrast_weight": 0.0}, True), ({"warmup_share": 0.9}, True), ({}, False)])
def test_without_the_term_training_is_that_of_the_baseline_to_the_bit(tmp_path, contrast, equal):
    torch.manual_seed(0)
    baseline = create_method("deeplab", network=NETWORK)
    module = build(**contrast)
    for each in (baseline, module):
        train(each, tmp_path, 4)
    batch = make_batch()
    logits = [each.eval().network(batch["image"], batch["dem"], batch["pixel_size"]) for each in (baseline, module)]
    assert torch.equal(*logits) is equal
    assert (module.hyper_pixels is None) == (contrast.get("contrast_weight") == 0.0)
    if module.hyper_pixels is None:
        assert list(module.state_dict()) == list(baseline.state_dict())


class Recording(HPCLNet):
    """Notes the student before each follow-up."""

    def on_optimizer_step(self) -> None:
        parts = [
            *self.network.named_parameters(),
            *((f"projection.{name}", value) for name, value in self.hyper_pixels.projection.named_parameters()),
        ]
        state = {name: value.detach().double() for name, value in parts if not name.startswith(("decoder", "head"))}
        self.students = [*getattr(self, "students", []), state]
        super().on_optimizer_step()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_teacher_is_the_moving_average_of_the_student_after_each_optimiser_step(tmp_path, accumulate):
    torch.manual_seed(0)
    options = build().network.options
    module = Recording(network=options, contrast=HPCLOptions(**SMALL, momentum=0.7, enqueue_per_image=2))
    teacher = module.hyper_pixels.teacher
    expected = {name.removeprefix("trunk."): value.double() for name, value in teacher.network.named_parameters()}
    train(module, tmp_path, 3, tiles=24, accumulate_grad_batches=accumulate)
    assert len(module.students) == teacher.step == 3
    for student in module.students:
        expected = {name: 0.7 * value + 0.3 * student[name] for name, value in expected.items()}
    for name, value in teacher.network.named_parameters():
        torch.testing.assert_close(value.double(), expected[name.removeprefix("trunk.")], rtol=1e-5, atol=1e-6)
    # Two images a batch, two keys an image and class: the keys of all accumulated batches, once.
    assert module.hyper_pixels.queue.filled.tolist() == [min(32, 3 * accumulate * 4)] * 2


def test_the_term_starts_after_the_warm_up_with_the_student_as_its_teacher(tmp_path):
    seen = []

    class Watching(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append((trainer.global_step, "train/contrast" in trainer.callback_metrics, module.hyper_pixels.teacher.step))

    module = build(warmup_share=0.5, momentum=1.0)
    train(module, tmp_path, 6, callbacks=[Watching()])
    assert [used for _, used, _ in seen] == [False, False, False, True, True, True]
    assert module.hyper_pixels.teacher.step == 3
    # With a momentum of 1 the teacher stays what it was when the term started: the student after three steps of warm-up.
    torch.manual_seed(0)
    baseline = create_method("deeplab", network=NETWORK)
    torch.manual_seed(7)

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step >= 3

    train(baseline, tmp_path, 6, callbacks=[Stop()])
    expected = dict(baseline.network.named_parameters())
    for name, value in module.hyper_pixels.teacher.network.trunk.named_parameters():
        assert torch.equal(value, expected[name]), name


def test_the_momentum_follows_a_schedule_to_the_end_of_training(tmp_path):
    module = build(momentum=0.9, momentum_end=1.0, warmup_share=0.25)
    train(module, tmp_path, 8)
    teacher = module.hyper_pixels.teacher
    assert (teacher.step, teacher.total_steps) == (6, 6)
    assert teacher.momentum == 1.0


@pytest.mark.parametrize("warmup_share", [0.0, 0.6])
def test_a_resumed_run_ends_with_the_same_weights_teacher_and_queues(tmp_path, warmup_share):
    def run(folder, resume=None):
        module = build(warmup_share=warmup_share, momentum=0.5, momentum_end=0.9, queue_length=16)
        keep = ModelCheckpoint(dirpath=tmp_path / folder, filename="{step}", save_top_k=-1, every_n_train_steps=1)
        train(module, tmp_path, 6, callbacks=[keep], resume=resume, tiles=2)
        return module

    whole = run("whole")
    for step in (2, 4):
        resumed = run(f"resumed{step}", tmp_path / "whole" / f"step={step}.ckpt")
        assert resumed.hyper_pixels.teacher.step == whole.hyper_pixels.teacher.step
        assert whole.hyper_pixels.queue.filled.sum() > 0
        for (name, expected), value in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
            assert torch.equal(expected, value), (step, name)


def _two_processes(rank: int, port: int, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), NODE_RANK="0")
    module = build(warmup_share=0.5)
    train(module, out, 4, strategy="ddp", devices=2, enable_checkpointing=False)
    torch.save(module.state_dict(), f"{out}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_keep_equal_teachers_and_queues(tmp_path):
    mp.spawn(_two_processes, args=(29541, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    # Each of the two ranks has one batch of two tiles a step, each tile at least two cells on either side, in two steps with the term.
    assert first["hyper_pixels.queue.filled"].min() >= 2 * 2 * 2 * 2
    for name, value in first.items():
        if "running" not in name and "num_batches" not in name:  # each rank has its own batch statistics until the next step
            assert torch.equal(value, second[name]), name
