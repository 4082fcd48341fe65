"""Contrastive learning on cells of feature maps: the parts that the methods share."""

from zoo.contrast.cells import (
    BoundaryCells,
    BoundaryParts,
    CellShares,
    background_cells,
    boundary_cells,
    cell_shares,
    certain_mask,
    gather_cells,
    landslide_cells,
    sample_cells,
)
from zoo.contrast.info_nce import info_nce
from zoo.contrast.projection import cell_projector
from zoo.contrast.queue import FeatureQueue
from zoo.contrast.teacher import EmaTeacher

__all__ = [
    "BoundaryCells",
    "BoundaryParts",
    "CellShares",
    "EmaTeacher",
    "FeatureQueue",
    "background_cells",
    "boundary_cells",
    "cell_projector",
    "cell_shares",
    "certain_mask",
    "gather_cells",
    "info_nce",
    "landslide_cells",
    "sample_cells",
]
