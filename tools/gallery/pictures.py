"""What the programs of the gallery draw with: the style of the studies, small files, boxes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from codec.files.outputs import open_output
from tools.report.figures import figure_style

__all__ = ["boxes_on", "drawing", "show"]

COLOURS = 256
"""In a picture, so that files are small and photographs still look like some."""


@contextmanager
def drawing(output: Path, widths: Sequence[float], height: float = 2.9) -> Iterator[list[Axes]]:
    """Give panels side by side, and write what is on them at the end.

    Args:
        output: a PNG.
        widths: of the panels, in inches.
        height: of all, in inches.
    """
    with figure_style():
        figure, axes = plt.subplots(
            1, len(widths), figsize=(sum(widths), height), width_ratios=widths, squeeze=False
        )
        yield list(axes[0])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
    picture = (
        Image.open(buffer)
        .convert("RGB")
        .quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    with open_output(str(output), force=True) as file:
        picture.save(file, "PNG", optimize=True)


def show(axis: Axes, picture: ArrayLike, title: str, **more: Any) -> None:  # noqa: ANN401
    """Show an image without ticks."""
    axis.imshow(np.asarray(picture), **more)
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)


def boxes_on(axis: Axes, boxes: NDArray[np.float64], colour: str, dash: str = "-") -> None:
    """Draw boxes: left, top, right, bottom."""
    for left, top, right, bottom in boxes:
        size = right - left, bottom - top
        axis.add_patch(
            Rectangle((left, top), *size, fill=False, edgecolor=colour, linestyle=dash, lw=1.6)
        )
