"""Energy that GPUs draw, by the counter that NVML keeps of each; nothing where there is no GPU or no NVML.

The counter is of the whole board since its driver was loaded [mJ] (nvmlDeviceGetTotalEnergyConsumption, from the Volta generation on), so
that a difference of two readings is exact however seldom it is read, and other processes on the same GPU are in it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch


def energy_meter(devices: int) -> Callable[[], float] | None:
    """What reads the energy counters of the first GPUs that torch sees, which are those of a run.

    Args:
        devices: Number of GPUs; those of other nodes cannot be read here.

    Returns:
        A function that gives their sum [J], NaN should a reading fail; None where there is no GPU, no `nvidia-ml-py`, or no counter.
    """
    if not torch.cuda.is_available():
        return None
    try:
        import pynvml  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        return None
    uuids = [f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in range(devices)]
    try:
        pynvml.nvmlInit()
        handles: list[Any] = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
    except pynvml.NVMLError:
        return None

    def read() -> float:
        try:
            return sum(float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles) / 1000
        except pynvml.NVMLError:
            return math.nan  # an old GPU, a slice of one, or a driver that is gone: a training does not end for it

    return None if math.isnan(read()) else read
