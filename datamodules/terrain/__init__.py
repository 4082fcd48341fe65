"""Terrain layers of elevation models in torch: batched, on CPU and GPU, differentiable, in named units, and equal to `gdaldem`."""

from datamodules.terrain.derivatives import (
    GradientMethod,
    aspect,
    aspect_deg,
    hillshade,
    multidirectional_hillshade,
    plan_curvature,
    profile_curvature,
    slope,
    tangential_curvature,
)
from datamodules.terrain.layers import LAYERS, Layer, halo_of, layer, terrain_layers
from datamodules.terrain.stencil import PixelSize

__all__ = [
    "LAYERS",
    "GradientMethod",
    "Layer",
    "PixelSize",
    "aspect",
    "aspect_deg",
    "halo_of",
    "hillshade",
    "layer",
    "multidirectional_hillshade",
    "plan_curvature",
    "profile_curvature",
    "slope",
    "tangential_curvature",
    "terrain_layers",
]
