"""ICSSN's phases: which network trains when, and that the other rests."""

import itertools

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.errors import UserError
from tests.zoo.icssn.building import (
    CLASSIFICATION,
    QUIET,
    SEGMENTATION,
    build,
    collate,
    make_batch,
    tile,
    train,
)
from zoo.icssn import ICSSN
from zoo.icssn.schedule import phase_at

TABLE = {
    # 18 steps, rounds of 6: two for classification
    ("rounds", 3, "classification", 1 / 3): "ccssssccssssccssss",
    ("rounds", 3, "segmentation", 1 / 3): "ssssccssssccsssscc",
    ("rounds", 1, "classification", 1 / 3): "ccccccssssssssssss",
    ("rounds", 2, "classification", 0.5): "ccccsssssccccsssss",  # 4.5 of 9 steps round to the even 4
    ("rounds", 4, "classification", 0.2): "cssss" + "csss" + "cssss" + "csss",  # rounds begin at 0, 4.5, 9, 13.5, rounded up
    ("rounds", 3, "classification", 0.0): "s" * 18,
    # six steps an epoch
    ("alternate_epoch", 3, "classification", 0.5): "ccccccsssssscccccc",
    ("alternate_epoch", 3, "segmentation", 1 / 3): "ssssssssssss" + "cccccc",
    ("alternate_step", 3, "classification", 1 / 3): "css" * 6,
    ("alternate_step", 3, "segmentation", 1 / 3): "ssc" * 6,
    ("alternate_step", 3, "classification", 0.5): "cs" * 9,
    ("joint", 3, "classification", 1 / 3): "j" * 18,
}


@pytest.mark.parametrize(("setting", "expected"), TABLE.items(), ids=str)
def test_the_phases_are_those_of_the_table(setting, expected):
    schedule, rounds, first, share = setting
    phases = [
        phase_at(step, num_steps=18, steps_per_epoch=6, schedule=schedule, rounds=rounds, classification_share=share, first=first)
        for step in range(18)
    ]
    assert "".join(phase[0] for phase in phases) == expected


@pytest.mark.parametrize("schedule", ["rounds", "alternate_epoch", "alternate_step"])
@pytest.mark.parametrize("first", [CLASSIFICATION, SEGMENTATION])
def test_each_network_gets_its_share_of_any_number_of_steps(schedule, first):
    for num_steps, rounds, share in itertools.product((1, 7, 100, 901), (1, 3, 5), (0.1, 1 / 3, 0.3333, 0.7)):
        phases = [
            phase_at(
                step, num_steps=num_steps, steps_per_epoch=3, schedule=schedule, rounds=rounds, classification_share=share, first=first
            )
            for step in range(num_steps)
        ]
        off = abs(phases.count(CLASSIFICATION) - share * num_steps)
        assert off <= {"rounds": rounds, "alternate_epoch": 3, "alternate_step": 1}[schedule]
        if schedule == "rounds" and num_steps >= 2 * rounds:  # rounds of two steps or more have both phases
            assert len(list(itertools.groupby(phases))) == 2 * rounds


class Watching(L.Callback):
    """Notes what changed in each step."""

    def __init__(self) -> None:
        self.seen: list[dict] = []

    def _state(self, module):
        return {
            "extractor": module.network.encoder,
            "decoder": module.network.decoder,
            "head": module.network.head,
            "sub_objects": module.sub_objects,
            "objects": module.objects,
        }

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = {name: [p.detach().clone() for p in part.parameters()] for name, part in self._state(module).items()}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        moved = set()
        for name, part in self._state(module).items():
            same = [torch.equal(*pair) for pair in zip(self.before[name], part.parameters(), strict=True)]
            assert all(same) or not any(same), f"a part of {name} was frozen"
            if not all(same):
                moved.add(name)
        self.seen.append(moved)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_alternates_and_each_phase_trains_all_of_its_network_and_nothing_else(tmp_path, accumulate):
    module, watching = build(rounds=2), Watching()
    train(module, tmp_path, 6, callbacks=[watching], accumulate_grad_batches=accumulate, tiles=12)
    classification, segmentation = {"extractor", "objects"}, {"extractor", "decoder", "head", "sub_objects"}
    steps = watching.seen[accumulate - 1 :: accumulate]
    assert steps == [classification, segmentation, segmentation] * 2
    if accumulate == 2:
        assert watching.seen[::2] == [set()] * 6


def test_resting_heads_keep_the_state_of_their_optimiser(tmp_path):
    module = build(schedule="alternate_step", classification_share=0.5)
    trainer = train(module, tmp_path, 4)
    steps = {parameter: int(state["step"]) for parameter, state in trainer.optimizers[0].state.items()}
    for part, expected in (
        (module.network.encoder, 4),
        (module.network.decoder, 2),
        (module.objects, 2),
        (module.sub_objects, 2),
    ):
        assert {steps[parameter] for parameter in part.parameters()} == {expected}


@pytest.mark.parametrize("objects", ["crops", "tiles"])
@pytest.mark.parametrize("network", [{}, {"inputs": "both", "fusion": "concat"}, {"decoder": "unet", "inputs": "both", "fusion": "add"}])
@pytest.mark.parametrize("step", [0, 1])
def test_every_parameter_gets_a_gradient_in_each_phase_and_those_that_rest_a_zero(objects, network, step, monkeypatch):
    module = build(network=network, objects=objects, schedule="alternate_step", classification_share=0.5).train()
    module._num_steps = module._steps_per_epoch = 2
    monkeypatch.setattr(ICSSN, "global_step", step)
    assert module.phase == (CLASSIFICATION, SEGMENTATION)[step]
    module.objective(make_batch(0, 1, 2))["total"].backward()
    resting = {id(parameter) for parameter in module.resting()}
    assert resting
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if id(parameter) in resting:
            assert not parameter.grad.any(), name
    trained = [parameter for parameter in module.parameters() if id(parameter) not in resting]
    assert sum(bool(parameter.grad.any()) for parameter in trained) > 0.8 * len(trained)
    module.on_before_optimizer_step(None)
    assert {id(parameter) for parameter in module.parameters() if parameter.grad is None} == resting


def test_joint_is_the_sum_of_both():
    module = build(schedule="joint", ocl_weight=0.5, socl_weight=0.2, classification_weight=2.0).train()
    terms = module.objective(make_batch())
    expected = terms["segmentation"] + 0.2 * terms["sub_object_contrast"] + 2 * terms["classification"] + 0.5 * terms["object_contrast"]
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert module.resting() == []


def test_epochs_without_an_end_cannot_alternate(tmp_path):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return (tile(number % 4) for number in itertools.count())

    module = build(schedule="alternate_epoch")
    with pytest.raises(UserError, match="alternate_epoch"):
        L.Trainer(max_steps=2, default_root_dir=tmp_path, enable_checkpointing=False, **QUIET).fit(
            module, DataLoader(Endless(), batch_size=2, collate_fn=collate)
        )
