"""MRIFE's passes, gradients, interaction and switches."""

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from datamodules.errors import UserError
from tests.zoo.mrife.building import OFF, QUIET, TINY, make_batch, mrife
from zoo import create_method, load_checkpoint
from zoo.mrife.blocks import BlockRatios, block_classes
from zoo.mrife.network import EnhancedSegmentor, RecoveringPath, untouched_running_statistics
from zoo.segmentor import Segmentor


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
