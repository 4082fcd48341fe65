"""ICSSN's objects and their contrast, each against a computation that does not share its code."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.zoo.icssn.building import (
    SIZE,
    STRIDE,
    build,
    info_nce_loop,
    make_batch,
    unit_vectors,
)
from zoo.icssn import ICSSNOptions
from zoo.icssn.objective import Labels, crop_size, cut, draw_crops, grid_crops, object_contrast, object_labels


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
