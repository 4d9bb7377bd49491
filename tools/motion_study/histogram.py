"""Fig. 6: NRMSE over random affine motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from codec.pages.shell import table
from tools.motion_study.drawing import COLOURS, network_title, short, values_of
from tools.motion_study.networks import BATCH, load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.predictions import MEASURES, predictions, random_affine, still_tensors
from tools.motion_study.settings import Row, Settings
from tools.motion_study.verdicts import (
    HEVC_NRMSE,
    PAPER_LAYERS,
    Finding,
    Report,
    all_rows,
    layer_title,
    layers_in,
    rows_at,
    saved_figure,
)
from tools.motion_study.warps import (
    Affine,
)
from tools.report.figures import GRID, INK, figure_style

__all__ = ["draw", "measure", "report"]


def measure(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE over random affine motion: a row per draw and layer.

    The draws, and the picture of each, are the same for all networks.
    """
    network = load_network(name, settings)
    named = pictures_of(settings)
    pictures = [picture for _, picture in named]
    references = still_tensors(network, pictures)
    generator = np.random.default_rng(settings.seed)
    cases = [(draw % len(pictures), random_affine(generator)) for draw in range(settings.draws)]
    rows = []
    starts = range(0, len(cases), BATCH)
    for first in settings.bar(starts, f"histogram, {network.title}"):
        batch = cases[first : first + BATCH]
        for place, found in enumerate(predictions(network, pictures, references, batch)):
            number, affine = batch[place]
            motion = {key: getattr(affine, key) for key in Affine.__dataclass_fields__}
            rows += [
                {
                    **network.stamp,
                    "layer": layer,
                    "draw": first + place,
                    "image": named[number][0],
                    **motion,
                    **{key: getattr(one, key) for key in MEASURES},
                }
                for layer, one in zip(network.layers, found, strict=True)
            ]
    return rows


def draw(rows: Sequence[Row], paper: Mapping[tuple[str, str], float]) -> Figure:
    """Draw the densities of NRMSE; triangles: where the paper's have their maximum."""
    networks = values_of(rows, "network")
    with figure_style():
        figure, axes = plt.subplots(
            len(networks), 1, figsize=(7.4, 2.2 * len(networks) + 0.2), squeeze=False, sharex=True
        )
        high = float(np.percentile([row["nrmse"] for row in rows], 99.8))
        grid = np.linspace(0, high * 1.05, 500)
        for axis, name in zip(axes[:, 0], networks, strict=True):
            own = [row for row in rows if row["network"] == name]
            top = 0.0
            for colour, layer in zip(COLOURS, values_of(own, "layer"), strict=False):
                values = np.array([row["nrmse"] for row in own if row["layer"] == layer])
                density = gaussian_kde(values)(grid)
                axis.plot(grid, density, color=colour, label=short(layer))
                axis.fill_between(grid, density, color=colour, alpha=0.12, linewidth=0)
                peak = float(density.max())
                top = max(top, min(peak, 140.0))
                if (name, layer) in paper:
                    axis.plot(
                        [paper[name, layer]], [0], marker="^", markersize=8, color=colour,
                        clip_on=False, zorder=5, linestyle="none", markeredgecolor=INK,
                    )  # fmt: skip
            axis.axvspan(*sorted(HEVC_NRMSE), color=GRID, alpha=0.55, linewidth=0, zorder=0)
            axis.set_ylim(0, top * 1.08)
            axis.set_xlim(0, grid[-1])
            axis.set_title(network_title(rows, name))
            axis.set_ylabel("density")
            axis.legend(loc="upper right")
        axes[-1, 0].set_xlabel("NRMSE; shaded: HEVC's own prediction, 0.009–0.044")
        return figure


FIG6_MODES = {
    ("resnet34", "conv1"): 0.009,
    ("resnet34", "add_3"): 0.0395,
    ("resnet34", "add_7"): 0.029,
    ("densenet121", "features.transition2"): 0.024,
    ("densenet121", "features.transition3"): 0.0315,
}
"""Where the densities are largest, read off."""
FIG6_ENDS = {
    ("resnet34", "conv1"): (0.008, 0.0115),
    ("resnet34", "add_3"): (0.030, 0.047),
    ("resnet34", "add_7"): (0.020, 0.053),
    ("densenet121", "features.transition2"): (0.012, 0.034),
    ("densenet121", "features.transition3"): (0.016, 0.043),
}
"""Where the densities visibly begin and end, read off."""


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    summary, findings = [], []
    for key in layers_in(rows):
        own = rows_at(rows, key)
        values = np.array([row["nrmse"] for row in own])
        mode = _mode(values)
        cut = dict(zip((1, 5, 50, 95, 99), np.percentile(values, (1, 5, 50, 95, 99)), strict=True))
        summary.append(
            {
                **{name: own[0][name] for name in ("network", "weights", "weights_hash", "layer")},
                "draws": len(own),
                "mode": mode,
                "mean": values.mean(),
                "std": values.std(),
                **{f"p{level}": value for level, value in cut.items()},
                "max": values.max(),
                "share_below_0.044": (values <= HEVC_NRMSE[0]).mean(),
                "mean_still": np.mean([row["still"] for row in own]),
                "mean_relative": np.mean([row["relative"] for row in own]),
            }
        )
        if key not in FIG6_MODES:
            findings.append(
                Finding(
                    f"{layer_title(*key)}: density of NRMSE",
                    "–",
                    f"mode {mode:.4f}, 1 to 99 %: {cut[1]:.3f}–{cut[99]:.3f}",
                    None,
                    f"{summary[-1]['share_below_0.044']:.0%} within HEVC's range (≤ 0.044)",
                )
            )
            continue
        low, high = FIG6_ENDS[key]
        overlap = low <= mode <= high
        findings.append(
            Finding(
                f"{layer_title(*key)} ({PAPER_LAYERS[key]}): density of NRMSE",
                f"mode {FIG6_MODES[key]}, from {low} to {high} (read off)",
                f"mode {mode:.4f}, 1 to 99 %: {cut[1]:.3f}–{cut[99]:.3f}",
                overlap,
                f"mode {mode / FIG6_MODES[key]:.2f} times the paper's; "
                f"{summary[-1]['share_below_0.044']:.0%} within HEVC's range (≤ 0.044)"
                + ("" if overlap else "; " + _spread_of_pictures(own)),
            )
        )
    return Report(
        "histogram",
        "Histogram (Fig. 6)",
        "NRMSE over random affine motion: x and y translation ±32 px, scaling 0.95–1.05 and shear"
        " ±5° in both directions, rotation ±10°, all seven uniform and independent; pictures take"
        " turns. The same draws for all networks. A layer agrees if its mode lies where the "
        "paper's density is visibly above zero, a loose criterion: see the factors.",
        {"motion-histogram": rows, "motion-histogram-summary": summary},
        [
            saved_figure(
                draw(rows, FIG6_MODES),
                output,
                "histogram",
                "Triangles: where the density of the paper's own figure is largest, for the layer "
                "of that colour.",
            )
        ],
        findings,
        [
            table(
                ("layer", "draws", "mode", "mean", "std", "p5", "p50", "p95", "max", "≤ 0.044",
                 "no motion"),
                [
                    (
                        layer_title(row["network"], row["layer"]),
                        row["draws"],
                        *(
                            f"{row[name]:.4f}"
                            for name in ("mode", "mean", "std", "p5", "p50", "p95", "max")
                        ),
                        f"{row['share_below_0.044']:.0%}",
                        f"{row['mean_still']:.4f}",
                    )
                    for row in summary
                ],
            )
        ],
    )  # fmt: skip


def _spread_of_pictures(rows: Sequence[Row]) -> str:
    images = dict.fromkeys(row["image"] for row in rows)
    means = [np.mean([row["nrmse"] for row in rows if row["image"] == image]) for image in images]
    values = np.array([row["nrmse"] for row in rows])
    between = sum(
        ((mean - values.mean()) ** 2) * sum(row["image"] == image for row in rows)
        for image, mean in zip(images, means, strict=True)
    )
    share = between / np.square(values - values.mean()).sum()
    return (
        f"pictures have means from {min(means):.3f} to {max(means):.3f}, which is {share:.0%} of "
        "the variance; the paper does not say which it took, and its weights are others"
    )


def _mode(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    from scipy.stats import gaussian_kde  # noqa: PLC0415

    grid = np.linspace(values.min(), values.max(), 512)
    return float(grid[gaussian_kde(values)(grid).argmax()])
