"""Values of a label mask; a file of its own, so that planning a benchmark needs no torch."""

from typing import Final

BACKGROUND: Final = 0
LANDSLIDE: Final = 1
IGNORE: Final = 255
"""Of pixels that count for nothing: no data, outside the scene, uncertain, or counted by a neighbouring window."""
