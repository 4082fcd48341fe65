"""The figure of a comparison: seeds and intervals of both rows on one axis, their difference on another. SVG, without a library."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from benchmarks.report.comparing import TITLES, Comparison, Side, verdict

WIDTH: Final = 720
LEFT, RIGHT = 24, 696
STYLE: Final = """\
text { font: 14px system-ui, sans-serif; fill: #1f2328; } .small { font-size: 12px; fill: #57606a; } .paper { fill: #ffffff; }
.axis { stroke: #57606a; stroke-width: 1; } .grid { stroke: #d0d7de; stroke-width: 1; } .zero { stroke: #1f2328; stroke-dasharray: 4 3; }
.a { stroke: #0550ae; fill: #0550ae; } .b { stroke: #953800; fill: #953800; } .d { stroke: #1f2328; fill: #1f2328; }
.wide { stroke-width: 2; } .narrow { stroke-width: 7; stroke-opacity: 0.45; } .seed { stroke-width: 1.5; fill-opacity: 0.35; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .small { fill: #9198a1; } .paper { fill: #0d1117; } .axis { stroke: #9198a1; } .grid { stroke: #30363d; }
.zero { stroke: #e6edf3; } .a { stroke: #79c0ff; fill: #79c0ff; } .b { stroke: #ffa657; fill: #ffa657; } .d { stroke: #e6edf3; fill: #e6edf3; }
}"""
"""Blue and orange, which colour-blind readers tell apart; the two rows also differ by place and by the shape of their seeds."""


def comparison_svg(found: Comparison) -> str:
    """One self-contained SVG, legible on light and dark pages, with its meaning as text for those who do not see it."""
    sides, difference = (found.first, found.second), found.difference
    score = TITLES[found.metric]
    ends = [*found.first.scores, *found.second.scores]
    for side in sides:
        ends += [end for end in (*side.blocks, *side.methods) if not math.isnan(end)]
    low, high = max(min(ends), 0.0), min(max(ends), 1.0)
    place, ticks = _scale(low, high)
    parts = [_text(LEFT, 28, f"{score} of the landslide class")]
    parts += _axis(place, ticks, 40, 150, "{:.2f}")
    for index, side in enumerate(sides):
        parts += _side(side, place, y=78 + 50 * index, mark="ab"[index])
    blocks, methods = difference.blocks.interval(method="bca"), found.method_interval
    around = [end for end in (*blocks, *methods, difference.blocks.value, 0.0) if not math.isnan(end)]
    place, ticks = _scale(min(around), max(around))
    parts.append(_text(LEFT, 212, f"A − B, in {score}"))
    parts += _axis(place, ticks, 224, 274, "{:+.2f}")
    parts.append(f'<line class="zero" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="224" y2="274"/>')
    parts += _interval(blocks, methods, place, 250, "d")
    parts.append(_mean(place(difference.blocks.value), 250, "d"))
    places = "folds" if difference.folds is not None else "blocks"
    legend = f"Mark: mean. Small dots and squares: one seed each. Thick bar: 95 % over blocks. Thin line: 95 % over {places} and seeds."
    parts.append(_text(LEFT, 322, legend, "small"))
    title = f"{found.first.name} and {found.second.name}: {score}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 340" width="{WIDTH}" role="img" aria-labelledby="title description">'
    )
    said = f'<title id="title">{escape(title)}</title>\n<desc id="description">{escape(verdict(found))}</desc>'
    return "\n".join([head, said, f"<style>{STYLE}</style>", '<rect class="paper" width="100%" height="100%"/>', *parts, "</svg>"]) + "\n"


def _scale(low: float, high: float) -> tuple[Callable[[float], float], list[float]]:
    """From scores to pixels, and round places for ticks: 1, 2 or 5 times a power of ten apart."""
    extent = max(high - low, 0.02)
    low, high = low - 0.06 * extent, low + 1.06 * extent
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = max(0.01, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw))
    ticks = [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return lambda value: LEFT + (min(max(value, low), high) - low) / (high - low) * (RIGHT - LEFT), ticks


def _axis(place: Callable[[float], float], ticks: Sequence[float], top: int, bottom: int, form: str) -> list[str]:
    parts = [f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for tick in ticks:
        x = f"{place(tick):.1f}"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>')
        parts.append(_text(place(tick), bottom + 16, form.format(tick + 0.0).replace("-", "−"), "small", middle=True))
    return parts


def _side(side: Side, place: Callable[[float], float], *, y: int, mark: str) -> list[str]:
    parts = [_text(LEFT, y - 16, f"{mark.upper()}: {side.name}"), *_interval(side.blocks, side.methods, place, y, mark)]
    for seed, score in zip(side.seeds, side.scores, strict=True):
        x, told = place(score), f"<title>seed {escape(seed)}: {score:.3f}</title>"
        shape = f'<circle class="seed {mark}" cx="{x:.1f}" cy="{y}" r="5">' if mark == "a" else _square(x, y, mark)
        parts.append(f"{shape}{told}</{'circle' if mark == 'a' else 'rect'}>")
    parts.append(_mean(place(sum(side.scores) / len(side.scores)), y, mark))
    return parts


def _square(x: float, y: int, mark: str) -> str:
    return f'<rect class="seed {mark}" x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9">'


def _interval(blocks: tuple[float, float], methods: tuple[float, float], place: Callable[[float], float], y: int, mark: str) -> list[str]:
    lines = [(interval, kind) for interval, kind in ((blocks, "narrow"), (methods, "wide")) if not any(map(math.isnan, interval))]
    return [f'<line class="{kind} {mark}" x1="{place(a):.1f}" x2="{place(b):.1f}" y1="{y}" y2="{y}"/>' for (a, b), kind in lines]


def _mean(x: float, y: int, mark: str) -> str:
    return f'<line class="wide {mark}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 11}" y2="{y + 11}"/>'


def _text(x: float, y: float, content: str, kind: str = "", *, middle: bool = False) -> str:
    anchor = ' text-anchor="middle"' if middle else ""
    return f'<text x="{x:.1f}" y="{y}"{anchor} class="{kind}">{escape(content)}</text>'
