"""A run with a `grid:` -> one run a combination, with names that say what differs."""

import copy
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from datamodules.errors import UserError

ELSEWHERE: Final = ("data", "budget")
"""First parts of a place that lie beside the hyperparameters of a run; all other places are among them."""


def expand(runs: Sequence[Any]) -> list[Any]:
    """Replace each run that holds a grid by the Cartesian product of its values; the last place varies fastest.

    Args:
        runs: As the YAML states them. `grid` maps dotted places (`contrast.contrast_weight`, `budget.max_steps`) to lists of values.

    Raises:
        UserError: The grid is no mapping of places to lists, a value is given twice, or a place lies below one that is no mapping.

    Example:
        >>> [run["name"] for run in expand([{"name": "a", "grid": {"optim.lr": [0.1, 0.2], "loss.dice_weight": [0]}}])]
        ['a, lr=0.1, dice_weight=0', 'a, lr=0.2, dice_weight=0']
    """
    return [row for index, run in enumerate(runs) for row in _rows(run, f"runs[{index}]")]


def _rows(run: Any, where: str) -> list[Any]:  # noqa: ANN401 - whatever the YAML holds
    if not isinstance(run, Mapping) or not run.get("grid"):
        return [run]
    grid = run["grid"]
    if not isinstance(grid, Mapping):
        raise UserError("must map places to lists of values", field=f"{where}.grid", value=grid, exit_code=2)
    for place, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError("must be a list of values", "write `[0.05, 0.1]`", field=f"{where}.grid.{place}", value=values, exit_code=2)
        for value in values:
            if values.count(value) > 1:
                raise UserError("is given twice", "remove one of them", field=f"{where}.grid.{place}", value=value, exit_code=2)
    last = Counter(str(place).rpartition(".")[2] for place in grid)
    labels = {place: tail if last[tail := str(place).rpartition(".")[2]] == 1 else str(place) for place in grid}
    rows = []
    for values in itertools.product(*grid.values()):
        row = {name: copy.deepcopy(value) for name, value in run.items() if name != "grid"}
        for place, value in zip(grid, values, strict=True):
            _put(row, str(place), value, where)
        said = (f"{labels[place]}={_text(value)}" for place, value in zip(grid, values, strict=True))
        row["name"] = ", ".join([str(run.get("name", "")), *said])
        rows.append(row)
    return rows


def _put(row: dict[str, Any], place: str, value: Any, where: str) -> None:  # noqa: ANN401 - as above
    parts = place.split(".")
    at = row
    for part in parts[:-1] if parts[0] in ELSEWHERE else ["hyperparameters", *parts[:-1]]:
        at = at.setdefault(part, {})
        if not isinstance(at, dict):
            raise UserError(f"lies below {part}, which is no mapping", field=f"{where}.grid.{place}", exit_code=2)
    at[parts[-1]] = copy.deepcopy(value)


def _text(value: Any) -> str:  # noqa: ANN401 - as above
    """A value as a reader of YAML would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "+".join(map(_text, value)) if isinstance(value, list) else str(value)
