"""Certainty of labels as a loss weight: formulas against plain sums, 1 as nothing, 0 as ignore; contrast on certain pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.contrast import certain_mask
from zoo.losses import LossOptions, SegmentationLoss
from zoo.registry import METHODS, create_method

OPTIONS = LossOptions(bce_weight=0.7, dice_weight=1.3, focal_weight=0.5, focal_gamma=1.5, positive_weight=3.0, label_smoothing=0.1)


def drawn(seed, shape=(2, 5, 7)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((shape[0], 1, *shape[1:]), generator=generator) * 3
    mask = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(0, 3, shape, generator=generator)]
    return logits, mask, torch.rand(shape, generator=generator)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_weighted_terms_are_weighted_sums(seed):
    logits, mask, weight = drawn(seed, (2, 9, 11))
    terms = SegmentationLoss(OPTIONS)(logits, mask, weight)
    x, known = logits[:, 0].double().numpy(), mask.numpy() != 255
    y, w = (mask.numpy() == 1).astype(float)[known], weight.double().numpy()[known]
    p = 1 / (1 + np.exp(-x[known]))
    factor = w * np.where(y == 1, 3.0, 1.0)
    target = y * 0.8 + 0.1
    bce = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    right = np.where(y == 1, p, 1 - p)
    focal = -((1 - right) ** 1.5) * np.log(right)
    assert terms["bce"].item() == pytest.approx((factor * bce).sum() / max(w.sum(), 1), rel=1e-4)
    assert terms["focal"].item() == pytest.approx((factor * focal).sum() / max(w.sum(), 1), rel=1e-4)
    assert terms["dice"].item() == pytest.approx(1 - (2 * (w * p * y).sum() + 1) / ((w * p).sum() + (w * y).sum() + 1), rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_one_is_nothing_and_zero_is_ignore_to_the_bit(seed):
    logits, mask, weight = drawn(seed)
    loss = SegmentationLoss(OPTIONS)

    def of(mask, weight):
        given_logits = logits.clone().requires_grad_()
        terms = loss(given_logits, mask, weight)
        terms["segmentation"].backward()
        return [*terms.values(), given_logits.grad]

    for one, other in zip(of(mask, None), of(mask, torch.ones_like(weight)), strict=True):
        assert torch.equal(one, other)
    out = weight < 0.4
    for one, other in zip(of(mask.masked_fill(out, 255), None), of(mask, (~out).float()), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(of(mask, None)[0], of(mask, weight)[0])


def batch_of(weighted):
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(2, 64, 64, dtype=torch.uint8)
    mask[:, 8:40, 8:40], mask[:, 44:60, 44:60], mask[:, :4] = 1, 1, 255
    batch = {
        "image": torch.rand(2, 3, 64, 64, generator=generator) * 255,
        "dem": torch.rand(2, 1, 66, 66, generator=generator) * 100 + 1000,
        "mask": mask,
        "pixel_size": torch.full((2, 2), 2.0),
        "tile": ["a:0:0", "b:0:0"],
    }
    if weighted is not None:
        weight = (mask != 255).float()
        weight[:, 8:40, 8:40] = weighted
        batch["weight"] = weight
    return batch


def test_contrast_sees_certain_pixels_alone():
    mask = certain_mask(batch_of(0.5))
    assert (mask[:, 8:40, 8:40] == 255).all()
    assert (mask[:, 44:60, 44:60] == 1).all()
    plain = batch_of(None)
    assert certain_mask(plain) is plain["mask"]
    assert torch.equal(certain_mask(batch_of(1.0)), plain["mask"])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_weighs_its_segmentation_loss(name):
    def terms(weighted):
        torch.manual_seed(0)
        module = create_method(name, network={"encoder": "tu-test_efficientnet", "weights": None, "inputs": "both"})
        module.train()
        torch.manual_seed(1)
        made = module.objective(batch_of(weighted))
        return {key: value.item() for key, value in made.items()}

    plain, ones, half = terms(None), terms(1.0), terms(0.5)
    assert plain == ones
    assert half["segmentation"] != plain["segmentation"]
    assert np.isfinite(list(half.values())).all()
