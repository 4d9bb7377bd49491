"""Carried further: where the samples of a layer seem to lie, against where the graph puts them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from codec.format.header import TensorSpec
from codec.normative.motion import PHASES
from tools.motion_study.drawing import short, values_of
from tools.motion_study.networks import Network, every_layer, load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.settings import NETWORKS, SIZE, Row, Settings
from tools.motion_study.verdicts import Finding, Report, all_rows, saved_figure
from tools.motion_study.warps import (
    Affine,
    Picture,
    displacement_of,
    moved,
    positions,
    predictable,
)
from tools.report.figures import MUTED, PALETTE, figure_style

__all__ = ["draw", "fitted_offset", "fitted_offsets", "measure", "report"]

SCALES = (0.8, 0.9, 1.1, 1.25)
OFFSETS = np.arange(-1.0, 1.01, 0.25)
"""Samples."""
EDGE = 7
"""Fits leave out this part of the tensor at each edge."""
CONTROLLED = "efficientnet_lite0"
CONTROL_LAYERS = ("blocks.0", "blocks.2", "blocks.4", "blocks.7", "blocks.10", "blocks.14")
CONTROL_SEEDS = 4


def measure(settings: Settings, name: str) -> list[Row]:
    """Fit the place of every layer's samples, in samples, as an offset from the graph's.

    By scaling about the centre of the frame, and by mirroring it: features of the mirrored frame
    are the mirrored features only as far as filters come in mirrored pairs, so only what all
    channels of a layer have in common is compared there, the mean over channels of magnitudes.
    The package's network is fitted with several draws of random weights, too, as a control.
    `symmetric_*`: the offset that would centre the grid of samples in the frame.
    """
    rows = fitted_offsets(load_network(name, settings, every_layer(name)), settings)
    if name != CONTROLLED:
        return rows
    controls = [
        fitted_offsets(
            load_network(
                name, replace(settings, seed=settings.seed + k), CONTROL_LAYERS, control=True
            ),
            settings,
        )
        for k in range(CONTROL_SEEDS)
    ]
    return rows + [_pooled(same) for same in zip(*controls, strict=True)]


def _pooled(rows: Sequence[Row]) -> Row:
    """Join the rows of several draws of weights; spread: the standard deviation among them."""
    found = dict(rows[0])
    found["weights_hash"] = "+".join(row["weights_hash"][:4] for row in rows)
    for axis in "yx":
        values = [row[f"offset_{axis}"] for row in rows]
        found[f"offset_{axis}"] = float(np.mean(values))
        found[f"spread_{axis}"] = float(np.std(values))
    return found


def fitted_offsets(network: Network, settings: Settings) -> list[Row]:
    """Fit the offsets of all layers of a network, by scaling and by mirroring."""
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    scaled = {
        scale: network(
            np.stack([picture.frame(Affine(scale_x=scale, scale_y=scale)) for picture in pictures])
        )
        for scale in settings.bar(SCALES, f"offsets, {network.title}")
    }
    mirrored = [network(_mirrored(pictures, axis)) for axis in (0, 1)]
    rows = []
    for place, (layer, spec) in enumerate(network.layers.items()):
        fits = {"scaling": [], "mirroring": []}  # type: dict[str, list[tuple[float, float]]]
        for number in range(len(pictures)):
            reference = references[place][number]
            fits["scaling"].append(
                fitted_offset(
                    reference, {scale: scaled[scale][place][number] for scale in SCALES}, spec
                )
            )
            fits["mirroring"].append(
                (
                    _mirror_offset(reference, mirrored[0][place][number], spec, 0),
                    _mirror_offset(reference, mirrored[1][place][number], spec, 1),
                )
            )
        symmetric = [
            ((side - 1) / 2 - (count - 1) / 2 * stride - offset2 / 2) / stride
            for side, count, stride, offset2 in (
                (SIZE[0], spec.height, spec.stride_y, spec.offset_y2),
                (SIZE[1], spec.width, spec.stride_x, spec.offset_x2),
            )
        ]
        for kind, values in fits.items():
            found = np.array(values)
            # the standard error of the mean over pictures
            error = found.std(0, ddof=1 if len(found) > 1 else 0) / math.sqrt(len(found))
            rows.append(
                {
                    **network.stamp,
                    "layer": layer,
                    "by": kind,
                    "stride": spec.stride_x,
                    "graph_y_px": spec.offset_y2 / 2,
                    "graph_x_px": spec.offset_x2 / 2,
                    "offset_y": found[:, 0].mean(),
                    "offset_x": found[:, 1].mean(),
                    "spread_y": error[0],
                    "spread_x": error[1],
                    "symmetric_y": symmetric[0],
                    "symmetric_x": symmetric[1],
                    "images": len(pictures),
                }
            )
    return rows


def fitted_offset(
    reference: Tensor, scaled: dict[float, Tensor], spec: TensorSpec
) -> tuple[float, float]:
    """Find the offset, (y, x) in samples, with which (12) predicts scaled frames best.

    One axis after the other: the error in one hardly depends on the offset in the other.
    """
    found = []
    for axis in (0, 1):
        errors = np.zeros(len(OFFSETS))
        for place, shift in enumerate(OFFSETS):
            offset = (shift, 0.0) if axis == 0 else (0.0, shift)
            for scale, actual in scaled.items():
                affine = Affine(scale_x=scale, scale_y=scale)
                displacement = displacement_of(affine, spec, SIZE, offset)
                # the same positions for all offsets
                mask = predictable(displacement_of(affine, spec, SIZE))
                # padding does not move with the picture
                rim = max(spec.height // EDGE, 1)
                mask[:rim] = mask[-rim:] = mask[:, :rim] = mask[:, -rim:] = False
                error = (moved(reference, displacement) - actual.numpy())[:, mask]
                errors[place] += float(np.square(error).mean())
        found.append(_vertex(errors))
    return found[0], found[1]


def _vertex(errors: NDArray[np.float64]) -> float:
    """Return the minimum of the parabola through the least error and its neighbours."""
    least = int(errors.argmin())
    if least in {0, len(errors) - 1}:
        return float(OFFSETS[least])
    left, middle, right = errors[least - 1 : least + 2]
    bend = left - 2 * middle + right
    step = float(OFFSETS[1] - OFFSETS[0])
    return float(OFFSETS[least]) + (step * (left - right) / (2 * bend) if bend > 0 else 0.0)


def _mirrored(pictures: Sequence[Picture], axis: int) -> NDArray[np.uint8]:
    return np.stack([np.flip(picture.still, axis) for picture in pictures])


def _mirror_offset(reference: Tensor, actual: Tensor, spec: TensorSpec, axis: int) -> float:
    """Find the offset along one axis with which the mirrored activity is predicted best.

    What is at p goes to size - 1 - p, so the sample at j shows what is at (size - 1 - 2 (o + δ)) /
    stride - j, where o is the graph's offset in pixels and δ the one looked for, in samples.
    """
    plane, truth = (tensor.abs().mean(0, keepdim=True) for tensor in (reference, actual))
    place = positions(spec)[..., axis]
    count, stride = plane.shape[1 + axis], (spec.stride_y, spec.stride_x)[axis]
    index = np.arange(count)
    grid = index[:, None] if axis == 0 else index[None]
    errors = np.zeros(len(OFFSETS))
    for number, shift in enumerate(OFFSETS):
        source = (SIZE[axis] - 1 - place) / stride - place.take(0) / stride - 2 * shift
        displacement = np.zeros((*place.shape, 2), np.int64)
        displacement[..., axis] = np.floor((source - grid) * PHASES + 0.5)
        inside = (source >= 1) & (source <= count - 2)
        error = (moved(plane, displacement) - truth.numpy())[:, inside]
        errors[number] = float(np.square(error).mean()) if inside.any() else math.inf
    return _vertex(errors)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw where the samples of every layer seem to be, against where the graph puts them."""
    networks = list(dict.fromkeys((row["network"], row["weights"]) for row in rows))
    with figure_style():
        figure, axes = plt.subplots(
            1, len(networks), figsize=(3.4 * len(networks) + 0.4, 3.6), squeeze=False, sharey=True
        )
        for axis, (name, weights) in zip(axes[0], networks, strict=True):
            own = [row for row in rows if (row["network"], row["weights"]) == (name, weights)]
            layers = values_of(own, "layer")
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


def _control(name: str, weights: str, rows: Sequence[Row]) -> Finding:
    """Say what random weights show."""
    found = {
        kind: np.array([[row["offset_y"], row["offset_x"]] for row in rows if row["by"] == kind])
        for kind in ("mirroring", "scaling")
    }
    means = {kind: values.mean(0) for kind, values in found.items()}
    lean = np.abs(means["mirroring"])
    scatter = np.mean(
        [[row["spread_y"], row["spread_x"]] for row in rows if row["by"] == "mirroring"], axis=0
    )
    return Finding(
        f"{NETWORKS.get(name, name)}, {weights}",
        "–",
        "; ".join(
            f"by {kind} ({mean[0]:+.2f}, {mean[1]:+.2f}) samples, layers from "
            f"{found[kind].min():+.2f} to {found[kind].max():+.2f}"
            for kind, mean in means.items()
        ),
        None,
        "by mirroring, the means lie "
        + ("within" if (lean < scatter).all() else "outside")
        + f" the scatter among draws, ({scatter[0]:.2f}, {scatter[1]:.2f})"
        + (
            "; scaling leans up and left without any training, so mirroring is the evidence"
            if means["scaling"].max() < -LEAN
            else ""
        ),
    )


LEAN = 0.1
"""Samples."""


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    findings = []
    for name, weights in dict.fromkeys((row["network"], row["weights"]) for row in rows):
        own = [row for row in rows if (row["network"], row["weights"]) == (name, weights)]
        if "control" in weights:
            findings.append(_control(name, weights, own))
            continue
        deep = [row for row in own if row["stride"] >= 8]
        found = np.array([[row["offset_y"], row["offset_x"]] for row in deep])
        expected = np.array([[row["symmetric_y"], row["symmetric_x"]] for row in deep])
        share = float((found * expected).sum() / (expected**2).sum())
        slope = (
            f"{share:.0%} of the way from the graph's place to a grid that is symmetric in the "
            "frame"
        )
        big = float(np.abs(expected).mean()) > 0.2
        findings.append(
            Finding(
                f"{NETWORKS.get(name, name)}, {weights}: offset (y, x), layers of n^k ≥ 8",
                "n^k alone; offsets are not discussed",
                f"mean ({found[:, 0].mean():+.2f}, {found[:, 1].mean():+.2f}) samples; symmetric "
                f"would be ({expected[:, 0].mean():+.2f}, {expected[:, 1].mean():+.2f})",
                None,
                slope if big else "the graph's grid is nearly symmetric already",
            )
        )
    return Report(
        "offsets",
        "Offsets",
        "Carried further: the offset, on top of what strides and paddings say, with which (12) "
        "predicts scaled and mirrored frames best; whiskers: standard error over pictures. "
        "Crosses: the offset that would make the grid of samples symmetric in the frame, as the "
        "mirroring of training pictures would favour: a conjecture, to be held against the shares "
        "below.",
        {"motion-offsets": rows},
        [
            saved_figure(
                draw(rows),
                output,
                "offsets",
                "Below zero: up or left of where strides and paddings put the sample.",
            )
        ],
        findings,
    )
