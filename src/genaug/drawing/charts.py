"""Two charts as SVG text: lines with intervals over a swept key, and cost against gain.

Colours come from the page's CSS (classes ``s0`` … ``s7``), so one drawing serves light, dark and print; every series also
has its own marker, and every point a ``<title>`` that says its number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from genaug.core.names import safe_name

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 12, 14, 46
NUM_STYLES = 8
COLOURS = ("#4b5563", "#0b6bcb", "#c2410c", "#15803d", "#8b2fc9", "#a16207", "#be185d", "#0e7490")
"""Of a chart outside a page."""
MARKERS = ("circle", "square", "diamond", "triangle")


@dataclass(kw_only=True, slots=True)
class Point:
    """One mean with its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    title: str = ""


@dataclass(kw_only=True, slots=True)
class Series:
    name: str
    points: list[Point]
    published: list[Point] = field(default_factory=list)
    """Drawn hollow, without a line."""


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from at most ``low`` to at least ``high``."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Lines over a numeric axis; logarithmic where the values span more than a factor of four."""
    points = [point for s in series for point in (*s.points, *s.published)]
    xs = sorted({point.x for point in points})
    logarithmic = xs[0] > 0 and xs[-1] / xs[0] > 4

    def place_x(x: float) -> float:
        if len(xs) == 1:
            return (LEFT + WIDTH - RIGHT) / 2
        to = math.log if logarithmic else float
        share = (to(x) - to(xs[0])) / (to(xs[-1]) - to(xs[0]))
        return LEFT + 14 + share * (WIDTH - LEFT - RIGHT - 28)

    bounds = [value for p in points for value in (p.y, p.low, p.high) if value is not None]
    y_ticks = ticks(min(bounds), max(bounds))
    parts = _frame(y_ticks, x_label, y_label)
    for x in xs:
        parts.append(_text(place_x(x), HEIGHT - BOTTOM + 18, f"{x:g}", "middle"))
    for index, s in enumerate(series):
        ordered = sorted(s.points, key=lambda p: p.x)
        shift = (index - (len(series) - 1) / 2) * 4  # so that intervals at one x do not hide each other
        path = " ".join(
            f"{'M' if i == 0 else 'L'}{place_x(p.x) + shift:.1f},{_y(p.y, y_ticks):.1f}" for i, p in enumerate(ordered)
        )
        parts.append(f'<g class="s{index % NUM_STYLES}"><path class="line" d="{path}"/>')
        parts += [_point(place_x(p.x) + shift, p, y_ticks, index, hollow=False) for p in ordered]
        parts += [_point(place_x(p.x) + shift, p, y_ticks, index, hollow=True) for p in s.published]
        parts.append("</g>")
    return _svg(parts, f"{y_label} over {x_label}")


def scatter_chart(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """One point per series at its cost (logarithmic from 1) and its gain, with a line at no gain."""
    points = [point for s in series for point in s.points]
    top = max(1.0, *(math.log10(max(point.x, 1)) for point in points))
    marks = range(math.ceil(top) + 1)

    def place_x(x: float) -> float:
        return LEFT + 14 + math.log10(max(x, 1)) / marks[-1] * (WIDTH - LEFT - RIGHT - 28)

    bounds = [value for p in points for value in (p.y, p.low, p.high) if value is not None]
    y_ticks = ticks(min(0.0, *bounds), max(0.0, *bounds))
    parts = _frame(y_ticks, x_label, y_label)
    for mark in marks:
        label = f"{10**mark:,}" if mark < 4 else f"1e{mark}"
        parts.append(_text(place_x(10**mark), HEIGHT - BOTTOM + 18, label, "middle"))
    zero = _y(0.0, y_ticks)
    parts.append(f'<line class="zero" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    for index, s in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * 4
        drawn = "".join(_point(place_x(p.x) + shift, p, y_ticks, index, hollow=False) for p in s.points)
        parts.append(f'<g class="s{index % NUM_STYLES}">{drawn}</g>')
    return _svg(parts, f"{y_label} against {x_label}")


def standalone(svg: str, names: Sequence[str]) -> str:
    """A chart as a file of its own: the colours and the legend that a page would give it."""
    height, line = HEIGHT + 8 + 18 * len(names), "stroke: var(--c)"
    colours = " ".join(f".s{i % NUM_STYLES} {{ --c: {colour}; }}" for i, colour in enumerate(COLOURS))
    style = (
        "text { font: 13px system-ui, sans-serif; fill: #333; } .grid { stroke: #ddd; } .zero { stroke: #888; } "
        f".line {{ fill: none; {line}; stroke-width: 2; }} .bar {{ fill: none; {line}; }} .dot {{ fill: var(--c); }} "
        f".hollow {{ fill: #fff; {line}; }} {colours}"
    )
    legend = "".join(
        f'<g class="s{i % NUM_STYLES}">{_shape(LEFT, HEIGHT + 14 + 18 * i, i, hollow=False)}</g>'
        + _text(LEFT + 14, HEIGHT + 18 + 18 * i, name, "start")
        for i, name in enumerate(names)
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    body = svg.partition(">")[2].removesuffix("</svg>")
    return f'{head}><rect width="100%" height="100%" fill="#fff"/><style>{style}</style>{body}{legend}</svg>\n'


def legend_mark(index: int) -> str:
    """The marker of a series, for a legend."""
    shape = _shape(8, 8, index, hollow=False)
    return f'<svg class="key" viewBox="0 0 16 16" aria-hidden="true"><g class="s{index % NUM_STYLES}">{shape}</g></svg>'


def _y(value: float, y_ticks: Sequence[float]) -> float:
    share = (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _frame(y_ticks: Sequence[float], x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = _y(tick, y_ticks)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:g}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 13 {middle:.1f})"'
    parts.append(f'<text x="13" y="{middle:.1f}" text-anchor="middle" {turned}>{safe_name(y_label, "html")}</text>')
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{safe_name(text, "html")}</text>'


def _point(x: float, point: Point, y_ticks: Sequence[float], index: int, hollow: bool) -> str:
    bar = ""
    if point.low is not None and point.high is not None:
        low, high = _y(point.low, y_ticks), _y(point.high, y_ticks)
        bar = f'<path class="bar" d="M{x:.1f},{low:.1f}V{high:.1f}M{x - 3:.1f},{low:.1f}h6M{x - 3:.1f},{high:.1f}h6"/>'
    shape = _shape(x, _y(point.y, y_ticks), index, hollow)
    return f"<g>{bar}{shape}<title>{safe_name(point.title, 'html')}</title></g>"


def _shape(x: float, y: float, index: int, hollow: bool) -> str:
    kind = "hollow" if hollow else "dot"
    marker = MARKERS[index % len(MARKERS)]
    if marker == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.2"/>'
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        "triangle": ((0, -5.5), (5, 4), (-5, 4)),
    }[marker]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon class="{kind}" points="{points}"/>'


def _svg(parts: Sequence[str], label: str) -> str:
    body, name = "".join(parts), safe_name(label, "html")
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{body}</svg>'
