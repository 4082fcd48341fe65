"""What the values of a label mean: codes of rasters, certainties of polygons, and what a data set or a scene states about them.

Inventories record how certain a mapped landslide is. A certainty becomes a loss weight in (0, 1] or `ignore`. The default keeps
certain and probable landslides at full weight and ignores possible ones: as background they would be learned as what they may not be.
Which weights are best is not known to us; the default is a judgement, to be stated with results.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.errors import UserError

Weight = float | Literal["ignore"]
CERTAINTY: Final[Mapping[str, Weight]] = MappingProxyType({"certain": 1.0, "probable": 1.0, "possible": "ignore"})
MAX_GRADES: Final = 200


@dataclass(frozen=True)
class LabelColumns:
    """Columns of scenes.csv that say how to read the label of one scene; empty = as the data set says, or the default.

    Args:
        landslide_values: Values of a raster that are landslide, such as `255`, `1;2`, or with certainties `1=certain;2=possible`.
        ignore_values: Values of a raster that count for nothing, such as `3;255`.
        label_layer: Layer of a vector file that has several.
        certainty_field: Attribute of polygons that holds their certainty.
    """

    landslide_values: str = ""
    ignore_values: str = ""
    label_layer: str = ""
    certainty_field: str = ""


@dataclass(frozen=True)
class LabelRules:
    """How labels of a data set are read; what scenes.csv says of one scene comes first.

    Args:
        landslide_values, ignore_values: As in `LabelColumns`; null = 1 and 255.
        all_touched: Draw polygons on every pixel that they touch; else on those whose centre lies inside.
        certainty: Loss weight in (0, 1], or `ignore`, of each certainty; case does not matter. Where polygons overlap, the larger
            weight wins, and of equal ones the first named.
        boundary_ignore_m: Metres; pixels with a pixel of the other class within this distance, between centres, are ignored.

    Raises:
        UserError: A value that cannot be meant.
    """

    landslide_values: str | int | None = None
    ignore_values: str | int | None = None
    all_touched: bool = False
    certainty: Mapping[str, Weight] = field(default_factory=lambda: dict(CERTAINTY))
    boundary_ignore_m: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.boundary_ignore_m < math.inf:
            raise UserError(
                "is no distance", "give metres, 0 for none", field="data.boundary_ignore_m", value=self.boundary_ignore_m, exit_code=2
            )
        names = [key.strip().casefold() for key in self.certainty]
        for name, weight in zip(names, self.certainty.values(), strict=True):
            if weight != "ignore" and not (isinstance(weight, int | float) and 0 < weight <= 1):
                raise UserError(
                    f"gives {name!r} the weight {weight!r}", "give a number in (0, 1] or ignore", field="data.certainty", exit_code=2
                )
            if ";" in name:
                raise UserError(
                    f"names {name!r} with a ';'", "rename it; ';' separates values of rasters", field="data.certainty", exit_code=2
                )
            if names.count(name) > 1:
                raise UserError(f"names {name!r} twice", "case does not matter; keep one", field="data.certainty", exit_code=2)
        object.__setattr__(self, "certainty", dict(zip(names, self.certainty.values(), strict=True)))
        raster_codes(LabelColumns(), self, None)

    def weight_of(self, certainty: str) -> float:
        """Loss weight of landslides of a certainty, 0 where they are ignored; of "", where nothing is stated, 1 unless the map says other."""
        weight: Weight = self.certainty.get(certainty, 1.0) if not certainty else self.certainty[certainty]
        return 0.0 if weight == "ignore" else float(weight)

    def ordered(self, found: Mapping[str, int], source: str | None, file: str | os.PathLike[str]) -> tuple[str, ...]:
        """Certainties from the one that wins an overlap to the one that loses every overlap.

        Args:
            found: Certainties, in lower case, and how often each occurs.
            source: Attribute that must hold one for each landslide; None where they may be unstated.
            file: Its file.

        Raises:
            UserError: One that the map does not name.
        """
        unknown = [name for name in found if name not in self.certainty and (name or source is not None)]
        if unknown:
            listed = ", ".join(f"{name or '(empty)'} ({number})" for name, number in sorted(found.items()))
            raise UserError(
                f"holds the certainties {listed}, of which {', '.join(repr(name) for name in sorted(unknown))} has no weight",
                "give each a number in (0, 1] or ignore, as in data.certainty: {certain: 1, possible: ignore}",
                file=file,
                field="certainty_field" if source else "landslide_values",
                value=source,
            )
        rank = {name: place for place, name in enumerate(self.certainty)}
        return tuple(sorted(found, key=lambda name: (-self.weight_of(name), rank.get(name, -1), name)))


@dataclass(frozen=True)
class RasterCodes:
    """Meaning of the values of a label raster.

    Args:
        landslide: Value -> certainty, "" where none is stated.
        ignore: Values that count for nothing.
        states_ignore: Whether somebody said so; else 255 is a convention.
    """

    landslide: dict[float, str]
    ignore: frozenset[float]
    states_ignore: bool


def raster_codes(columns: LabelColumns, rules: LabelRules, manifest: object) -> RasterCodes:
    """Codes of one label raster: of its row in scenes.csv, else of the data set, else 1 and 255.

    Args:
        columns: Of the scene.
        rules: Of the data set.
        manifest: File to name where a column is wrong.

    Raises:
        UserError: No number, 0, a value that is both, or a certainty without a weight.
    """
    listed = _values("landslide_values", columns.landslide_values, rules.landslide_values, manifest)
    landslide = listed if listed is not None else {float(LANDSLIDE): ""}
    ignored = _values("ignore_values", columns.ignore_values, rules.ignore_values, manifest)
    ignore = frozenset(ignored) if ignored is not None else frozenset({float(IGNORE)}) - landslide.keys()
    both = sorted(ignore & landslide.keys())
    if both:
        raise UserError(
            f"{both[0]:g} is landslide too",
            "list each value once",
            file=_file(manifest),
            field="ignore_values",
            exit_code=2 if manifest is None else 1,
        )
    if len(set(landslide.values())) > MAX_GRADES:
        raise UserError(f"names more than {MAX_GRADES} certainties", "name fewer", file=_file(manifest), field="landslide_values")
    return RasterCodes(landslide, ignore, ignored is not None)


def _values(name: str, column: str, option: str | int | None, manifest: object) -> dict[float, str] | None:
    """Values of `1;2` or `1=certain;2=possible`, with certainties in lower case; None where nothing is stated."""
    stated = column or ("" if option is None else str(option))
    if not stated.strip():
        return None
    where = _file(manifest) if column else None
    values: dict[float, str] = {}
    for part in stated.split(";"):
        number, _, certainty = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        wrong = not math.isfinite(value) or value == BACKGROUND or value in values or (certainty and name == "ignore_values")
        if wrong:
            raise UserError(
                f"{part.strip()!r} is no value to list here",
                "list numbers other than 0, which is background, once each and separated by ';', as 1;2",
                file=where,
                field=name if column else f"data.{name}",
                value=stated,
                exit_code=1 if column else 2,
            )
        values[value] = certainty.strip().casefold()
    return values


def _file(manifest: object) -> str | None:
    return None if manifest is None else str(manifest)


NO_COLUMNS: Final = LabelColumns()
DEFAULT_RULES: Final = LabelRules()
