"""What a method's training step costs, against the plain Segmentor of the same network.

    python -m benchmarks.step_cost [--encoder resnet18 --size 256 --batch-size 8 --repeats 20 --device cpu --precision float32]

A step is forward, backward, optimiser step and what follows it (teacher, queues). Plain and method steps alternate within one run, so that
both meet the same machine; the ratio is that of their medians. ICSSN is measured in its segmentation phase. Beside it stands the number of
host-device synchronisations of a step that the profiler saw; on a CPU these are the operations that would synchronise on a GPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from datamodules.batch import Batch
from zoo import create_method
from zoo.base import LandslideModule

SYNCHRONISING: Final = ("aten::_local_scalar_dense", "aten::nonzero", "cudaStreamSynchronize", "cudaDeviceSynchronize")


@dataclass(frozen=True)
class Case:
    """One method to measure, its bar, and the network that plain and method share."""

    method: str
    bar: float
    network: dict[str, Any]
    extra: dict[str, Any]


CASES: Final = (
    Case("hpcl_net", 1.45, {"inputs": "both", "fusion": "concat_ca", "fusion_levels": "deep"}, {}),
    # The last step of training belongs to segmentation; so does every step when nothing is classified.
    Case("icssn", 1.08, {"inputs": "image"}, {"iteration": {"classification_share": 0.0}}),
    Case("mrife", 2.5, {"inputs": "image"}, {}),
)


def make_batch(size: int, pixels: int, device: torch.device) -> Batch:
    """Noise with one landslide in each window, so that every term of every method has work to do."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(size, pixels, pixels, dtype=torch.uint8)
    mask[:, pixels // 3 : pixels // 2, pixels // 4 : pixels // 2] = 1
    tensors: dict[str, Tensor] = {
        "image": torch.rand(size, 3, pixels, pixels, generator=generator) * 255,
        "dem": 1000 + torch.randn(size, 1, pixels + 2, pixels + 2, generator=generator),
        "mask": mask,
        "pixel_size": torch.full((size, 2), 2.0),
    }
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Batch(
        image=moved["image"],
        dem=moved["dem"],
        mask=moved["mask"],
        pixel_size=moved["pixel_size"],
        tile=[f"noise:{index}:0" for index in range(size)],
    )


def make_step(module: LandslideModule, batch: Batch, precision: torch.dtype) -> Callable[[], None]:
    """A training step of a module, as Lightning would run it."""
    module.train()
    device = batch["image"].device
    optimizer = torch.optim.AdamW([parameter for parameter in module.parameters() if parameter.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            total = module.objective(batch)["total"]
        total.backward()  # type: ignore[no-untyped-call] # torch ships this method without types
        optimizer.step()
        module.on_optimizer_step()

    return step


def seconds_of(step: Callable[[], None], device: torch.device) -> float:
    """Wall-clock seconds of one step, the device's queue emptied before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def synchronisations(module: LandslideModule, batch: Batch) -> int:
    """Synchronising operations in forward, backward and follow-up; the optimiser is PyTorch's own and left out."""
    with torch.profiler.profile() as profile:
        module.objective(batch)["total"].backward()  # type: ignore[no-untyped-call] # as above
        module.on_optimizer_step()
    return sum(event.count for event in profile.key_averages() if event.key in SYNCHRONISING)


def main() -> None:
    """Measure all methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--size", type=int, default=256, help="pixels of a window")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    device, precision = torch.device(options.device), getattr(torch, options.precision)
    batch = make_batch(options.batch_size, options.size, device)
    title = f"{options.encoder}, {options.size} x {options.size}, batch {options.batch_size}, {options.precision}, {device.type}"
    table = Table(title=f"{title}, median of {options.repeats}", title_justify="left")
    for column in ("method", "plain s", "method s", "ratio", "bar", "plain syncs", "method syncs"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for case in CASES:
        network = {"encoder": options.encoder, "weights": None, "terrain": ["slope"], **case.network}
        modules = [
            create_method("deeplab", network=network).to(device),
            create_method(case.method, network=network, **case.extra).to(device),
        ]
        steps = [make_step(module, batch, precision) for module in modules]
        times: list[list[float]] = [[], []]
        for repeat in track(range(options.warmup + options.repeats), description=case.method):
            for step, taken in zip(steps, times, strict=True):
                seconds = seconds_of(step, device)
                if repeat >= options.warmup:
                    taken.append(seconds)
        plain, method = (statistics.median(taken) for taken in times)
        syncs = [synchronisations(module, batch) for module in modules]
        table.add_row(case.method, f"{plain:.3f}", f"{method:.3f}", f"{method / plain:.2f}", f"{case.bar:.2f}", *map(str, syncs))
    Console().print(table)


if __name__ == "__main__":
    main()
