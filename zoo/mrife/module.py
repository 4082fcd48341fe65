"""MRIFE as a LightningModule: segmentation plus recovery of masked features plus contrast of class descriptors."""

from typing import Final

import torch
from torch import Tensor

from datamodules.batch import Batch
from zoo.base import LandslideModule, OptimOptions
from zoo.contrast import certain_mask
from zoo.losses import LossOptions
from zoo.mrife.network import EnhancedSegmentor, EnhancementBranch
from zoo.mrife.objective import EnhancementOptions, FeatureEnhancement, check_options
from zoo.segmentor import NetworkOptions

FEEDBACK_SHARE: Final = 0.5
"""Images of a batch that get feedback where the branch is dropped at inference, so that the decoder knows both kinds of features."""


class MRIFE(LandslideModule):
    """MRIFE (He et al., arXiv 2411.17167).

    A segmentation branch (encoder, atrous pyramid, decoder) and a feature-enhancement branch on the same encoder. In training, blocks
    of the input on landslide edges are masked; a small head recovers, from the masked input, the features that a momentum teacher has
    of the full one, and descriptors of background, edge and interior are contrasted with the teacher's. The recovered features are fed
    back to the segmentation branch.

    Args:
        network: The network; images alone as in the paper.
        loss: Segmentation loss.
        optim: Optimiser and schedule.
        enhancement: The enhancement branch.

    Attributes:
        branch: The enhancement branch where deployment does not keep it (else it is `network.enhancement`), or None.
        distillation: Mask token, teacher and centre; None where both weights are 0.
    """

    def __init__(
        self,
        network: NetworkOptions = NetworkOptions(inputs="image"),
        loss: LossOptions = LossOptions(),
        optim: OptimOptions = OptimOptions(),
        enhancement: EnhancementOptions = EnhancementOptions(),
    ) -> None:
        super().__init__(network, loss, optim)
        check_options(enhancement)
        self.enhancement = enhancement
        interacts = enhancement.interaction != "none"
        distils = bool(enhancement.mfm_weight or enhancement.contrast_weight)
        self.branch: EnhancementBranch | None = None
        if interacts or distils:
            # After the network, so that its initial weights are those of the baseline with the same seed.
            branch = EnhancementBranch(
                self.network.out_channels[-1],
                enhancement.recover_channels,
                enhancement.interaction,
                stop_gradient=enhancement.stop_feedback_gradient,
            )
            if interacts and enhancement.keep_at_inference:
                self.network = EnhancedSegmentor(self.network, branch)
            else:
                self.branch = branch
        self.distillation = FeatureEnhancement(enhancement, self.network, self._branch()) if distils else None
        self._warmup_steps = 0

    def _branch(self) -> EnhancementBranch:
        """The enhancement branch, wherever it is."""
        if isinstance(self.network, EnhancedSegmentor):
            return self.network.enhancement
        assert self.branch is not None
        return self.branch

    def on_train_start(self) -> None:
        """Count the steps of the schedules."""
        num_steps = int(self.trainer.estimated_stepping_batches)
        self._warmup_steps = round(self.enhancement.warmup_share * num_steps)
        if self.distillation is not None:
            self.distillation.plan(num_steps)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """Segmentation terms, `mfm`, `contrast`, `target_spread` (see `FeatureEnhancement`), and `total`, their sum by weights.

        Outside a trainer there is no warm-up.
        """
        network, options = self.network, self.enhancement
        image, terrain = network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
        features = network.encode(image, terrain)
        deep = features[-1]
        if self.branch is not None and self.branch.feedback is not None:
            keep = (torch.rand(len(deep), 1, 1, 1, device=deep.device) < FEEDBACK_SHARE).to(deep.dtype)
            features = [*features[:-1], self.branch(deep, keep)]
        terms = self.loss(network.decode(features), batch["mask"], batch.get("weight"))
        if self.distillation is None:
            return {**terms, "total": terms["segmentation"]}
        enhanced = self.distillation(network, self._branch(), image, terrain, deep, certain_mask(batch))
        rise = min((self.global_step + 1) / self._warmup_steps, 1.0) if self._warmup_steps else 1.0
        total = terms["segmentation"]
        for name, weight in (("mfm", options.mfm_weight), ("contrast", options.contrast_weight)):
            if name in enhanced:
                total = total + rise * weight * enhanced[name]
        return {**terms, **enhanced, "total": total}

    def on_optimizer_step(self) -> None:
        """Move teacher and centre once."""
        if self.distillation is not None:
            self.distillation.follow(self.network, self._branch())
