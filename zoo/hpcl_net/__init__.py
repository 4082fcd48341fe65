"""HPCL-Net (Zhou et al., arXiv 2308.01251): two encoders, coordinate attention, contrast of hyper-pixels along landslide boundaries."""

from zoo.hpcl_net.module import HPCLNet
from zoo.hpcl_net.objective import HPCLOptions

__all__ = ["HPCLNet", "HPCLOptions"]
