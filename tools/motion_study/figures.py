"""Figures of the motion study: each takes what `tools/motion_study/experiments.py` or
`tools/motion_study/further.py` measured, and returns a figure for `tools.report.figures.save`.

Fields are drawn as motion of the content, hence -v of the codec's vectors.  Nothing is measured
here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from tools.motion_study.experiments import NETWORKS, Flow, Row, Transforms
from tools.report.figures import GRID, INK, MUTED, PALETTE, figure_style

__all__ = [
    "coded_figure",
    "depth_figure",
    "filters_figure",
    "flow_figure",
    "hevc_figure",
    "histogram_figure",
    "magnitude_figure",
    "offsets_figure",
    "operations_figure",
    "real_figure",
    "sweep_figure",
    "transforms_figure",
]

COLOURS = [PALETTE[name] for name in ("blue", "orange", "green", "red", "violet", "brown", "teal")]
DASHES = ("-", "--", "-.", ":")
PAPER_LIMIT = 0.04
ARROWS = "#ff3d71"
HEVC_BAND = (0.009, 0.044)


def short(layer: str) -> str:
    """Name a layer as briefly as it can be told apart."""
    return layer.removeprefix("features.")


def _unique(rows: Iterable[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _weights(rows: Sequence[Row], name: str) -> str:
    found = next(row["weights"] for row in rows if row["network"] == name)
    return f"{NETWORKS.get(name, name)}, {found}"


def _title(figure: Figure, rows: Sequence[Row]) -> None:
    """Say above a figure which weights it was made with, where no axes do."""
    captions = [_weights(rows, name) for name in _unique(rows, "network")]
    figure.suptitle(" · ".join(captions), fontsize=9, color=MUTED)


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


# --- Fig. 2 -------------------------------------------------------------------------------------


def _wheel_colours(motion: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """Colour (H, W, 2) motion: hue by direction, saturation by length."""
    length = np.hypot(motion[..., 0], motion[..., 1])
    hue = (np.arctan2(motion[..., 0], motion[..., 1]) / (2 * math.pi)) % 1.0
    saturation = np.clip(length / largest, 0, 1)
    colours: NDArray[np.float64] = hsv_to_rgb(
        np.stack([hue, saturation, np.full_like(hue, 0.97)], -1)
    )
    return colours


def flow_figure(flow: Flow) -> Figure:
    """Draw the motion of the frame and of channels, as arrows and by colours."""
    stride = flow.spec.stride_x
    motion = -flow.field.astype(np.float64)
    largest = max(float(np.percentile(np.hypot(motion[..., 0], motion[..., 1]), 98)), float(stride))
    with figure_style():
        figure, axes = plt.subplots(
            2, len(flow.shown) + 2, figsize=(2.1 * (len(flow.shown) + 2), 4.7)
        )
        height, width = flow.field.shape[:2]
        axes[0, 0].imshow(flow.frames[1])
        step = 2 * stride
        _arrows(axes[0, 0], motion, step, step // 2, largest)
        axes[0, 0].set_title(f"frame {flow.pair[1]}")
        axes[1, 0].imshow(_wheel_colours(motion, largest))
        columns: list[tuple[str, NDArray[np.int64], int | None]] = [
            (f"channel {number}", flow.fields[number], number) for number in flow.shown
        ]
        columns.append(("all channels at once", flow.joint, None))
        for place, (title, field, channel) in enumerate(columns, 1):
            own = -field.astype(np.float64)
            above, below = axes[:, place]
            plane = flow.tensor.std(0) if channel is None else flow.tensor[channel]
            above.imshow(plane, cmap="gray")
            _arrows(above, own, 2, 1, largest / stride)
            above.set_title(title)
            below.imshow(_wheel_colours(own * stride, largest))
        for axis in axes.flat:
            _bare(axis)
        wheel = axes[1, 0].inset_axes((0.02, 0.02, 0.26, 0.26 * width / height))
        grid = np.linspace(-1, 1, 81)
        disc = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1)
        colours = _wheel_colours(disc, 1.0)
        inside = (np.hypot(disc[..., 0], disc[..., 1]) <= 1).astype(float)
        wheel.imshow(np.dstack([colours, inside]))
        _bare(wheel)
        axes[0, 0].set_ylabel("arrows")
        axes[1, 0].set_ylabel("direction, length")
        for axis in axes[1]:
            axis.set_xlabel("")
        axes[1, 0].set_xlabel(f"rim of the wheel: {largest:.0f} px", fontsize=7.5, color=MUTED)
        axes[1, 1].set_xlabel(f"the same in samples × {stride}", fontsize=7.5, color=MUTED)
        figure.suptitle(
            f"{flow.caption}, {flow.layer}; {flow.clip}, frames {flow.pair[0]} and {flow.pair[1]}",
            fontsize=9,
            color=MUTED,
        )
        return figure


def _arrows(axis: Axes, motion: NDArray[np.float64], step: int, first: int, longest: float) -> None:
    """Draw every step-th arrow, dots where nothing moves.

    The longest arrows, of motion `longest` and beyond, reach from one place to the next.
    """
    y, x = np.mgrid[first : motion.shape[0] : step, first : motion.shape[1] : step]
    own = motion[y, x]
    length = np.hypot(own[..., 0], own[..., 1])
    moving = length > 0
    drawn = own[moving] / np.maximum(length[moving], longest)[:, None] * step
    axis.plot(x[~moving], y[~moving], ".", color=ARROWS, markersize=2)
    axis.quiver(
        x[moving],
        y[moving],
        drawn[:, 1],
        drawn[:, 0],
        color=ARROWS,
        angles="xy",
        scale_units="xy",
        scale=1.1,
        pivot="mid",
        width=0.011,
        headwidth=3.4,
        headlength=3.6,
        headaxislength=3.2,
        minlength=0.1,
    )


# --- Fig. 4 -------------------------------------------------------------------------------------

MOSAIC = 3


def _mosaic(tensor: NDArray[Any], channels: Sequence[int]) -> NDArray[Any]:
    rows = [
        np.concatenate([tensor[number] for number in channels[first : first + MOSAIC]], 1)
        for first in range(0, len(channels), MOSAIC)
    ]
    return np.concatenate(rows, 0)


def transforms_figure(found: Transforms) -> Figure:
    """Draw nine channels under each motion: actual, predicted, and the difference."""
    rows = found.rows
    spread = rows[0].actual.std((1, 2))
    channels = [int(number) for number in np.argsort(-spread, kind="stable")[: MOSAIC * MOSAIC]]
    low, high = np.percentile(rows[0].actual[channels], (0.5, 99.5))
    shades = plt.get_cmap("viridis").with_extremes(bad="#b9c0c7")
    with figure_style():
        figure, axes = plt.subplots(len(rows), 4, figsize=(7.6, 2.0 * len(rows)))
        for line, row in zip(axes, rows, strict=True):
            hidden = np.where(row.inside, 0.0, np.nan)
            shown = [
                _mosaic(row.actual, channels),
                _mosaic(row.predicted + hidden, channels),
                _mosaic(np.abs(row.predicted - row.actual) + hidden, channels),
            ]
            line[0].imshow(row.frame)
            for axis, picture in zip(line[1:3], shown[:2], strict=True):
                axis.imshow(picture, cmap=shades, vmin=low, vmax=high)
            drawn = line[3].imshow(shown[2], cmap=shades, vmin=0, vmax=high - low)
            for axis in line:
                _bare(axis)
            line[0].set_ylabel(row.title.replace(" by ", "\nby "), fontsize=8.5)
            if row is rows[0]:
                for axis in line[2:]:
                    axis.set_visible(False)
            else:
                line[3].set_title(f"NRMSE {row.found.nrmse:.4f}", fontsize=8, fontweight="normal")
                figure.colorbar(drawn, ax=line[3], shrink=0.85, pad=0.02)
        axes[0, 0].set_title("frame")
        axes[0, 1].set_title("actual tensor")
        axes[1, 2].set_title("predicted by (12)")
        axes[1, 3].annotate(
            "difference", (0, 1.18), xycoords="axes fraction", fontweight="bold", fontsize=9.5
        )
        figure.suptitle(
            f"{found.caption}, {found.layer}; {found.picture}; grey: cannot be predicted",
            fontsize=9,
            color=MUTED,
        )
        return figure


# --- Fig. 5 -------------------------------------------------------------------------------------

AXIS_NAMES = {
    "translation": "translation, px",
    "rotation": "rotation, degrees",
    "scale": "horizontal scale",
    "shear": "shear, degrees",
}


def sweep_figure(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE over the parameter of each motion; bands: one standard deviation over pictures."""
    networks = _unique(rows, "network")
    with figure_style():
        figure, axes = plt.subplots(
            len(networks),
            4,
            figsize=(11.5, 2.75 * len(networks) + 0.2),
            squeeze=False,
            sharey="row",
        )
        for line, name in zip(axes, networks, strict=True):
            own = [row for row in rows if row["network"] == name]
            for axis, transformation in zip(line, AXIS_NAMES, strict=True):
                for colour, layer in zip(COLOURS, _unique(own, "layer"), strict=False):
                    chosen = [
                        row
                        for row in own
                        if row["layer"] == layer and row["transformation"] == transformation
                    ]
                    value = [row["value"] for row in chosen]
                    mean = np.array([row["mean"] for row in chosen])
                    spread = np.array([row["std"] for row in chosen])
                    axis.plot(
                        value,
                        mean,
                        color=colour,
                        linewidth=1.4,
                        label=f"{short(layer)}, n^k = {chosen[0]['stride']}",
                    )
                    axis.fill_between(
                        value, mean - spread, mean + spread, color=colour, alpha=0.13, linewidth=0
                    )
                axis.axhline(PAPER_LIMIT, color=MUTED, linewidth=0.9, linestyle="--")
                axis.set_xlabel(AXIS_NAMES[transformation])
            line[0].set_ylim(bottom=0)
            line[0].set_xticks(range(-32, 33, 16))
            line[0].set_ylabel("NRMSE")
            line[0].set_title(_weights(rows, name))
            line[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


# --- Fig. 6 -------------------------------------------------------------------------------------


def histogram_figure(rows: Sequence[Row], paper: Mapping[tuple[str, str], float]) -> Figure:
    """Draw the densities of NRMSE; triangles: where the paper's have their maximum."""
    networks = _unique(rows, "network")
    with figure_style():
        figure, axes = plt.subplots(
            len(networks), 1, figsize=(7.4, 2.2 * len(networks) + 0.2), squeeze=False, sharex=True
        )
        high = float(np.percentile([row["nrmse"] for row in rows], 99.8))
        grid = np.linspace(0, high * 1.05, 500)
        for axis, name in zip(axes[:, 0], networks, strict=True):
            own = [row for row in rows if row["network"] == name]
            top = 0.0
            for colour, layer in zip(COLOURS, _unique(own, "layer"), strict=False):
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
            axis.axvspan(*HEVC_BAND, color=GRID, alpha=0.55, linewidth=0, zorder=0)
            axis.set_ylim(0, top * 1.08)
            axis.set_xlim(0, grid[-1])
            axis.set_title(_weights(rows, name))
            axis.set_ylabel("density")
            axis.legend(loc="upper right")
        axes[-1, 0].set_xlabel("NRMSE; shaded: HEVC's own prediction, 0.009–0.044")
        return figure


# --- equation (14) ------------------------------------------------------------------------------


def hevc_figure(rows: Sequence[Row]) -> Figure:
    """Draw the median NRMSE of each clip: luma, and tensors with the same vectors."""
    networks = _unique(rows, "network")
    clips = _unique(rows, "clip")
    with figure_style():
        figure, axes = plt.subplots(
            1,
            len(networks),
            figsize=(3.5 * len(networks) + 0.8, 3.4 + 0.16 * len(clips)),
            squeeze=False,
            sharex=True,
        )
        handles: dict[str, Any] = {}
        for axis, name in zip(axes[0], networks, strict=True):
            own = [row for row in rows if row["network"] == name]
            kinds = _unique(own, "what")
            for number, clip in enumerate(clips):
                medians = [
                    np.median(
                        [row["nrmse"] for row in own if row["clip"] == clip and row["what"] == kind]
                    )
                    for kind in kinds
                ]
                shift = (number - (len(clips) - 1) / 2) * 0.07
                (handles[clip],) = axis.plot(
                    medians,
                    np.arange(len(kinds)) + shift,
                    linestyle="none",
                    marker="os^Dv"[number % 5],
                    color=[*COLOURS, PALETTE["grey"], PALETTE["pink"]][number % 9],
                    label=clip,
                )
            axis.axvspan(*HEVC_BAND, color=GRID, alpha=0.6, linewidth=0, zorder=0)
            axis.set_yticks(range(len(kinds)), [short(kind) for kind in kinds])
            axis.set_ylim(len(kinds) - 0.5, -0.5)
            axis.grid(visible=False, axis="y")
            axis.set_title(_weights(rows, name))
            axis.set_xlabel("NRMSE; shaded: 0.009–0.044")
        axes[0, 0].set_xlim(left=0)
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
        return figure


# --- Section 2 ----------------------------------------------------------------------------------


def operations_figure(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE over displacement: with ideal interpolation, and with the codec's."""
    kinds = {"ideal": "ideal interpolation", "cubic": "the codec's cubic"}
    names = _unique(rows, "operation")
    with figure_style():
        figure, axes = plt.subplots(2, 2, figsize=(9.6, 6.0), sharey=True, sharex=True)
        for column, (kind, title) in enumerate(kinds.items()):
            for line, factor in zip(axes, (1, 2), strict=True):
                axis = line[column]
                own = [name for name in names if _downsampling(rows, name) == factor]
                for number, name in enumerate(own):
                    chosen = [
                        row
                        for row in rows
                        if row["operation"] == name and row["interpolation"] == kind
                    ]
                    axis.plot(
                        [row["displacement_px"] for row in chosen],
                        [row["mean"] for row in chosen],
                        color=COLOURS[number % len(COLOURS)],
                        linestyle=DASHES[number % 2],
                        marker="o",
                        markersize=2.5,
                        label=f"{name}  {chosen[0]['equations']}",
                    )
                axis.set_title(f"{title}, {'no downsampling' if factor == 1 else 'factor 2'}")
                if column == 0:
                    axis.set_ylabel("NRMSE")
                if column == 1:
                    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        for axis in axes[1]:
            axis.set_xlabel("displacement, px")
            axis.set_xlim(0, 4)
        axes[0, 0].set_ylim(bottom=0)
        _title(figure, rows)
        return figure


def _downsampling(rows: Sequence[Row], operation: str) -> int:
    return next(int(row["downsampling"]) for row in rows if row["operation"] == operation)


# --- carried further ----------------------------------------------------------------------------


def depth_figure(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE, and what motion saves, over the layers in order."""
    networks = _unique(rows, "network")
    with figure_style():
        figure, axes = plt.subplots(
            3, len(networks), figsize=(3.9 * len(networks), 7.2), squeeze=False, sharey="row"
        )
        for column, name in zip(axes.T, networks, strict=True):
            own = [row for row in rows if row["network"] == name]
            labels = [short(row["layer"]).replace("denseblock", "block") for row in own]
            x = np.arange(len(own))
            column[0].plot(
                x,
                [row["still"] for row in own],
                color=PALETTE["grey"],
                marker="s",
                label="no motion",
            )
            column[0].plot(
                x, [row["nrmse"] for row in own], color=PALETTE["blue"], marker="o", label="(12)"
            )
            column[0].set_title(_weights(rows, name))
            column[1].plot(
                x,
                [row["gain_theory"] for row in own],
                color=PALETTE["violet"],
                marker="o",
                label="log2 of the ratio of errors",
            )
            column[2].plot(
                x,
                [row["saved_against_zero"] * 100 for row in own],
                color=PALETTE["orange"],
                marker="o",
                label="against zero motion",
            )
            column[2].plot(
                x,
                [row["saved_against_intra"] * 100 for row in own],
                color=PALETTE["green"],
                marker="^",
                label="against intra",
            )
            column[2].axhline(0, color=MUTED, linewidth=0.8)
            for axis in column:
                axis.set_xticks(x, [])
            column[2].set_xticks(x, labels, rotation=90, fontsize=7)
        axes[0, 0].set_ylabel("NRMSE")
        axes[0, 0].set_ylim(bottom=0)
        axes[1, 0].set_ylabel("gain, bits per element")
        axes[2, 0].set_ylabel("bits saved by motion, %")
        for axis in axes[:, 0]:
            axis.legend(loc="best")
        return figure


def magnitude_figure(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE, and the bits that motion saves against none, over the length of a translation."""
    networks = _unique(rows, "network")
    with figure_style():
        figure, axes = plt.subplots(
            2,
            len(networks),
            figsize=(3.9 * len(networks), 5.4),
            squeeze=False,
            sharey="row",
            sharex=True,
        )
        for (above, below), name in zip(axes.T, networks, strict=True):
            own = [row for row in rows if row["network"] == name]
            for colour, layer in zip(COLOURS, _unique(own, "layer"), strict=False):
                chosen = [row for row in own if row["layer"] == layer]
                x = [row["magnitude_px"] for row in chosen]
                nrmse, still = ([row[key] for row in chosen] for key in ("nrmse", "still"))
                above.plot(x, nrmse, color=colour, marker="o", label=short(layer))
                above.plot(x, still, color=colour, linestyle=":", linewidth=1)
                saved = [row["bits_zero"] - row["bits_motion"] for row in chosen]
                below.plot(x, saved, color=colour, marker="o")
            above.set_title(_weights(rows, name))
            above.legend(loc="upper left")
            below.set_xscale("log", base=2)
            below.set_xticks([0.5, 1, 2, 4, 8, 16, 32], ["½", "1", "2", "4", "8", "16", "32"])
            below.set_xlabel("length of the translation, px")
        for axis in axes[:, 0]:
            axis.set_ylim(bottom=0)
        axes[0, 0].set_ylabel("NRMSE (dotted: no motion)")
        axes[1, 0].set_ylabel("bits saved per element")
        return figure


def filters_figure(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE over the sub-sample phase, a line for each interpolation filter."""
    layers = list(dict.fromkeys((row["network"], row["layer"]) for row in rows))
    columns = min(len(layers), 4)
    lines = -(-len(layers) // columns)
    with figure_style():
        figure, axes = plt.subplots(
            lines, columns, figsize=(2.6 * columns + 0.4, 2.5 * lines + 0.6), squeeze=False
        )
        for axis in axes.flat[len(layers) :]:
            axis.set_visible(False)
        handles: dict[str, Any] = {}
        for axis, (name, layer) in zip(axes.flat, layers, strict=False):
            own = [row for row in rows if row["network"] == name and row["layer"] == layer]
            for number, kind in enumerate(_unique(own, "filter")):
                chosen = [row for row in own if row["filter"] == kind]
                (handles[kind],) = axis.plot(
                    [row["phase"] for row in chosen],
                    [row["nrmse"] for row in chosen],
                    color=COLOURS[number % len(COLOURS)],
                    linestyle=DASHES[number % 4],
                )
            axis.set_title(f"{NETWORKS.get(name, name)}\n{short(layer)}, n^k = {own[0]['stride']}")
            axis.set_xlabel("phase, samples")
            axis.set_ylim(bottom=0)
        for axis in axes[:, 0]:
            axis.set_ylabel("NRMSE")
        _title(figure, rows)
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=6)
        return figure


def offsets_figure(rows: Sequence[Row]) -> Figure:
    """Draw where the samples of every layer seem to be, against where the graph puts them."""
    networks = list(dict.fromkeys((row["network"], row["weights"]) for row in rows))
    with figure_style():
        figure, axes = plt.subplots(
            1, len(networks), figsize=(3.4 * len(networks) + 0.4, 3.6), squeeze=False, sharey=True
        )
        for axis, (name, weights) in zip(axes[0], networks, strict=True):
            own = [row for row in rows if (row["network"], row["weights"]) == (name, weights)]
            layers = _unique(own, "layer")
            x = np.arange(len(layers))
            for kind, marker, colour in (
                ("scaling", "o", PALETTE["blue"]),
                ("mirroring", "^", PALETTE["orange"]),
            ):
                chosen = [row for row in own if row["by"] == kind]
                for shift, direction, filled in ((-0.1, "x", True), (0.1, "y", False)):
                    axis.errorbar(
                        x + shift,
                        [row[f"offset_{direction}"] for row in chosen],
                        [row[f"spread_{direction}"] for row in chosen],
                        color=colour,
                        linestyle="none",
                        marker=marker,
                        elinewidth=0.8,
                        markerfacecolor=colour if filled else "none",
                        label=f"by {kind}, {direction}",
                    )
            axis.plot(
                x,
                [
                    next(row["symmetric_x"] for row in own if row["layer"] == layer)
                    for layer in layers
                ],
                linestyle="none",
                marker="x",
                color=MUTED,
                label="symmetric in the frame",
            )
            axis.axhline(0, color=MUTED, linewidth=0.9)
            axis.set_xticks(x, [short(layer) for layer in layers], rotation=90, fontsize=7)
            axis.set_title(f"{NETWORKS.get(name, name)}\n{weights}")
        axes[0, 0].set_ylabel("offset from the graph's, samples")
        axes[0, 0].legend(loc="best", fontsize=7)
        return figure


def real_figure(rows: Sequence[Row], base: str) -> Figure:
    """Draw what each step leaves of the error on real motion, against the codec's prediction."""
    steps = [step for step in _unique(rows, "prediction") if step != base]
    layers = list(dict.fromkeys((row["network"], row["layer"]) for row in rows))
    still = "no motion"
    with figure_style():
        figure, axes = plt.subplots(
            1,
            2,
            figsize=(9.6, 0.36 * len(layers) + 1.5),
            width_ratios=(2.4, 1),
            sharey=True,
        )
        for number, step in enumerate(steps):
            values = []
            for name, layer in layers:
                ratios = [
                    row["ratio"]
                    for row in rows
                    if (row["network"], row["layer"], row["prediction"]) == (name, layer, step)
                ]
                values.append(float(np.exp(np.mean(np.log(ratios)))))
            axes[int(step == still)].plot(
                values,
                np.arange(len(layers)),
                linestyle="none",
                marker="osD^vPX"[number % 7],
                markersize=5.5,
                color=[*COLOURS, PALETTE["grey"], PALETTE["pink"]][number % 9],
                label=step,
            )
        axes[0].axvline(1, color=MUTED, linewidth=0.9)
        axes[0].set_yticks(
            range(len(layers)),
            [f"{NETWORKS.get(name, name)} {short(layer)}" for name, layer in layers],
        )
        axes[0].set_ylim(len(layers) - 0.5, -0.5)
        axes[0].set_title("with the codec's vectors, or better ones")
        axes[1].set_title(still)
        axes[1].set_xlim(left=1)
        figure.supxlabel(
            "error ÷ that of the codec's prediction, geometric mean over clips with motion",
            fontsize=9,
        )
        _title(figure, rows)
        figure.legend(loc="outside right center")
        return figure


def coded_figure(rows: Sequence[Row]) -> Figure:
    """Draw what share of the bits motion saves: a dot for each clip."""
    layers = list(dict.fromkeys((row["network"], row["layer"]) for row in rows))
    clips = _unique(rows, "clip")
    with figure_style():
        figure, axes = plt.subplots(
            1, 2, figsize=(9.6, 0.36 * len(layers) + 1.5), sharey=True, sharex=True
        )
        for axis, key in zip(axes, ("saved_against_zero", "saved_against_intra"), strict=True):
            for number, clip in enumerate(clips):
                found = {
                    (row["network"], row["layer"]): row[key] for row in rows if row["clip"] == clip
                }
                axis.plot(
                    [found[layer] * 100 for layer in layers],
                    np.arange(len(layers)),
                    linestyle="none",
                    marker="os^Dv"[number % 5],
                    color=[*COLOURS, PALETTE["grey"], PALETTE["pink"]][number % 9],
                    label=clip,
                )
            axis.axvline(0, color=MUTED, linewidth=0.9)
            axis.set_title(key.replace("_", " ").replace("zero", "zero motion"))
            axis.set_xlabel("bits saved, %")
        axes[0].set_yticks(
            range(len(layers)),
            [f"{NETWORKS.get(name, name)} {short(layer)}" for name, layer in layers],
        )
        axes[0].set_ylim(len(layers) - 0.5, -0.5)
        _title(figure, rows)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center")
        return figure
