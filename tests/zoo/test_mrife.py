"""MRIFE's mechanics against independent references: numpy, loops, and the plain segmentor."""

import copy

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from zoo import create_method, load_checkpoint
from zoo.mrife.blocks import BlockRatios, block_classes, blocks_to_cells, blocks_to_pixels, choose_blocks
from zoo.mrife.network import EnhancedSegmentor, RecoveringPath, untouched_running_statistics
from zoo.mrife.objective import class_descriptors, descriptor_contrast, recovery_distance, weighted_mean
from zoo.segmentor import Segmentor

TINY = {"encoder": "tu-test_efficientnet", "terrain": ["elevation", "slope"], "decoder_channels": 16, "inputs": "image"}
SMALL = {"recover_channels": 16, "block_size": 16}
OFF = {"mfm_weight": 0.0, "contrast_weight": 0.0, "interaction": "none"}
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False, "num_sanity_val_steps": 0, "limit_val_batches": 0}  # fmt: skip


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


# ---- blocks ----------------------------------------------------------------------------------------------------------------------------


def numpy_classes(mask, block, mixed, min_valid):
    """One image, block by block."""
    height, width = mask.shape
    classes = np.full((-(-height // block), -(-width // block)), -1)
    for row in range(classes.shape[0]):
        for column in range(classes.shape[1]):
            part = mask[row * block : (row + 1) * block, column * block : (column + 1) * block]
            labelled = part[part != 255]
            if labelled.size == 0 or labelled.size < min_valid * block * block:
                continue
            share = float((labelled == 1).mean())
            classes[row, column] = 0 if share <= mixed else 2 if share >= 1 - mixed else 1
    return classes


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_block_classes_are_those_of_a_loop(seed, height, width, block, mixed, min_valid):
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 255], size=(2, -(-height // 8), -(-width // 8)), p=[0.5, 0.4, 0.1]).astype(np.uint8)
    mask = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    expected = np.stack([numpy_classes(image, block, mixed, min_valid) for image in mask])
    assert np.array_equal(block_classes(torch.from_numpy(mask), block, mixed, min_valid).numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.tuples(*[st.sampled_from([0.0, 0.3, 0.5, 0.6, 1.0])] * 4))
def test_masking_hits_the_stated_share_of_each_class_and_nothing_else(seed, rows, columns, ratios):
    torch.manual_seed(seed)
    classes = torch.randint(-1, 3, (3, rows, columns))
    classes[2] = classes[2].clamp(max=0)  # an image without edge
    background, edge, interior, without_edge = ratios
    chosen = choose_blocks(classes, BlockRatios(*ratios))
    for image, hit in zip(classes, chosen, strict=True):
        has_edge = bool((image == 1).any())
        for number, ratio in enumerate((background, edge, interior)):
            num = int((image == number).sum())
            share = np.float32(ratio if has_edge else without_edge)
            assert int(hit[image == number].sum()) == round(float(share * np.float32(num))), (number, num)
        assert not hit[image == -1].any()


def test_the_default_masks_edge_blocks_alone_and_every_one_of_them_as_often():
    classes = torch.tensor([[0, 1, 1, 2, 1, 1, 1, -1]]).view(1, 2, 4).expand(4000, 2, 4)
    torch.manual_seed(0)
    chosen = choose_blocks(classes, BlockRatios(0.0, 0.6, 0.0, 0.3)).float()
    assert torch.equal(chosen.flatten(1).sum(1), torch.full((4000,), 3.0))  # .6 of 5
    frequency = chosen.mean(0).flatten()
    assert torch.equal(frequency == 0, classes[0].flatten() != 1)
    assert torch.allclose(frequency[frequency > 0], torch.tensor(0.6), atol=0.04)  # 5 standard errors


def test_random_masking_draws_as_many_blocks_from_all_classes():
    classes = torch.tensor([[0, 1, 1, 2, 1, 1, 1, -1]]).view(1, 2, 4).expand(4000, 2, 4)
    torch.manual_seed(0)
    chosen = choose_blocks(classes, BlockRatios(0.0, 0.6, 0.0, 0.3), by_class=False).float()
    assert torch.equal(chosen.flatten(1).sum(1), torch.full((4000,), 3.0))
    frequency = chosen.mean(0).flatten()
    assert frequency[-1] == 0
    assert torch.allclose(frequency[:-1], torch.tensor(3 / 7), atol=0.04)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from([4, 16, 32]))
def test_shares_of_cells_are_those_of_their_pixels(seed, height, width, block, stride):
    torch.manual_seed(seed)
    blocks = torch.rand(2, -(-height // block), -(-width // block)) < 0.5
    grid = (-(-height // stride) + 1, -(-width // stride))  # one row of cells beyond the image
    pixels = np.zeros((2, grid[0] * stride, grid[1] * stride))
    pixels[:, :height, :width] = np.kron(blocks.numpy(), np.ones((block, block)))[:, :height, :width]
    expected = pixels.reshape(2, grid[0], stride, grid[1], stride).mean((2, 4))
    shares = blocks_to_cells(blocks[:, None], block, stride, (height, width), grid)[:, 0]
    assert np.allclose(shares.numpy(), expected, atol=1e-6)
    assert np.array_equal(blocks_to_pixels(blocks, block, height, width).numpy(), pixels[:, :height, :width] > 0)


# ---- terms -----------------------------------------------------------------------------------------------------------------------------


def numpy_distance(recovered, target, kind, centre):
    """One cell."""
    if kind == "cosine":
        return 1 - recovered @ target / np.linalg.norm(recovered) / np.linalg.norm(target)
    if kind == "l2":
        return ((recovered - target) ** 2).mean()
    if kind == "l1":
        return np.abs(recovered - target).mean()
    probability = np.exp((target - centre) / 0.04)
    probability /= probability.sum()
    student = np.exp(recovered / 0.1)
    return -(probability * np.log(student / student.sum())).sum()


@pytest.mark.parametrize("kind", ["cosine", "l2", "l1", "ibot"])
def test_recovery_counts_masked_cells_by_their_masked_share(kind):
    rng = np.random.default_rng(0)
    recovered, target, centre = rng.normal(size=(2, 5, 3, 4)) / 4, rng.normal(size=(2, 5, 3, 4)) / 4, rng.normal(size=5) / 4
    weights = rng.choice([0.0, 0.5, 1.0], size=(2, 3, 4))
    total = sum(
        weights[image, row, column] * numpy_distance(recovered[image, :, row, column], target[image, :, row, column], kind, centre)
        for image, row, column in np.ndindex(2, 3, 4)
    )
    tensors = [torch.tensor(array, dtype=torch.float32) for array in (recovered, target, centre, weights)]
    distance = recovery_distance(tensors[0], tensors[1], kind, tensors[2], 0.1, 0.04)
    assert weighted_mean(distance, tensors[3]).item() == pytest.approx(total / weights.sum(), rel=1e-5)


def test_what_is_not_masked_costs_nothing():
    recovered = torch.randn(2, 5, 3, 4, requires_grad=True)
    weights = torch.zeros(2, 3, 4)
    weights[0, 1, 2] = 1
    weighted_mean(recovery_distance(recovered, torch.randn(2, 5, 3, 4), "cosine", torch.zeros(5)), weights).backward()
    assert torch.equal(recovered.grad.abs().sum(1) > 0, weights > 0)


def test_descriptors_are_weighted_means_of_each_class():
    torch.manual_seed(0)
    features = torch.randn(2, 5, 3, 4)
    cells = torch.rand(2, 3, 3, 4).round(decimals=1)
    cells[1, 2] = 0
    descriptors = class_descriptors(features, cells)
    for image in range(2):
        for number in range(3):
            mean = np.zeros(5)
            for row, column in np.ndindex(3, 4):
                mean += cells[image, number, row, column].item() * features[image, :, row, column].double().numpy()
            norm = np.linalg.norm(mean)
            assert np.allclose(descriptors[image, number].numpy(), mean / norm if norm else mean, atol=1e-6)
    assert torch.equal(descriptors[1, 2], torch.zeros(5))


def test_contrast_is_a_loop_over_images_and_classes():
    torch.manual_seed(0)
    student, target = (F.normalize(torch.randn(3, 3, 8), dim=2) for _ in range(2))
    present = torch.tensor([[True, True, True], [True, False, False], [True, True, False]])
    temperature, losses = 0.2, []
    slots = [(image, number) for image in range(3) for number in range(3) if present[image, number]]
    for image, number in slots:
        similarity = {slot: float(student[image, number].double() @ target[slot].double()) / temperature for slot in slots}
        negatives = sum(np.exp(value) for (_, other), value in similarity.items() if other != number)
        losses.append(np.mean([-np.log(np.exp(v) / (np.exp(v) + negatives)) for (_, other), v in similarity.items() if other == number]))
    assert descriptor_contrast(student, target, present, temperature).item() == pytest.approx(np.mean(losses), rel=1e-5)


# ---- module ----------------------------------------------------------------------------------------------------------------------------


def record_masked_pass(module, batch):
    """The normalised image of the full and of the masked pass."""
    seen = []
    hook = module.network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    module.train().objective(batch)
    hook.remove()
    return seen


@pytest.mark.parametrize("fill", ["learnable", "zero", "mean", "noise"])
def test_the_second_pass_sees_the_input_with_filled_blocks(fill):
    module, batch = mrife(mask_fill=fill), make_batch()
    if fill == "learnable":
        module.distillation.mask_token.data = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    full, masked = record_masked_pass(module, batch)
    changed = (full != masked).any(1)
    assert torch.equal(changed, changed[:, ::16, ::16].repeat_interleave(16, 1).repeat_interleave(16, 2))
    classes = block_classes(batch["mask"], 16)
    assert (classes[changed[:, ::16, ::16]] == 1).all()
    assert changed[:, ::16, ::16].sum((1, 2)).tolist() == [round(0.6 * int((image == 1).sum())) for image in classes]
    values = masked.transpose(0, 1)[:, changed]
    if fill == "noise":
        assert values.mean().abs() < 0.1
        assert values.std() == pytest.approx(1, abs=0.1)
    else:
        means = full.mean((2, 3))[:, :, None, None].expand_as(full).transpose(0, 1)[:, changed]
        expected = {"learnable": torch.tensor([[1.0], [2.0], [3.0]]).expand_as(values), "zero": torch.zeros_like(values), "mean": means}
        assert torch.allclose(values, expected[fill])


@pytest.mark.parametrize("fusion", ["none", "add"])
def test_image_and_terrain_are_masked_in_the_same_places(fusion):
    module = mrife({"inputs": "both", "fusion": fusion}, mask_fill="zero")
    seen = {}
    encoders = {"image": module.network.encoder, **({"terrain": module.network.terrain_encoder} if fusion != "none" else {})}
    for name, encoder in encoders.items():
        encoder.register_forward_pre_hook(lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0].detach().clone()))
    module.train().objective(make_batch())
    full, masked = (torch.cat([seen[name][number] for name in encoders], dim=1) for number in (0, 1))
    assert full.shape[1] == 5
    changed = full != masked
    assert changed.any()
    assert torch.equal(changed.all(1), changed.any(1))


def test_the_masked_pass_leaves_running_statistics_alone():
    plain, enhanced, batch = mrife(**OFF), mrife(), make_batch()
    for module in (plain, enhanced):
        torch.manual_seed(1)
        module.train().objective(batch)
    expected = dict(plain.network.encoder.named_buffers())
    for name, value in enhanced.network.encoder.named_buffers():
        assert torch.equal(value, expected[name]), name
    norm = torch.nn.BatchNorm2d(3)
    values = torch.randn(4, 3, 5, 5)
    with pytest.raises(ZeroDivisionError), untouched_running_statistics([norm]):
        assert torch.allclose(norm(values).mean((0, 2, 3)), torch.zeros(3), atol=1e-6)
        raise ZeroDivisionError
    assert norm.track_running_stats
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("interaction", ["none", "one_way", "both"])
@pytest.mark.parametrize("keep", [True, False])
def test_gradients_reach_every_part_but_the_teacher(interaction, keep):
    module = mrife(interaction=interaction, keep_at_inference=keep).train()
    if interaction != "none":
        module._branch().feedback.weight.data.normal_(std=0.1)
    module.objective(make_batch())["total"].backward()
    for name, parameter in module.named_parameters():
        if "teacher" in name:
            assert not parameter.requires_grad
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    assert module._branch().recover.layers[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_the_targets_are_the_teachers_features_of_the_full_image(statistics):
    module, batch = mrife(teacher_statistics=statistics), make_batch()
    with torch.no_grad():
        for parameter in module.distillation.teacher.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    seen = []
    module.distillation.teacher.register_forward_hook(lambda _, inputs, output: seen.append((inputs, output)))
    module.train().objective(batch)
    ((image, terrain), target) = seen[0]
    assert torch.equal(image, module.network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])[0])
    other = mrife().train(statistics == "batch")  # its own copy, weights replaced by the teacher's
    names = dict(RecoveringPath(other.network, other._branch()).named_parameters())
    for name, value in module.distillation.teacher.network.named_parameters():
        names[name].data.copy_(value)
    for name, value in module.distillation.teacher.network.named_buffers():
        dict(RecoveringPath(other.network, other._branch()).named_buffers())[name].copy_(value)
    assert torch.equal(target, other._branch().recover(other.network.encode(image, terrain)[-1]))
    assert not target.requires_grad


def test_without_a_teacher_the_student_is_its_own_target_and_gets_no_gradient_from_it():
    module = mrife(teacher=False, mask_fill="zero", edge_ratio=0.0, contrast_weight=0.0, interaction="none")
    module.distillation.ratios = BlockRatios(0.0, 1.0, 0.0, 0.0)
    assert not [name for name, _ in module.named_parameters() if "teacher" in name]
    module.train()
    deep = torch.zeros(2, module.network.out_channels[-1], 4, 4, requires_grad=True)
    batch = make_batch()
    image, terrain = module.network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
    terms = module.distillation(module.network, module.branch, image, terrain, deep, batch["mask"])
    terms["mfm"].backward()
    assert deep.grad is None  # the target comes from `deep`
    assert next(module.network.encoder.parameters()).grad.abs().sum() > 0  # what is recovered does not


def test_interaction_starts_from_the_baseline_and_then_changes_it():
    batch = make_batch()
    torch.manual_seed(0)
    plain = create_method("deeplab", network=TINY).eval()
    arguments = (batch["image"], batch["dem"], batch["pixel_size"])
    for interaction in ("one_way", "both"):
        module = mrife(interaction=interaction).eval()
        assert isinstance(module.network, EnhancedSegmentor)
        assert torch.equal(module.network(*arguments), plain.network(*arguments))
        module.network.enhancement.feedback.weight.data.normal_()
        assert not torch.allclose(module.network(*arguments), plain.network(*arguments))


def test_feedback_is_what_it_says():
    module = mrife(interaction="both").eval()
    branch, deep = module.network.enhancement, torch.randn(2, module.network.out_channels[-1], 4, 4)
    for conv in (branch.feedback, branch.recover.exchange):
        torch.nn.init.normal_(conv.weight, std=0.1)
    exchanged = deep + F.conv2d(deep, branch.recover.exchange.weight, branch.recover.exchange.bias)
    hidden = F.conv2d(exchanged, branch.recover.layers[0].weight, branch.recover.layers[0].bias, padding=1).relu()
    recovered = F.conv2d(hidden, branch.recover.layers[2].weight, branch.recover.layers[2].bias, padding=1)
    expected = deep + F.conv2d(torch.cat([deep, recovered], 1), branch.feedback.weight, branch.feedback.bias)
    assert torch.allclose(branch(deep), expected, atol=1e-5)
    keep = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    assert torch.equal(branch(deep, keep)[0], deep[0])
    assert torch.allclose(branch(deep, keep)[1], expected[1], atol=1e-5)


def test_with_both_ways_masked_cells_are_not_handed_over():
    module, batch = mrife(interaction="both", mask_fill="zero"), make_batch()
    seen = []
    module.network.enhancement.recover.exchange.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    full, masked = record_masked_pass(module, batch)
    hidden = (full != masked).any(1)[:, ::16, ::16]  # blocks of 16 pixels are cells at stride 16
    assert max(module.network.strides) == 16
    handed = seen[-1]
    assert not handed.requires_grad
    assert torch.equal((handed == 0).all(1), hidden)


def test_dropped_at_inference_leaves_a_plain_segmentor(tmp_path):
    module = mrife(keep_at_inference=False)
    assert type(module.network) is Segmentor
    assert module.branch is not None
    kept = mrife()
    assert kept.branch is None
    assert not any("teacher" in name or "mask_token" in name for name in kept.network.state_dict())
    for model in (module, kept):
        trainer = L.Trainer(max_steps=0, enable_checkpointing=False, **QUIET)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "model.ckpt")
        loaded = load_checkpoint(tmp_path / "model.ckpt")
        assert type(loaded.network) is type(model.network)
        assert loaded.hyperparameters()["enhancement"] == model.hyperparameters()["enhancement"]


def count_passes(module, batch):
    passes = {"student": 0, "teacher": 0}
    hooks = [module.network.encoder.register_forward_hook(lambda *_: passes.update(student=passes["student"] + 1))]
    if module.distillation is not None and module.distillation.teacher is not None:
        hooks.append(module.distillation.teacher.register_forward_hook(lambda *_: passes.update(teacher=passes["teacher"] + 1)))
    terms = module.train().objective(batch)
    for hook in hooks:
        hook.remove()
    return passes["student"], passes["teacher"], set(terms) - {"bce", "dice", "segmentation", "total"}


@pytest.mark.parametrize(
    ("options", "student", "teacher", "terms"),
    [
        ({}, 2, 1, {"mfm", "contrast", "target_spread"}),
        ({"mfm_weight": 0.0}, 1, 1, {"contrast", "target_spread"}),
        ({"contrast_weight": 0.0}, 2, 1, {"mfm", "target_spread"}),
        ({"teacher": False}, 2, 0, {"mfm", "contrast", "target_spread"}),
        ({"mfm_weight": 0.0, "contrast_weight": 0.0}, 1, 0, set()),
        (OFF, 1, 0, set()),
    ],
    ids=["full", "no MFM", "no contrast", "no teacher", "interaction alone", "off"],
)
def test_switches_leave_out_terms_and_passes(options, student, teacher, terms):
    assert count_passes(mrife(**options), make_batch()) == (student, teacher, terms)


def test_switched_off_it_is_the_baseline_to_the_bit():
    torch.manual_seed(0)
    modules = [create_method("deeplab", network=TINY), mrife(**OFF)]
    assert list(modules[0].state_dict()) == list(modules[1].state_dict())
    logits = []
    for module in modules:
        optimizer = torch.optim.SGD(module.train().parameters(), lr=0.1)
        for step in range(3):
            torch.manual_seed(step)
            optimizer.zero_grad()
            module.objective(make_batch(seed=step))["total"].backward()
            optimizer.step()
            module.on_optimizer_step()
        batch = make_batch()
        logits.append(module.eval().network(batch["image"], batch["dem"], batch["pixel_size"]))
    assert torch.equal(*logits)


def test_total_is_the_weighted_sum():
    terms = mrife(mfm_weight=2.0, contrast_weight=0.5).train().objective(make_batch())
    assert terms["total"].item() == pytest.approx((terms["segmentation"] + 2 * terms["mfm"] + 0.5 * terms["contrast"]).item())


def test_the_centre_follows_once_per_step_by_the_mean_of_its_batches():
    module = mrife(mfm_loss="ibot").train()
    targets = []
    module.distillation.teacher.register_forward_hook(lambda _, inputs, output: targets.append(output.double()))
    expected = torch.zeros(16, dtype=torch.float64)
    for step in range(3):
        targets.clear()
        for batch in range(2):  # two accumulated batches
            module.objective(make_batch(seed=10 * step + batch))
        module.on_optimizer_step()
        expected = 0.9 * expected + 0.1 * torch.stack([target.mean((0, 2, 3)) for target in targets]).mean(0)
        assert torch.allclose(module.distillation.centre.double(), expected, atol=1e-6)
    module.eval().objective(make_batch())
    module.on_optimizer_step()
    assert torch.allclose(module.distillation.centre.double(), expected, atol=1e-6)


def _follow(rank, init):
    dist.init_process_group("gloo", init_method=f"file://{init}", rank=rank, world_size=2)
    distillation = mrife(mfm_loss="ibot").distillation
    distillation._target_means.append(torch.full((16,), float(rank + 1)))
    module = mrife(mfm_loss="ibot")
    distillation.follow(module.network, module._branch())
    assert torch.allclose(distillation.centre, torch.full((16,), 0.1 * 1.5))
    dist.destroy_process_group()


def test_two_processes_have_one_centre(tmp_path):
    mp.spawn(_follow, args=(str(tmp_path / "init"),), nprocs=2)


def test_ill_meant_options_are_refused():
    for options in ({"edge_ratio": 1.5}, {"block_size": 0}, {"contrast_temperature": 0.0}, {"mixed_share": 0.5}, {"mfm_weight": -1.0}):
        (field,) = options
        with pytest.raises(UserError, match=f"enhancement.{field}"):
            mrife(**options)
    with pytest.raises(UserError, match="recover head"):
        mrife(stop_feedback_gradient=True, mfm_weight=0.0, contrast_weight=0.0)


# ---- training --------------------------------------------------------------------------------------------------------------------------


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
