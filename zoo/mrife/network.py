"""What MRIFE adds to the segmentor: the enhancement branch, and the segmentor that keeps it in deployment."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import torch
from torch import Tensor, nn

from zoo.segmentor import Segmentor

Interaction = Literal["none", "one_way", "both"]

BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class RecoverHead(nn.Module):
    """Deep features -> recovered features: 3x3 convolution, ReLU, 3x3 convolution.

    Args:
        in_channels: C, of the deepest features.
        channels: D, of the recovered features.
        exchange: Also read the segmentation branch's features (interaction `both`).
    """

    def __init__(self, in_channels: int, channels: int, *, exchange: bool) -> None:
        super().__init__()
        # Not stated in the paper: the recover head; this is the generation block of MGD.
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1)
        )
        self.exchange = _zero_conv(in_channels, in_channels) if exchange else None

    def forward(self, deep: Tensor, segmentation: Tensor | None = None) -> Tensor:
        """Recover.

        Args:
            deep: (B, C, h, w), of the masked input in training, of the full input elsewhere.
            segmentation: (B, C, h, w), what the segmentation branch hands over, with 0 where nothing may be seen; by default `deep`,
                since both branches see the same where nothing is masked. Read for interaction `both` alone.

        Returns:
            (B, D, h, w).
        """
        if self.exchange is not None:
            deep = deep + self.exchange(deep if segmentation is None else segmentation)
        recovered: Tensor = self.layers(deep)
        return recovered


class EnhancementBranch(nn.Module):
    """The feature-enhancement branch above the shared encoder: the recover head, and its way back to the segmentation branch.

    `one_way`: deep <- deep + conv1x1([deep, recovered]), read by the decoder in place of the deepest features. `both`: in addition the
    recover head reads the segmentation branch's deepest features, see `RecoverHead`. Both convolutions start at zero, so training
    starts from the plain segmentor.

    Args:
        in_channels: C, of the deepest features.
        channels: D, of the recovered features.
        interaction: `none`, `one_way` or `both`.
        stop_gradient: Keep the segmentation loss from training the recover head.
    """

    def __init__(self, in_channels: int, channels: int, interaction: Interaction, *, stop_gradient: bool = False) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient
        self.recover = RecoverHead(in_channels, channels, exchange=interaction == "both")
        # Not stated in the paper: what "interactive" exchanges, and where; here features of the deepest level, added.
        self.feedback = _zero_conv(in_channels + channels, in_channels) if interaction != "none" else None

    def forward(self, deep: Tensor, keep: Tensor | None = None) -> Tensor:
        """Deepest features as the decoder is to read them.

        Args:
            deep: (B, C, h, w), of the full input.
            keep: (B, 1, 1, 1), 1 where an image's features are enhanced and 0 where they pass as they are; default all.

        Returns:
            (B, C, h, w); without interaction `deep` itself.
        """
        if self.feedback is None:
            return deep
        recovered = self.recover(deep)
        if self.stop_gradient:
            recovered = recovered.detach()
        enhancement: Tensor = self.feedback(torch.cat([deep, recovered], dim=1))
        return deep + (enhancement if keep is None else enhancement * keep)


class EnhancedSegmentor(Segmentor):
    """A segmentor whose decoder reads enhanced features. No second pass of the encoder: the branch works on the features that are there.

    Args:
        segmentor: A plain segmentor, whose children are taken over: one is built, so one is drawn from the generator, as for the baseline.
        enhancement: The branch.
    """

    def __init__(self, segmentor: Segmentor, enhancement: EnhancementBranch) -> None:
        nn.Module.__init__(self)
        for name, value in vars(segmentor).items():
            if not name.startswith("_"):
                setattr(self, name, value)
        for name, child in segmentor.named_children():
            self.add_module(name, child)
        self.enhancement = enhancement

    def decoder_features(self, features: list[Tensor]) -> Tensor:
        """What the decoder makes of `features`, the deepest enhanced on the way; `decode` goes through here, too."""
        return super().decoder_features([*features[:-1], self.enhancement(features[-1])])


class RecoveringPath(nn.Module):
    """Normalised input -> recovered features: what the teacher is a copy of.

    It shares its parts with the segmentor and the branch; as for `Segmentor.trunk`, do not keep it in a module.

    Args:
        network: The segmentor.
        branch: The branch.
    """

    def __init__(self, network: Segmentor, branch: EnhancementBranch) -> None:
        super().__init__()
        self.trunk = network.trunk()
        self.recover = branch.recover

    def forward(self, image: Tensor, terrain: Tensor) -> Tensor:
        """(B, C, H, W), (B, K, H, W) -> (B, D, h, w)."""
        recovered: Tensor = self.recover(self.trunk.encode(image, terrain)[-1])
        return recovered


@contextmanager
def untouched_running_statistics(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let batch norm normalise as it would, by the batch in training, without entering the batch into its running statistics.

    Args:
        modules: All modules of the network, as from `modules()`; those without running statistics are left alone.
    """
    tracking = [module for module in modules if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


def _zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution that starts as nothing."""
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
