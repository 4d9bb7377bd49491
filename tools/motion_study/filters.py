"""Carried further: NRMSE against sub-sample phase, with several interpolation filters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from codec.metrics import FeatureNrmse
from tools.motion_study.bits import CODED_PAIRS, mean_bits
from tools.motion_study.drawing import COLOURS, DASHES, short, title_weights, values_of
from tools.motion_study.networks import MAIN_LAYERS, load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.settings import NETWORKS, SIZE, Row, Settings
from tools.motion_study.verdicts import (
    Finding,
    Report,
    all_rows,
    layer_title,
    layers_in,
    rows_at,
    saved_figure,
)
from tools.motion_study.warps import (
    CODEC_FILTER,
    FILTERS,
    Affine,
    displacement_of,
    interpolation,
    moved,
    predictable,
)
from tools.report.figures import figure_style

__all__ = ["draw", "measure", "report"]

WHOLE = 1
"""Samples moved besides the phase."""
PHASE_STEPS = 8


def measure(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE against sub-sample phase in x, with every filter; bits with the codec's own."""
    network = load_network(name, settings, MAIN_LAYERS[name])
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    rows = []
    strides = sorted({spec.stride_x for spec in network.layers.values()})
    plan = [(stride, step / PHASE_STEPS) for stride in strides for step in range(PHASE_STEPS + 1)]
    for stride, phase in settings.bar(plan, f"filters, {network.title}"):
        affine = Affine(x=stride * (WHOLE + phase))
        tensors = network(np.stack([picture.frame(affine) for picture in pictures]))
        for place, (layer, spec) in enumerate(network.layers.items()):
            if spec.stride_x != stride:
                continue
            displacement = displacement_of(affine, spec, SIZE)
            mask = predictable(displacement)
            mask[:, :4] = mask[:, -4:] = False  # longer filters reach farther over the edge
            chosen = range(min(CODED_PAIRS, len(pictures)))
            bits = mean_bits(
                [(references[place][number], affine) for number in chosen],
                [tensors[place][number] for number in chosen],
                spec,
            )
            for kind in FILTERS:
                with interpolation(kind):
                    errors = [
                        _masked(actual, moved(reference, displacement), mask)
                        for reference, actual in zip(references[place], tensors[place], strict=True)
                    ]
                rows.append(
                    {
                        **network.stamp,
                        "layer": layer,
                        "stride": stride,
                        "filter": kind,
                        "phase": phase,
                        "images": len(pictures),
                        "nrmse": float(np.mean(errors)),
                        **(bits if kind == CODEC_FILTER else {}),
                    }
                )
    return sorted(
        rows, key=lambda row: (row["stride"], row["layer"], list(FILTERS).index(row["filter"]))
    )


def _masked(actual: Tensor, predicted: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    error = FeatureNrmse(1)
    error.update(0, actual.numpy()[:, mask], predicted[:, mask])
    return error.combined()


def draw(rows: Sequence[Row]) -> Figure:
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
            for number, kind in enumerate(values_of(own, "filter")):
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
        title_weights(figure, rows)
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=6)
        return figure


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    findings = []
    for key in layers_in(rows):
        own = rows_at(rows, key)
        means = {
            kind: float(np.mean([row["nrmse"] for row in own if row["filter"] == kind]))
            for kind in dict.fromkeys(row["filter"] for row in own)
        }
        cubic = means["cubic (the codec's)"]
        longest = min(value for kind, value in means.items() if kind.startswith("Lanczos"))
        spline = [
            row["nrmse"]
            for row in own
            if row["filter"].startswith("B-spline") and row["phase"] == 0
        ]
        findings.append(
            Finding(
                f"{layer_title(*key)}: filters, mean over phases",
                "–",
                ", ".join(f"{kind} {value:.4f}" for kind, value in means.items()),
                None,
                f"longer filters change the cubic's error by {longest / cubic - 1:+.1%}"
                + (", so interpolation is not what is left" if longest > 0.95 * cubic else "")
                + f"; a kernel that smooths costs {spline[0]:.3f} at whole shifts already",
            )
        )
    findings += [_phases(rows_at(rows, key), key) for key in layers_in(rows)]
    return Report(
        "filters",
        "Phase and filters",
        "Carried further: translation in x by one sample and a phase. All filters run in the "
        "codec's own compensation; the cubic one is its own.",
        {"motion-filters": rows},
        [
            saved_figure(
                draw(rows),
                output,
                "filters",
                "All interpolators meet zero at whole samples. The B-spline without its prefilter "
                "does not: it smooths.",
            )
        ],
        findings,
    )


def _phases(rows: Sequence[Row], key: tuple[str, str]) -> Finding:
    """Say what the codec makes of the phase."""
    saved = {row["phase"]: row["saved_against_zero"] for row in rows if "bits_motion" in row}
    whole, half = (saved[0.0] + saved[1.0]) / 2, saved[0.5]
    return Finding(
        f"{layer_title(*key)}: bits that motion saves against zero motion",
        "–",
        f"{whole:.0%} at whole samples, {half:.0%} half-way",
        None,
        f"between samples {1 - half / whole:.0%} of the gain is lost" if 0 < half < whole else "",
    )
