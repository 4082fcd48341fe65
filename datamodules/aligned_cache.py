"""The aligned layers of a data set: which are needed, what they are called, and making those that are missing.

A layer is kept where reading its source means computing: a warp onto the image grid, polygons that are drawn, boundaries that are
ignored; and, where asked for, where the file lies on the grid but is slow to read by windows (strips, PNG, JPEG). Others are read from
their sources.

Files are called by a fingerprint of what decides their values: contents of the source and of the files that belong to it, the grid,
what scenes.csv and settings say about this layer, the version of GDAL, which computes. Names and places of files are no part of it, so
that folds of one data set, and copies of it, share their layers. A file over 64 MiB, whose content is sampled, counts with its time of change.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import rasterio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules.aligned import GRADES, AlignedFiles, Content, Role, is_whole, write
from datamodules.alignment import DemResampling, ElevationModel
from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.imagery import ImageRaster
from datamodules.label_raster import LabelRaster
from datamodules.label_rules import DEFAULT_RULES, LabelRules
from datamodules.labels import SceneLabels
from datamodules.polygons import VECTOR_SUFFIXES, files_of
from datamodules.rasters import streaming
from datamodules.scene import WHOLE_CONTENT_BYTES, Scene, content_digest

Array = npt.NDArray[Any]
FORMAT: Final = 1
"""Of aligned files; a change of what they hold raises it."""
_WORTH_A_PROCESS: Final = 2**22  # pixels; starting one takes as long as warping some millions
_POLL_S: Final = 0.2


@dataclass(frozen=True)
class Layer:
    """One aligned file.

    Args:
        role: Which layer of the scene.
        scene: The scene.
        grid: Grid of its image.
        fingerprint: Of what decides the values.
        path: The file, whether it is there or not.
    """

    role: Role
    scene: Scene
    grid: Grid
    fingerprint: str
    path: Path


class AlignedCache:
    """Aligned layers in a folder.

    Args:
        folder: Made if missing; several data sets and processes may share it, on a file system that knows locks.
        root: Of the data set, as `read_scenes` takes it; nothing is written there.
        margin: Pixels of elevation beyond the image that windows may ask for.
        dem_resampling: How an elevation model on another grid is brought onto the image's.
        rules: How labels are read.
        untiled: Copy also what lies on the grid already, in a file that is slow to read by windows.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        *,
        margin: int,
        dem_resampling: DemResampling,
        rules: LabelRules = DEFAULT_RULES,
        untiled: bool = False,
    ) -> None:
        self.folder, self.root, self.margin, self.dem_resampling, self.rules = folder, root, margin, dem_resampling, rules
        self.untiled = untiled

    def files(self, scenes: Sequence[Scene]) -> dict[str, AlignedFiles]:
        """Make what is missing.

        Returns:
            Files to read by name of the scene.

        Raises:
            UserError: A source that cannot be used, or a folder that cannot.
        """
        layers = self.layers(scenes)
        self.build(layers)
        found: dict[str, dict[str, Path]] = {scene.name: {} for scene in scenes}
        for layer in layers:
            found[layer.scene.name][layer.role] = layer.path
        return {name: AlignedFiles(**paths) for name, paths in found.items()}

    def layers(self, scenes: Sequence[Scene]) -> list[Layer]:
        """The layers that are to be kept of some scenes, in their order."""
        self._refuse_source_folders(scenes)
        return [layer for scene in scenes for layer in self._layers(scene)]

    def _refuse_source_folders(self, scenes: Sequence[Scene]) -> None:
        """Nothing is written where sources lie."""
        own, root = self.folder.resolve(), self.root.resolve()
        sources = {file.resolve().parent for scene in scenes for file in (scene.image, scene.dem, scene.label) if file is not None}
        if any(own.is_relative_to(folder) for folder in (root.parent if root.is_file() else root, *sources)):
            raise UserError(
                "lies among the data, which stay as they are",
                "choose a folder elsewhere",
                field="cache_dir",
                value=str(self.folder),
                exit_code=2,
            )

    def _layers(self, scene: Scene) -> Iterator[Layer]:
        """The layers that are to be kept of one scene."""
        stated = scene.overrides
        with closing(ImageRaster(scene.image, stated)) as image:
            grid = image.grid
            if image.warped or (self.untiled and not image.tiled):
                yield self._layer("image", scene, grid, image.files, {"nodata": str(stated.image_nodata)})
        if scene.dem is not None:
            with closing(ElevationModel(scene.dem, grid, self.margin, self.dem_resampling, stated)) as dem:
                if dem.warped or (self.untiled and not dem.tiled):
                    how = self.dem_resampling if dem.warped else None
                    dem_settings = {
                        "nodata": str(stated.dem_nodata),
                        "unit": stated.metres_per_unit,
                        "margin": self.margin,
                        "resampling": how,
                    }
                    yield self._layer("dem", scene, grid, dem.files, dem_settings)
        if scene.label is not None:
            rules, columns = self.rules, scene.labels
            files = self._label_files(scene.label, scene, grid)
            if files:
                settings = {"columns": asdict(columns), **vars(rules), "certainty": list(rules.certainty.items())}
                yield self._layer("label", scene, grid, files, settings)

    def _label_files(self, label: Path, scene: Scene, grid: Grid) -> list[Path]:
        """Files of a label that is to be kept; none of one that is read from its source."""
        if label.suffix.lower() in VECTOR_SUFFIXES:
            return files_of(label)
        with closing(LabelRaster(label, grid, scene.labels, self.rules)) as raster:
            needed = raster.warped or self.rules.boundary_ignore_m > 0 or (self.untiled and not raster.tiled)
            return raster.files if needed else []

    def _layer(self, role: Role, scene: Scene, grid: Grid, files: Sequence[Path], settings: dict[str, Any]) -> Layer:
        """A layer by what decides its values."""
        place = [grid.crs.to_wkt(), *tuple(grid.transform)[:6], grid.width, grid.height]
        decisive = [FORMAT, rasterio.__gdal_version__, role, place, sorted(_digest(file) for file in files), settings]
        fingerprint = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
        return Layer(role, scene, grid, fingerprint, self.folder / f"{role}-{fingerprint[:32]}.tif")

    def build(self, layers: Sequence[Layer], processes: int | None = None) -> int:
        """Make the layers that are missing, several at a time, and show on a terminal how far it is.

        Args:
            layers: As `layers` gives them.
            processes: Most processes; None = one a processor that this one may use.

        Returns:
            Number of layers that were missing.

        Raises:
            UserError: A source that cannot be used, or a folder that cannot.
        """
        missing = list({layer.path: layer for layer in layers if not is_whole(layer.path, layer.fingerprint)}.values())
        if not missing:
            return 0
        rows = sum(layer.grid.height for layer in missing)
        pixels = sum(layer.grid.height * layer.grid.width for layer in missing)
        workers = min(processes or _processors(), len(missing), max(1, pixels // _WORTH_A_PROCESS))
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"aligning {len(missing)} layers", total=rows)
            if workers == 1:
                for layer in missing:
                    self._make(layer, lambda number: progress.advance(task, number))
                return len(missing)
            # Spawned, not forked: the caller may run threads (torch, GDAL), which a fork would copy in an undefined state.
            context = get_context("spawn")
            counter = context.Value("q")
            with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(counter,)) as pool:
                pending = {pool.submit(_make_here, self, layer) for layer in missing}
                try:
                    while pending:
                        finished, pending = wait(pending, _POLL_S, FIRST_EXCEPTION)
                        progress.update(task, completed=counter.value)
                        for future in finished:
                            future.result()
                finally:
                    pool.shutdown(cancel_futures=True)
        return len(missing)

    def _make(self, layer: Layer, done: Callable[[int], object]) -> None:
        """Make one layer."""
        write(layer.path, layer.fingerprint, self._source(layer), done)

    @contextmanager
    def _source(self, layer: Layer) -> Iterator[Content]:
        """What a layer is to hold, checked."""
        scene, grid, margin = layer.scene, layer.grid, self.margin
        if layer.role == "image":
            with closing(ImageRaster(scene.image, scene.overrides, grid)) as image:
                image.check()
                yield Content(grid, image.num_bands, image.dtype, image.read)
        elif layer.role == "dem":
            assert scene.dem is not None
            with closing(ElevationModel(scene.dem, grid, margin, self.dem_resampling, scene.overrides)) as dem:
                with streaming():
                    dem.check()

                def elevations(row: int, column: int, height: int, width: int) -> tuple[Array, None]:
                    return dem.read(row - margin, column - margin, height, width)[None], None

                yield Content(grid.widened(margin), 1, dem.dtype, elevations, nodata=dem.fill)
        else:
            assert scene.label is not None
            with closing(SceneLabels(scene.label, grid, scene.labels, self.rules)) as labels:

                def grades(row: int, column: int, height: int, width: int) -> tuple[Array, None]:
                    return labels.settled(row, column, height, width)[None], None

                yield Content(grid, 1, "uint8", grades, tags={GRADES: json.dumps(labels.grades)})


def _digest(file: Path) -> str:
    """Content of a file; with its time of change where only samples of it are read."""
    status = file.stat()
    changed = f" {status.st_mtime_ns}" if status.st_size > WHOLE_CONTENT_BYTES else ""
    return content_digest(file).hex() + changed


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_rows_done: Any = None


def _start(counter: Any) -> None:  # noqa: ANN401 - a synchronised number, whose type multiprocessing keeps to itself
    """Prepare a worker: it counts rows, and ends with its parent, for which it would wait forever where that was killed."""
    global _rows_done  # noqa: PLW0603 - a pool offers no other way
    _rows_done = counter
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _make_here(cache: AlignedCache, layer: Layer) -> None:
    """Make one layer in a worker."""

    def count(rows: int) -> None:
        with _rows_done.get_lock():
            _rows_done.value += rows

    cache._make(layer, count)
