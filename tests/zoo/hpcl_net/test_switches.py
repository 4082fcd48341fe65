"""What each switch of HPCL-Net changes, and what is refused."""

import numpy as np
import pytest
import torch

from datamodules.errors import UserError
from tests.zoo.hpcl_net.building import NETWORK, STRIDE, build, make_batch, reference_cells
from zoo import create_method
from zoo.fusion import CoordinateAttention
from zoo.hpcl_net import HPCLOptions
from zoo.hpcl_net.network import hyper_pixel_source
from zoo.hpcl_net.objective import draw_pairs, second_view


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
