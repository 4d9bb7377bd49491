"""The figure of the link study: fidelity and rate against loss, a curve per strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from tools.link_study.measurement import ANCHOR
from tools.report.figures import INK, MUTED, PALETTE, figure_style

__all__ = ["link_figure"]

Row = Mapping[str, Any]

CURVES = (
    # strategy, concealment, label, colour, dash, marker
    ("live", "motion", "as lmc send, by motion", PALETTE["blue"], "-", "o"),
    ("live", "repeat", "as lmc send, repeated", PALETTE["blue"], "--", "s"),
    ("live", "zeros", "as lmc send, zeros", PALETTE["blue"], ":", "v"),
    ("reference", "motion", "reference choice, by motion", PALETTE["violet"], "-", "D"),
    ("acknowledged", "motion", "acknowledged only, by motion", PALETTE["sky"], "-", "^"),
    ("stream", "motion", "one reliable stream", PALETTE["grey"], "-", "s"),
    ("key-frames", "motion", "key frames, by motion", PALETTE["orange"], "-", "P"),
    ("key-frames", "repeat", "key frames, repeated", PALETTE["orange"], "--", "X"),
    (ANCHOR, "repeat", "x265 on pixels, intra refresh", PALETTE["green"], "-", "^"),
)
PANELS = {
    "top1_agreement": ("top-1 agreement with the uncoded network", "up"),
    "kl": ("KL divergence, nats", "down"),
    "score_error": ("squared score error a frame", "down"),
    "kbit_per_s": ("kbit/s on the link, overhead included", ""),
}


def link_figure(found: Sequence[Row], *, qp: int, title: str) -> Figure:
    """Draw means of `summary.means`: of our codec those at `qp`."""
    rows = [row for row in found if row["qp"] in (None, qp)]
    panels = [name for name in PANELS if any(name in row for row in rows)]
    with figure_style():
        figure, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels), 4.3))
        for panel, name in zip(axes, panels, strict=True):
            for strategy, concealment, label, colour, dash, marker in CURVES:
                points = sorted(
                    (100 * row["loss"], row[name])
                    for row in rows
                    if (row["strategy"], row["concealment"]) == (strategy, concealment)
                    and name in row
                )
                if name == "kbit_per_s" and concealment != "motion" and strategy != ANCHOR:
                    continue  # the rate is that of the strategy
                if points:
                    panel.plot(
                        *zip(*points, strict=True),
                        label=label,
                        color=colour,
                        linestyle=dash,
                        marker=marker,
                    )
            title_of, better = PANELS[name]
            panel.set_title(title_of)
            panel.set_xlabel("datagrams lost, %")
            if better:
                panel.annotate(
                    "better " + ("↑" if better == "up" else "↓"),
                    (0.99, 0.99 if better == "up" else 0.02),
                    xycoords="axes fraction",
                    ha="right",
                    va="top" if better == "up" else "bottom",
                    color=MUTED,
                    fontsize=8,
                )
            panel.set_ylim(bottom=0)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=9.5)
    return figure
