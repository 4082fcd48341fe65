"""What ICSSN trains beside the segmentor: the heads of the object classification network and of the sub-objects."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.segmentor import Segmentor


class ObjectHeads(nn.Module):
    """Object classification network (OCN) without its extractor: deepest features -> a logit and a vector an object.

    The two branches of the siamese network share all weights, so they are one network on a batch; that both objects of a pair are in
    the batch is all there is to it.

    Args:
        channels: Of the deepest features.
        dim: Length of an object's vector; 0 builds no projector.
        classifies: Build the classifier.
    """

    def __init__(self, channels: int, dim: int, *, classifies: bool) -> None:
        super().__init__()
        # Not stated in the paper: the projector; this is the one of SupContrast, without batch norm, so one object is enough.
        self.projector = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, dim)) if dim else None
        # One logit under a sigmoid is two under a softmax: their difference.
        self.classifier = nn.Linear(channels, 1) if classifies else None

    def logits(self, pooled: Tensor) -> Tensor:
        """Logit of "landslide", float32 (N,), from `pool`ed features (N, C)."""
        assert self.classifier is not None
        logits: Tensor = self.classifier(pooled)
        return logits[:, 0].float()

    def vectors(self, pooled: Tensor) -> Tensor:
        """Unit vectors, float32 (N, D), from `pool`ed features (N, C)."""
        assert self.projector is not None
        return functional.normalize(self.projector(pooled).float(), dim=1)


def pool(deep: Tensor) -> Tensor:
    """Global average pooling, (N, C, h, w) -> (N, C)."""
    return deep.mean((2, 3))


def segmentation_parameters(network: Segmentor) -> list[nn.Parameter]:
    """Parameters of the segmentor that its deepest features do not depend on: decoder, head, and fusion of finer levels."""
    parts: list[nn.Module] = [network.decoder, network.head]
    if network.two_encoders:
        deepest = str(len(network.strides) - 1)
        parts += [fuse for level, fuse in network.fusion.items() if level != deepest]
    return [parameter for part in parts for parameter in part.parameters()]


def zero_of(parameters: list[nn.Parameter]) -> Tensor:
    """Zero that depends on every one of the parameters: DistributedDataParallel wants a gradient for each in every step."""
    return torch.stack([parameter.sum() for parameter in parameters]).sum() * 0.0
