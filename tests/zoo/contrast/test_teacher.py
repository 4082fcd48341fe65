"""The teacher against closed forms."""

import math

import pytest
import torch
from torch import nn

from datamodules.errors import UserError
from zoo.contrast import EmaTeacher


def student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)).train()


def train_step(network):
    """Move weights and batch-norm statistics at random."""
    network(torch.randn(2, 3, 8, 8) * 3 + 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_average_is_the_closed_form():
    network = student().double()
    teacher = EmaTeacher(network, 0.9)
    start = [p.clone() for p in network.parameters()]
    history = []
    for _ in range(25):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        history.append([p.clone() for p in network.parameters()])
        teacher.update(network)
    for k, parameter in enumerate(teacher.network.parameters()):
        closed = 0.9**25 * start[k] + sum(0.1 * 0.9 ** (24 - n) * history[n][k] for n in range(25))
        torch.testing.assert_close(parameter, closed, rtol=0, atol=1e-12)


def test_buffers_are_copied_and_integers_too():
    network, teacher = student(), None
    teacher = EmaTeacher(network, 0.5)
    for _ in range(3):
        train_step(network)
        teacher.update(network)
    assert int(teacher.network[1].num_batches_tracked) == 3
    for (name, ours), (_, theirs) in zip(teacher.network.named_buffers(), network.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.data_ptr() != theirs.data_ptr()


def test_cosine_schedule_from_start_to_end():
    network = student()
    teacher = EmaTeacher(network, 0.996, 1.0, total_steps=10)
    seen = []
    for step in range(13):
        seen.append(teacher.momentum)
        expected = 1 - (1 - 0.996) * (math.cos(math.pi * min(step, 10) / 10) + 1) / 2
        assert seen[-1] == pytest.approx(expected, abs=1e-12)
        train_step(network)
        teacher.update(network)
    assert seen[0] == pytest.approx(0.996)
    assert seen[5] == pytest.approx(0.998)
    assert seen[-1] == 1
    frozen = [p.clone() for p in teacher.network.parameters()]
    train_step(network)
    teacher.update(network)
    assert all(torch.equal(a, b) for a, b in zip(frozen, teacher.network.parameters(), strict=True))


def test_resume_continues_to_the_bit():
    network = student()
    whole = EmaTeacher(network, 0.9, 1.0, total_steps=20)
    for _ in range(5):
        train_step(network)
        whole.update(network)
    resumed = EmaTeacher(student(), 0.9, 1.0, total_steps=20)
    resumed.load_state_dict(whole.state_dict())
    assert resumed.step == 5
    for _ in range(5):
        train_step(network)
        whole.update(network)
        resumed.update(network)
    for (name, ours), (_, theirs) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


def test_state_survives_a_weights_only_checkpoint(tmp_path):
    teacher = EmaTeacher(student(), 0.9)
    teacher.update(student())
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    loaded = EmaTeacher(student(), 0.9)
    loaded.load_state_dict(torch.load(tmp_path / "teacher.pt", weights_only=True))
    assert loaded.step == 1


def test_no_gradient_reaches_the_teacher():
    network = student()
    teacher = EmaTeacher(network, 0.9)
    image = torch.randn(2, 3, 8, 8, requires_grad=True)
    keys = teacher(image)
    assert not keys.requires_grad
    (network(image) * keys).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad and p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_the_owner_does_not_flip_its_mode(batch_statistics):
    owner = nn.Module()
    owner.network = student()
    owner.teacher = EmaTeacher(owner.network, 0.9, batch_statistics=batch_statistics)
    image = torch.randn(4, 3, 8, 8) * 5 + 7
    for mode in (True, False, True):
        owner.train(mode)
        assert owner.network.training is mode
        assert not owner.teacher.network[2].training, "dropout stays off"
        assert owner.teacher.network[1].training is batch_statistics
        assert torch.equal(owner.teacher(image), owner.teacher(image))
    normalised = owner.teacher.network[:2](image).mean((0, 2, 3))
    assert bool((normalised.abs() < 1e-4).all()) is batch_statistics


def test_several_students_keep_their_shared_weights():
    body = nn.Linear(3, 3)
    parts = {"body": body, "head": nn.Sequential(body, nn.Linear(3, 2))}
    teacher = EmaTeacher(parts, 0.0)
    assert teacher.network["body"] is teacher.network["head"][0]
    with torch.no_grad():
        body.weight += 1
    teacher.update(parts)
    assert torch.equal(teacher.network["head"][0].weight, body.weight)


def test_another_student_is_refused():
    teacher = EmaTeacher(student())
    with pytest.raises(ValueError, match="the student has 2 parameters, its teacher 6"):
        teacher.update(nn.Conv2d(3, 4, 3))
    renamed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match="made from"):
        teacher.update(renamed)
    wider = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match="made from"):
        teacher.update(wider)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(UserError, match=r"momentum = 1\.5"):
        EmaTeacher(student(), 1.5)
    with pytest.raises(UserError, match="total_steps"):
        EmaTeacher(student(), 0.9, 1.0)
    half = student().bfloat16()
    with pytest.raises(UserError, match="bf16-mixed"):
        EmaTeacher(half).update(half)


def test_update_compiles_to_one_graph():
    network = student()
    teacher, compiled = EmaTeacher(network, 0.9), EmaTeacher(network, 0.9)
    train_step(network)
    teacher.update(network)
    torch.compile(compiled.update, fullgraph=True, backend="eager")(network)
    assert all(torch.equal(a, b) for a, b in zip(teacher.state_dict().values(), compiled.state_dict().values(), strict=True))
