"""InfoNCE against a loop in float64."""

import math

import pytest
import torch

from zoo.contrast import info_nce


def loop(arguments, temperature, exclude_self=None):
    """The formula of the docstring, term by term."""
    queries, query_labels, query_valid, keys, key_labels, key_valid = arguments

    def cosine(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    rows, keys = queries.double().tolist(), keys.double().tolist()
    per_query = []
    for i, query in enumerate(rows):
        if not query_valid[i]:
            continue
        own = -1 if exclude_self is None else int(exclude_self[i])
        positives = [k for k in range(len(keys)) if key_valid[k] and key_labels[k] == query_labels[i] and k != own]
        negatives = [k for k in range(len(keys)) if key_valid[k] and key_labels[k] != query_labels[i]]
        if not positives:
            continue
        total = sum(math.exp(cosine(query, keys[n]) / temperature) for n in negatives)
        terms = []
        for p in positives:
            share = math.exp(cosine(query, keys[p]) / temperature)
            terms.append(-math.log(share / (share + total)))
        per_query.append(sum(terms) / len(terms))
    return sum(per_query) / len(per_query) if per_query else 0.0


def example(seed, num_queries=12, num_keys=30, dim=8):
    generator = torch.Generator().manual_seed(seed)

    def rows(num):
        features, labels = torch.randn(num, dim, generator=generator) * 3, torch.randint(3, (num,), generator=generator)
        return [features, labels, torch.rand(num, generator=generator) < 0.7]

    return rows(num_queries) + rows(num_keys)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_value_is_that_of_the_loop(seed, temperature):
    arguments = example(seed)
    expected = loop(arguments, temperature)
    assert float(info_nce(*arguments, temperature)) == pytest.approx(expected, rel=1e-6)
    doubles = [tensor.double() if tensor.is_floating_point() else tensor for tensor in arguments]
    assert float(info_nce(*doubles, temperature)) == pytest.approx(expected, rel=1e-12)


def test_a_query_is_not_its_own_positive():
    queries, labels, valid, *_ = example(1)
    own = torch.arange(len(queries))
    own[3] = -1
    value = float(info_nce(queries, labels, valid, queries, labels, valid, 0.1, own))
    assert value == pytest.approx(loop((queries, labels, valid, queries, labels, valid), 0.1, own), rel=1e-6)
    assert value != pytest.approx(float(info_nce(queries, labels, valid, queries, labels, valid, 0.1)))


def test_gradient_is_that_of_finite_differences():
    queries, labels, valid, keys, key_labels, key_valid = example(2, 5, 9, 4)
    queries, keys = queries.double().requires_grad_(), keys.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: info_nce(q, labels, valid, k, key_labels, key_valid, 0.2), (queries, keys))


def empty_cases():
    none, every = torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    zeros, ones = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    return {
        "no queries": (zeros, none, torch.tensor([0, 1, 0, 1]), every),
        "no keys": (zeros, every, torch.tensor([0, 1, 0, 1]), none),
        "no positives": (zeros, every, ones, every),
        "no negatives": (zeros, every, zeros, every),
    }


@pytest.mark.parametrize("case", empty_cases())
def test_empty_cases_are_zero_with_zero_gradient(case):
    query_labels, query_valid, key_labels, key_valid = empty_cases()[case]
    queries, keys = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    loss = info_nce(queries, query_labels, query_valid, keys, key_labels, key_valid)
    loss.backward()
    assert loss.item() == 0
    assert not queries.grad.any()
    assert not keys.grad.any()


@pytest.mark.parametrize(("num_queries", "num_keys"), [(0, 4), (4, 0), (0, 0)])
def test_no_rows_at_all(num_queries, num_keys):
    queries, keys = torch.randn(num_queries, 3, requires_grad=True), torch.randn(num_keys, 3, requires_grad=True)
    labels = torch.zeros(num_queries, dtype=torch.long), torch.zeros(num_keys, dtype=torch.long)
    loss = info_nce(queries, labels[0], labels[0] == 0, keys, labels[1], labels[1] == 0)
    loss.backward()
    assert loss.item() == 0


def test_empty_slots_may_hold_anything():
    arguments = example(3)
    expected = info_nce(*arguments)
    arguments[0][~arguments[2]] = math.nan
    arguments[3][~arguments[5]] = math.inf
    queries, keys = arguments[0].requires_grad_(), arguments[3].requires_grad_()
    loss = info_nce(*arguments)
    assert torch.equal(loss, expected)
    loss.backward()
    assert queries.grad.isfinite().all()
    assert keys.grad.isfinite().all()
    assert not queries.grad[~arguments[2]].any()


def test_float32_inside_autocast():
    arguments = example(4)
    outside = info_nce(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(*arguments)
        low = info_nce(arguments[0].bfloat16(), *arguments[1:3], arguments[3].bfloat16(), *arguments[4:])
    assert inside.dtype == low.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert float(low) == pytest.approx(float(outside), rel=0.05)


def test_stable_at_low_temperature():
    queries = torch.eye(2).requires_grad_()
    keys = -torch.eye(2) + 2 * torch.eye(2).flip(0)
    every, labels = torch.ones(2, dtype=torch.bool), torch.arange(2)
    loss = info_nce(queries, labels, every, keys, labels, every, 1e-3)
    loss.backward()
    # cos to the positive -1/sqrt(5), to the negative 2/sqrt(5): the term is their distance / t.
    assert loss.item() == pytest.approx(3 / math.sqrt(5) / 1e-3, rel=1e-5)
    assert queries.grad.isfinite().all()


def test_detached_keys_get_no_gradient():
    arguments = example(5)
    source = arguments[3].requires_grad_()
    arguments[0].requires_grad_()
    arguments[3] = source.detach()
    info_nce(*arguments).backward()
    assert source.grad is None
    assert arguments[0].grad.any()


def test_compiles_to_one_graph():
    arguments = example(6)
    compiled = torch.compile(info_nce, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*arguments), info_nce(*arguments))
