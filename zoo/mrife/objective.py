"""MRIFE's objective: recovery of the teacher's features under masked edges, and contrast of class descriptors."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from datamodules.errors import UserError
from zoo.contrast import EmaTeacher, info_nce
from zoo.mrife.blocks import NUM_CLASSES, BlockRatios, block_classes, blocks_to_cells, blocks_to_pixels, choose_blocks
from zoo.mrife.network import EnhancementBranch, Interaction, RecoveringPath, untouched_running_statistics
from zoo.segmentor import Segmentor

MfmLoss = Literal["cosine", "l2", "l1", "ibot"]
MaskFill = Literal["learnable", "zero", "mean", "noise"]


@dataclass(frozen=True)
class EnhancementOptions:
    """The enhancement branch. None of these numbers is stated in what we could read of the paper; see the README for their sources.

    Args:
        interaction: Enhanced features go back to the segmentation branch (`one_way`), the recover head also reads that branch's
            (`both`), or neither (`none`).
        keep_at_inference: Deploy the branch with the network. Without it the segmentation branch learns to do without, too: in training
            the feedback is left out for a random half of the images. Of no effect without interaction: nothing is to be kept then.
        stop_feedback_gradient: Keep the segmentation loss from training the recover head through the feedback.
        recover_channels: Width and output of the recover head.
        block_size: Pixels of a block, each way. Any size: a cell of the feature map counts by the share of it that a block covers. A
            tile of 128 pixels has 16 blocks of 32 pixels, one of 512 has 256; take 16 for small tiles.
        mixed_share: A block with at most this share of landslide is background, with at most this share of background interior, else edge.
        min_valid_share: Least share of labelled pixels of a block; others have no class, are not masked and not contrasted.
        masking: Mask by class (`edge`), or as many blocks, drawn from all (`random`, for comparison).
        edge_ratio: Share of each image's edge blocks to mask, rounded to whole blocks.
        interior_ratio: The same of interior blocks.
        background_ratio: The same of background blocks.
        ratio_without_edge: Share of all blocks to mask in an image that has no edge block; 0 leaves such images out of the recovery.
        mask_fill: What stands in masked blocks of the normalised input: a `learnable` value a channel, `zero` (the mean of the training
            data), the image's own `mean`, or standard normal `noise`.
        mfm_weight: Weight of the recovery term (masked feature modelling); 0 also spares the pass of the masked input.
        mfm_loss: Distance of recovered and teacher features: `cosine`, `l2`, `l1`, or `ibot`, the cross-entropy of their softmaxes.
        contrast_weight: Weight of the contrast of class descriptors; 0 leaves it out.
        contrast_temperature: Of InfoNCE.
        warmup_share: Share of all optimiser steps in which both weights rise linearly.
        teacher: Targets from a moving average of the student; without it from the student itself, gradient stopped.
        teacher_momentum: Momentum of the teacher at the first step.
        teacher_momentum_end: Momentum at the last step, reached by a half cosine.
        teacher_statistics: The teacher normalises by the statistics of its `batch`, or by the student's `running` ones.
        student_temperature: Of the student's softmax; `ibot` only.
        target_temperature: Of the targets' softmax; `ibot` only.
        centre_momentum: Momentum of the centre that is taken off the targets; `ibot` only.
    """

    interaction: Interaction = "one_way"
    keep_at_inference: bool = True
    stop_feedback_gradient: bool = False
    recover_channels: int = 256
    block_size: int = 32
    mixed_share: float = 0.0
    min_valid_share: float = 0.5
    masking: Literal["edge", "random"] = "edge"
    edge_ratio: float = 0.6
    interior_ratio: float = 0.0
    background_ratio: float = 0.0
    ratio_without_edge: float = 0.3
    mask_fill: MaskFill = "learnable"
    mfm_weight: float = 1.0
    mfm_loss: MfmLoss = "cosine"
    contrast_weight: float = 0.1
    contrast_temperature: float = 0.07
    warmup_share: float = 0.1
    teacher: bool = True
    teacher_momentum: float = 0.996
    teacher_momentum_end: float = 1.0
    teacher_statistics: Literal["batch", "running"] = "batch"
    student_temperature: float = 0.1
    target_temperature: float = 0.04
    centre_momentum: float = 0.9


def check_options(options: EnhancementOptions) -> None:
    """Refuse values that cannot be meant.

    Raises:
        UserError: A number out of its range.
    """
    shares = (
        "min_valid_share",
        "edge_ratio",
        "interior_ratio",
        "background_ratio",
        "ratio_without_edge",
        "warmup_share",
        "centre_momentum",
    )
    for field in shares:
        _require(options, field, "must lie in [0, 1]", holds=0 <= getattr(options, field) <= 1)
    for field in ("recover_channels", "block_size"):
        _require(options, field, "must be at least 1", holds=getattr(options, field) >= 1)
    for field in ("contrast_temperature", "student_temperature", "target_temperature"):
        _require(options, field, "must be positive", holds=getattr(options, field) > 0)
    for field in ("mfm_weight", "contrast_weight"):
        _require(options, field, "must not be negative", holds=getattr(options, field) >= 0)
    _require(options, "mixed_share", "must lie in [0, 0.5)", holds=0 <= options.mixed_share < 0.5)
    trained = options.mfm_weight or options.contrast_weight or options.interaction == "none"
    _require(
        options,
        "stop_feedback_gradient",
        "leaves the recover head without any loss",
        holds=bool(trained or not options.stop_feedback_gradient),
    )


def _require(options: EnhancementOptions, field: str, problem: str, *, holds: bool) -> None:
    if not holds:
        default = getattr(EnhancementOptions(), field)
        raise UserError(problem, f"the default is {default}", field=f"enhancement.{field}", value=getattr(options, field), exit_code=2)


def recovery_distance(
    recovered: Tensor, target: Tensor, kind: MfmLoss, centre: Tensor, student_temperature: float = 0.1, target_temperature: float = 0.04
) -> Tensor:
    """Distance of recovered and target features in each cell.

    Args:
        recovered: (B, D, h, w).
        target: (B, D, h, w), without gradient.
        kind: `cosine`: 1 - cos; `l2`, `l1`: mean over channels of the squared or absolute difference; `ibot`: cross-entropy of the
            student's softmax against that of the centred target.
        centre: (D,), taken off the targets; `ibot` only.
        student_temperature: `ibot` only.
        target_temperature: `ibot` only.

    Returns:
        float32 (B, h, w).
    """
    recovered, target = recovered.float(), target.float()
    # Not stated in the paper: which distance.
    if kind == "cosine":
        return 1 - functional.cosine_similarity(recovered, target, dim=1)
    if kind == "ibot":
        probability = ((target - centre.view(1, -1, 1, 1)) / target_temperature).softmax(1)
        return -(probability * (recovered / student_temperature).log_softmax(1)).sum(1)
    difference = recovered - target
    return (difference.square() if kind == "l2" else difference.abs()).mean(1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of float values by weights of the same shape; 0, with a zero gradient, where all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)


def class_descriptors(features: Tensor, cells: Tensor) -> Tensor:
    """Mean feature of each class in each image.

    Args:
        features: (B, D, h, w).
        cells: float (B, 3, h, w): share of each cell in blocks of each class.

    Returns:
        float32 (B, 3, D), L2-normalised; 0 for a class that an image lacks.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        summed = cells.flatten(2) @ features.float().flatten(2).transpose(1, 2)
        return functional.normalize(summed, dim=2)  # the mean has the same direction as the sum


def descriptor_contrast(student: Tensor, target: Tensor, present: Tensor, temperature: float) -> Tensor:
    """InfoNCE of the student's class descriptors against the targets' of all images.

    Positives are the targets of the same class, of the same image (within) and of the others (between samples); negatives are those of the
    other classes. The images are those of one process.

    Args:
        student: (B, 3, D).
        target: (B, 3, D), without gradient.
        present: bool (B, 3): classes that an image has.
        temperature: Of InfoNCE.
    """
    labels = torch.arange(NUM_CLASSES, device=student.device).expand_as(present).flatten()
    valid = present.flatten()
    return info_nce(student.flatten(0, 1), labels, valid, target.flatten(0, 1), labels, valid, temperature)


class FeatureEnhancement(nn.Module):
    """All that MRIFE has in training only: mask token, teacher, centre; and its two terms.

    Args:
        options: Options, one of both weights above 0.
        network: The segmentor, read and not kept.
        branch: The enhancement branch, read and not kept.
    """

    centre: Tensor

    def __init__(self, options: EnhancementOptions, network: Segmentor, branch: EnhancementBranch) -> None:
        super().__init__()
        self.options = options
        self.stride = max(network.strides)
        self.ratios = BlockRatios(options.background_ratio, options.edge_ratio, options.interior_ratio, options.ratio_without_edge)
        learns_token = bool(options.mfm_weight) and options.mask_fill == "learnable"
        self.mask_token = nn.Parameter(torch.zeros(1, network.out_channels[0], 1, 1)) if learns_token else None
        self.teacher = (
            EmaTeacher(
                RecoveringPath(network, branch),
                options.teacher_momentum,
                options.teacher_momentum_end,
                total_steps=1,  # the true number is known when training starts, see `plan`
                batch_statistics=options.teacher_statistics == "batch",
            )
            if options.teacher
            else None
        )
        self.register_buffer("centre", torch.zeros(options.recover_channels))
        self._target_means: list[Tensor] = []

    def plan(self, num_steps: int) -> None:
        """Take the number of optimiser steps, for the schedule of the teacher's momentum."""
        if self.teacher is not None:
            self.teacher.total_steps = max(num_steps, 1)

    def forward(
        self, network: Segmentor, branch: EnhancementBranch, image: Tensor, terrain: Tensor, deep: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """The terms.

        Args:
            network: The segmentor.
            branch: Its enhancement branch.
            image: (B, C, H, W), normalised.
            terrain: (B, K, H, W), normalised.
            deep: (B, C', h, w), the segmentor's deepest features of the two.
            mask: uint8 (B, H, W).

        Returns:
            Unweighted `mfm` and `contrast`, each where its weight is not 0; detached `target_spread` in [0, 1], to watch: 0 when the
            targets of all cells point the same way, that is, when the recover head has collapsed.
        """
        options, grid, image_size = self.options, deep.shape[-2:], (mask.shape[-2], mask.shape[-1])
        classes = block_classes(mask, options.block_size, options.mixed_share, options.min_valid_share)
        with torch.no_grad():
            # Without a teacher the target is the student's own answer to the full input, its gradient stopped.
            target = (branch.recover(deep) if self.teacher is None else self.teacher(image, terrain)).detach()
        terms: dict[str, Tensor] = {}
        if options.mfm_weight:
            chosen = choose_blocks(classes, self.ratios, by_class=options.masking == "edge")
            masked_cells = blocks_to_cells(chosen[:, None], options.block_size, self.stride, image_size, (grid[0], grid[1]))
            hidden = blocks_to_pixels(chosen, options.block_size, *image_size)
            with untouched_running_statistics(network.modules()):
                # Not stated in the paper: batch norm in the masked pass. Holes are not what deployment sees, so they do not enter the
                # running statistics; the batch's own are used, as everywhere in training.
                masked_deep = network.encode(*self._hide(image, terrain, hidden))[-1]
            # The head may be told what the segmentation branch sees outside the masked cells, and never so as to train it for that.
            visible = deep.detach() * (masked_cells == 0) if options.interaction == "both" else None
            recovered = branch.recover(masked_deep, visible)
            distance = recovery_distance(
                recovered, target, options.mfm_loss, self.centre, options.student_temperature, options.target_temperature
            )
            terms["mfm"] = weighted_mean(distance, masked_cells[:, 0])
        else:
            recovered = branch.recover(deep)  # nothing is masked, so the pass of the masked input is spared
        if options.contrast_weight:
            sets = classes[:, None] == torch.arange(NUM_CLASSES, device=classes.device)[:, None, None]
            cells = blocks_to_cells(sets, options.block_size, self.stride, image_size, (grid[0], grid[1]))
            student, distilled = class_descriptors(recovered, cells), class_descriptors(target, cells)
            terms["contrast"] = descriptor_contrast(student, distilled, cells.sum((2, 3)) > 0, options.contrast_temperature)
        with torch.no_grad():
            unit = functional.normalize(target.float(), dim=1)
            terms["target_spread"] = 1 - unit.mean((0, 2, 3)).norm()
            if options.mfm_loss == "ibot" and self.training:
                self._target_means.append(target.float().mean((0, 2, 3)))
        return terms

    def _hide(self, image: Tensor, terrain: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Image and terrain with the hidden pixels (B, H, W) filled: the same blocks in both, or the one would tell of the other."""
        stacked = torch.cat([image, terrain], dim=1)
        if self.mask_token is not None:
            fill: Tensor = self.mask_token.to(stacked.dtype)
        elif self.options.mask_fill == "mean":
            fill = stacked.mean((2, 3), keepdim=True)
        elif self.options.mask_fill == "noise":
            fill = torch.randn_like(stacked)
        else:
            fill = torch.zeros_like(stacked[:, :, :1, :1])
        stacked = torch.where(hidden[:, None], fill, stacked)
        return stacked[:, : image.shape[1]], stacked[:, image.shape[1] :]

    @torch.no_grad()
    def follow(self, network: Segmentor, branch: EnhancementBranch) -> None:
        """After an optimiser step: move the teacher and the centre, once each, whatever the number of batches of the step."""
        if self.teacher is not None:
            self.teacher.update(RecoveringPath(network, branch))
        if self._target_means:
            mean = torch.stack(self._target_means).mean(0)
            self._target_means.clear()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(mean)
                mean /= torch.distributed.get_world_size()
            self.centre.lerp_(mean, 1 - self.options.centre_momentum)
