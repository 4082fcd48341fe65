"""DeepLabV3+: the yardstick, and the template for a method of your own."""

from zoo.deeplab.module import DeepLab

__all__ = ["DeepLab"]
