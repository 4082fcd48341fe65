"""Fusion modules; coordinate attention against numpy."""

import numpy as np
import pytest
import torch

from datamodules.errors import UserError
from zoo.fusion import FUSIONS, CoordinateAttention, build_fusion


def by_hand(module, features):
    """Coordinate attention with loops over rows and columns, batch norm in evaluation mode."""
    weights = {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}
    batch, _, height, width = features.shape

    def squeeze(vector):
        mixed = weights["squeeze.0.weight"][:, :, 0, 0] @ vector + weights["squeeze.0.bias"]
        mean, variance = weights["squeeze.1.running_mean"], weights["squeeze.1.running_var"]
        normed = (mixed - mean) / np.sqrt(variance + 1e-5) * weights["squeeze.1.weight"] + weights["squeeze.1.bias"]
        return normed * np.clip(normed + 3, 0, 6) / 6

    def gate(name, vector):
        return 1 / (1 + np.exp(-(weights[f"{name}.weight"][:, :, 0, 0] @ vector + weights[f"{name}.bias"])))

    out = np.empty_like(features)
    for b in range(batch):
        rows = [gate("rows", squeeze(features[b, :, i].mean(1))) for i in range(height)]
        columns = [gate("columns", squeeze(features[b, :, :, j].mean(1))) for j in range(width)]
        for i in range(height):
            for j in range(width):
                out[b, :, i, j] = features[b, :, i, j] * rows[i] * columns[j]
    return out


def test_coordinate_attention_by_hand():
    torch.manual_seed(0)
    module = CoordinateAttention(6).double()
    for _ in range(3):
        module(torch.randn(4, 6, 5, 7, dtype=torch.float64))
    torch.nn.init.normal_(module.squeeze[1].weight)
    torch.nn.init.normal_(module.squeeze[1].bias)
    features = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    np.testing.assert_allclose(module.eval()(features).detach().numpy(), by_hand(module, features.numpy()), atol=1e-12)


@pytest.mark.parametrize(("channels", "squeezed"), [(16, 8), (256, 8), (4096, 128)])
def test_squeezed_width(channels, squeezed):
    assert CoordinateAttention(channels).squeeze[0].weight.shape == (squeezed, channels, 1, 1)


@pytest.mark.parametrize("channels", [(12, 12), (12, 5), (5, 12)])
@pytest.mark.parametrize("name", FUSIONS)
def test_shape_and_gradient_of_every_fusion(name, channels):
    torch.manual_seed(0)
    fusion = build_fusion(name, channels)
    image = torch.randn(2, channels[0], 6, 9, requires_grad=True)
    terrain = torch.randn(2, channels[1], 6, 9, requires_grad=True)
    fused = fusion(image, terrain)
    assert fused.shape == image.shape
    fused.square().sum().backward()
    assert image.grad.any()
    assert terrain.grad.any()
    for parameter in fusion.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    build_fusion(name, channels)(image[:1], terrain[:1])


def test_what_each_fusion_computes():
    torch.manual_seed(0)
    image, terrain = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    assert torch.equal(build_fusion("add", 8)(image, terrain), image + terrain)
    each = build_fusion("ca_each_then_add", 8).eval()
    torch.testing.assert_close(each(image, terrain), each.image_attention(image) + each.terrain_attention(terrain))
    stacked = torch.cat([image, terrain], 1)
    concat = build_fusion("concat", 8).eval()
    torch.testing.assert_close(
        concat(image, terrain), torch.einsum("oc,bchw->bohw", concat.mix[0].weight[:, :, 0, 0], stacked).div(1.00001**0.5).relu()
    )
    both = build_fusion("concat_ca", 8).eval()
    torch.testing.assert_close(both(image, terrain), both.mix(both.attention(stacked)))
    assert both.attention.rows.out_channels == 16


def test_levels_without_channels():
    nothing = torch.empty(2, 0, 4, 4)
    assert build_fusion("concat_ca", 0)(nothing, nothing).shape == nothing.shape
    with pytest.raises(UserError, match="no channels at this level"):
        build_fusion("add", (8, 0))


def test_an_unknown_name_is_refused_with_near_matches():
    with pytest.raises(UserError, match=r"fusion = 'concat-ca'.*did you mean concat_ca"):
        build_fusion("concat-ca", 8)
    with pytest.raises(UserError, match="choose one of concat, add"):
        build_fusion("xyz", 8)


@pytest.mark.parametrize("name", FUSIONS)
def test_fusions_compile_to_one_graph(name):
    fusion = build_fusion(name, (8, 4)).eval()
    inputs = torch.randn(1, 8, 4, 4), torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(torch.compile(fusion, fullgraph=True, backend="eager")(*inputs), fusion(*inputs))
