"""Figures of the rate-distortion study: curves and BD-rates, one colour for each codec.

The hue tells the family of a codec, dash and marker its member, so that nothing depends on telling
sixteen colours apart.

What is drawn comes from a study as JSON (see `page.py`); nothing is measured or compared here.
"""

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tools.rate_distortion.bd_rate import LOSSLESS, MARGIN, envelope
from tools.rate_distortion.measures import CLASSIFICATION, Measure, lead_of
from tools.report.figures import INK, MUTED, PALETTE, PAPER, figure_style

__all__ = [
    "CodecStyle",
    "bd_rate_figure",
    "colour_of",
    "fronts",
    "lead_in",
    "rate_distortion_figure",
    "style_of",
    "task_in",
]

OWN = ("red", "teal", "sky")
"""Colours of the codecs that researchers bring along."""


@dataclass(frozen=True, slots=True)
class CodecStyle:
    """How the curve of a codec is drawn; `dash` and `marker` are names of matplotlib."""

    colour: str
    dash: str = "-"
    marker: str = "o"


CODECS = {
    "lmc": CodecStyle(PALETTE["blue"]),
    "lmc-effort7": CodecStyle(PALETTE["violet"], "-", "D"),
    "lmc-intra": CodecStyle(PALETTE["blue"], "--", "s"),
    "lmc-zero": CodecStyle(PALETTE["sky"], "--", "^"),
    "lmc-bitstream": CodecStyle(PALETTE["sky"], "-.", "v"),
    "lmc-oracle": CodecStyle(PALETTE["violet"], ":", "P"),
    "tiles": CodecStyle(PALETTE["orange"], "-", "s"),
    "pixels-x265": CodecStyle(PALETTE["green"], "-", "^"),
    "pixels-x264": CodecStyle(PALETTE["green"], "--", "v"),
    "pixels-svtav1": CodecStyle(PALETTE["green"], ":", "P"),
    "source-x265": CodecStyle(PALETTE["pink"], "-", "^"),
    "source-x264": CodecStyle(PALETTE["pink"], "--", "v"),
    "source-svtav1": CodecStyle(PALETTE["pink"], ":", "P"),
    "nncodec": CodecStyle(PALETTE["brown"], "-", "X"),
    "lossless": CodecStyle(PALETTE["grey"], ":", "o"),
    "uncompressed": CodecStyle(PALETTE["grey"], "-.", "s"),
    "labels": CodecStyle(PALETTE["gold"], "-", "P"),
}


def style_of(name: str) -> CodecStyle:
    """Return the style of a codec; that of an unknown one depends on its name alone."""
    known = CODECS.get(name)
    if known:
        return known
    choice = zlib.crc32(name.encode(errors="replace"))
    return CodecStyle(
        PALETTE[OWN[choice % len(OWN)]],
        ("-", "--", "-.", ":")[choice // 4 % 4],
        "oDs^v"[choice // 16 % 5],
    )


def colour_of(name: str) -> str:
    """Return the colour of a codec, as #rrggbb."""
    return style_of(name).colour


def task_in(study: Mapping[str, Any]) -> str:
    """Name the task of a study."""
    return str(study["settings"].get("task", "classification"))


def lead_in(study: Mapping[str, Any]) -> Measure:
    """Return the measure that a study goes by."""
    return lead_of(task_in(study))


def fronts(
    points: Iterable[Mapping[str, Any]], measure: Measure = CLASSIFICATION[0]
) -> dict[str, list[Mapping[str, Any]]]:
    """Reduce the points of one clip to the Pareto front of each codec, by rising rate.

    These are the points that BD-rates are computed from; lossless ones are none of them, nor are
    those that would be but for rounding.
    """
    by_codec: dict[str, dict[tuple[float, float], Mapping[str, Any]]] = defaultdict(dict)
    for point in points:
        rate, loss = point["bytes_per_frame"], measure.loss(point) or 0
        if rate and loss > LOSSLESS:
            by_codec[point["codec"]].setdefault((rate, loss), point)
    return {
        codec: [found[pair] for pair in envelope(found, margin=MARGIN)]
        for codec, found in by_codec.items()
    }


def select(
    study: Mapping[str, Any], split: str, clip: str | None = None
) -> list[Mapping[str, Any]]:
    """Return the points that belong to a split: its own, and those that have none."""
    return [
        point
        for point in study["points"]
        if point["split"] in {split, ""} and clip in {None, point["clip"]}
    ]


def rate_distortion_figure(
    study: Mapping[str, Any], split: str, clip: str | None = None, over: Measure | None = None
) -> Figure:
    """Draw a loss, by default the lead, over rate, one line for each codec: of one clip, or small
    multiples over all.
    """
    measure = over or lead_in(study)
    points = select(study, split, clip)
    clips = list(dict.fromkeys(point["clip"] for point in points)) if clip is None else [clip]
    columns = min(len(clips), 4) or 1
    rows = math.ceil(len(clips) / columns) or 1
    with figure_style():
        width, height = (6.4, 4.2) if len(clips) <= 1 else (2.7 * columns + 0.5, 2.45 * rows + 0.8)
        figure, axes = plt.subplots(
            rows, columns, figsize=(width, height), squeeze=False, sharey=True
        )
        drawn: dict[str, Any] = {}
        for number, axis in enumerate(axes.flat):
            if number >= len(clips):
                axis.set_axis_off()
                continue
            found = [point for point in points if point["clip"] == clips[number]]
            curves = fronts(found, measure)
            for codec, front in curves.items():
                style = style_of(codec)
                (drawn[codec],) = axis.plot(
                    [point["bytes_per_frame"] for point in front],
                    [measure.loss(point) for point in front],
                    color=style.colour,
                    linestyle=style.dash,
                    marker=style.marker,
                    markeredgecolor=PAPER,
                    label=codec,
                    zorder=3 if codec.startswith("lmc") else 2,
                )
            axis.set_title(_literal(clips[number]))
            _logarithmic(axis)
            if number % columns == 0:
                axis.set_ylabel(measure.lost if measure.kind == "share" else measure.title)
            if number + columns >= len(clips):
                axis.set_xlabel("bytes per frame")
        if drawn:
            figure.legend(
                drawn.values(),
                [_literal(codec) for codec in drawn],
                loc="outside lower center",
                ncols=min(len(drawn), max(int(width / 1.3), 2)),
            )
        return figure


def _literal(name: str) -> str:
    """Keep matplotlib from reading a name as mathematics, or as that of a hidden curve."""
    return name.replace("$", r"\$").replace("_", " _", 1 if name.startswith("_") else 0)


def _logarithmic(axis: Axes) -> None:
    """Make both axes logarithmic, with plain numbers at 1, 2 and 5 where there is room."""
    for one, scale in ((axis.xaxis, axis.set_xscale), (axis.yaxis, axis.set_yscale)):
        scale("log")
        low, high = one.get_view_interval()
        decades = math.log10(high / low) if low > 0 else 1
        steps = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 2.6 else (1.0,)
        one.set_major_locator(LogLocator(10, steps, numticks=20))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_formatter(NullFormatter())


def bd_rate_figure(study: Mapping[str, Any], split: str) -> Figure:
    """Draw the BD-rates at a split, at equal loss of the lead: a bar and an interval for each
    anchor, a dot for each clip.
    """
    lead = lead_in(study).name
    rows = [
        row
        for row in study["comparisons"]
        if row["split"] == split and row["measure"] == "bd_rate" and row["mean"] is not None
        if row.get("figure", lead) == lead
    ]
    tests = list(dict.fromkeys(row["test"] for row in rows))
    anchors = list(dict.fromkeys(row["anchor"] for row in rows))
    # A codec several times worse would leave the others no room, unless most are.
    shown = [value for row in rows for value in _percentages(row)]
    low = min([-100.0, *shown]) if shown else -100.0
    far = sum(value > 100 for value in shown) > len(shown) / 2
    high = max([12.0, *(value for value in shown if far or value <= 100)])
    pad = 0.036 * (high - low)
    with figure_style():
        figure, axes = plt.subplots(
            1,
            max(len(tests), 1),
            figsize=(min(3.7 * max(len(tests), 1) + 1.2, 9.5), 0.42 * len(anchors) + 1.25),
            squeeze=False,
            sharey=True,
        )
        for axis, test in zip(axes.flat, tests, strict=False):
            found = {row["anchor"]: row for row in rows if row["test"] == test}
            for place, anchor in enumerate(anchors):
                if anchor in found:
                    _draw_bar(axis, place, found[anchor], high)
            axis.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
            axis.set_title(_literal(test))
            axis.set_xlabel("BD-rate, %")
            axis.set_xlim(low - pad, high + 1.5 * pad)
            axis.set_yticks(range(len(anchors)), [_literal(anchor) for anchor in anchors])
            axis.tick_params(axis="y", length=0, labelcolor=INK)
            axis.grid(visible=False, axis="y")
            axis.spines["left"].set_visible(False)
        if anchors:
            axes[0, 0].set_ylim(len(anchors) - 0.4, -0.6)
        return figure


def _percentages(row: Mapping[str, Any]) -> Sequence[float]:
    return [cell["pchip"] for cell in row["clips"].values() if "pchip" in cell]


def _draw_bar(axis: Axes, place: int, row: Mapping[str, Any], high: float) -> None:
    colour = colour_of(row["anchor"])
    mean = min(row["mean"], high)
    axis.barh(place, mean, height=0.56, color=colour, alpha=0.32, linewidth=0, zorder=2)
    values = _percentages(row)
    axis.plot(
        [min(value, high + 3) for value in values],
        [place] * len(values),
        linestyle="none",
        marker="o",
        markersize=4,
        color=colour,
        markeredgecolor=PAPER,
        zorder=4,
    )
    if row["interval"] is not None:
        low_end, high_end = (min(value, high + 3) for value in row["interval"])
        axis.plot([low_end, high_end], [place - 0.4] * 2, color=INK, linewidth=1.1, zorder=3)
    axis.plot([mean] * 2, [place - 0.46, place - 0.34], color=INK, linewidth=1.6, zorder=3)
    axis.text(
        1.0,
        place,
        f"{row['mean']:+.0f} %".replace("-", "−"),
        transform=axis.get_yaxis_transform(),
        ha="left",
        va="center",
        color=INK,
    )
