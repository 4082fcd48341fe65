"""`zoo-data`: make, index and describe data sets."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from datamodules.errors import UserError, exit_with
from datamodules.label_rules import CERTAINTY, LabelRules, Weight

LARGEST_SHARE: Final = 0.5
"""Of the landslide pixels of a split in one landslide, from which on the split is told to be of that landslide."""


def run() -> None:
    """Entry point of `zoo-data`."""
    exit_with(main)


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="zoo-data", description="Make, index and describe landslide data sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    synthesize = commands.add_parser("synthesize", help="make synthetic relic-landslide scenes with images, elevation models and labels")
    synthesize.add_argument("out", type=Path, help="folder to make")
    synthesize.add_argument("--scenes", type=_positive, default=8, help="number of scenes (default: %(default)s)")
    synthesize.add_argument("--seed", type=int, default=0, help="the same seed gives the same scenes (default: %(default)s)")
    synthesize.add_argument("--size", type=_positive, default=1024, help="pixels along each side of a scene (default: %(default)s)")

    describe = commands.add_parser("describe", help="table of scenes, areas, grids, prevalence, windows and gaps")
    describe.add_argument(
        "root", type=Path, metavar="SCENES", help="scenes.csv, its folder, or a folder {train,val,test}/{images,dem,masks}"
    )
    describe.add_argument("--tile-size", type=_positive, default=128, help="pixels of a window (default: %(default)s)")
    describe.add_argument("--by-scene", action="store_true", help="one row a scene as well")

    index = commands.add_parser(
        "index",
        help="write scenes.csv for a folder; public data sets are recognised and converted",
        description="Write scenes.csv for a folder; public data sets are recognised and converted.",
        epilog="Optional columns of scenes.csv, for files that are silent or wrong: image_nodata, dem_nodata (a number, nan, or none: a wrong "
        "tag); dem_unit (m, ft, us-ft, dm, cm or a factor to metres); resolution_m (metres a pixel of an image without georeference); "
        "regrid (refuse, reproject or EPSG:CODE, for images in degrees or rotated).",
    )
    index.add_argument("folder", type=Path, metavar="FOLDER")
    index.add_argument(
        "--layout",
        choices=("auto", "folders", "bijie", "landslide4sense", "mmls", "image_mask", "aoi"),
        default="auto",
        help="what the folder holds (default: %(default)s, told from its files)",
    )
    index.add_argument(
        "--out", type=Path, default=None, help="folder to make for converted files; else where scenes.csv goes (default: into FOLDER)"
    )
    index.add_argument("--split", choices=("train", "val", "test", "predict"), help="split of scenes whose folders name none")
    index.add_argument("--resolution-m", type=_metres, help="metres a pixel of pictures without georeference")
    index.add_argument("--terrain-bands", action="store_true", help="landslide4sense: keep normalised slope and elevation as image bands")

    split = commands.add_parser("split", help="write manifests of k folds that do not leak, with labels of spatial blocks where asked for")
    split.add_argument("root", type=Path, metavar="SCENES", help="scenes.csv or its folder")
    split.add_argument("--by", choices=("blocks", "scene", "region", "column"), default="blocks", help="what stays together (%(default)s)")
    split.add_argument("--column", default="region", help="column of scenes.csv, with --by column (default: %(default)s)")
    split.add_argument("--block-m", type=float, default=5000.0, help="side of a block in metres (default: %(default)s)")
    split.add_argument("--buffer-m", type=float, default=500.0, help="metres between labels of different splits (default: %(default)s)")
    split.add_argument("--folds", type=_positive, default=5, help="number of folds, at least 3 (default: %(default)s)")
    split.add_argument(
        "--copies-together", action="store_true", help="pictures that `check` takes for copies share a split; with --by scene"
    )
    split.add_argument("--seed", type=int, default=0, help="of ties in the assignment (default: %(default)s)")
    split.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make: foldN/scenes.csv and split.json")

    check = commands.add_parser("check", help="audit the splits: overlaps, shared landslides, distances, duplicates; exit code 1 on a leak")
    check.add_argument("root", type=Path, metavar="SCENES", help="scenes.csv or its folder")
    check.add_argument("--near-m", type=float, default=500.0, help="warn where splits are nearer, in metres (default: %(default)s)")
    check.add_argument("--full", action="store_true", help="read every file to its last pixel and list each problem with its remedy")

    preview = commands.add_parser("preview", help="pictures of a data set: contact sheet and split map, as PNG and in one HTML page")
    preview.add_argument("root", type=Path, metavar="ROOT", help="scenes.csv or its folder")
    preview.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where contact_sheet.png, split_map.png, index.html go")
    preview.add_argument("--windows", type=_positive, default=12, help="rows of the contact sheet (default: %(default)s)")
    preview.add_argument(
        "--split", nargs="+", choices=("train", "val", "test", "predict"), default=(), help="of its windows (default: all)"
    )
    preview.add_argument("--tile-size", type=_positive, default=128, help="pixels of a window (default: %(default)s)")
    preview.add_argument("--bands", type=_positive, nargs="+", default=(), help="shown as red, green, blue, such as 4 3 2; or one as grey")
    preview.add_argument("--seed", type=int, default=0, help="of the choice of windows (default: %(default)s)")

    align = _align_command(commands)
    for command in (describe, split, check, preview, align):
        _add_reading_options(command)
    options = parser.parse_args(list(arguments))
    _require_regrid(getattr(options, "regrid", "refuse"))
    run = {
        "align": _align,
        "check": _check,
        "describe": _describe,
        "index": _index,
        "preview": _preview,
        "split": _split,
        "synthesize": _synthesize,
    }
    return run[options.command](options)


def _align_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """The options of `zoo-data align`."""
    command = commands.add_parser(
        "align",
        help="bring elevation models and labels onto the image grid once, as tiled files that training reads (data.cache_dir)",
        description="Keep the layers that must be warped or drawn as tiled GeoTIFFs on the image grid, made in parallel; what is there "
        "already is left. Training makes what is missing by itself; this does it ahead. Halo, resampling and label options must be "
        "those of the training, else it makes its own.",
    )
    command.add_argument(
        "root", type=Path, metavar="SCENES", help="scenes.csv, its folder, or a folder {train,val,test}/{images,dem,masks}"
    )
    command.add_argument("--cache-dir", type=Path, required=True, metavar="DIR", help="as data.cache_dir: a folder outside of the data")
    command.add_argument("--untiled", action="store_true", help="as data.cache_untiled: also what lies on the grid in strips, PNG or JPEG")
    command.add_argument("--halo", type=_positive_or_zero, default=1, help="as data.halo, pixels (default: %(default)s)")
    command.add_argument(
        "--dem-resampling", choices=("bilinear", "cubic"), default="cubic", help="as data.dem_resampling (default: %(default)s)"
    )
    command.add_argument("--processes", type=_positive, help="most processes (default: one a processor)")
    return command


def _require_regrid(value: str) -> None:
    """Refuse a value that `--regrid` does not take."""
    from datamodules.overrides import require_regrid  # noqa: PLC0415 - rasterio

    try:
        require_regrid(value)
    except ValueError as error:
        raise UserError("cannot be used", str(error), field="--regrid", value=value, exit_code=2) from error


def _add_reading_options(command: argparse.ArgumentParser) -> None:
    """How scenes are read: the names and defaults of the data module's options."""
    command.add_argument(
        "--regrid",
        default="refuse",
        help="images in degrees, in a stretching projection or rotated: refuse, reproject (virtual grid in metres) or EPSG:CODE "
        "(default: %(default)s; column regrid of scenes.csv goes first)",
    )
    options = command.add_argument_group("labels", "as data.landslide_values and so on; columns of scenes.csv come first")
    options.add_argument("--landslide-values", metavar="V;V", help="landslide in label rasters, as 255 or '1=certain;2=possible' (1)")
    options.add_argument("--ignore-values", metavar="V;V", help="values of label rasters that count for nothing (255)")
    options.add_argument("--all-touched", action="store_true", help="draw polygons on all pixels that they touch, not by pixel centres")
    options.add_argument(
        "--certainty",
        nargs="+",
        type=_certainty,
        metavar="NAME=WEIGHT",
        help="loss weight in (0, 1], or ignore, of each certainty (certain=1 probable=1 possible=ignore)",
    )
    options.add_argument("--boundary-ignore-m", type=float, default=0.0, help="metres to either side of a boundary that are ignored (0)")


def _certainty(text: str) -> tuple[str, Weight]:
    """`possible=ignore` or `probable=0.5`."""
    name, _, weight = text.rpartition("=")
    if weight == "ignore":
        return name, "ignore"
    return name, float(weight)


def _rules(options: argparse.Namespace) -> LabelRules:
    """Label options of a command."""
    certainty = CERTAINTY if options.certainty is None else dict(options.certainty)
    return LabelRules(options.landslide_values, options.ignore_values, options.all_touched, certainty, options.boundary_ignore_m)


def _positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {value}")
    return value


def _positive_or_zero(text: str) -> int:
    """A whole number, not below 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be below 0, as {value} is")
    return value


def _metres(text: str) -> float:
    """A length above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _synthesize(options: argparse.Namespace) -> int:
    """Make synthetic scenes."""
    from datamodules.synthetic import synthesize  # noqa: PLC0415 - scipy and rasterio, which the other commands do not all need

    out: Path = options.out
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UserError("exists and is not empty", "choose another folder or remove it", file=out, field="OUT", exit_code=2)
    synthesize(out, scenes=options.scenes, seed=options.seed, size=options.size)
    print(f"{options.scenes} scenes in {out}; look at them with `zoo-data describe {out}`")
    return 0


def _describe(options: argparse.Namespace) -> int:
    """Print the description of a data set."""
    from datamodules.describing import describe  # noqa: PLC0415 - rasterio, rich

    describe(options.root, tile_size=options.tile_size, by_scene=options.by_scene, regrid=options.regrid, rules=_rules(options))
    return 0


def _index(options: argparse.Namespace) -> int:
    """Write the manifest of a folder."""
    from datamodules.importers import ImportOptions, import_folder  # noqa: PLC0415 - as the others

    folder: Path = options.folder
    if not folder.is_dir():
        raise UserError("is no folder", "give the folder that holds the data set", field="FOLDER", value=str(folder))
    chosen = ImportOptions(options.split, options.resolution_m, options.terrain_bands)
    importer, manifest, imported = import_folder(folder, options.layout, options.out, chosen)
    print(f"{len(imported.scenes)} scenes in {manifest} (layout {importer.name})")
    for note in imported.notes:
        print(f"note: {note}")
    return 0


def _split(options: argparse.Namespace) -> int:
    """Write manifests of folds."""
    from datamodules.splits import split_scenes  # noqa: PLC0415 - scipy, shapely and rasterio

    summary = split_scenes(
        options.root,
        options.out,
        by=options.by,
        column=options.column,
        block_m=options.block_m,
        buffer_m=options.buffer_m,
        folds=options.folds,
        seed=options.seed,
        copies_together=options.copies_together,
        regrid=options.regrid,
        rules=_rules(options),
    )
    for entry in summary:
        parts = (
            f"{role} {entry[role]['labelled']:,} px, {entry[role]['landslide']:,} landslide in {entry[role]['landslides']:,}"
            for role in ("train", "val", "test")
        )
        ignored = f"; {entry['landslides_ignored']} of {entry['landslides']} landslides ignored" if "landslides" in entry else ""
        print(f"fold {entry['fold']}: {'; '.join(parts)}{ignored}")
        for role in ("val", "test"):
            if entry[role]["largest"] > LARGEST_SHARE * entry[role]["landslide"]:
                share = entry[role]["largest"] / entry[role]["landslide"]
                print(f"  note: one landslide holds {share:.0%} of the landslide pixels of {role}, so scores there are mostly its own")
    print(f"{len(summary)} manifests in {options.out}/foldN/scenes.csv")
    return 0


def _align(options: argparse.Namespace) -> int:
    """Make the aligned layers of a data set."""
    from datamodules.aligned_cache import AlignedCache  # noqa: PLC0415 - rasterio, rich
    from datamodules.overrides import regridded  # noqa: PLC0415 - as the others
    from datamodules.scene import read_scenes  # noqa: PLC0415 - as the others

    cache = AlignedCache(
        options.cache_dir,
        options.root,
        margin=options.halo,
        dem_resampling=options.dem_resampling,
        rules=_rules(options),
        untiled=options.untiled,
    )
    layers = cache.layers(regridded(read_scenes(options.root), options.regrid))
    made = cache.build(layers, options.processes)
    files = {layer.path for layer in layers}
    if not files:
        print(
            "nothing to keep: every layer lies on the image grid" + ("" if options.untiled else "; --untiled keeps those that read slowly")
        )
        return 0
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(f"{len(files)} aligned layers in {options.cache_dir} ({megabytes:,.1f} MB), {made} of them new; train with --data.cache_dir")
    return 0


def _preview(options: argparse.Namespace) -> int:
    """Draw a data set."""
    from datamodules.preview import preview  # noqa: PLC0415 - torch, OpenCV and rasterio

    files = preview(
        options.root,
        options.out,
        windows=options.windows,
        splits=options.split,
        tile_size=options.tile_size,
        bands=options.bands,
        seed=options.seed,
        regrid=options.regrid,
        rules=_rules(options),
    )
    print(f"wrote {', '.join(file.name for file in files)} to {options.out}")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Audit a data set."""
    from datamodules.audit import audit  # noqa: PLC0415 - OpenCV, scipy, shapely and rasterio
    from datamodules.findings import print_report  # noqa: PLC0415 - as the others
    from datamodules.overrides import regridded  # noqa: PLC0415 - as the others
    from datamodules.scene import read_scenes  # noqa: PLC0415 - as the others

    rules = _rules(options)
    if options.full:
        from datamodules.inspection import inspect  # noqa: PLC0415 - as the others

        scenes, found = inspect(options.root, regrid=options.regrid, rules=rules)
    else:
        scenes, found = regridded(read_scenes(options.root), options.regrid), []
    report = audit(scenes, near_m=options.near_m, rules=rules)
    report.findings[:0] = found
    print_report(report)
    return 0 if report.passed else 1
