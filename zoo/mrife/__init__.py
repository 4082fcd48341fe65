"""MRIFE (He et al., arXiv 2411.17167): mask recovering and interactive feature enhancement along landslide edges."""

from zoo.mrife.module import MRIFE
from zoo.mrife.objective import EnhancementOptions

__all__ = ["MRIFE", "EnhancementOptions"]
