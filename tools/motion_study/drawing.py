"""What the figures of the experiments have in common.

Fields are drawn as motion of the content, hence -v of the codec's vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.motion_study.settings import NETWORKS, Row
from tools.report.figures import MUTED, PALETTE

__all__ = ["COLOURS", "DASHES", "bare_axis", "network_title", "short", "title_weights", "values_of"]

COLOURS = [PALETTE[name] for name in ("blue", "orange", "green", "red", "violet", "brown", "teal")]
DASHES = ("-", "--", "-.", ":")


def short(layer: str) -> str:
    """Name a layer as briefly as it can be told apart."""
    return layer.removeprefix("features.")


def values_of(rows: Iterable[Row], key: str) -> list[Any]:
    """List the values of a column, each once, in order."""
    return list(dict.fromkeys(row[key] for row in rows))


def network_title(rows: Sequence[Row], name: str) -> str:
    """Name a network and its weights, for the title of axes."""
    found = next(row["weights"] for row in rows if row["network"] == name)
    return f"{NETWORKS.get(name, name)}, {found}"


def title_weights(figure: Figure, rows: Sequence[Row]) -> None:
    """Say above a figure which weights it was made with, where no axes do."""
    captions = [network_title(rows, name) for name in values_of(rows, "network")]
    figure.suptitle(" · ".join(captions), fontsize=9, color=MUTED)


def bare_axis(axis: Axes) -> None:
    """Take everything off the axes but the picture."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
