"""Terrain layers of elevation models in torch: batched, on CPU and GPU, differentiable, in named units, and equal to `gdaldem`.

Every function takes `dem` (..., H, W) in metres, row-major and north up, with NaN where elevation is missing, and `pixel_size` in metres,
and gives a tensor like `dem`, NaN where the layer is not defined. Elevation in degrees of longitude must be reprojected before.
"""

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
from datamodules.terrain.layers import LAYERS, Layer, halo_of, terrain_layers
from datamodules.terrain.openness import OpennessKind, openness, sky_view_factor
from datamodules.terrain.relief import RuggednessMethod, local_relief, roughness, tpi, tri
from datamodules.terrain.stencil import PixelSize

__all__ = [
    "LAYERS",
    "GradientMethod",
    "Layer",
    "OpennessKind",
    "PixelSize",
    "RuggednessMethod",
    "aspect",
    "aspect_deg",
    "halo_of",
    "hillshade",
    "local_relief",
    "multidirectional_hillshade",
    "openness",
    "plan_curvature",
    "profile_curvature",
    "roughness",
    "sky_view_factor",
    "slope",
    "tangential_curvature",
    "terrain_layers",
    "tpi",
    "tri",
]
