"""The baseline: the same Segmentor as every method, trained on the segmentation loss alone."""

from zoo.base import LandslideModule


class DeepLab(LandslideModule):
    """DeepLabV3+ (Chen et al. 2018), image, elevation or both, without a further objective.

    `network.decoder: unet` makes it a U-Net. It exists as the yardstick: what a method gains over it, with the same encoder, data order and
    number of steps, is the method's own.
    """
