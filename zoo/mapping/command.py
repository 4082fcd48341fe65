"""`zoo map`: options, progress on a terminal, one line a map; the scenes of a manifest shared among ranks."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from datamodules.errors import UserError
from datamodules.scene import Scene, of_split, read_scenes
from zoo.inventory.command import add_inventory_options, inventory_options
from zoo.inventory.inventory import InventoryOptions, require_inventory, write_inventory
from zoo.mapping.maps import MapOptions, Mapper, SceneMap
from zoo.page import require_page, write_page

_RANKS: Final = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
"""What torchrun and SLURM tell a process of its place among all: rank, number of processes, rank on this machine."""

DESCRIPTION: Final = """\
Map the landslides of a scene, or of all scenes of a manifest.

Writes Cloud-Optimised GeoTIFFs on the grid of the image: the probability (OUT), the classes (NAME_class.tif) and, for several checkpoints or
with --tta, the standard deviation over them (NAME_uncertainty.tif). Pixels without image data, and without elevation where a network sees it,
are no data. Memory depends on the tile and the width of the scene, not on its height. An interrupted run continues when called again.
--inventory adds the landslides as polygons; `zoo inventory` makes them of a map that is there."""

EPILOG: Final = """\
examples:
  zoo map best.ckpt --image ortho.tif --dem dem.tif --out prob.tif
  zoo map seed0.ckpt seed1.ckpt seed2.ckpt --tta d4 --image ortho.tif --dem dem.tif --out prob.tif
  zoo map best.ckpt --image ortho.tif --dem dem.tif --out prob.tif --inventory slides.gpkg --min-area-m2 500
  torchrun --nproc-per-node 4 -m zoo map best.ckpt --scenes scenes.csv --out maps/"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, "see `zoo map --help`", exit_code=2)


def map_command(arguments: Sequence[str]) -> int:
    """Run `zoo map`.

    Args:
        arguments: The options.

    Returns:
        Exit code.

    Raises:
        UserError: Options that do not go together, or a scene that cannot be mapped.
    """
    given = _parser().parse_args(list(arguments))
    options = MapOptions(**{field.name: getattr(given, field.name) for field in fields(MapOptions)})
    wanted = inventory_options(given, None)  # the class raster of the map has the threshold already
    if given.inventory is None and wanted != InventoryOptions():
        raise UserError("options of an inventory are given and no --inventory", "name its file", field="inventory", exit_code=2)
    if (given.scenes is None) == (given.image is None):
        raise UserError("give either --image or --scenes", "see `zoo map --help`", field="image", exit_code=2)
    if given.image is not None:
        scenes = [Scene(given.image.stem.replace(":", "_"), given.image, given.dem, None, "predict")]
        outs = [_Outs(given.out, given.inventory, given.html)]
        rank, size = 0, 1
    else:
        rank, size, options = _share(os.environ, options)
        scenes = _chosen(given.scenes, given.dem)
        outs = [
            _Outs(
                given.out / f"{scene.name}.tif",
                given.inventory and given.inventory / f"{scene.name}.gpkg",
                given.html and given.html / f"{scene.name}.html",
            )
            for scene in scenes
        ]
    mapper = Mapper(given.ckpt, options)
    # All are checked before the first is mapped, by every rank, so that a mistake in the last does not show after hours.
    plans = [mapper.plan(scene, out.map) for scene, out in zip(scenes, outs, strict=True)]
    for scene, out, plan in zip(scenes, outs, plans, strict=True):
        if out.inventory is not None:
            require_inventory(out.inventory, out.map, plan.grid, scene, wanted)
        if out.page is not None:
            require_page(out.page, replace(scene, overrides=plan.scene.overrides), plan.grid)
    with _progress() as watch:
        for scene, out, plan in list(zip(scenes, outs, plans, strict=True))[rank::size]:
            result = mapper.map(plan, watch(out.map.name))
            print(_report(result))
            if out.inventory is not None:
                write_inventory(result.probability, out.inventory, scene.dem, options=wanted, overrides=scene.overrides)
            if out.page is not None:
                stated = plan.scene.overrides  # those of `--image-nodata` and `--regrid` too
                write_page(result.probability, out.page, image=scene.image, dem=scene.dem, inventory=out.inventory, overrides=stated)
    return 0


class _Outs(NamedTuple):
    """Where the map of a scene goes, its inventory and its page if they are wanted."""

    map: Path
    inventory: Path | None
    page: Path | None


def _chosen(manifest: Path, dem: Path | None) -> list[Scene]:
    """Scenes of split predict; the test scenes where there are none."""
    if dem is not None:
        raise UserError("goes with --image", "name elevation models in the column dem of scenes.csv", field="dem", exit_code=2)
    scenes = read_scenes(manifest)
    chosen = of_split(scenes, "predict") or of_split(scenes, "test")
    if not chosen:
        raise UserError("no scene is in split predict or test", "assign some to predict", file=manifest, field="split")
    return chosen


def _share(environment: Mapping[str, str], options: MapOptions) -> tuple[int, int, MapOptions]:
    """Rank, number of ranks, and the options with the GPU of this rank."""
    for rank, size, local in _RANKS:
        if rank in environment and size in environment:
            import torch  # noqa: PLC0415 - only to count GPUs

            if options.device in ("auto", "cuda") and torch.cuda.is_available():
                own = int(environment.get(local, environment[rank])) % torch.cuda.device_count()
                options = MapOptions(**{**vars(options), "device": f"cuda:{own}"})
            return int(environment[rank]), int(environment[size]), options
    return 0, 1, options


def _report(result: SceneMap) -> str:
    """One line a map."""
    if not result.km2:
        return f"{result.probability}: threshold {result.threshold:.3g}"
    speed = f"{result.km2:,.3g} km2 in {result.seconds:,.1f} s, {result.km2_per_hour:,.0f} km2/h"
    return f"{result.probability}: {speed}, threshold {result.threshold:.3g}"


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[int, int], None] | None]]:
    """Bars on a terminal, nothing elsewhere."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda name: None  # noqa: ARG005 - nobody watches
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        def watch(name: str) -> Callable[[int, int], None]:
            task = progress.add_task(name, total=None)
            return lambda done, rows: progress.update(task, completed=done, total=rows)

        yield watch


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="zoo map", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = MapOptions()
    parser.add_argument("ckpt", type=Path, nargs="+", metavar="CKPT", help="checkpoint of `zoo fit` or `zoo-bench run`; several = ensemble")
    parser.add_argument("--image", type=Path, metavar="TIF", help="raster on a projected, north-up grid")
    parser.add_argument("--dem", type=Path, metavar="TIF", help="elevation model in metres, on any grid")
    parser.add_argument("--scenes", type=Path, metavar="CSV", help="manifest, whose scenes of split predict (else test) are mapped")
    parser.add_argument("--out", type=Path, required=True, metavar="TIF", help="the map; with --scenes, the folder of the maps")
    parser.add_argument(
        "--html", type=Path, metavar="HTML", help="write the map as one offline page too; with --scenes, the folder of the pages"
    )
    parser.add_argument("--tile", type=int, default=None, metavar="PIXELS", help="side of a tile (default: as in training)")
    parser.add_argument("--overlap", type=float, default=default.overlap, help="share of a tile, 0 to 0.5 (default: %(default)s)")
    parser.add_argument(
        "--context",
        type=int,
        default=default.context,
        metavar="PIXELS",
        help="around a tile, that the network sees and that are not mapped from it (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=int, default=default.batch_size, help="tiles at a time (default: %(default)s)")
    parser.add_argument("--tta", choices=("none", "d4"), default=default.tta, help="d4: mean over eight turns and mirrorings of each tile")
    parser.add_argument("--device", default=default.device, help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default=default.precision, help="bf16 on recent GPUs")
    parser.add_argument(
        "--threshold", type=float, default=None, help="probability of a landslide pixel (default: the checkpoint's; of several, their mean)"
    )
    parser.add_argument("--dtype", choices=("uint8", "float32"), default=default.dtype, help="of the probability (default: %(default)s)")
    parser.add_argument(
        "--resample-to-model", action="store_true", help="map at the nearest pixel size of training where the image's is another"
    )
    parser.add_argument("--image-nodata", type=float, default=None, metavar="VALUE", help="marks no data, whatever the image says")
    parser.add_argument(
        "--regrid",
        default=default.regrid,
        help="images in degrees, in a stretching projection or rotated: refuse, reproject (map on a grid in metres) or EPSG:CODE (default: refuse)",
    )
    inventory = parser.add_argument_group("inventory, see `zoo inventory --help`")
    inventory.add_argument("--inventory", type=Path, metavar="GPKG", help="write the landslides as polygons; with --scenes, their folder")
    add_inventory_options(inventory)
    return parser
