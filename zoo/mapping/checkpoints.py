"""Checkpoints that map a scene, and whether the scene is one that they can map."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datamodules.alignment import DemResampling
from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.scene import Scene
from zoo.base import LandslideModule
from zoo.registry import built, read_checkpoint

PIXEL_TOLERANCE: Final = 0.1
"""Relative difference from the pixel sizes of the training scenes that a scene may have: what training itself scales windows by."""

DEFAULT_TILE: Final = 512


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint and what it says of its training.

    Args:
        path: The file.
        sha256: Of the file.
        method: Class path of the method.
        module: The network and its threshold.
        tile_size: Pixels of a training window; None if it does not say.
        dem_resampling: How elevation models came onto the image grid in training; None if it does not say.
        training_pixel_m: Smallest and largest side of a pixel in training, metres; None if it does not say.
    """

    path: Path
    sha256: str
    method: str
    module: LandslideModule
    tile_size: int | None
    dem_resampling: DemResampling | None
    training_pixel_m: tuple[float, float] | None

    @property
    def inputs(self) -> str:
        """What the network sees: `image`, `dem` or `both`."""
        return self.module.network.options.inputs


def load(paths: Sequence[Path]) -> list[Checkpoint]:
    """Load checkpoints.

    Raises:
        UserError: No file, a file that is no checkpoint of this package, or one that is named twice.
    """
    found: list[Checkpoint] = []
    for path in paths:
        content = read_checkpoint(path)
        described = content["landslide_zoo"]
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if any(sha256 == other.sha256 for other in found):
            raise UserError("is given twice", "name each checkpoint of the ensemble once", file=path, field="ckpt", exit_code=2)
        data, pixel_m = described["data"], described.get("training_pixel_m")
        found.append(
            Checkpoint(
                path=path,
                sha256=sha256,
                method=described["method"],
                module=built(content),
                tile_size=data.get("tile_size"),
                dem_resampling=data.get("dem_resampling"),
                training_pixel_m=(pixel_m[0], pixel_m[1]) if pixel_m else None,
            )
        )
    if not found:
        raise UserError("no checkpoint is given", "name at least one .ckpt file", field="ckpt", exit_code=2)
    return found


def tile_of(checkpoints: Sequence[Checkpoint]) -> int:
    """The largest training window: what a network makes of a tile depends on how much ground it shows."""
    return max((checkpoint.tile_size for checkpoint in checkpoints if checkpoint.tile_size), default=DEFAULT_TILE)


def dem_resampling_of(checkpoints: Sequence[Checkpoint]) -> DemResampling:
    """How training brought elevation models onto the image grid.

    Raises:
        UserError: The checkpoints differ in it.
    """
    kinds = {checkpoint.dem_resampling for checkpoint in checkpoints if checkpoint.inputs != "image" and checkpoint.dem_resampling}
    if len(kinds) > 1:
        raise UserError(
            f"the checkpoints were trained on elevation models resampled in different ways ({', '.join(sorted(kinds))})",
            "map the scene with each group of them alone",
            field="ckpt",
        )
    return kinds.pop() if kinds else "cubic"


def require_layers(checkpoint: Checkpoint, scene: Scene, bands: int) -> None:
    """Check that a scene has the layers that a network reads.

    Raises:
        UserError: Another number of bands, or no elevation model where the network needs one.
    """
    options = checkpoint.module.network.options
    if options.inputs != "dem" and bands != options.image_channels:
        chosen = " ".join(f"-b {band}" for band in range(1, options.image_channels + 1))
        remedy = (
            f"write the bands that it was trained on to a file of their own, for example with `gdal_translate {chosen}`"
            if bands > options.image_channels
            else "give the image that has them, or a checkpoint trained on such images"
        )
        raise UserError(
            f"the image has {bands} bands but {checkpoint.path.name} reads {options.image_channels}",
            remedy,
            file=scene.image,
            field="image",
        )
    if options.inputs != "image" and scene.dem is None:
        raise UserError(
            f"{checkpoint.path.name} reads an elevation model (inputs: {options.inputs}) and none is given",
            "give it with --dem, or in the column dem of scenes.csv",
            file=scene.image,
            field="dem",
        )


def fitting_pixel_m(checkpoint: Checkpoint, grid: Grid) -> tuple[float, float]:
    """The sides of the scene's pixel, moved to the nearest that the network was trained on if they are beyond the tolerance."""
    if checkpoint.training_pixel_m is None:
        return grid.pixel_size
    low, high = checkpoint.training_pixel_m
    x, y = (
        side if low / (1 + PIXEL_TOLERANCE) <= side <= high * (1 + PIXEL_TOLERANCE) else min(max(side, low), high)
        for side in grid.pixel_size
    )
    return x, y


def require_pixel_size(checkpoint: Checkpoint, scene: Scene, grid: Grid) -> None:
    """Check the pixel size of a scene.

    Raises:
        UserError: A side differs from those of the training scenes by more than `PIXEL_TOLERANCE`.
    """
    if fitting_pixel_m(checkpoint, grid) == grid.pixel_size:
        return
    assert checkpoint.training_pixel_m is not None
    low, high = checkpoint.training_pixel_m
    trained = f"{low:g} m" if f"{low:g}" == f"{high:g}" else f"{low:g} to {high:g} m"
    raise UserError(
        f"the pixels are {grid.pixel_size[0]:g} x {grid.pixel_size[1]:g} m but {checkpoint.path.name} was trained on {trained}, "
        f"and more than {PIXEL_TOLERANCE:.0%} apart",
        "map it at the model's pixel size with --resample-to-model",
        file=scene.image,
        field="pixel size",
    )
