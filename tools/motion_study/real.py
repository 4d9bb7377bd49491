"""Carried further: what better filters, places and vectors would take off the error on clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.motion_search import MotionSearch, luma
from codec.format.header import TensorSpec
from codec.normative.motion import latent_displacement
from tools.motion_study.drawing import COLOURS, short, title_weights, values_of
from tools.motion_study.networks import MAIN_LAYERS, load_network
from tools.motion_study.offsets import fitted_offsets
from tools.motion_study.pictures import frames_of
from tools.motion_study.predictions import VECTOR_GRID, frame_header
from tools.motion_study.settings import NETWORKS, SIZE, Row, Settings
from tools.motion_study.verdicts import Finding, Report, all_rows, moving_clips, saved_figure
from tools.motion_study.warps import (
    interpolation,
    moved,
)
from tools.report.figures import MUTED, PALETTE, figure_style

__all__ = ["draw", "measure", "report"]

BLOCK = 4
"""Side of the latent blocks whose vectors the oracle improves, samples."""
ORACLE_REACH, ORACLE_STEP = 48, 16
"""In 1/64 sample: three quarters of a sample around the vector, in quarters."""
LONGEST = "Lanczos-3, 6 taps"


def measure(settings: Settings, name: str) -> list[Row]:
    """Predict the tensors of clips in several ways: `ratio` is the error over the codec's.

    The fitted offset is that of `offsets`, by scaling.  The oracle looks for the best vector of
    every latent block around the codec's, knowing the tensor; oracle gains weight each spatial
    frequency of the codec's prediction as suits the tensor best.
    """
    network = load_network(name, settings, MAIN_LAYERS[name])
    fitted = {
        row["layer"]: (row["offset_y"], row["offset_x"])
        for row in fitted_offsets(network, settings)
        if row["by"] == "scaling"
    }
    rows = []
    for clip in settings.clips:
        frames = frames_of(clip, settings.frames)
        tensors = network(np.stack(frames))
        coarse, fine = (_fields(frames, grid) for grid in (2 * VECTOR_GRID, VECTOR_GRID))
        for place, (layer, spec) in enumerate(network.layers.items()):
            sums: dict[str, float] = {}
            for number, (reference, actual) in enumerate(
                settings.bar(list(pairwise(tensors[place])), f"real, {clip.name}, {layer}")
            ):
                for kind, predicted in _alternatives(
                    reference, actual, coarse[number], fine[number], spec, fitted[layer]
                ).items():
                    error = float(np.square(predicted - actual.numpy(), dtype=np.float64).sum())
                    sums[kind] = sums.get(kind, 0.0) + error
            extent = float(tensors[place].max() - tensors[place].min())
            elements = spec.elements * (len(frames) - 1)
            # a still clip is predicted without error
            base = sums[BASE] or 1.0
            rows += [
                {
                    **network.stamp,
                    "clip": clip.name,
                    "layer": layer,
                    "prediction": kind,
                    "nrmse": math.sqrt(total / elements) / extent,
                    "ratio": max(math.sqrt(total / base), 1e-3),
                }
                for kind, total in sums.items()
            ]
    return rows


BASE = "the codec (32 px grid, cubic)"


def _fields(frames: Sequence[NDArray[np.uint8]], grid: int) -> list[NDArray[np.int32]]:
    search = MotionSearch(frame_header(SIZE, grid), qp=0)
    found = [search.estimate(luma(rgb)) for rgb in frames]
    return [field for field in found if field is not None]


def _alternatives(
    reference: Tensor,
    actual: Tensor,
    coarse: NDArray[np.int32],
    fine: NDArray[np.int32],
    spec: TensorSpec,
    offset: tuple[float, float],
) -> dict[str, NDArray[np.float32]]:
    displacement = latent_displacement(coarse, 2 * VECTOR_GRID, spec)
    dense = latent_displacement(fine, VECTOR_GRID, spec)
    shifted = replace(
        spec,
        offset_y2=spec.offset_y2 + round(2 * offset[0] * spec.stride_y),
        offset_x2=spec.offset_x2 + round(2 * offset[1] * spec.stride_x),
    )
    found = {
        "no motion": reference.numpy(),
        BASE: moved(reference, displacement),
        "16 px grid": moved(reference, dense),
    }
    for kind in ("bilinear", LONGEST):
        with interpolation(kind):
            found[kind] = moved(reference, displacement)
    found["fitted offset"] = moved(reference, latent_displacement(coarse, 2 * VECTOR_GRID, shifted))
    found["oracle vectors"] = _oracle(reference, actual, displacement)
    found["oracle gains"] = _weighted(found[BASE], actual.numpy())
    return found


def _weighted(predicted: NDArray[np.float32], actual: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale every spatial frequency of a prediction as fits best, all channels alike."""
    mean = predicted.mean((1, 2), keepdims=True)
    ours = np.fft.rfft2(predicted - mean)
    theirs = np.fft.rfft2(actual - mean)
    power = np.square(np.abs(ours)).sum(0)
    gain = (theirs * ours.conj()).real.sum(0) / np.where(power > 0, power, 1)
    found = np.fft.irfft2(ours * gain, predicted.shape[1:]) + mean
    return np.asarray(found, np.float32)


def _oracle(
    reference: Tensor, actual: Tensor, displacement: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Choose, for every block, the change to its vectors that predicts the tensor best."""
    height, width = displacement.shape[:2]
    block = (np.arange(height)[:, None] // BLOCK) * -(-width // BLOCK) + np.arange(width) // BLOCK
    truth = actual.numpy()
    best = moved(reference, displacement)
    cost = np.bincount(block.ravel(), np.square(best - truth).sum(0).ravel())
    steps = range(-ORACLE_REACH, ORACLE_REACH + 1, ORACLE_STEP)
    for y in steps:
        for x in steps:
            trial = moved(reference, displacement + np.array([y, x]))
            own = np.bincount(block.ravel(), np.square(trial - truth).sum(0).ravel())
            better = (own < cost)[block]
            best = np.where(better, trial, best)
            cost = np.minimum(cost, own)
    return best


def draw(rows: Sequence[Row], base: str) -> Figure:
    """Draw what each step leaves of the error on real motion, against the codec's prediction."""
    steps = [step for step in values_of(rows, "prediction") if step != base]
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
        title_weights(figure, rows)
        figure.legend(loc="outside right center")
        return figure


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    still: dict[str, list[float]] = {}
    for row in rows:
        if row["prediction"] == "no motion":
            still.setdefault(row["clip"], []).append(row["ratio"])
    moving = moving_clips({clip: float(np.mean(ratios)) for clip, ratios in still.items()})
    tables = {"motion-real": rows}
    rows = [row for row in rows if row["clip"] in moving]
    steps = list(dict.fromkeys(row["prediction"] for row in rows))
    means = {
        step: float(
            np.exp(np.mean([math.log(row["ratio"]) for row in rows if row["prediction"] == step]))
        )
        for step in steps
    }
    return Report(
        "real",
        "Real motion",
        "Carried further, what the model leaves on the table. Tensors of real clips predicted "
        "from the frame before; the error relative to that of the codec's own prediction. Oracles"
        " know the tensor, at no cost: that of vectors moves the vector of every block of 4×4 "
        "samples by up to three quarters of a sample, that of gains weights every spatial "
        "frequency of the prediction. Clips with motion: "
        f"{', '.join(moving)}; the others are in the CSV.",
        tables,
        [
            saved_figure(
                draw(rows, BASE),
                output,
                "real",
                "Left of the line: better than the codec.",
            )
        ],
        [
            Finding(
                step,
                "–",
                f"{means[step]:.3f} of the codec's error",
                None,
                _worth(step, means[step]),
            )
            for step in steps
            if step != BASE
        ],
    )


def _worth(step: str, ratio: float) -> str:
    if step == "no motion":
        return f"motion takes {1 - 1 / ratio:.0%} off the error"
    change = 1 - ratio
    return f"takes {change:.1%} off" if change > 0 else f"adds {-change:.1%}"
