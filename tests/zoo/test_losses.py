"""Losses against scikit-learn and closed forms, and what ignored pixels do to them: nothing."""

import pytest
import torch
from sklearn.metrics import log_loss

from zoo.losses import LossOptions, SegmentationLoss, bce_loss, dice_loss, focal_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 6, generator=generator, requires_grad=True)
    mask = torch.randint(0, 2, (3, 8, 6), generator=generator, dtype=torch.uint8)
    mask[:, :2] = 255
    return logits, mask


def test_cross_entropy_equals_scikit_learn(batch):
    logits, mask = batch
    valid = mask != 255
    expected = log_loss(mask[valid].numpy(), torch.sigmoid(logits[:, 0][valid].double()).detach().numpy())
    assert float(bce_loss(logits, mask)) == pytest.approx(expected, abs=1e-6)


def test_dice_is_its_closed_form(batch):
    logits, mask = batch
    valid = mask != 255
    probability, label = torch.sigmoid(logits[:, 0][valid]), mask[valid].float()
    expected = 1 - (2 * (probability * label).sum() + 1) / (probability.sum() + label.sum() + 1)
    assert float(dice_loss(logits, mask)) == pytest.approx(float(expected), abs=1e-6)
    perfect = torch.where(mask == 1, 50.0, -50.0)[:, None]
    assert float(dice_loss(perfect, mask)) == pytest.approx(0, abs=1e-6)


def test_focal_without_focus_is_cross_entropy_and_with_focus_less(batch):
    logits, mask = batch
    assert float(focal_loss(logits, mask, gamma=0.0)) == pytest.approx(float(bce_loss(logits, mask)), abs=1e-6)
    assert float(focal_loss(logits, mask, gamma=2.0)) < float(bce_loss(logits, mask))


@pytest.mark.parametrize("loss", [bce_loss, dice_loss, focal_loss])
def test_ignored_pixels_have_neither_value_nor_gradient(batch, loss):
    logits, mask = batch
    changed = logits.detach().clone()
    changed[:, 0][mask == 255] = 1e4
    assert float(loss(logits, mask)) == float(loss(changed, mask))
    loss(logits, mask).backward()
    assert (logits.grad[:, 0][mask == 255] == 0).all()
    assert (logits.grad[:, 0][mask != 255] != 0).all()


def test_all_ignored_is_finite_with_a_zero_gradient():
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    terms = SegmentationLoss(LossOptions(focal_weight=1.0))(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    terms["segmentation"].backward()
    assert torch.isfinite(terms["segmentation"])
    assert (logits.grad == 0).all()


def test_the_sum_is_weighted_and_a_zero_weight_leaves_a_term_out(batch):
    logits, mask = batch
    terms = SegmentationLoss(LossOptions(bce_weight=0.5, dice_weight=2.0))(logits, mask)
    assert set(terms) == {"bce", "dice", "segmentation"}
    assert float(terms["segmentation"]) == pytest.approx(0.5 * float(terms["bce"]) + 2 * float(terms["dice"]), abs=1e-6)


def test_positive_weight_counts_landslide_pixels_that_often(batch):
    logits, mask = batch
    valid, label = mask != 255, mask == 1
    per_pixel = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], label.float(), reduction="none")
    expected = (per_pixel[valid & ~label].sum() + 3 * per_pixel[label].sum()) / valid.sum()
    assert float(bce_loss(logits, mask, positive_weight=3.0)) == pytest.approx(float(expected), abs=1e-6)
