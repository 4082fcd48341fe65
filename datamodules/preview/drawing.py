"""What both pictures share: colours, scale bars, and a figure as PNG bytes that depend on nothing but what is drawn."""

import io
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which people with any kind of colour blindness tell apart; hatch and letter say the same without colour.
SPLIT_COLOURS: Final = {"train": "#0072b2", "val": "#e69f00", "test": "#cc79a7", "predict": "#999999"}
SPLIT_HATCHES: Final = {"train": "///", "val": "...", "test": "xxx", "predict": "---"}
SPLIT_LETTERS: Final = {"train": "T", "val": "V", "test": "E", "predict": "P"}


def new_figure(width: float, height: float) -> "Figure":
    """An empty white figure of 100 dots an inch; width and height in inches."""
    # Imported here: nobody who only trains needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - see above
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png(figure: "Figure") -> bytes:
    """The figure as PNG, without the name and version of the program in it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def round_length(limit_m: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most `limit_m`."""
    power = 10.0 ** math.floor(math.log10(limit_m))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= limit_m * (1 + 1e-9))


def length_text(length_m: float) -> str:
    """A length in words: `200 m`, `5 km`."""
    return f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"


def scale_bar(axes: "Axes", width_m: float) -> float:
    """Draw a bar of a round length, at most a third of the axes, in their lower left corner.

    Args:
        axes: Where to draw.
        width_m: Metres from the left to the right of the axes.

    Returns:
        Its length in metres.
    """
    length = round_length(width_m / 3)
    share = length / width_m
    for colour, line in (("black", 5.0), ("white", 2.5)):
        axes.plot([0.04, 0.04 + share], [0.045, 0.045], color=colour, linewidth=line, solid_capstyle="butt", transform=axes.transAxes)
    box = {"facecolor": "black", "alpha": 0.55, "pad": 1.5, "edgecolor": "none"}
    axes.text(0.04, 0.075, length_text(length), color="white", fontsize=7, bbox=box, transform=axes.transAxes, va="bottom")
    return length
