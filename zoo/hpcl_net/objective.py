"""HPCL-Net's objective: hyper-pixel pairs from landslide boundaries (CSPC), keys of a momentum copy, one global queue a class (GCQC)."""

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from datamodules.batch import Batch
from datamodules.classes import BACKGROUND, LANDSLIDE
from datamodules.errors import UserError
from zoo.contrast import (
    BoundaryParts,
    EmaTeacher,
    FeatureQueue,
    background_cells,
    boundary_cells,
    cell_shares,
    certain_mask,
    gather_cells,
    info_nce,
    sample_cells,
)
from zoo.hpcl_net.network import HyperPixelEncoder, ProjectionHead, hyper_pixel_source
from zoo.segmentor import Segmentor

NUM_CLASSES: Final = 2
PENDING_BATCHES: Final = 64
"""Batches whose keys wait for the optimiser step; of more accumulated ones the oldest are dropped, so memory stays bounded."""


@dataclass(frozen=True)
class HPCLOptions:
    """Contrast of hyper-pixels. None of these numbers is stated in what we could read of the paper; see the README for their sources.

    Args:
        contrast_weight: Weight lambda of the contrastive term; 0 switches it off: no head, teacher or queue is built.
        warmup_share: Share of all optimiser steps before the term starts, in [0, 1). Until then the teacher is the student.
        temperature: Of InfoNCE.
        projection_dim: Length of a hyper-pixel's vector.
        hyper_pixel_stride: Pixels a hyper-pixel; `null` is the stride of the deepest level. Other strides take the level that has it,
            or pool the deepest.
        contrast_on: Make hyper-pixels of the `fused` encoder features or of the `decoder`'s.
        boundary_parts: `all`, or `back_side`: back and side walls, which leaves out the toe and needs elevation.
        boundary_radius: Half width of the band along boundaries in pixels; `null` is one hyper-pixel.
        negatives: Background from `boundary_outer`, the near side of the band, or `all_background`, anywhere.
        anchor_classes: Queries from the `landslide` side alone or from `both`.
        anchors_per_image: Most hyper-pixels drawn a class and image.
        max_anchors: Most of them a class and batch on each device; large batches draw fewer an image.
        key_view: Keys from the `same_image`, or from a `second_augmentation` of its brightness and contrast.
        momentum_encoder: Keys from a momentum copy of encoders, fusion and head; without it they are the detached queries.
        momentum: m of the copy. At .999 it takes 693 optimiser steps to forget half of what it was: take .99 below some 5,000 steps.
        momentum_end: m at the end of training, reached by a half cosine; `null` is a constant m.
        key_statistics: The copy normalises by the statistics of its `batch`, as MoCo's, or by the student's `running` ones.
        use_queue: Keep keys in queues; without them the keys are those of the batch.
        queue_length: Hyper-pixels a queue.
        enqueue_per_image: Most hyper-pixels an image and class that enter the queue.
    """

    contrast_weight: float = 0.1
    warmup_share: float = 0.125
    temperature: float = 0.07
    projection_dim: int = 256
    hyper_pixel_stride: Literal[8, 16, 32] | None = None
    contrast_on: Literal["fused", "decoder"] = "fused"
    boundary_parts: BoundaryParts = "all"
    boundary_radius: int | None = None
    negatives: Literal["boundary_outer", "all_background"] = "boundary_outer"
    anchor_classes: Literal["landslide", "both"] = "landslide"
    anchors_per_image: int = 100
    max_anchors: int = 1024
    key_view: Literal["same_image", "second_augmentation"] = "same_image"
    momentum_encoder: bool = True
    momentum: float = 0.999
    momentum_end: float | None = None
    key_statistics: Literal["batch", "running"] = "batch"
    use_queue: bool = True
    queue_length: int = 5000
    enqueue_per_image: int = 10


def check_options(options: HPCLOptions, inputs: str) -> None:
    """Refuse values that cannot be meant.

    Args:
        options: Options of the contrast.
        inputs: `network.inputs`.

    Raises:
        UserError: A number out of range, or a second view of an image that the network or the keys do not see.
    """
    ranges = {
        "contrast_weight": (options.contrast_weight >= 0, "must not be negative", "0 switches the term off"),
        "warmup_share": (0 <= options.warmup_share < 1, "must lie in [0, 1)", "0.125 is the default"),
        "temperature": (options.temperature > 0, "must be positive", "0.07 is the default"),
        "projection_dim": (options.projection_dim > 0, "must be positive", "256 is the default"),
        "anchors_per_image": (options.anchors_per_image > 0, "must be positive", "100 is the default"),
        "max_anchors": (options.max_anchors > 0, "must be positive", "1024 is the default"),
        "enqueue_per_image": (options.enqueue_per_image > 0, "must be positive", "set use_queue to false to train without queues"),
        "boundary_radius": (
            options.boundary_radius is None or options.boundary_radius > 0,
            "must be positive",
            "leave it null for one hyper-pixel",
        ),
    }
    for field, (holds, problem, remedy) in ranges.items():
        if not holds:
            raise UserError(problem, remedy, field=f"contrast.{field}", value=getattr(options, field), exit_code=2)
    if options.key_view == "second_augmentation" and inputs == "dem":
        raise UserError(
            "the network sees no image to augment", "take same_image", field="contrast.key_view", value=options.key_view, exit_code=2
        )
    if options.key_view == "second_augmentation" and not options.momentum_encoder:
        raise UserError(
            "keys that are the detached queries have no view of their own",
            "take same_image",
            field="contrast.key_view",
            value=options.key_view,
            exit_code=2,
        )


class Drawn(NamedTuple):
    """Hyper-pixels that take part, in slots of fixed number: S a class and image."""

    cells: Tensor
    """int64 (2, B, S): index on the map, row-major; the landslide side first."""
    valid: Tensor
    """bool (2, B, S): slots that hold one; within an image they come first, in random order."""


@torch.no_grad()
def draw_pairs(batch: Batch, size: tuple[int, int], stride: int, options: HPCLOptions) -> Drawn:
    """Contrastive sample pairs (CSPC): draw landslide hyper-pixels inside boundaries and background ones outside.

    Args:
        batch: Its mask and elevation are read.
        size: (h, w) of the map of hyper-pixels.
        stride: Pixels a hyper-pixel.
        options: Parts of the boundary, kind of negatives, numbers.
    """
    mask = certain_mask(batch)
    band = boundary_cells(mask, stride, size=size, radius=options.boundary_radius, parts=options.boundary_parts, dem=batch["dem"])
    outer = band.outer if options.negatives == "boundary_outer" else background_cells(cell_shares(mask, stride, size))
    slots = max(min(options.anchors_per_image, options.max_anchors // len(mask), size[0] * size[1]), 1)
    index, valid = sample_cells(torch.cat([band.inner, outer]), slots)
    return Drawn(index.view(NUM_CLASSES, len(mask), slots), valid.view(NUM_CLASSES, len(mask), slots))


def second_view(image: Tensor, missing: Tensor) -> Tensor:
    """Another brightness and contrast for each image, from torch's generator, which the base seeds anew each step.

    Works on standardised values, where contrast is a factor and brightness a summand: the same as changing raw values about the
    training mean and in units of its standard deviation, without normalising twice.

    Args:
        image: float (B, C, H, W), standardised.
        missing: bool (B, C, H, W): no data; it stays at 0.
    """
    # Not stated in the paper: whether keys see another view at all, and which.
    contrast, brightness = 0.4 * torch.rand(2, len(image), 1, 1, 1, device=image.device) - 0.2
    return torch.where(missing, image, image * (1 + contrast) + brightness)


class HyperPixelContrast(nn.Module):
    """All that HPCL-Net has in training only: projection head, momentum copy, queues; and the contrastive term.

    Args:
        options: Options.
        network: The segmentor that is trained; it is read, not kept.
    """

    classes: Tensor

    def __init__(self, options: HPCLOptions, network: Segmentor) -> None:
        super().__init__()
        self.options = options
        self.source = hyper_pixel_source(network, options.hyper_pixel_stride, decoder=options.contrast_on == "decoder")
        self.projection = ProjectionHead(self.source, options.projection_dim)
        self.teacher = (
            EmaTeacher(
                self.student(network),
                options.momentum,
                options.momentum_end,
                # The true number is known when training starts, see `plan`.
                total_steps=None if options.momentum_end is None else 1,
                batch_statistics=options.key_statistics == "batch",
            )
            if options.momentum_encoder
            else None
        )
        self.queue = FeatureQueue(NUM_CLASSES, options.queue_length, options.projection_dim) if options.use_queue else None
        # A buffer, since a tensor made of numbers in a step would be a copy to the accelerator that the host waits for.
        self.register_buffer("classes", torch.tensor([LANDSLIDE, BACKGROUND]), persistent=False)
        self._pending: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=PENDING_BATCHES)
        self._in_use = False

    def student(self, network: Segmentor) -> HyperPixelEncoder:
        """What the teacher follows: parts of `network` and the head, shared."""
        return HyperPixelEncoder(network, self.projection, self.source)

    def plan(self, num_steps: int) -> None:
        """Take the number of optimiser steps with contrast, for the schedule of the momentum."""
        if self.teacher is not None and self.teacher.momentum_end is not None:
            self.teacher.total_steps = max(num_steps, 1)

    def idle(self) -> Tensor:
        """Zero that depends on every weight of the head: DistributedDataParallel wants a gradient for each in every step."""
        return torch.stack([parameter.sum() for parameter in self.projection.parameters()]).sum() * 0.0

    def forward(self, batch: Batch, network: Segmentor, image: Tensor, terrain: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """The contrastive term and what to watch beside it.

        Args:
            batch: Raw batch.
            network: The segmentor, for the teacher to start from.
            image: (B, C, H, W), standardised.
            terrain: (B, K, H, W), normalised.
            seen: The map of `source` that the student made of them.

        Returns:
            `contrast`, the unweighted term; detached: `contrast_positive_similarity` and `contrast_negative_similarity`, mean cosine
            of queries with keys of their own and of the other class; `contrast_anchors`, queries a batch; `contrast_queue_fill`,
            share of the queues in use.
        """
        options = self.options
        projected = self.projection(seen)
        drawn = draw_pairs(batch, (projected.shape[-2], projected.shape[-1]), self.source.stride, options)
        queries = _vectors(projected, drawn.cells)
        if self.teacher is None:
            keys = queries.detach()
        else:
            view = image
            if options.key_view == "second_augmentation":
                hidden = (image == 0).all(dim=(1, 2, 3), keepdim=True)  # by modality dropout; it is no data, too
                view = second_view(image, batch["image"].isnan() | hidden)
            keys = _vectors(self._keys_map(network, view, terrain), drawn.cells)
        labels = self.classes.view(NUM_CLASSES, 1, 1).expand_as(drawn.valid)
        self._in_use = True
        if self.queue is not None:
            num = options.enqueue_per_image
            self._pending.append((keys[:, :, :num].flatten(0, 2), labels[:, :, :num].flatten(), drawn.valid[:, :, :num].flatten()))

        chosen = slice(0, 1 if options.anchor_classes == "landslide" else NUM_CLASSES)
        query, query_labels, query_valid = queries[chosen].flatten(0, 2), labels[chosen].flatten(), drawn.valid[chosen].flatten()
        # Queries and keys of a batch are the same cells in the same order. A key of the momentum copy is its query's first positive,
        # as in MoCo; a key that is the query itself would teach nothing.
        own = torch.arange(len(query), device=query.device) if self.teacher is None else None
        key, key_labels, key_valid = keys.flatten(0, 2), labels.flatten(), drawn.valid.flatten()
        if self.queue is not None:
            queued, queued_labels, queued_valid = self.queue.keys()
            key, key_labels, key_valid = (
                torch.cat([key, queued]),
                torch.cat([key_labels, queued_labels]),
                torch.cat([key_valid, queued_valid]),
            )
        contrast = info_nce(query, query_labels, query_valid, key, key_labels, key_valid, options.temperature, exclude_self=own)
        return {"contrast": contrast, **self._watch(query, query_labels, query_valid, key, key_labels, key_valid)}

    @torch.no_grad()
    def _keys_map(self, network: Segmentor, image: Tensor, terrain: Tensor) -> Tensor:
        assert self.teacher is not None
        if self.teacher.step == 0:
            # Until its first update the teacher is the student, however long the warm-up was: no key tells of a network that is gone.
            self.teacher.network.load_state_dict(self.student(network).state_dict())
        keys: Tensor = self.teacher(image, terrain)
        return keys

    @torch.no_grad()
    def _watch(
        self, query: Tensor, query_labels: Tensor, query_valid: Tensor, key: Tensor, key_labels: Tensor, key_valid: Tensor
    ) -> dict[str, Tensor]:
        """Mean cosines from the mean vector of each class: no matrix of queries by keys is built."""
        classes = self.classes
        asked = ((query_labels[:, None] == classes) & query_valid[:, None]).float()
        offered = ((key_labels[:, None] == classes) & key_valid[:, None]).float()
        with torch.autocast(device_type=query.device.type, enabled=False):
            mean_key = (offered.T @ key) / offered.sum(0).clamp(min=1)[:, None]
            cosine = (asked.T @ query) @ mean_key.T
            num = asked.sum().clamp(min=1)
        watched = {
            "contrast_positive_similarity": cosine.diagonal().sum() / num,
            "contrast_negative_similarity": cosine.flip(1).diagonal().sum() / num,
            "contrast_anchors": asked.sum(),
        }
        if self.queue is not None:
            watched["contrast_queue_fill"] = self.queue.filled.float().mean() / self.queue.length
        return watched

    def follow(self, network: Segmentor) -> None:
        """After an optimiser step: move the teacher, and let the keys of all batches of that step enter the queues (GCQC)."""
        if not self._in_use:
            return
        self._in_use = False
        if self.teacher is not None:
            self.teacher.update(self.student(network))
        if self.queue is not None and self._pending:
            keys, labels, valid = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
            self.queue.enqueue(keys, labels, valid)
            self._pending.clear()


def _vectors(projected: Tensor, index: Tensor) -> Tensor:
    """Unit vectors of drawn cells, float32: map (B, D, h, w), index (2, B, S) -> (2, B, S, D)."""
    classes, batch, slots = index.shape
    cells = gather_cells(projected, index.transpose(0, 1).reshape(batch, classes * slots))
    return functional.normalize(cells.float(), dim=-1).view(batch, classes, slots, -1).transpose(0, 1)
