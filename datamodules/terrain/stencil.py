"""How every terrain layer walks over an elevation model: units of the pixels, edges, missing data, memory and gradients.

A layer is a function of a window that is larger than its result by a reach of (rows, columns) on each side. `evaluate` lays it over the
whole model and writes NaN where the window would leave it, as `gdaldem` does. Missing elevations (NaN) make every result NaN whose window
holds one.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import UserError

Owner = TypeVar("Owner")
Value = TypeVar("Value")

PixelSize = float | tuple[float, float] | Tensor
"""Metres a pixel: one number for square pixels, (x, y), a tensor (2,) = (x, y), or (B, 2) with one row for each item of the first
dimension."""

Reach = tuple[int, int]
"""Pixels (rows, columns) that a layer reads on each side of a pixel."""

NOTHING = 1e-20
"""Squared rise (in metres, or a metre) below which there is only rounding, no relief: 0.1 nm. Keeps gradients finite in float32."""

# Elements a strip. Its dozen temporaries of 100 kB stay in the cache of a core, which is what makes the CPU path fast, and torch does not
# wake its other threads for so few (it does above 32768): waking them thousands of times costs more than they save, and on a busy machine
# every time is a wait for the scheduler. `sqrt` and `atan` wake them above 2048 already, hence `rsqrt` and `atan2` in what runs in strips.
_STRIP = 24576


class Once(Generic[Owner, Value]):
    """A property that is computed at first use and kept, as `functools.cached_property`.

    That one takes a lock in Python 3.11, at which torch.compile gives up.
    """

    def __init__(self, function: Callable[[Owner], Value]) -> None:
        self.function = function
        self.name = function.__name__
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, owner: None, kind: type[Owner]) -> "Once[Owner, Value]": ...
    @overload
    def __get__(self, owner: Owner, kind: type[Owner]) -> Value: ...
    def __get__(self, owner: Owner | None, kind: type[Owner]) -> "Once[Owner, Value] | Value":
        """Compute the value and put it in the place of the property."""
        if owner is None:
            return self
        value = self.function(owner)
        setattr(owner, self.name, value)
        return value


class Spacing(NamedTuple):
    """Metres between pixel centres, in a form that multiplies a window (..., H, W): numbers, or tensors (B, 1, ..., 1)."""

    x: float | Tensor
    y: float | Tensor


def check_elevation(dem: Tensor) -> None:
    """Refuse what is not an elevation model in metres.

    Raises:
        TypeError: Not float32 or float64; half precision cannot hold elevations (bfloat16 steps by 16 m at 3000 m).
        ValueError: Fewer than two dimensions.
    """
    if dem.dtype not in {torch.float32, torch.float64}:
        raise TypeError(f"dem must be float32 or float64, not {dem.dtype}")
    if dem.ndim < 2:
        raise ValueError(f"dem must be (..., H, W), not {tuple(dem.shape)}")


def spacing_of(pixel_size: PixelSize, dem: Tensor) -> Spacing:
    """Pixel size as `Spacing` in the data type and on the device of `dem` (..., H, W); no host-device synchronisation.

    Raises:
        UserError: A number that is not positive.
        ValueError: A tensor of another shape than (2,), (B, 2) or ().
    """
    if isinstance(pixel_size, Tensor):
        size = pixel_size.to(device=dem.device, dtype=dem.dtype, non_blocking=True)
        if size.ndim == 0:
            return Spacing(size, size)
        if size.ndim == 1 and size.shape[0] == 2:  # comparing whole shapes would tie a free B to 2 in an exported graph
            return Spacing(size[0], size[1])
        if size.ndim != 2 or size.shape[-1] != 2 or dem.ndim < 3 or size.shape[0] not in (1, dem.shape[0]):
            raise ValueError(f"pixel_size must be (2,) or (B, 2) with B of the dem {tuple(dem.shape)}, not {tuple(size.shape)}")
        shape = (-1, *(1,) * (dem.ndim - 1))
        return Spacing(size[:, 0].reshape(shape), size[:, 1].reshape(shape))
    (x, y), *_ = sizes_of(pixel_size)
    return Spacing(x, y)


def sizes_of(pixel_size: PixelSize) -> list[tuple[float, float]]:
    """Pixel size as plain numbers (x, y), one pair for all items or one for each.

    A tensor on a GPU is copied to the host, which waits for the device. Only layers with a radius in metres need this.

    Raises:
        UserError: A value that is not positive and finite.
        ValueError: Not a number, a pair or a tensor (2,) or (B, 2).
    """
    if isinstance(pixel_size, Tensor):
        if pixel_size.ndim not in {0, 1, 2} or (pixel_size.ndim and pixel_size.shape[-1] != 2):
            raise ValueError(f"pixel_size must be (2,) or (B, 2), not {tuple(pixel_size.shape)}")
        rows = pixel_size.detach().double().cpu()
        pairs = [(float(x), float(y)) for x, y in rows.expand(2).reshape(1, 2).tolist()] if rows.ndim == 0 else rows.reshape(-1, 2).tolist()
        sizes = [(float(x), float(y)) for x, y in pairs]
    elif isinstance(pixel_size, tuple | list):
        if len(pixel_size) != 2:
            raise ValueError(f"pixel_size must be one number or (x, y), not {pixel_size!r}")
        sizes = [(float(pixel_size[0]), float(pixel_size[1]))]
    else:
        sizes = [(float(pixel_size), float(pixel_size))]
    for x, y in sizes:
        if not (0 < x < float("inf") and 0 < y < float("inf")):
            raise UserError("must be positive metres", "give the ground size of a pixel as (x, y)", field="pixel_size", value=(x, y))
    return sizes


def in_strips(dem: Tensor) -> bool:
    """Whether `evaluate` works through this model in strips: large, on the CPU, without gradients, not while torch compiles or exports."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and dem.requires_grad):
        return False
    return dem.device.type == "cpu" and dem.numel() > _STRIP


def evaluate(
    dem: Tensor, reach: Reach, compute: Callable[[Tensor], Sequence[Tensor]], count: int, out: Sequence[Tensor] | None = None
) -> Sequence[Tensor]:
    """Lay a window function over an elevation model.

    Large models on the CPU are worked through in strips of rows; with gradients, on a GPU and while torch compiles or exports, the whole
    model is one window. With gradients, missing elevations are filled before and masked after the computation, because the chain rule
    multiplies the zero gradient of a masked NaN by NaN.

    Args:
        dem: (..., H, W).
        reach: By how much the window exceeds the result on each side.
        compute: From (..., h + 2 rows, w + 2 columns) to `count` tensors (..., h, w).
        count: Number of results.
        out: Where to write, `count` tensors like `dem`; only where `in_strips` holds.

    Returns:
        `count` tensors like `dem`, NaN where `compute` is NaN and where the window leaves the model.
    """
    rows, columns = reach
    height, width = dem.shape[-2:]
    if height <= 2 * rows or width <= 2 * columns:
        return [torch.full_like(dem, torch.nan) for _ in range(count)] if out is None else [result.fill_(torch.nan) for result in out]
    if torch.is_grad_enabled() and dem.requires_grad:
        with torch.no_grad():
            undefined = [values.isnan() for values in evaluate(dem.detach(), reach, compute, count)]
        finite = torch.where(dem.isnan(), 0.0, dem)
        padded = (_pad(values, reach) for values in compute(finite))
        return [torch.where(mask, torch.nan, values) for mask, values in zip(undefined, padded, strict=True)]
    if not in_strips(dem):
        return [_pad(values, reach) for values in compute(dem)]
    results = [torch.empty(dem.shape, dtype=dem.dtype) for _ in range(count)] if out is None else out
    for result in results:
        result[..., :rows, :] = torch.nan
        result[..., height - rows :, :] = torch.nan
        result[..., :columns] = torch.nan
        result[..., width - columns :] = torch.nan
    # A strip must be much taller than what it reads around it, or wide windows would compute most rows twice.
    step = max(_STRIP * height // dem.numel(), 4 * rows, 1)
    for top in range(rows, height - rows, step):
        bottom = min(top + step, height - rows)
        window = dem[..., top - rows : bottom + rows, :]
        for result, values in zip(results, compute(window), strict=True):
            result[..., top:bottom, columns : width - columns] = values
    return results


def each_size(dem: Tensor, pixel_size: PixelSize, compute: Callable[[Tensor, tuple[float, float]], Sequence[Tensor]]) -> Sequence[Tensor]:
    """Run a computation whose window depends on the pixel size: once where all items share it, else item by item.

    Args:
        dem: (..., H, W).
        pixel_size: Metres; see `PixelSize`. A tensor on a GPU is read on the host, so give numbers or a CPU tensor in a training step.
        compute: From (dem, (x, y)) to tensors like its dem.

    Raises:
        ValueError: Sizes for another number of items than the first dimension of `dem`.
    """
    sizes = sizes_of(pixel_size)
    if len(set(sizes)) == 1:
        return compute(dem, sizes[0])
    if dem.ndim < 3 or len(sizes) != dem.shape[0]:
        raise ValueError(f"pixel_size has {len(sizes)} rows, which does not fit a dem of shape {tuple(dem.shape)}")
    items = [compute(item, size) for item, size in zip(dem.unbind(0), sizes, strict=True)]
    return [torch.stack(values) for values in zip(*items, strict=True)]


def _pad(values: Tensor, reach: Reach) -> Tensor:
    rows, columns = reach
    return F.pad(values, (columns, columns, rows, rows), value=torch.nan)


def inverse_root(squared: Tensor) -> Tensor:
    """1 / sqrt(squared), and 0 below `NOTHING`, with finite gradients everywhere."""
    nothing = squared < NOTHING
    if squared.requires_grad:
        return torch.where(nothing, 0.0, torch.where(nothing, 1.0, squared).rsqrt())
    return squared.rsqrt().masked_fill(nothing, 0.0)
