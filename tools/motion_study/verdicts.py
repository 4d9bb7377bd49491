"""What was found, beside what the paper reports: findings, reports, and the layers of the paper.

A finding sets what the paper reports beside what was measured.  Its verdict is computed: `agrees`
is a comparison of numbers, and so is whatever explanation is given for a departure.

The paper's numbers, here and in the experiments, are those of its text, and, where it says "read
off", readings of its Figs. 5 and 6 (to about ±0.001).

Source: H. Ulhaq and I. V. Bajić, "Latent space motion analysis for collaborative intelligence",
arXiv:2102.04018, Section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from tools.motion_study.drawing import short
from tools.motion_study.settings import NETWORKS, Row
from tools.report.figures import save

__all__ = [
    "ABOUT",
    "HEVC_NRMSE",
    "LIMIT",
    "PAPER_LAYERS",
    "PAPER_NETWORKS",
    "Finding",
    "Report",
    "all_rows",
    "fixed",
    "layer_title",
    "layers_in",
    "moving_clips",
    "rows_at",
    "saved_figure",
]

LIMIT = 0.04
"""Up to about which NRMSE goes "for reasonable ranges of transformation parameters"."""
ABOUT = 1.25
"""What "about" may mean, as a factor."""
PAPER_LAYERS = {
    ("resnet34", "conv1"): "ResNet-34 conv0",
    ("resnet34", "add_3"): "ResNet-34 add_3",
    ("resnet34", "add_7"): "ResNet-34 add_7",
    ("densenet121", "features.transition2"): "DenseNet-121 pool3_pool",
    ("densenet121", "features.transition3"): "DenseNet-121 pool4_pool",
}
"""The layers of Figs. 5 and 6, and what the paper calls them."""
PAPER_NETWORKS = {network for network, _ in PAPER_LAYERS}
HEVC_NRMSE = (0.044, 0.009)


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison with the paper; `agrees` is None where the paper says nothing."""

    what: str
    paper: str
    measured: str
    agrees: bool | None = None
    why: str = ""

    def __post_init__(self) -> None:
        """Take NumPy's truth values, too, which are neither `True` nor `False` to `is`."""
        if self.agrees is not None:
            object.__setattr__(self, "agrees", bool(self.agrees))

    @property
    def verdict(self) -> str:
        """Say it in words."""
        word = {True: "agrees", False: "departs", None: "not in the paper"}[self.agrees]
        return f"{word}: {self.why}" if self.why else word

    def line(self) -> str:
        """Lay it out for a terminal."""
        return f"{self.what}: paper {self.paper}; measured {self.measured}; {self.verdict}"


@dataclass(frozen=True, slots=True)
class Report:
    """An experiment, complete: rows by file name, figures with captions, findings, tables."""

    name: str
    title: str
    note: str
    tables: dict[str, list[Row]]
    figures: list[tuple[Path, str]]
    findings: list[Finding]
    shown: list[Markup] = field(default_factory=list)


def layer_title(network: str, layer: str) -> str:
    """Name a layer and its network, for people."""
    return f"{NETWORKS.get(network, network)} {short(layer)}"


def layers_in(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """List the layers of rows as (network, layer), each once, in order."""
    return list(dict.fromkeys((row["network"], row["layer"]) for row in rows))


def rows_at(rows: Sequence[Row], key: tuple[str, str]) -> list[Row]:
    """Select the rows of a layer."""
    return [row for row in rows if (row["network"], row["layer"]) == key]


def all_rows(results: Sequence[list[Row]]) -> list[Row]:
    """Join the rows of all networks."""
    return [row for rows in results for row in rows]


def _stem(output: Path, name: str) -> Path:
    return output / f"motion-{name}"


def saved_figure(figure: Figure, output: Path, name: str, caption: str) -> tuple[Path, str]:
    """Write a figure, all of it or nothing; return its stem and caption."""
    stem = _stem(output, name)
    temporary = stem.with_name(f".{stem.name}.partial")
    for written in save(figure, temporary):
        written.replace(stem.with_name(stem.name + written.suffix))
    return stem, caption


def fixed(value: float, digits: int) -> str | None:
    """Write a number to so many decimals; None if it is none."""
    return None if math.isnan(value) else f"{value:.{digits}f}"


def moving_clips(gains: Mapping[str, float]) -> list[str]:
    """Return the clips in which motion matters: it takes a sixth off the error, or more."""
    found = [clip for clip, gain in gains.items() if gain > 1.2]
    return found or list(gains)
