"""ICSSN as a LightningModule: classification of objects and segmentation in turn, on one feature extractor."""

import math

import torch
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.errors import UserError
from zoo.base import LandslideModule, OptimOptions
from zoo.contrast import cell_projector, certain_mask
from zoo.icssn.network import ObjectHeads, pool, segmentation_parameters, zero_of
from zoo.icssn.objective import (
    ICSSNOptions,
    Labels,
    SubObjectContrast,
    check_options,
    crop_size,
    cut,
    draw_crops,
    grid_crops,
    label_loss,
    object_contrast,
    object_labels,
)
from zoo.icssn.schedule import Phase, phase_at
from zoo.losses import LossOptions
from zoo.metrics.running import ClassificationScores
from zoo.segmentor import NetworkOptions


class ICSSN(LandslideModule):
    """ICSSN (Lu et al., arXiv 2302.12420, IEEE TGRS 2023).

    An object classification network (OCN) and a segmentation network (SSN) share one feature extraction module (FEM), the encoder, and
    train it in turn: the OCN by object labels and object-level contrast (OCL) for global features, the SSN by the segmentation loss and
    sub-object-level contrast (SOCL) for features of boundaries. Each phase goes on with the extractor that the other has left.

    In a phase the heads of the other network rest: they keep weights and optimiser state as they are, without decay or momentum. The
    extractor is never frozen, and its batch norms take statistics in both phases.

    Args:
        network: The network; images alone as in the paper.
        loss: Segmentation loss.
        optim: Optimiser and schedule, over the whole of training.
        iteration: Phases, objects and contrasts.

    Attributes:
        objects: Heads of the OCN; None where no step trains them. Deployment does not have them.
        sub_objects: Head and contrast of sub-objects; None where `socl_weight` is 0.
        phase: Which network the step that is to come trains.
    """

    def __init__(
        self,
        network: NetworkOptions = NetworkOptions(inputs="image"),
        loss: LossOptions = LossOptions(),
        optim: OptimOptions = OptimOptions(),
        iteration: ICSSNOptions = ICSSNOptions(),
    ) -> None:
        super().__init__(network, loss, optim)
        check_options(iteration)
        self.iteration = iteration
        channels = self.network.out_channels[-1]
        # After the network, so that its initial weights are those of the baseline with the same seed.
        self.objects: ObjectHeads | None = None
        if iteration.classifies:
            dim = iteration.ocl_dim if iteration.ocl_weight else 0
            self.objects = ObjectHeads(channels, dim, classifies=iteration.classification_weight > 0)
            if self.objects.classifier is not None:
                self.auxiliary["tile"] = ClassificationScores("tile")
                if iteration.objects == "crops":
                    self.auxiliary["object"] = ClassificationScores("object")
        self.sub_objects: SubObjectContrast | None = None
        if iteration.socl_weight:
            # Not stated in the paper: the head.
            projector = cell_projector(channels, iteration.socl_dim)
            self.sub_objects = SubObjectContrast(iteration, projector, self.network.strides[-1])
        self._num_steps, self._steps_per_epoch = 0, 0

    # ---- phases ----------------------------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Joint before training has been planned, that is outside a trainer."""
        options = self.iteration
        if self.objects is None:
            return "segmentation"
        if not self._num_steps:
            return "joint"
        return phase_at(
            self.global_step,
            num_steps=self._num_steps,
            steps_per_epoch=self._steps_per_epoch,
            schedule=options.schedule,
            rounds=options.rounds,
            classification_share=options.classification_share,
            first=options.first,
        )

    def on_train_start(self) -> None:
        """Count the steps that the phases divide.

        Raises:
            UserError: Epochs are to alternate, but have no end.
        """
        self._num_steps = int(self.trainer.estimated_stepping_batches)
        batches = self.trainer.num_training_batches
        if math.isfinite(batches):
            self._steps_per_epoch = max(math.ceil(batches / self.trainer.accumulate_grad_batches), 1)
        elif self.iteration.schedule == "alternate_epoch":
            raise UserError(
                "the training data have no end of an epoch",
                "take alternate_step or rounds",
                field="iteration.schedule",
                value=self.iteration.schedule,
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002 - Lightning's signature
        """Let the other network's heads rest: without a gradient the optimiser passes them over, with a zero one it would decay them."""
        for parameter in self.resting():
            parameter.grad = None

    def resting(self) -> list[nn.Parameter]:
        """Parameters that the step that is to come does not train."""
        if self.phase == "joint":
            return []
        if self.phase == "segmentation":
            return list(self.objects.parameters()) if self.objects is not None else []
        of_sub_objects = list(self.sub_objects.parameters()) if self.sub_objects is not None else []
        return [*segmentation_parameters(self.network), *of_sub_objects]

    # ---- objectives ------------------------------------------------------------------------------------------------------------------

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the present phase and `total`, their sum by weights; see `classification_terms` and `segmentation_terms`."""
        phase = self.phase
        image, terrain = self.network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
        terms: dict[str, Tensor] = {}
        if phase != "classification":
            terms.update(self.segmentation_terms(batch, image, terrain))
        if phase != "segmentation":
            classified = self.classification_terms(batch, image, terrain)
            total = classified["total"] + terms["total"] if terms else classified["total"]
            terms.update({**classified, "total": total})
        resting = self.resting()
        if resting:
            terms["total"] = terms["total"] + zero_of(resting)
        return terms

    def segmentation_terms(self, batch: Batch, image: Tensor, terrain: Tensor) -> dict[str, Tensor]:
        """Segmentation terms, `sub_object_contrast`, and `total` = segmentation + beta sub_object_contrast.

        Args:
            batch: Raw batch.
            image: (B, C, H, W), standardised.
            terrain: (B, K, H, W), normalised.
        """
        features = self.network.encode(image, terrain)
        terms = self.loss(self.network.decode(features), batch["mask"], batch.get("weight"))
        total = terms["segmentation"]
        if self.sub_objects is not None:
            terms["sub_object_contrast"] = self.sub_objects(features[-1], certain_mask(batch))
            total = total + self.iteration.socl_weight * terms["sub_object_contrast"]
        return {**terms, "total": total}

    def classification_terms(self, batch: Batch, image: Tensor, terrain: Tensor) -> dict[str, Tensor]:
        """Of the object classification network: `classification`, `object_contrast`, and `total`, their sum by weights.

        `object_landslide_share`, the share of objects labelled landslide, tells whether the batches are balanced.

        Args:
            batch: Raw batch.
            image: (B, C, H, W), standardised.
            terrain: (B, K, H, W), normalised.
        """
        options, heads, mask = self.iteration, self.objects, certain_mask(batch)
        assert heads is not None
        if options.objects == "crops":
            crops, labels = draw_crops(mask, options)
            labels = Labels(labels.landslide.flatten(), labels.valid.flatten())
            size = crop_size(mask, options.crop_share)
            image, terrain = cut(image, crops, size), cut(terrain, crops, size)
        else:
            labels = object_labels(mask, options)
        pooled = pool(self.network.encode(image, terrain)[-1])
        terms: dict[str, Tensor] = {}
        total = pooled.new_zeros((), dtype=torch.float32)
        if heads.classifier is not None:
            terms["classification"] = label_loss(heads.logits(pooled), labels)
            total = total + options.classification_weight * terms["classification"]
        if heads.projector is not None:
            terms["object_contrast"] = object_contrast(heads.vectors(pooled), labels, options)
            total = total + options.ocl_weight * terms["object_contrast"]
        num = labels.valid.sum().clamp(min=1)
        return {**terms, "object_landslide_share": (labels.landslide & labels.valid).sum() / num, "total": total}

    # ---- evaluation of the object classification network -----------------------------------------------------------------------------

    def on_evaluated_batch(self, batch: Batch) -> None:
        """Count objects and tiles that are classified rightly; a tile is landslide where any of its objects is."""
        options, heads, mask = self.iteration, self.objects, batch["mask"]
        if heads is None or heads.classifier is None:
            return
        image, terrain = self.network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
        labels = {"tile": object_labels(mask, options)}
        if options.objects == "crops":
            crops, size = grid_crops(mask, options), crop_size(mask, options.crop_share)
            image, terrain = cut(image, crops, size), cut(terrain, crops, size)
            labels["object"] = object_labels(cut(mask[:, None], crops, size)[:, 0], options)
        predicted = heads.logits(pool(self.network.encode(image, terrain)[-1])) > 0
        if "object" in labels:
            predicted = predicted & labels["object"].valid  # nobody knows what a crop without data shows
        for name, of_name in labels.items():
            scores = self.auxiliary[name]
            assert isinstance(scores, ClassificationScores)
            scores.update(predicted.view(len(of_name.valid), -1).any(1), *of_name)
