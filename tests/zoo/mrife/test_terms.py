"""MRIFE's loss terms against loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoo.mrife.objective import class_descriptors, descriptor_contrast, recovery_distance, weighted_mean


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
