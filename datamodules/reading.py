"""Reading the layers of one scene by windows that may reach beyond it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from datamodules.aligned import NOT_ALIGNED, AlignedDem, AlignedFiles, AlignedImage, AlignedLabels
from datamodules.alignment import NO_IMAGE, DemResampling, ElevationModel
from datamodules.classes import IGNORE
from datamodules.errors import UserError
from datamodules.imagery import ImageRaster
from datamodules.label_rules import DEFAULT_RULES, LabelRules
from datamodules.labels import SceneLabels
from datamodules.rasters import streaming
from datamodules.scene import Scene

Array = npt.NDArray[Any]
_CLOSED: Final = {"_process": -1, "_image": None, "_dem": None, "_label": None, "_source_label": None}
"""Of a reader without open files."""


@dataclass(frozen=True)
class Layers:
    """Pixels of one window as numpy arrays of one size.

    Args:
        image: (H, W, C), uint8 as in the file, or float32 for any other type.
        dem: float32 (H, W) metres, NaN = no data.
        mask: uint8 (H, W): 0, 1, 255, and 254 where the image has no data.
        weight: float32 (H, W) in [0, 1], loss weight by certainty; None where all labelled pixels count alike.
    """

    image: Array
    dem: Array
    mask: Array
    weight: Array | None = None


class SceneReader:
    """Reads windows of one scene.

    Files are opened on the first read of a process, so that a reader may be forked and pickled.

    Args:
        scene: The scene.
        image_channels: Bands that the image must have; None accepts any number.
        margin: Pixels of elevation beyond the image that windows may ask for.
        dem_resampling: How to warp an elevation model on another grid.
        rules: How labels are read.
        aligned: Files to read layers from that `datamodules.aligned_cache` has checked and made of the scene's own.

    Raises:
        UserError: A file that is missing, damaged, of the wrong kind or in another place.
    """

    def __init__(
        self,
        scene: Scene,
        image_channels: int | None,
        margin: int,
        dem_resampling: DemResampling,
        rules: LabelRules = DEFAULT_RULES,
        aligned: AlignedFiles = NOT_ALIGNED,
    ) -> None:
        self.scene, self.rules, self.aligned = scene, rules, aligned
        self._margin, self._dem_resampling = margin, dem_resampling
        self._process = -1
        self._image: ImageRaster | AlignedImage | None = None
        self._dem: ElevationModel | AlignedDem | None = None
        self._label: SceneLabels | AlignedLabels | None = None
        self._source_label: SceneLabels | None = None
        self._kept: Layers | None = None
        image = ImageRaster(scene.image, scene.overrides)
        self.grid, self.num_bands, self.image_dtype = image.grid, image.num_bands, image.dtype
        if image_channels is not None and self.num_bands != image_channels:
            raise UserError(
                f"the image has {self.num_bands} bands",
                f"set data.image_channels to {self.num_bands} or give images with {image_channels}",
                file=scene.image,
                field="image_channels",
                value=image_channels,
            )
        if aligned.image is None:
            image.check()
            self._open(image)
        else:
            image.close()
            self._open()
        self.dem_pixel_size_m = self._check_dem()
        self.weighted = self._is_weighted()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, **_CLOSED, "_kept": None}

    def _open(self, image: ImageRaster | None = None) -> None:
        """Handles of this process: one that crossed a fork shares its file position with the parent's."""
        if self._process == os.getpid():
            return
        scene, aligned = self.scene, self.aligned
        self._process = os.getpid()
        self._image = AlignedImage(aligned.image) if aligned.image else image or ImageRaster(scene.image, scene.overrides, self.grid)
        self._dem = AlignedDem(aligned.dem, self._margin) if aligned.dem else self._source_dem()
        self._label = AlignedLabels(aligned.label, self.rules) if aligned.label else self.opened_labels()

    def _source_dem(self) -> ElevationModel | None:
        """The scene's own elevation model, if it has one."""
        scene = self.scene
        return ElevationModel(scene.dem, self.grid, self._margin, self._dem_resampling, scene.overrides) if scene.dem else None

    @streaming()
    def _check_dem(self) -> tuple[float, float] | None:
        """Pixel size in metres of the elevation model's own grid, if there is one and it has data."""
        if isinstance(self._dem, AlignedDem):  # which was made of one that has been checked
            source = self._source_dem()
            assert source is not None
            source.close()
            return source.pixel_size_m
        if self._dem is None:
            return None
        self._dem.check()
        return self._dem.pixel_size_m

    def _is_weighted(self) -> bool:
        """Whether some landslides count less than others."""
        return self._label is not None and self._label.weighted

    def close(self) -> None:
        """Close the files of this process; the next read opens them again."""
        if self._process == os.getpid():
            for file in (self._image, self._dem, self._label, self._source_label):
                if file is not None:
                    file.close()
        self.__dict__.update(_CLOSED)

    def keep(self, budget: int) -> int:
        """Hold the whole scene in memory if it takes at most `budget` bytes, and close its files.

        Returns:
            Bytes taken; 0 if the scene stays on disk.
        """
        margin, height, width = self._margin, self.grid.height, self.grid.width
        pixel_bytes = self.num_bands * (1 if self.image_dtype == "uint8" else 4) + (5 if self.weighted else 1)
        size = height * width * pixel_bytes + (height + 2 * margin) * (width + 2 * margin) * 4
        if size <= budget:
            image, missing = self.image(0, 0, height, width)
            label, weight = self._labels(0, 0, height, width)
            if missing is not None:
                label[missing] = NO_IMAGE
            self._kept = Layers(
                np.ascontiguousarray(image), self.dem(-margin, -margin, height + 2 * margin, width + 2 * margin), label, weight
            )
        # Handles are opened again where windows are read: a data set may hold more files than a process may have open.
        self.close()
        return size if self._kept is not None else 0

    def forget(self) -> None:
        """Let go what is held in memory; windows come from the files again."""
        self._kept = None

    def image(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array | None]:
        """Image values (height, width, C), and where it has no data: bool (height, width), or None if it has data everywhere."""
        if self._kept is not None:
            values = _cut(self._kept.image, (row, column, height, width), 0)
            missing = _cut(self._kept.mask, (row, column, height, width), NO_IMAGE) == NO_IMAGE
            return values, missing if missing.any() else None
        self._open()
        assert self._image is not None
        first_row, first_column = max(row, 0), max(column, 0)
        last_row, last_column = min(row + height, self.grid.height), min(column + width, self.grid.width)
        bands, missing = self._image.read(first_row, first_column, last_row - first_row, last_column - first_column)
        # Two types that OpenCV knows for any number of bands. In memory the bands stay one after the other, as batches want them: moving
        # them costs more than reading them.
        values = bands.transpose(1, 2, 0).astype(np.uint8 if bands.dtype == np.uint8 else np.float32, copy=False)
        if values.shape[:2] == (height, width):
            return values, missing if missing is not None and missing.any() else None
        place = (row - first_row, column - first_column, height, width)
        inside = np.zeros(values.shape[:2], dtype=bool) if missing is None else missing
        return _cut(values, place, 0), _cut(inside, place, True)

    def dem(self, row: int, column: int, height: int, width: int) -> Array:
        """Elevation in metres, float32 (height, width), NaN where there is none."""
        if self._kept is not None:
            return _cut(self._kept.dem, (row + self._margin, column + self._margin, height, width), np.nan)
        self._open()
        return np.full((height, width), np.nan, dtype=np.float32) if self._dem is None else self._dem.read(row, column, height, width)

    def label(self, row: int, column: int, height: int, width: int) -> Array:
        """Label, uint8 (height, width): 0, 1, 255; 254 where the reader already knows that the image has no data."""
        return self._labels(row, column, height, width)[0]

    def _labels(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array | None]:
        """Label as `label` gives it, and its weight as `Layers` has it."""
        place = row, column, height, width
        if self._kept is not None:
            weight = None if self._kept.weight is None else _cut(self._kept.weight, place, 0)
            return _cut(self._kept.mask, place, NO_IMAGE), weight
        self._open()
        return (np.full((height, width), IGNORE, dtype=np.uint8), None) if self._label is None else self._label.read(*place)

    def opened_labels(self) -> SceneLabels | None:
        """The label's source, with grades of certainty; None for a scene that has no label."""
        self._open()
        scene = self.scene
        if self._source_label is None and scene.label is not None:
            self._source_label = SceneLabels(scene.label, self.grid, scene.labels, self.rules)
        return self._source_label

    def layers(self, row: int, column: int, height: int, width: int, halo: int = 0) -> Layers:
        """All layers of a window whose upper left pixel is (row, column), with a halo of more pixels on each side of the elevation alone."""
        mask, weight = self._labels(row, column, height, width)
        dem = self.dem(row - halo, column - halo, height + 2 * halo, width + 2 * halo)
        if self._kept is not None:  # the kept mask already knows where the image has no data
            image = _cut(self._kept.image, (row, column, height, width), 0)
            return Layers(image, dem, mask, weight)
        image, missing = self.image(row, column, height, width)
        if missing is not None:
            mask[missing] = NO_IMAGE
        return Layers(image, dem, mask, weight)

    def strips(self, num_rows: int) -> Iterator[Layers]:
        """The scene from top to bottom by strips of `num_rows`, so that memory does not grow with its height."""
        for row in range(0, self.grid.height, num_rows):
            yield self.layers(row, 0, min(num_rows, self.grid.height - row), self.grid.width)


def _cut(array: Array, place: tuple[int, int, int, int], fill: float) -> Array:
    """A copy of a window (row, column, height, width) of an array, `fill` beyond it."""
    row, column, height, width = place
    rows, columns = array.shape[:2]
    if row >= 0 and column >= 0 and row + height <= rows and column + width <= columns:
        return array[row : row + height, column : column + width].copy()
    whole = np.full((height, width, *array.shape[2:]), fill, dtype=array.dtype)
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + height, rows), min(column + width, columns)
    if bottom > top and right > left:
        whole[top - row : bottom - row, left - column : right - column] = array[top:bottom, left:right]
    return whole
