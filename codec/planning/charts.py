"""The charts of a plan's page, as markup: colours are those of the page's theme.

    bars             a row per option, what a frame passes as parts of a bar
    trade_off        bytes over work at the edge
    over_rates       latency over the rate of the link, and below it who has the least

Drawings come in two widths, of which style shows the one that fits; so text is never scaled.
Options have numbers, since names of cuts may be long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from codec.planning.plan import RATE_GRID, Plan, Row
from codec.planning.table import MILLI, rate_shown

__all__ = ["bars", "in_both_widths", "numbers_of", "over_rates", "trade_off"]

WIDE, NARROW = 1080, 326
"""Pixels inside of a card."""
HEIGHT = 380
LEFT, RIGHT, TOP, BOTTOM = 60, 34, 14, 44
GAP = 15
"""Least distance of two labels, pixels."""
PARTS = (
    ("edge", "edge sub-model"),
    ("encode", "encoder"),
    ("link", "link"),
    ("rtt", "half a round trip"),
    ("decode", "decoder"),
    ("cloud", "cloud"),
)


def numbers_of(plan: Plan) -> dict[str, str]:
    """Number the cuts in the order of the plan; R is remote inference, E the edge alone."""
    found: dict[str, str] = {}
    for row in plan.rows:
        count = sum(not each.isalpha() for each in found.values())
        found[row.name] = {"remote": "R", "edge": "E"}.get(row.kind, str(count + 1))
    return found


def in_both_widths(draw: Callable[[float], Markup]) -> Markup:
    """Draw for wide and for narrow screens."""
    return Markup('<div class="for-wide">{}</div><div class="for-narrow">{}</div>').format(
        draw(WIDE), draw(NARROW)
    )


# --- bars -----------------------------------------------------------------------------------------


def bars(plan: Plan) -> Markup:
    """Lay out the latency of a frame."""
    numbers = numbers_of(plan)
    longest = max(
        max(row.latency_interval_seconds[1], row.estimate.latency_seconds) for row in plan.rows
    )
    legend = Markup("").join(
        Markup('<li><i class="part {}"></i>{}</li>').format(*part) for part in PARTS
    )
    rows = Markup("").join(_bar(plan, row, numbers[row.name], longest) for row in plan.rows)
    return Markup('<ul class="legend">{}</ul><ol class="bars">{}</ol>').format(legend, rows)


def _bar(plan: Plan, row: Row, number: str, longest: float) -> Markup:
    slowdown, stages = plan.terms.edge_slowdown, row.stages
    seconds = {
        "edge": stages.edge_seconds * slowdown,
        "encode": stages.encode_seconds * slowdown,
        "link": row.estimate.link_seconds,
        "rtt": plan.terms.link.rtt_seconds / 2,
        "decode": stages.decode_seconds,
        "cloud": stages.cloud_seconds,
    }
    parts = Markup("").join(
        Markup('<i class="part {}" style="width:{:.3f}%" title="{}, {:.1f} ms"></i>').format(
            name, 100 * seconds[name] / longest, label, MILLI * seconds[name]
        )
        for name, label in PARTS
        if seconds[name] > 0
    )
    low, high = row.latency_interval_seconds
    whisker = Markup('<i class="whisker" style="left:{:.3f}%;width:{:.3f}%"></i>').format(
        100 * low / longest, 100 * (high - low) / longest
    )
    missed = "" if row.reached else Markup(" <small>does not reach the loss</small>")
    return Markup(
        '<li class="{}"><span class="name"><b>{}</b> {}{}</span><span class="track">{}{}</span>'
        '<span class="value">{:.0f} ms<small>{:.0f} … {:.0f}</small></span></li>'
    ).format(
        row.kind,
        number,
        row.name,
        missed,
        parts,
        whisker,
        MILLI * row.estimate.latency_seconds,
        MILLI * low,
        MILLI * high,
    )


# --- drawings -------------------------------------------------------------------------------------


@dataclass
class _Drawing:
    """An SVG with a frame, an axis at the bottom and one at the left."""

    width: float
    height: float
    label: str
    bottom: float = BOTTOM
    items: list[Markup] = field(default_factory=list)

    def add(self, template: str, *values: object) -> None:
        self.items.append(Markup(template).format(*values))

    @property
    def span(self) -> tuple[float, float]:
        return self.width - LEFT - RIGHT, self.height - TOP - self.bottom

    def x(self, share: float) -> float:
        return LEFT + share * self.span[0]

    def y(self, share: float) -> float:
        return TOP + (1 - share) * self.span[1]

    def axes(
        self,
        horizontal: Sequence[tuple[float, str]],
        vertical: Sequence[tuple[float, str]],
        titles: tuple[str, str],
    ) -> None:
        """Draw lines at shares of the span, each with its text."""
        for share, text in horizontal:
            x = self.x(share)
            self.add('<path class="grid" d="M{:.1f} {}V{:.1f}"/>', x, TOP, self.y(0))
            self.add('<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>', x, self.y(0) + 16, text)
        for share, text in vertical:
            y = self.y(share)
            self.add('<path class="grid" d="M{} {:.1f}H{:.1f}"/>', LEFT, y, self.x(1))
            self.add('<text class="side" x="{}" y="{:.1f}">{}</text>', LEFT - 7, y + 4, text)
        self.add(
            '<text class="title" x="{:.1f}" y="{:.1f}">{}</text>',
            self.x(0.5),
            self.height - 4,
            titles[0],
        )
        self.add(
            '<text class="title" transform="translate(11 {:.1f}) rotate(-90)">{}</text>',
            self.y(0.5),
            titles[1],
        )

    def markup(self) -> Markup:
        return Markup(
            '<svg class="drawing" role="img" aria-label="{}" width="{:.0f}" height="{:.0f}" '
            'viewBox="0 0 {:.0f} {:.0f}">{}</svg>'
        ).format(
            self.label,
            self.width,
            self.height,
            self.width,
            self.height,
            Markup("").join(self.items),
        )


def _nice_steps(largest: float, most: int) -> list[float]:
    """Return round numbers from 0 up to the largest."""
    step = _nice_step(largest / most)
    return [step * number for number in range(int(largest / step) + 1)]


def _nice_step(least: float) -> float:
    """Return 1, 2 or 5 times a power of ten, no smaller than asked."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten within a range, of many decades only the powers; within
    a range that holds hardly any of them, other round numbers.
    """
    factors = (1, 2, 5) if high / low < 300 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    found = [value for value in found if low <= value <= high]
    if len(found) > 1:
        return found
    step = _nice_step((high - low) / 4)
    return [step * number for number in range(math.ceil(low / step), int(high / step) + 1)]


def _apart(wanted: Mapping[str, float], low: float, high: float) -> dict[str, float]:
    """Move labels, one above the other, so far apart that they can be read."""
    places: dict[str, float] = {}
    before = low - GAP
    for name in sorted(wanted, key=lambda each: wanted[each]):
        before = places[name] = max(wanted[name], before + GAP)
    above = high + GAP
    for name in sorted(places, key=lambda each: -places[each]):
        above = places[name] = min(places[name], above - GAP)
    return places


def trade_off(plan: Plan, width: float) -> Markup:
    """Draw the bytes of a frame over what the edge device is busy with it."""
    numbers = numbers_of(plan)
    sending = [row for row in plan.rows if row.parameters]
    low = min(row.bytes_interval[0] for row in sending) / 1.3
    high = max(row.bytes_interval[1] for row in sending) * 1.3
    right = 1.06 * max(row.estimate.edge_load_seconds for row in plan.rows) * MILLI

    def across(row: Row) -> float:
        return MILLI * row.estimate.edge_load_seconds / right

    def up(value: float) -> float:
        return math.log(value / low) / math.log(high / low)

    drawing = _Drawing(
        width, HEIGHT, "Bytes of a frame over the milliseconds that the edge is busy with it"
    )
    drawing.axes(
        [(value / right, f"{value:g}") for value in _nice_steps(right, 10 if width > 600 else 4)],
        [(up(value), f"{value:,.10g}") for value in _decades(low, high)],
        ("busy edge, milliseconds a frame", "bytes a frame"),
    )
    for row in plan.rows:
        if row.kind == "edge":
            x = drawing.x(across(row))
            drawing.add(
                '<g class="edge"><path class="line" d="M{:.1f} {}V{:.1f}"><title>{}, {:.0f} ms'
                '</title></path><text class="mark" x="{:.1f}" y="{}">E</text></g>',
                x,
                TOP,
                drawing.y(0),
                row.name,
                MILLI * row.estimate.edge_load_seconds,
                x + 9,
                TOP + 12,
            )
    front = _front(sending)
    path = "L".join(
        f"{drawing.x(across(row)):.1f} {drawing.y(up(row.stages.bytes_sent)):.1f}" for row in front
    )
    drawing.add('<path class="front" d="M{}"/>', path)
    for row in sending:
        x, y = drawing.x(across(row)), drawing.y(up(row.stages.bytes_sent))
        bounds = [drawing.y(up(value)) for value in row.bytes_interval]
        drawing.add(
            '<g class="{}"><path class="reach" d="M{:.1f} {:.1f}V{:.1f}"/><circle cx="{:.1f}" '
            'cy="{:.1f}" r="9"><title>{}: {:.0f} bytes, {:.0f} ms at the edge</title></circle>'
            '<text class="inside" x="{:.1f}" y="{:.1f}">{}</text></g>',
            row.kind if row.reached else f"{row.kind} missed",
            x,
            *bounds,
            x,
            y,
            row.name,
            row.stages.bytes_sent,
            MILLI * row.estimate.edge_load_seconds,
            x,
            y + 4,
            numbers[row.name],
        )
    return drawing.markup()


def _front(rows: Sequence[Row]) -> list[Row]:
    """Return those that nothing undercuts in both, from the least work on."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda each: each.estimate.edge_load_seconds):
        if row.reached and (not front or row.stages.bytes_sent < front[-1].stages.bytes_sent):
            front.append(row)
    return front


STRIP = 26


def over_rates(plan: Plan, width: float) -> Markup:
    """Draw the latency of every option over the rate of the link."""
    numbers = numbers_of(plan)
    rates = RATE_GRID
    curves = {option.name: MILLI * plan.latencies_over(option.name) for option in plan.ranked}
    least = min(float(curve.min()) for curve in curves.values())
    low = least / 1.15
    high = min(max(float(curve.max()) for curve in curves.values()), 40 * least)
    first, last = float(rates[0]), float(rates[-1])

    def across(rate: float) -> float:
        share = math.log(rate / first) / math.log(last / first)
        return min(max(share, 0.0), 1.0)

    def up(value: float) -> float:
        return math.log(value / low) / math.log(high / low)

    drawing = _Drawing(
        width,
        HEIGHT + STRIP,
        "Latency of a frame over the rate of the link, and who has the least",
        bottom=BOTTOM + STRIP,
    )
    drawing.axes(
        [(across(rate), _brief(rate)) for rate in (1e4, 1e5, 1e6, 1e7, 1e8, 1e9)],
        [(up(value), f"{value:,.10g}") for value in _decades(low, high)],
        ("rate of the link", "latency, milliseconds"),
    )
    winners = {each.best for each in plan.rates}
    kinds = {row.name: row.kind for row in plan.rows}
    ends = {}
    for name, curve in curves.items():
        points = [
            (drawing.x(across(float(rate))), drawing.y(up(float(value))))
            for rate, value in list(zip(rates, curve, strict=True))[::5]
            if value <= high
        ]
        if not points:
            continue
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        drawing.add(
            '<path class="curve {}{}" d="M{}"><title>{}</title></path>',
            kinds[name],
            " winner" if name in winners else "",
            path,
            name,
        )
        ends[name] = points[-1][1]
    for name, y in _apart(ends, TOP + 4, drawing.y(0)).items():
        drawing.add(
            '<text class="mark {}" x="{:.1f}" y="{:.1f}">{}</text>',
            kinds[name],
            drawing.x(1) + 5,
            y + 4,
            numbers[name],
        )
    now = drawing.x(across(plan.terms.link.bits_per_second))
    drawing.add(
        '<path class="now" d="M{:.1f} {}V{:.1f}"><title>{}</title></path>',
        now,
        TOP,
        drawing.y(0),
        rate_shown(plan.terms.link.bits_per_second),
    )
    top = drawing.y(0) + 24
    for each in plan.rates:
        start = drawing.x(across(max(each.from_bits_per_second, first)))
        end = drawing.x(across(each.to_bits_per_second or last))
        drawing.add(
            '<g class="{}"><rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="18"><title>{}'
            "</title></rect>",
            kinds[each.best],
            start,
            top,
            max(end - start - 1, 1),
            each.best,
        )
        if end - start > 14:
            drawing.add(
                '<text class="inside" x="{:.1f}" y="{:.1f}">{}</text>',
                (start + end) / 2,
                top + 13,
                each.best if end - start > 8 * len(each.best) else numbers[each.best],
            )
        drawing.add("</g>")
    return drawing.markup()


def _brief(rate: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:g} {unit}bit/s" if unit == "G" else f"{rate / size:g} {unit}"
    return f"{rate:g}"
