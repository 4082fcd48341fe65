"""HPCL-Net's mechanics, each against a computation that does not share its code."""

import copy
import math
import os

import lightning as L
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy import ndimage
from torch.utils.data import DataLoader

from datamodules.batch import validate_batch
from datamodules.errors import UserError
from zoo import create_method
from zoo.fusion import CoordinateAttention
from zoo.hpcl_net import HPCLNet, HPCLOptions
from zoo.hpcl_net.network import hyper_pixel_source
from zoo.hpcl_net.objective import draw_pairs, second_view

NETWORK = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "fusion": "concat_ca", "fusion_levels": "deep", "dropout": 0.5}
SMALL = {"projection_dim": 8, "queue_length": 32, "warmup_share": 0.0}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
SIZE, HALO, STRIDE = 96, 2, 16


def tile(number: int) -> dict:
    """A landslide of a few cells on a slope, at another place for each number."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    row, column = 40 + 4 * number, 60 - 5 * number
    mask = ((rows - row) ** 2 + (columns - column) ** 2 < 26**2).to(torch.uint8)
    mask[:, : 3 * number] = 255
    fall = 2000 - torch.arange(SIZE + 2 * HALO).float()[:, None].expand(-1, SIZE + 2 * HALO)
    return {
        "image": torch.rand(3, SIZE, SIZE, generator=generator) * 200 - 60 * mask,
        "dem": fall[None] + torch.rand(1, SIZE + 2 * HALO, SIZE + 2 * HALO, generator=generator),
        "mask": mask,
        "pixel_size": torch.tensor([2.0, 2.0]),
        "tile": f"scene:{number}:0",
    }


def collate(tiles: list[dict]) -> dict:
    batch = {key: [item[key] for item in tiles] if key == "tile" else torch.stack([item[key] for item in tiles]) for key in tiles[0]}
    validate_batch(batch)
    return batch


def make_batch(size: int = 2) -> dict:
    return collate([tile(number) for number in range(size)])


def loader(num: int = 4, batch_size: int = 2) -> DataLoader:
    return DataLoader([tile(number % 4) for number in range(num)], batch_size=batch_size, collate_fn=collate)


def build(network: dict | None = None, **contrast) -> HPCLNet:
    torch.manual_seed(0)
    return create_method("hpcl_net", network={**NETWORK, **(network or {})}, contrast={**SMALL, **contrast})


def train(module, path, steps, *, callbacks=(), resume=None, tiles=4, **trainer):
    torch.manual_seed(7)
    trainer = L.Trainer(max_steps=steps, max_epochs=-1, callbacks=list(callbacks), default_root_dir=path, **{**QUIET, **trainer})
    trainer.fit(module, loader(tiles), ckpt_path=resume, weights_only=True if resume else None)
    return trainer


def reference_cells(mask: np.ndarray, radius: int = STRIDE) -> tuple[np.ndarray, np.ndarray]:
    """Inner and outer boundary cells of one mask by morphology on the pixel grid."""
    square = np.ones((2 * radius + 1, 2 * radius + 1), bool)
    landslide, background = mask == 1, mask == 0
    band = (landslide & ndimage.binary_dilation(background, square)) | (background & ndimage.binary_dilation(landslide, square))
    cells = mask.reshape(SIZE // STRIDE, STRIDE, SIZE // STRIDE, STRIDE).swapaxes(1, 2)
    touched = band.reshape(SIZE // STRIDE, STRIDE, SIZE // STRIDE, STRIDE).any((1, 3))
    valid = (cells != 255).all((2, 3))
    share = (cells == 1).mean((2, 3))
    return touched & valid & (share >= 0.5), touched & valid & (share == 0)


def reference_keys(module: HPCLNet, batch: dict, *, training: bool) -> torch.Tensor:
    """Unit vectors of every cell, float64 (B, h w, D), by a copy of the whole network and the head."""
    twin = copy.deepcopy(module).train(training)
    with torch.no_grad():
        deep = twin.network.features(batch["image"], batch["dem"], batch["pixel_size"])[-1]
        vectors = twin.hyper_pixels.projection(deep).double()
    return torch.nn.functional.normalize(vectors.flatten(2).transpose(1, 2), dim=-1)


# ---- objective -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_queues_receive_the_teachers_keys_at_boundary_cells_of_their_class(statistics):
    module = build(key_statistics=statistics, enqueue_per_image=3).train()
    batch = make_batch()
    with torch.no_grad():  # a teacher that is not the student, with an update behind it
        module.hyper_pixels.teacher.step = 1
        for parameter in module.hyper_pixels.teacher.parameters():
            parameter.mul_(1.1)
    twin = copy.deepcopy(module)
    teacher_state = module.hyper_pixels.teacher.network.state_dict()
    twin.network.load_state_dict({name[6:]: value for name, value in teacher_state.items() if name.startswith("trunk.")}, strict=False)
    twin.hyper_pixels.projection.load_state_dict(
        {name[11:]: value for name, value in teacher_state.items() if name.startswith("projection.")}
    )
    keys = reference_keys(twin, batch, training=statistics == "batch")
    torch.manual_seed(1)
    module.objective(batch)["total"].backward()
    assert int(module.hyper_pixels.queue.filled.sum()) == 0, "keys wait for the optimiser step"
    module.on_optimizer_step()
    queue = module.hyper_pixels.queue
    features, labels, valid = queue.keys()
    for label in (0, 1):
        rows = features[valid & (labels == label)].double()
        sides = [reference_cells(mask.numpy())[1 - label].ravel() for mask in batch["mask"]]
        assert all(side.any() for side in sides)
        allowed = [keys[image, torch.from_numpy(side)] for image, side in enumerate(sides)]
        assert len(rows) == sum(min(3, len(vectors)) for vectors in allowed)
        distance = torch.cdist(rows, torch.cat(allowed))
        assert distance.amin(1).max() < 1e-5
        assert len(set(distance.argmin(1).tolist())) == len(rows), "a cell is drawn once"
        elsewhere = [keys[image, torch.from_numpy(~side)] for image, side in enumerate(sides)]
        assert torch.cdist(rows, torch.cat(elsewhere)).min() > 1e-4


@pytest.mark.parametrize("anchors", ["landslide", "both"])
@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("queue", [True, False])
def test_the_term_is_the_mean_over_anchors_and_positives_of_a_loop(anchors, momentum, queue):
    module = build(anchor_classes=anchors, momentum_encoder=momentum, use_queue=queue, contrast_weight=0.5).train()
    assert (module.hyper_pixels.teacher is not None, module.hyper_pixels.queue is not None) == (momentum, queue)
    batch = make_batch()
    vectors = reference_keys(module, batch, training=True)
    batch_keys: list[tuple[int, torch.Tensor]] = []
    for image, mask in enumerate(batch["mask"]):
        inner, outer = reference_cells(mask.numpy())
        batch_keys += [(1, vector) for vector in vectors[image, torch.from_numpy(inner.ravel())]]
        batch_keys += [(0, vector) for vector in vectors[image, torch.from_numpy(outer.ravel())]]
    old: list[tuple[int, torch.Tensor]] = []
    if queue:
        stored = torch.nn.functional.normalize(torch.randn(7, 8), dim=1)
        classes = torch.tensor([0, 1, 1, 0, 1, 0, 0])
        module.hyper_pixels.queue.enqueue(stored, classes, torch.ones(7, dtype=torch.bool))
        old = list(zip(classes.tolist(), stored.double(), strict=True))
    losses = []
    for place, (label, query) in enumerate(batch_keys):
        if anchors == "landslide" and label == 0:
            continue
        # The student is its own teacher here; only a detached query must not meet itself.
        others = [pair for number, pair in enumerate(batch_keys) if momentum or number != place] + old
        negatives = sum(math.exp(float(query @ key) / 0.07) for other, key in others if other != label)
        positives = [math.exp(float(query @ key) / 0.07) for other, key in others if other == label]
        losses.append(sum(-math.log(positive / (positive + negatives)) for positive in positives) / len(positives))
    terms = module.objective(batch)
    assert float(terms["contrast_anchors"]) == len(losses)
    assert terms["contrast"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert float(terms["total"]) == pytest.approx(float(terms["segmentation"]) + 0.5 * float(terms["contrast"]), rel=1e-6)


def test_diagnostics_are_mean_cosines_and_carry_no_gradient():
    module = build(use_queue=False, anchor_classes="both").train()
    batch = make_batch()
    vectors = reference_keys(module, batch, training=True)
    sides = [reference_cells(mask.numpy()) for mask in batch["mask"]]
    inner, outer = (torch.cat([vectors[i, torch.from_numpy(side[k].ravel())] for i, side in enumerate(sides)]) for k in (0, 1))
    terms = module.objective(batch)
    same = ((inner @ inner.T).mean() * len(inner) + (outer @ outer.T).mean() * len(outer)) / (len(inner) + len(outer))
    assert float(terms["contrast_positive_similarity"]) == pytest.approx(float(same), abs=1e-5)
    assert float(terms["contrast_negative_similarity"]) == pytest.approx(float((inner @ outer.T).mean()), abs=1e-5)
    assert not any(term.requires_grad for name, term in terms.items() if name.startswith("contrast_"))


def test_gradients_reach_both_encoders_and_the_head_but_neither_teacher_nor_keys():
    module = build(network={"dropout": 0.0}).train()
    module.objective(make_batch())["contrast"].backward()
    hyper = module.hyper_pixels
    for part in (module.network.encoder, module.network.terrain_encoder, module.network.fusion, hyper.projection):
        assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())
    assert all(parameter.grad is None for part in (module.network.decoder, module.network.head) for parameter in part.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in hyper.teacher.parameters())
    optimised = {id(parameter) for group in module._parameter_groups() for parameter in group["params"]}
    assert not optimised & {id(parameter) for parameter in hyper.teacher.parameters()}
    assert all(not keys.requires_grad for keys, _, _ in hyper._pending)
    assert not any(name.startswith("decoder") or ".decoder." in name for name in hyper.teacher.state_dict())
    assert not any("preprocessing" in name for name in hyper.teacher.state_dict())


def test_nothing_but_the_network_is_in_the_state_of_the_network():
    baseline = create_method("deeplab", network=NETWORK)
    assert list(build().network.state_dict()) == list(baseline.network.state_dict())


# ---- training ------------------------------------------------------------------------------------------------------------------------


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


# ---- switches ------------------------------------------------------------------------------------------------------------------------


def test_each_switch_changes_what_it_says():
    batch = make_batch()

    def drawn(**changes):
        pairs = draw_pairs(batch, (6, 6), STRIDE, HPCLOptions(**{"boundary_radius": 4, **changes}))
        return [[set(pairs.cells[side, image][pairs.valid[side, image]].tolist()) for image in range(2)] for side in range(2)]

    band = drawn()
    everywhere = drawn(negatives="all_background")
    steep = drawn(boundary_parts="back_side")
    for image, mask in enumerate(batch["mask"]):
        inner, outer = (set(np.flatnonzero(cells)) for cells in reference_cells(mask.numpy(), 4))
        assert (band[0][image], band[1][image]) == (inner, outer)
        cells = mask.numpy().reshape(6, 16, 6, 16)
        background = set(np.flatnonzero((cells == 0).all((1, 3))))
        assert everywhere[1][image] == background > outer
        assert everywhere[0][image] == inner
        # The slope falls with the row, so the toe is the lowest rows.
        assert steep[0][image] < inner
        assert min(cell // 6 for cell in inner - steep[0][image]) >= max(cell // 6 for cell in steep[0][image])
    assert draw_pairs(batch, (6, 6), STRIDE, HPCLOptions(anchors_per_image=5)).cells.shape == (2, 2, 5)
    assert draw_pairs(batch, (6, 6), STRIDE, HPCLOptions(max_anchors=6)).cells.shape == (2, 2, 3)
    wide = drawn(boundary_radius=None)
    assert all(wide[1][image] > band[1][image] for image in range(2)), "one hyper-pixel, not four pixels"

    def attentions(**network):
        return sum(isinstance(part, CoordinateAttention) for part in build(network=network).network.modules())

    assert (attentions(), attentions(fusion="concat")) == (1, 0)
    assert not hasattr(build(network={"inputs": "image"}).network, "terrain_encoder")


@pytest.mark.parametrize(
    ("network", "contrast", "source", "shape"),
    [
        ({}, {}, (5, 1, 16), (6, 6)),
        ({}, {"hyper_pixel_stride": 8}, (3, 1, 8), (12, 12)),
        ({}, {"hyper_pixel_stride": 32}, (5, 2, 32), (3, 3)),
        ({"output_stride": 32}, {}, (5, 1, 32), (3, 3)),
        ({}, {"contrast_on": "decoder"}, (None, 4, 16), (6, 6)),
        ({"decoder": "unet"}, {"contrast_on": "decoder", "hyper_pixel_stride": 8}, (None, 8, 8), (12, 12)),
    ],
)
def test_hyper_pixels_come_from_the_map_and_in_the_size_asked_for(network, contrast, source, shape):
    module = build(network=network, **contrast).train()
    chosen = module.hyper_pixels.source
    assert (chosen.level, chosen.pool, chosen.stride) == source
    batch = make_batch()
    image, terrain = module.network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
    assert module.hyper_pixels.teacher(image, terrain).shape == (2, 8, *shape)
    terms = module.objective(batch)
    assert terms["contrast_anchors"] > 0
    terms["total"].backward()
    module.on_optimizer_step()
    assert module.hyper_pixels.queue.filled.sum() > 0


def test_a_second_view_changes_brightness_and_contrast_of_each_image_and_leaves_holes():
    image = torch.randn(3, 2, 8, 8)
    missing = torch.zeros_like(image, dtype=torch.bool)
    missing[:, :, :2] = True
    image = image.masked_fill(missing, 0.0)
    torch.manual_seed(3)
    view = second_view(image, missing)
    assert (view[missing] == 0).all()
    for before, after in zip(image, view, strict=True):
        slope, shift = np.polyfit(before[:, 2:].flatten(), after[:, 2:].flatten(), 1)
        assert 0.8 <= slope <= 1.2
        assert abs(shift) <= 0.2
        np.testing.assert_allclose(after[:, 2:], before[:, 2:] * slope + shift, atol=1e-5)
    assert not torch.equal(view[0] - view[0].mean(), image[0] - image[0].mean())
    torch.manual_seed(3)
    assert torch.equal(view, second_view(image, missing))
    module = build(key_view="second_augmentation").train()
    assert torch.isfinite(module.objective(make_batch())["total"])


@pytest.mark.parametrize(
    ("network", "contrast", "field"),
    [
        ({}, {"temperature": 0.0}, "temperature"),
        ({}, {"warmup_share": 1.0}, "warmup_share"),
        ({}, {"contrast_weight": -1.0}, "contrast_weight"),
        ({}, {"momentum": 1.5}, "momentum"),
        ({}, {"queue_length": 0}, "queue length"),
        ({}, {"hyper_pixel_stride": 64}, "hyper_pixel_stride"),
        ({"inputs": "dem"}, {"key_view": "second_augmentation"}, "key_view"),
        ({}, {"key_view": "second_augmentation", "momentum_encoder": False}, "key_view"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(network, contrast, field):
    with pytest.raises(UserError, match=field) as caught:
        build(network=network, **contrast)
    assert "\n" not in str(caught.value)


def test_a_stride_that_the_network_does_not_have_is_refused():
    network = create_method("deeplab", network=NETWORK).network
    network.strides = [1, 4, 4, 16, 16, 16]
    with pytest.raises(UserError, match="no features of this stride"):
        hyper_pixel_source(network, 8, decoder=False)
