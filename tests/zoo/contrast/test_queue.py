"""The queue against collections.deque, and over two processes."""

import collections
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from datamodules.errors import UserError
from zoo.contrast import FeatureQueue

ROOT = Path(__file__).parents[3]


def contents(queue):
    """Entries of each class, oldest first."""
    features, labels, valid = queue.keys()
    lists = []
    for label in range(queue.num_classes):
        ring, used = features[labels == label], valid[labels == label]
        filled, pointer = int(queue.filled[label]), int(queue.pointer[label])
        assert int(used.sum()) == filled
        ordered = ring.roll(-pointer, 0) if filled == queue.length else ring[:filled]
        lists.append([tuple(row) for row in ordered.tolist()])
    return lists


def test_queue_is_a_deque_under_1000_random_operations():
    generator = torch.Generator().manual_seed(0)
    num_classes, length, dim = 3, 7, 2
    queue = FeatureQueue(num_classes, length, dim)
    deques = [collections.deque(maxlen=length) for _ in range(num_classes)]
    oversize = empty = reloads = 0
    for operation in range(1000):
        rows = [0, 1, 3, 8, 40][int(torch.randint(5, (), generator=generator))]
        share = [0.0, 0.3, 1.0][int(torch.randint(3, (), generator=generator))]
        keys = torch.randn(rows, dim, generator=generator)
        labels = torch.randint(num_classes, (rows,), generator=generator)
        labels[torch.rand(rows, generator=generator) < 0.05] = 255
        valid = torch.rand(rows, generator=generator) < share
        queue.enqueue(keys, labels, valid)
        for key, label, is_valid in zip(keys.tolist(), labels.tolist(), valid.tolist(), strict=True):
            if is_valid and label != 255:
                deques[label].append(tuple(key))
        empty += not valid.any()
        oversize += any(int((valid & (labels == label)).sum()) > length for label in range(num_classes))
        if operation % 97 == 0:
            resumed = FeatureQueue(num_classes, length, dim)
            resumed.load_state_dict(queue.state_dict())
            queue = resumed
            reloads += 1
        assert contents(queue) == [list(entries) for entries in deques]
        assert not queue.features[-1].any()
    assert min(oversize, empty, reloads) > 10


def test_rows_and_state():
    queue = FeatureQueue(2, 4, 3)
    assert not queue.keys()[2].any()
    keys = torch.randn(3, 3, dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(keys, torch.tensor([1, 0, 1], dtype=torch.uint8), torch.tensor([True, False, True]))
    features, labels, valid = queue.keys()
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert valid.tolist() == [False] * 4 + [True, True, False, False]
    assert torch.equal(features[4:6], keys.detach().float()[[0, 2]])
    assert set(queue.state_dict()) == {"features", "pointer", "filled"}
    with pytest.raises(ValueError, match="must be"):
        queue.enqueue(torch.zeros(3, 2), torch.zeros(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(UserError, match="length = 0"):
        FeatureQueue(2, 0, 3)


def test_enqueue_compiles_to_one_graph():
    queue, compiled = FeatureQueue(2, 4, 3), FeatureQueue(2, 4, 3)
    enqueue = torch.compile(compiled.enqueue, fullgraph=True, backend="eager")
    for seed in range(4):
        torch.manual_seed(seed)
        rows = torch.randn(5, 3), torch.randint(2, (5,)), torch.rand(5) < 0.5
        queue.enqueue(*rows)
        enqueue(*rows)
    assert all(torch.equal(a, b) for a, b in zip(queue.buffers(), compiled.buffers(), strict=True))


TWO_RANKS = """
import sys
import torch
import torch.distributed as dist
from zoo.contrast import FeatureQueue

rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
queue = FeatureQueue(2, 5, 3)
log = []
for step in range(20):
    generator = torch.Generator().manual_seed(100 * step + rank)
    keys = torch.randn(6, 3, generator=generator)
    labels = torch.randint(2, (6,), generator=generator)
    # Rank 0 has few valid rows, rank 1 many, sometimes none at all.
    valid = torch.rand(6, generator=generator) < [0.2, 0.8, 0.0][(rank + (step % 5 == 0) * 2) % 3]
    queue.enqueue(keys, labels, valid)
    log.append((keys, labels, valid))
torch.save({"state": queue.state_dict(), "log": log}, out)
dist.destroy_process_group()
"""


def test_two_ranks_hold_the_same_queue(tmp_path):
    script = tmp_path / "two_ranks.py"
    script.write_text(textwrap.dedent(TWO_RANKS))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path / "store"), str(tmp_path / f"{rank}.pt")], env=environment)
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert [int(row[2].sum()) for row in first["log"]] != [int(row[2].sum()) for row in second["log"]]
    for name, tensor in first["state"].items():
        assert torch.equal(tensor, second["state"][name]), name
    # One process that sees the rows of rank 0, then those of rank 1, step by step.
    alone = FeatureQueue(2, 5, 3)
    for ours, theirs in zip(first["log"], second["log"], strict=True):
        alone.enqueue(*(torch.cat(pair) for pair in zip(ours, theirs, strict=True)))
    assert all(torch.equal(tensor, first["state"][name]) for name, tensor in alone.state_dict().items())
