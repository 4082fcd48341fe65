"""ICSSN's mechanics, each against a computation that does not share its code."""

import itertools
import math
import os

import lightning as L
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy import ndimage
from sklearn.metrics import accuracy_score, f1_score
from torch.utils.data import DataLoader

from datamodules.batch import validate_batch
from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from zoo import create_method
from zoo.icssn import ICSSN, ICSSNOptions
from zoo.icssn.objective import Labels, crop_size, cut, draw_crops, grid_crops, object_contrast, object_labels
from zoo.icssn.schedule import phase_at
from zoo.metrics.tiles import ClassificationScores

NETWORK = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "inputs": "image", "dropout": 0.5}
SMALL = {"ocl_dim": 8, "socl_dim": 8}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
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


def collate(tiles: list[dict]) -> dict:
    batch = {key: [item[key] for item in tiles] if key == "tile" else torch.stack([item[key] for item in tiles]) for key in tiles[0]}
    validate_batch(batch)
    return batch


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


# ---- phases --------------------------------------------------------------------------------------------------------------------------

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


# ---- objects -------------------------------------------------------------------------------------------------------------------------


def test_crops_hold_both_classes_wherever_a_tile_has_both():
    options = ICSSNOptions()
    batch = make_batch(0, 2)
    for seed in range(20):
        torch.manual_seed(seed)
        crops, labels = draw_crops(batch["mask"], options)
        assert crops.top.shape == (2, 4)
        assert labels.valid.all()
        assert labels.landslide.tolist() == [[True, True, False, False]] * 2
        pieces = cut(batch["mask"][:, None], crops, (48, 48))[:, 0]
        for number, piece in enumerate(pieces.numpy()):
            top, left = int(crops.top.flatten()[number]), int(crops.left.flatten()[number])
            np.testing.assert_array_equal(piece, batch["mask"][number // 4].numpy()[top : top + 48, left : left + 48])
            share = (piece == 1).sum() / (piece != 255).sum()
            assert (share >= 0.05) == labels.landslide.flatten()[number]
            assert labels.landslide.flatten()[number] or share == 0
        for places in zip(crops.top, crops.left, strict=True):
            assert len(set(zip(*(place.tolist() for place in places), strict=True))) == 4, "no place twice"


@pytest.mark.parametrize(("label", "expected"), [(0, [False] * 4), (1, [True] * 4)])
def test_where_a_tile_has_one_class_all_crops_are_of_it(label, expected):
    crops, labels = draw_crops(torch.full((1, 50, 71), label, dtype=torch.uint8), ICSSNOptions())
    assert labels.landslide.tolist() == [expected]
    assert labels.valid.all()
    assert (crops.top + 25 <= 50).all()
    assert (crops.left + 36 <= 71).all()


def test_objects_with_too_few_labelled_pixels_take_no_part():
    mask = torch.zeros(3, 10, 10, dtype=torch.uint8)
    mask[0] = 255
    mask[1, 1:] = 255  # one valid row of ten
    mask[1, 0, 0] = 1
    mask[2, 0, 0] = 1
    for least, valid in ((0.1, [False, True, True]), (0.2, [False, False, True]), (0.0, [False, True, True])):
        labels = object_labels(mask, ICSSNOptions(min_landslide_share=0.05, min_valid_share=least))
        assert labels.valid.tolist() == valid
        assert labels.landslide.tolist() == [False, valid[1], False]  # of 0, 10 and 100 valid pixels
    crops, labels = draw_crops(mask[:1], ICSSNOptions())
    assert not labels.valid.any()
    assert crops.top.shape == (1, 4)


@pytest.mark.parametrize("share", [0.5, 0.3, 1.0])
def test_the_crops_of_an_evaluation_cover_the_tile(share):
    mask = torch.zeros(2, 50, 71, dtype=torch.uint8)
    options = ICSSNOptions(crop_share=share)
    crops, size = grid_crops(mask, options), crop_size(mask, share)
    seen = np.zeros((50, 71), int)
    for top, left in zip(crops.top[1].tolist(), crops.left[1].tolist(), strict=True):
        assert 0 <= top <= 50 - size[0]
        assert 0 <= left <= 71 - size[1]
        seen[top : top + size[0], left : left + size[1]] += 1
    assert seen.min() == 1
    assert crops.top.shape[1] == math.ceil(50 / size[0]) * math.ceil(71 / size[1])


# ---- contrast ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["info_nce", "pairs"])
def test_object_contrast_is_a_loop(kind):
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(9, 4, dtype=torch.float64), dim=1)
    landslide = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1], dtype=torch.bool)
    valid = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 1], dtype=torch.bool)
    options = ICSSNOptions(ocl=kind, ocl_margin=1.2, ocl_temperature=0.1)
    objects = [(int(label), vector) for label, vector, takes_part in zip(landslide, vectors, valid, strict=True) if takes_part]
    if kind == "info_nce":
        expected = info_nce_loop(objects, objects, 0.1)
    else:
        terms = []
        for (label, one), (other_label, other) in itertools.combinations(objects, 2):
            distance = float((one - other).norm())
            terms.append(distance**2 if label == other_label else max(0.0, 1.2 - distance) ** 2)
        expected = sum(terms) / len(terms)
    assert float(object_contrast(vectors, Labels(landslide, valid), options)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["info_nce", "pairs"])
@pytest.mark.parametrize(("landslide", "valid"), [([1, 1, 1], [1, 1, 1]), ([1, 0, 1], [1, 0, 1]), ([0, 0, 0], [0, 0, 0])])
def test_a_batch_of_one_class_has_no_object_contrast(kind, landslide, valid):
    vectors = torch.nn.functional.normalize(torch.randn(1, 4), dim=1).repeat(3, 1).requires_grad_()  # equal ones, at the pole of the root
    loss = object_contrast(vectors, Labels(torch.tensor(landslide).bool(), torch.tensor(valid).bool()), ICSSNOptions(ocl=kind))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert not vectors.grad.any()


def test_object_contrast_of_a_batch_sees_the_vectors_of_its_crops():
    module = build(crops_per_tile=6).train()
    batch = make_batch(0, 2)
    image, terrain = module.network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
    torch.manual_seed(5)
    terms = module.classification_terms(batch, image, terrain)
    torch.manual_seed(5)
    crops, labels = draw_crops(batch["mask"], module.iteration)
    pieces = torch.stack(
        [
            image[number, :, top : top + 48, left : left + 48]
            for number in range(2)
            for top, left in zip(crops.top[number].tolist(), crops.left[number].tolist(), strict=True)
        ]
    )
    with torch.no_grad():
        pooled = module.network.encoder(pieces)[-1].flatten(2).mean(2)
        logits = module.objects.classifier(pooled)[:, 0].double()
    objects = list(zip(labels.landslide.flatten().int().tolist(), unit_vectors(module.objects.projector, pooled), strict=True))
    assert terms["object_contrast"].item() == pytest.approx(info_nce_loop(objects, objects, 0.07), rel=1e-4)
    entropy = [math.log1p(math.exp(-float(logit) if label else float(logit))) for (label, _), logit in zip(objects, logits, strict=True)]
    assert terms["classification"].item() == pytest.approx(sum(entropy) / 12, rel=1e-5)
    assert float(terms["object_landslide_share"]) == 0.5


def reference_cells(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner and outer boundary cells of one mask by morphology on the pixel grid."""
    square = np.ones((2 * STRIDE + 1, 2 * STRIDE + 1), bool)
    landslide, background = mask == 1, mask == 0
    band = (landslide & ndimage.binary_dilation(background, square)) | (background & ndimage.binary_dilation(landslide, square))
    cells = mask.reshape(SIZE // STRIDE, STRIDE, SIZE // STRIDE, STRIDE).swapaxes(1, 2)
    touched = band.reshape(SIZE // STRIDE, STRIDE, SIZE // STRIDE, STRIDE).any((1, 3))
    valid = (cells != 255).all((2, 3))
    share = (cells == 1).mean((2, 3))
    return (touched & valid & (share >= 0.5)).ravel(), (touched & valid & (share == 0)).ravel()


def test_sub_object_contrast_is_a_loop_over_boundary_cells_of_the_batch():
    module = build().train()
    batch = make_batch(0, 1, 2)
    deep = torch.randn(3, module.network.out_channels[-1], SIZE // STRIDE, SIZE // STRIDE)
    vectors = unit_vectors(module.sub_objects.projector, deep).flatten(2).transpose(1, 2)
    sides = [reference_cells(mask.numpy()) for mask in batch["mask"]]
    inner, outer = (
        [(1 - kind, vector) for image in range(3) for vector in vectors[image, torch.from_numpy(sides[image][kind])]] for kind in (0, 1)
    )
    assert len(inner) > 4
    assert len(outer) > 4
    deep.requires_grad_()
    loss = module.sub_objects(deep, batch["mask"])
    assert float(loss.detach()) == pytest.approx(info_nce_loop(inner, inner + outer, 0.07), rel=1e-4)
    loss.backward()
    assert not deep.grad[1].isnan().any()
    drawn = build(sub_objects_per_image=2, max_sub_objects=3).sub_objects
    assert torch.isfinite(drawn(deep.detach(), batch["mask"]))
    assert float(module.sub_objects(deep.detach()[1:2], batch["mask"][1:2])) == 0.0, "no landslide, no boundary"


# ---- training ------------------------------------------------------------------------------------------------------------------------


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


# ---- evaluation ----------------------------------------------------------------------------------------------------------------------


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
