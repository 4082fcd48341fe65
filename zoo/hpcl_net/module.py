"""HPCL-Net as a LightningModule: segmentation plus lambda times the contrast of hyper-pixels."""

from torch import Tensor

from datamodules.batch import Batch
from datamodules.errors import UserError
from datamodules.landslide import LandslideDataModule
from zoo.base import LandslideModule, OptimOptions
from zoo.hpcl_net.objective import HPCLOptions, HyperPixelContrast, check_options
from zoo.losses import LossOptions
from zoo.segmentor import NetworkOptions


class HPCLNet(LandslideModule):
    """HPCL-Net (Zhou et al., arXiv 2308.01251).

    Two unshared encoders, one for the image and one for elevation, meet in the deep feature space by coordinate attention; a
    DeepLabV3+ decoder segments. In training, hyper-pixels (cells of the fused map) on either side of landslide boundaries are pulled
    to keys of their class and pushed from those of the other; keys come from a momentum copy and from one global queue a class.

    Args:
        network: The network; the default of `fusion` is the method's own.
        loss: Segmentation loss.
        optim: Optimiser and schedule.
        contrast: The contrastive part.

    Attributes:
        hyper_pixels: Projection head, momentum copy and queues; None where `contrast_weight` is 0. Deployment does not have it.
    """

    def __init__(
        self,
        # Not stated in the paper: at which level the branches meet, beyond "semantic space"; hence the deepest.
        network: NetworkOptions = NetworkOptions(fusion="concat_ca", fusion_levels="deep"),
        loss: LossOptions = LossOptions(),
        optim: OptimOptions = OptimOptions(),
        contrast: HPCLOptions = HPCLOptions(),
    ) -> None:
        super().__init__(network, loss, optim)
        check_options(contrast, network.inputs)
        self.contrast = contrast
        # After the network, so that its initial weights are those of the baseline with the same seed.
        self.hyper_pixels = HyperPixelContrast(contrast, self.network) if contrast.contrast_weight else None
        self._warmup_steps = 0

    def on_train_start(self) -> None:
        """Count the steps of the warm-up.

        Raises:
            UserError: Back and side walls are asked for on data without elevation.
        """
        if self.hyper_pixels is None:
            return
        data = getattr(self.trainer, "datamodule", None)
        if self.contrast.boundary_parts == "back_side" and isinstance(data, LandslideDataModule) and not data.has_dem:
            raise UserError(
                "the data have no elevation to tell the toe from back and side walls",
                "take all, or add a dem to each scene",
                field="contrast.boundary_parts",
                value=self.contrast.boundary_parts,
            )
        num_steps = int(self.trainer.estimated_stepping_batches)
        self._warmup_steps = round(self.contrast.warmup_share * num_steps)
        self.hyper_pixels.plan(num_steps - self._warmup_steps)

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """Segmentation terms, `contrast` once the warm-up is over, and `total` = segmentation + lambda contrast.

        Outside a trainer there is no warm-up.
        """
        network = self.network
        image, terrain = network.preprocessing(batch["image"], batch["dem"], batch["pixel_size"])
        features = network.encode(image, terrain)
        decoded = network.decoder_features(features)
        height, width = batch["mask"].shape[-2:]
        terms = self.loss(network.classify(decoded)[..., :height, :width], batch["mask"], batch.get("weight"))
        if self.hyper_pixels is None:
            return {**terms, "total": terms["segmentation"]}
        if self.global_step < self._warmup_steps:
            return {**terms, "total": terms["segmentation"] + self.hyper_pixels.idle()}
        level = self.hyper_pixels.source.level
        watched = self.hyper_pixels(batch, network, image, terrain, decoded if level is None else features[level])
        return {**terms, **watched, "total": terms["segmentation"] + self.contrast.contrast_weight * watched["contrast"]}

    def on_optimizer_step(self) -> None:
        """Move the momentum copy once, and let the step's keys enter the queues."""
        if self.hyper_pixels is not None:
            self.hyper_pixels.follow(self.network)
