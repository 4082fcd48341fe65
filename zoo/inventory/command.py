"""`zoo inventory`, and the same options for `zoo map --inventory`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from datamodules.errors import UserError
from datamodules.overrides import METRES_PER_UNIT, Overrides
from zoo.inventory.inventory import InventoryOptions, write_inventory

DESCRIPTION: Final = """\
Make an inventory of a map: landslides as polygons with areas, probabilities, terrain, crown and toe.

Writes a GeoPackage in the coordinate system of the map (layers landslides, crowns, toes), beside it GeoJSON in WGS 84 where the map has a place
on the Earth, and a QGIS style. A landslide is an 8-connected component of the class landslide. Areas and lengths are geodesic. With
--reference also the layers matched, missed and false."""

EPILOG: Final = """\
examples:
  zoo inventory prob.tif --dem dem.tif --out slides.gpkg --min-area-m2 500 --simplify-m 5
  zoo inventory prob.tif --out slides.gpkg --threshold 0.7 --reference known.gpkg --match coverage0.5"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message, "see `zoo inventory --help`", exit_code=2)


def inventory_command(arguments: Sequence[str]) -> int:
    """Run `zoo inventory`.

    Args:
        arguments: The options.

    Returns:
        Exit code.

    Raises:
        UserError: An input that cannot be used.
    """
    parser = _Parser(prog="zoo inventory", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map", type=Path, metavar="PROB.tif", help="map of `zoo map`, or any raster of probabilities from 0 to 1")
    parser.add_argument("--out", type=Path, required=True, metavar="GPKG", help="the GeoPackage")
    parser.add_argument("--dem", type=Path, metavar="TIF", help="elevation model, on any grid")
    parser.add_argument("--dem-nodata", type=float, default=None, metavar="VALUE", help="marks no elevation, whatever the model says")
    parser.add_argument("--dem-unit", default=None, choices=tuple(METRES_PER_UNIT), help="of elevations, whatever the model says")
    parser.add_argument("--threshold", type=float, default=None, help="probability of a landslide pixel (default: the map's)")
    add_inventory_options(parser)
    given = parser.parse_args(list(arguments))
    options = inventory_options(given, given.threshold)
    overrides = Overrides(dem_nodata=given.dem_nodata, dem_unit=given.dem_unit)
    write_inventory(given.map, given.out, given.dem, options=options, overrides=overrides)
    return 0


def add_inventory_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add what decides an inventory to a command."""
    default = InventoryOptions()
    parser.add_argument("--min-area-m2", type=float, default=default.min_area_m2, metavar="A", help="leave out smaller landslides")
    parser.add_argument(
        "--simplify-m",
        type=float,
        default=default.simplify_m,
        metavar="S",
        help="leave out vertices that change an area by less than S x S m2",
    )
    parser.add_argument("--reference", type=Path, metavar="FILE", help="known landslides (GeoPackage, Shapefile, GeoJSON) to compare with")
    parser.add_argument("--reference-layer", default=default.reference_layer, metavar="NAME", help="layer of that file, if it has several")
    parser.add_argument(
        "--match", default=default.match, metavar="RULE", help="iou0.5, coverage0.5 or another share (default: %(default)s)"
    )
    parser.add_argument(
        "--geojson", action=argparse.BooleanOptionalAction, default=default.geojson, help="also write GeoJSON (default: if on the Earth)"
    )


def inventory_options(given: argparse.Namespace, threshold: float | None) -> InventoryOptions:
    """The options as they were given.

    Args:
        given: With what `add_inventory_options` adds.
        threshold: Instead of the map's.
    """
    options = InventoryOptions(
        threshold=threshold,
        min_area_m2=given.min_area_m2,
        simplify_m=given.simplify_m,
        reference=given.reference,
        reference_layer=given.reference_layer,
        match=given.match,
        geojson=given.geojson,
    )
    options.check()
    return options
