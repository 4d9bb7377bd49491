"""Figures with matplotlib: one style for all studies, and one palette.

    with figure_style():
        figure, axes = plt.subplots()
        save(figure, Path("study/rate-distortion.blocks.10"))      # .svg and .png

The hues are those of Okabe and Ito, darkened or lightened until they stand out on white and on
near-black alike.  Files are deterministic: equal figures are equal bytes.

Source of the palette: M. Okabe and K. Ito, "Color universal design" (2008).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from codec.files.outputs import open_output

mpl.use("Agg")

__all__ = ["INK", "MUTED", "PALETTE", "PAPER", "figure_style", "save"]

INK, MUTED, GRID, PAPER = "#1b1f24", "#5b6570", "#dfe3e7", "#ffffff"
"""Colours of everything but curves.  In an SVG, a page replaces them by those of its theme."""

PALETTE = {
    "blue": "#1273c4",
    "violet": "#8a5bd6",
    "orange": "#e07b00",
    "green": "#00976a",
    "pink": "#cf5c9f",
    "brown": "#a9653b",
    "grey": "#7d8790",
    "sky": "#3aa3d8",
    "gold": "#b39200",
    "red": "#d6453d",
    "teal": "#0f9d9d",
}


STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so figures are alike everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.4,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "svg.fonttype": "path",
    "svg.hashsalt": "latent-motion-codec",
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the style of the studies, whatever the user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write STEM.svg (transparent, for the page) and STEM.png (on white), and close the figure."""
    svg, png = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("svg", "png"))
    with figure_style():  # the salt is read on writing
        with open_output(str(svg), force=True) as file:
            nothing = {"Date": None, "Creator": None}
            figure.savefig(file, format="svg", metadata=nothing, transparent=True)
        with open_output(str(png), force=True) as file:
            figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    plt.close(figure)
    return svg, png
