"""Prints how many GPUs torch sees; executed in a process of its own, because whoever asks may not import torch, or must not wake a GPU."""

from typing import Final

COUNTED: Final = "GPUs: "

if __name__ == "__main__":
    import torch

    print(f"{COUNTED}{torch.cuda.device_count()}")
