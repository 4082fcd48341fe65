"""ICSSN in training and evaluation: baseline, resume, processes, tile scores."""

import itertools
import math
import os

import lightning as L
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.metrics import accuracy_score, f1_score
from torch.utils.data import DataLoader

from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from tests.zoo.icssn.building import (
    NETWORK,
    QUIET,
    build,
    collate,
    loader,
    make_batch,
    tile,
    train,
)
from zoo import create_method
from zoo.metrics.running import ClassificationScores


@pytest.mark.parametrize(
    ("iteration", "equal"),
    [
        ({"ocl_weight": 0.0, "socl_weight": 0.0, "classification_share": 0.0}, True),
        ({"ocl_weight": 0.0, "socl_weight": 0.0, "classification_weight": 0.0}, True),
        ({"socl_weight": 0.0, "classification_share": 0.0}, True),
        ({"classification_share": 0.0}, False),
        ({"socl_weight": 0.0, "rounds": 1}, False),
    ],
)
def test_without_its_terms_training_is_that_of_the_baseline_to_the_bit(tmp_path, iteration, equal):
    torch.manual_seed(0)
    baseline = create_method("deeplab", network=NETWORK)
    module = build(**iteration)
    for each in (baseline, module):
        train(each, tmp_path, 3)
    batch = make_batch()
    logits = [each.eval().network(batch["image"], batch["dem"], batch["pixel_size"]) for each in (baseline, module)]
    assert torch.equal(*logits) is equal
    assert (list(module.state_dict()) == list(baseline.state_dict())) is equal
    assert list(module.network.state_dict()) == list(baseline.network.state_dict())


@pytest.mark.parametrize("schedule", ["rounds", "alternate_epoch"])
def test_a_run_resumed_within_a_phase_ends_with_the_same_weights(data_folder, tmp_path, schedule):
    def run(folder, resume=None):
        module = build(schedule=schedule, rounds=2, classification_share=0.5)
        keep = ModelCheckpoint(dirpath=tmp_path / folder, filename="{step}", save_top_k=-1, every_n_train_steps=1)
        trainer = L.Trainer(
            max_steps=8, callbacks=[keep], default_root_dir=tmp_path, limit_val_batches=0, use_distributed_sampler=False, **QUIET
        )
        data = LandslideDataModule(root=str(data_folder), tile_size=64, batch_size=2, samples_per_epoch=6, seed=0)
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
        assert trainer.global_step == 8
        state = trainer.optimizers[0].state_dict()["state"]
        return {**module.state_dict(), **{f"{number} {name}": value for number, each in state.items() for name, value in each.items()}}

    whole = run("whole")
    # Of 8 steps, 4 a round and 3 an epoch: within the first phase of classification, and within a later one.
    for step in (1, 5 if schedule == "rounds" else 7):
        resumed = run(f"resumed{step}", tmp_path / "whole" / f"step={step}.ckpt")
        assert resumed.keys() == whole.keys()
        for name, expected in whole.items():
            assert torch.equal(expected, resumed[name]), (step, name)


def _two_processes(rank: int, port: int, out: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), NODE_RANK="0")
    torch.set_num_threads(1)
    module = build(rounds=2, classification_share=0.5)
    trainer = train(module, out, 4, strategy="ddp", devices=2, tiles=8)
    (logged,) = trainer.validate(module, loader(8), verbose=False)
    torch.save({"state": module.state_dict(), "logged": logged, "counts": module.auxiliary["tile"].counts}, f"{out}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_train_in_phases_and_score_as_one(tmp_path):
    mp.spawn(_two_processes, args=(29547, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in first["state"].items():
        if "running" not in name and "num_batches" not in name:  # each rank has its own batch statistics until the next step
            assert torch.equal(value, second["state"][name]), name
    assert first["logged"] == pytest.approx(second["logged"], nan_ok=True)
    assert {"val/tile_f1", "val/tile_accuracy", "val/object_f1", "val/object_accuracy"} <= first["logged"].keys()
    (tn, fp), (fn, tp) = (first["counts"] + second["counts"]).tolist()
    assert tn + fp + fn + tp == 8
    assert first["logged"]["val/tile_accuracy"] == pytest.approx((tn + tp) / 8)


@pytest.mark.parametrize("objects", ["crops", "tiles"])
def test_tile_scores_are_those_of_scikit_learn_on_pooled_tiles(objects, tmp_path):
    module = build(objects=objects)
    with torch.no_grad():  # an untrained classifier that tells objects apart
        module.objects.classifier.weight.mul_(50)
        module.objects.classifier.bias.zero_()
    items = [tile(number) for number in range(5)]
    items[4]["mask"][:] = 255  # a tile without labels takes no part
    trainer = L.Trainer(default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    module.eval()
    logits = {}
    for number, item in enumerate(items):
        image, terrain = module.network.preprocessing(*(collate([item])[key] for key in ("image", "dem", "pixel_size")))
        places = list(itertools.product((0, 48), (0, 48))) if objects == "crops" else [(0, 0)]
        size = 48 if objects == "crops" else 96
        for top, left in places:
            with torch.no_grad():
                deep = module.network.encode(*(x[:, :, top : top + size, left : left + size] for x in (image, terrain)))[-1]
                logits[number, top, left] = float(module.objects.classifier(deep.flatten(2).mean(2)))
    middle = np.median(list(logits.values()))
    with torch.no_grad():
        module.objects.classifier.bias.fill_(-middle)
    (logged,) = trainer.validate(module, DataLoader(items, batch_size=2, collate_fn=collate), verbose=False)
    truth, predicted, object_truth, object_predicted = [], [], [], []
    for number in range(4):
        mask = items[number]["mask"].numpy()
        truth.append((mask == 1).sum() >= 0.05 * (mask != 255).sum())
        predicted.append(any(logit > middle for (owner, _, _), logit in logits.items() if owner == number))
        for (owner, top, left), logit in logits.items():
            piece = mask[top : top + 48, left : left + 48]
            if owner == number:
                object_truth.append((piece == 1).sum() >= 0.05 * (piece != 255).sum())
                object_predicted.append(logit > middle)
    assert logged["val/tile_accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert logged["val/tile_f1"] == pytest.approx(f1_score(truth, predicted))
    assert ("val/object_f1" in logged) == (objects == "crops")
    if objects == "crops":
        assert logged["val/object_f1"] == pytest.approx(f1_score(object_truth, object_predicted))
        assert logged["val/object_accuracy"] == pytest.approx(accuracy_score(object_truth, object_predicted))
    plain = create_method("deeplab", network=NETWORK)
    plain.network.load_state_dict(module.network.state_dict())
    (pixels,) = trainer.validate(plain, DataLoader(items, batch_size=2, collate_fn=collate), verbose=False)
    assert pixels == {name: logged[name] for name in pixels}, "the scores of pixels are those of the plain network"


def test_classification_scores_add_up_and_start_anew():
    rng = np.random.default_rng(0)
    predicted, label, valid = (torch.from_numpy(rng.integers(0, 2, 50).astype(bool)) for _ in range(3))
    scores = ClassificationScores("tile")
    for part in range(0, 50, 10):
        scores.update(*(values[part : part + 10] for values in (predicted, label, valid)))
    counted = (label[valid].numpy(), predicted[valid].numpy())
    assert scores.compute() == {"tile_f1": pytest.approx(f1_score(*counted)), "tile_accuracy": pytest.approx(accuracy_score(*counted))}
    scores.reset()
    assert all(math.isnan(value) for value in scores.compute().values())


def test_auxiliary_scores_cannot_take_the_names_of_pixel_scores(tmp_path):
    class Cheating(ClassificationScores):
        def compute(self):
            return {"iou_landslide": 1.0}

    module = build()
    module.auxiliary["tile"] = Cheating("tile")
    with pytest.raises(ValueError, match="iou_landslide"):
        L.Trainer(default_root_dir=tmp_path, enable_checkpointing=False, **QUIET).validate(module, loader(2), verbose=False)


@pytest.mark.parametrize(
    ("iteration", "field"),
    [
        ({"rounds": 0}, "rounds"),
        ({"classification_share": 1.0}, "classification_share"),
        ({"crop_share": 0.0}, "crop_share"),
        ({"min_landslide_share": 0.0}, "min_landslide_share"),
        ({"socl_weight": -0.1}, "socl_weight"),
        ({"ocl_temperature": 0.0}, "ocl_temperature"),
        ({"boundary_radius": 0}, "boundary_radius"),
        ({"schedule": "spiral"}, "spiral"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(iteration, field):
    with pytest.raises(UserError, match=field) as caught:
        build(**iteration)
    assert "\n" not in str(caught.value)
