"""What the bootstrap of a report draws, as a suite says it."""

import re
from dataclasses import dataclass

from datamodules.errors import UserError


@dataclass(frozen=True)
class Blocks:
    """What a unit is: `side` x `side` neighbouring windows of one scene, counted from its upper left corner.

    Of ready-made tiles, which are one window each, that is the tile. Where their names hold their place in a grid, `scenes` tells it: a
    regular expression with the groups `row` and `column` (whole numbers), and a unit is `side` x `side` neighbouring tiles.
    """

    side: int = 4
    scenes: str | None = None

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UserError("must be at least 1", field="blocks.side", value=self.side, exit_code=2)
        if self.scenes is not None:
            try:
                groups = re.compile(self.scenes).groupindex.keys()
            except re.error as error:
                raise UserError(f"no regular expression ({error})", field="blocks.scenes", value=self.scenes, exit_code=2) from None
            if not {"row", "column"} <= groups:
                remedy = r"name the two numbers, as in (?P<row>\d+)_(?P<column>\d+)"
                raise UserError("must have the groups row and column", remedy, field="blocks.scenes", value=self.scenes, exit_code=2)

    def describe(self) -> str:
        """In words, for a report."""
        if self.scenes is not None:
            return f"blocks of {self.side} x {self.side} neighbouring tiles"
        return f"blocks of {self.side} x {self.side} windows of a scene"
