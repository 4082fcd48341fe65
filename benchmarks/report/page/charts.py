"""Charts as SVG text: axes, lines, dots and bars in the colours of the page. What a mark means stands in its `data-told`."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

NUM_COLOURS: Final = 8
"""Series beyond repeat a colour with another dash; see `style.css`."""
_WIDTH, _HEIGHT = 520, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 508, 12, 314


@dataclass
class Plot:
    """One chart.

    Args:
        title: For those who do not see it, and for the reader of a printed page.
        x_label: Below the axis.
        y_label: Beside the axis.
        x_range: Ends of the axis.
        y_range: Ends of the axis.
        log_x: Logarithmic x axis.
        categories: Names of the places 0, 1, ... along x, instead of numbers.
    """

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    log_x: bool = False
    categories: Sequence[str] = ()
    _parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self.x_range
        if self.log_x:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)

    def y(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self.y_range
        return _BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP)

    def line(self, series: int, points: Iterable[tuple[float, float]], *, told: Sequence[str] = ()) -> None:
        """A line through points; each point with words about it can be hovered."""
        known = [(self.x(x), self.y(y)) for x, y in points]
        if not known:
            return
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in known)
        self._parts.append(f'<path {_of(series)} d="{path}"/>')
        self._parts += [
            f'<circle class="hover" {_told(series, words)} cx="{x:.1f}" cy="{y:.1f}" r="7"/>'
            for (x, y), words in zip(known, told, strict=False)
        ]

    def dot(self, series: int, x: float, y: float, told: str, *, spread: float = 0.0) -> None:
        """A dot, with a bar of `spread` to either side along y."""
        at = f"{self.x(x):.1f}"
        if spread > 0:
            self._parts.append(f'<line {_of(series)} x1="{at}" x2="{at}" y1="{self.y(y - spread):.1f}" y2="{self.y(y + spread):.1f}"/>')
        self._parts.append(f'<circle class="dot c{series % NUM_COLOURS}" {_told(series, told)} cx="{at}" cy="{self.y(y):.1f}" r="5"/>')

    def diagonal(self) -> None:
        """Where y equals x."""
        low, high = self.x_range
        self._parts.insert(
            0, f'<line class="rule" x1="{self.x(low):.1f}" y1="{self.y(low):.1f}" x2="{self.x(high):.1f}" y2="{self.y(high):.1f}"/>'
        )

    def svg(self) -> str:
        """The chart."""
        lines = [f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" tabindex="0" aria-label="{escape(self.title)}">']
        places = [(float(index), name) for index, name in enumerate(self.categories)] or [
            (tick, number(tick)) for tick in (log_ticks(*self.x_range) if self.log_x else ticks(*self.x_range))
        ]
        for tick, name in places:
            at = f"{self.x(tick):.1f}"
            lines.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_BOTTOM}"/>')
            lines.append(f'<text x="{at}" y="{_BOTTOM + 17}" text-anchor="middle">{escape(name)}</text>')
        for tick in ticks(*self.y_range):
            at = f"{self.y(tick):.1f}"
            lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{at}" y2="{at}"/>')
            lines.append(f'<text x="{_LEFT - 8}" y="{at}" dy="4" text-anchor="end">{number(tick)}</text>')
        middle = (_TOP + _BOTTOM) / 2
        lines.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(self.x_label)}</text>')
        lines.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(self.y_label)}</text>')
        return "\n".join([*lines, *self._parts, "</svg>"])


@dataclass(frozen=True)
class Strip:
    """Values on one line, to stand in a cell of a table: an interval as a bar, seeds as dots, the mean as a stroke.

    Args:
        low, high: Ends of the axis, the same for all strips of a column.
        zero: Draw a rule at 0.
    """

    low: float
    high: float
    zero: bool = False

    def svg(self, series: int, mean: float, dots: Sequence[float] = (), interval: tuple[float, float] = (math.nan, math.nan)) -> str:
        """One strip; its words are in the cells beside it."""
        parts = [
            f'<svg class="strip" viewBox="0 0 160 24" aria-hidden="true" {_of(series, kind="row")}>',
            '<line class="grid" x1="0" x2="160" y1="12" y2="12"/>',
        ]
        if self.zero:
            parts.append(f'<line class="rule" x1="{self._x(0):.1f}" x2="{self._x(0):.1f}" y1="0" y2="24"/>')
        if not any(math.isnan(end) for end in interval):
            first, last = (self._x(end) for end in interval)
            parts.append(f'<rect class="bar c{series % NUM_COLOURS}" x="{first:.1f}" y="8" width="{max(last - first, 1):.1f}" height="8"/>')
        parts += [
            f'<circle class="dot c{series % NUM_COLOURS}" cx="{self._x(value):.1f}" cy="12" r="3.5"/>'
            for value in dots
            if not math.isnan(value)
        ]
        if not math.isnan(mean):
            parts.append(f'<line class="mean" x1="{self._x(mean):.1f}" x2="{self._x(mean):.1f}" y1="3" y2="21"/>')
        return "".join([*parts, "</svg>"])

    def _x(self, value: float) -> float:
        return 4 + (min(max(value, self.low), self.high) - self.low) / (self.high - self.low) * 152


def _of(series: int, kind: str = "series") -> str:
    dash = f" d{series // NUM_COLOURS}" if series >= NUM_COLOURS else ""
    return f'data-row="{series}"' if kind == "row" else f'class="series c{series % NUM_COLOURS}{dash}" data-row="{series}"'


def _told(series: int, words: str) -> str:
    return f'data-row="{series}" data-told="{escape(words)}" tabindex="-1"'


def number(value: float) -> str:
    """A tick in as few digits as it has."""
    return f"{value:,.6g}".replace("-", "−")


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, 1, 2 or 5 times a power of ten apart, about six."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from low to high."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
