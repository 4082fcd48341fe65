"""FeatureQueue: the newest keys of each class, a ring that is checkpointed and equal on all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from datamodules.errors import UserError


def _gather_rows(rows: Tensor) -> Tensor:
    """Rows (N, K) of all ranks in the order of ranks, (world x N, K); all ranks must call with equal shapes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


class FeatureQueue(nn.Module):
    """First in, first out memory of feature vectors, one ring a class.

    All state is in buffers, so a checkpoint carries it. Only entries that were written count: a queue starts empty, not with
    random vectors. Under `torch.distributed` the keys of all ranks are gathered before they are written, in the order of ranks;
    without that, DDP's broadcast of buffers would overwrite every queue by that of rank 0.

    Args:
        num_classes: Number of rings, at least 1.
        length: Entries a ring, at least 1.
        dim: Length of a feature vector, at least 1.

    Raises:
        UserError: A size is below 1.
    """

    features: Tensor
    """float32 (num_classes x length + 1, dim), class after class; the last row takes what is not to be kept and stays zero."""
    pointer: Tensor
    """int64 (num_classes,): the slot that is written next."""
    filled: Tensor
    """int64 (num_classes,): entries written so far, at most `length`."""

    def __init__(self, num_classes: int, length: int, dim: int) -> None:
        super().__init__()
        for field, value in (("num_classes", num_classes), ("length", length), ("dim", dim)):
            if value < 1:
                raise UserError("must be at least 1", "leave the queue out to train without one", field=f"queue {field}", value=value)
        self.num_classes, self.length, self.dim = num_classes, length, dim
        self.register_buffer("features", torch.zeros(num_classes * length + 1, dim))
        self.register_buffer("pointer", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros(num_classes, dtype=torch.int64))

    def extra_repr(self) -> str:
        """Sizes, for `print(module)`."""
        return f"num_classes={self.num_classes}, length={self.length}, dim={self.dim}"

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor, valid: Tensor) -> None:
        """Write keys in their order; of more than `length` of one class the last ones stay.

        A collective under `torch.distributed`: every rank must call it, with equal shapes. It writes in place, so call it after the
        backward pass of a loss that kept `keys()` unchanged in its graph (`info_nce` keeps a copy).

        Args:
            keys: (N, dim), any floating dtype; kept as float32, without gradient.
            labels: integer (N,): the class. A label outside 0 .. num_classes - 1 (255, ignore) makes the row invalid.
            valid: bool (N,): which rows count; any number of them, zero included.

        Raises:
            ValueError: Shapes do not fit.
        """
        if keys.ndim != 2 or keys.shape[1] != self.dim or labels.shape != keys.shape[:1] or valid.shape != keys.shape[:1]:
            raise ValueError(
                f"keys {tuple(keys.shape)}, labels {tuple(labels.shape)} and valid {tuple(valid.shape)} must be (N, {self.dim}), (N,), (N,)"
            )
        # One collective and not three; -1 marks invalid rows, and float32 holds any class number exactly.
        code = torch.where(valid, labels, -1).to(torch.float32)
        rows = _gather_rows(torch.cat([keys.detach().to(torch.float32), code[:, None]], dim=1))
        keys, code = rows[:, :-1], rows[:, -1:].long()
        classes = torch.arange(self.num_classes, device=keys.device)
        member = code == classes
        count = member.sum(0)
        # The place of each row among the valid rows of its class, 0 the oldest.
        place = member.cumsum(0) - 1
        kept = member & (place >= count - self.length)
        slot = classes * self.length + (self.pointer + place) % self.length
        overflow = self.num_classes * self.length
        # A row belongs to one class at most, so the smallest of its slots is the one that is not the overflow.
        target = torch.where(kept, slot, overflow).amin(1)
        self.features.index_copy_(0, target, keys)
        # Several rows may have met in the overflow row; zeros keep the state a function of what is in the rings.
        self.features[overflow].zero_()
        self.pointer.copy_((self.pointer + count) % self.length)
        self.filled.copy_((self.filled + count).clamp(max=self.length))

    def keys(self) -> tuple[Tensor, Tensor, Tensor]:
        """All slots, used or not.

        Returns:
            features: float32 (num_classes x length, dim), a view of the buffer.
            labels: int64 (num_classes x length,).
            valid: bool (num_classes x length,): the slots that were written.
        """
        slot = torch.arange(self.length, device=self.features.device)
        labels = torch.arange(self.num_classes, device=self.features.device).repeat_interleave(self.length)
        # A ring fills from slot 0, so the written slots are the first ones until all are.
        return self.features[:-1], labels, (slot < self.filled[:, None]).flatten()
