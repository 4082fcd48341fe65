"""ICSSN (Lu et al., arXiv 2302.12420): object classification and segmentation in turn, on one feature extractor."""

from zoo.icssn.module import ICSSN
from zoo.icssn.objective import ICSSNOptions

__all__ = ["ICSSN", "ICSSNOptions"]
