"""HPCL-Net's contrast against loops, and where gradients go."""

import copy
import math

import pytest
import torch

from tests.zoo.hpcl_net.building import (
    NETWORK,
    build,
    make_batch,
    reference_cells,
    reference_keys,
)
from zoo import create_method


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
