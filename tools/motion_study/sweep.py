"""Fig. 5: NRMSE over the range of each motion, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from codec.pages.shell import table
from tools.motion_study.drawing import COLOURS, network_title, short, values_of
from tools.motion_study.networks import load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.predictions import MEASURES, predictions, steps_between, still_tensors
from tools.motion_study.settings import Row, Settings
from tools.motion_study.verdicts import (
    ABOUT,
    LIMIT,
    PAPER_LAYERS,
    PAPER_NETWORKS,
    Finding,
    Report,
    all_rows,
    fixed,
    layer_title,
    layers_in,
    rows_at,
    saved_figure,
)
from tools.motion_study.warps import (
    Affine,
    Prediction,
)
from tools.report.figures import MUTED, figure_style

__all__ = ["draw", "measure", "report"]


def _summary(values: NDArray[np.float64]) -> Row:
    """Sum up NRMSE over pictures or draws."""
    low, median, high = np.percentile(values, (5, 50, 95))
    return {
        "mean": values.mean(),
        "std": values.std(),
        "min": values.min(),
        "p5": low,
        "p50": median,
        "p95": high,
        "max": values.max(),
    }


def _columns(found: Sequence[Prediction]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([getattr(one, name) for one in found], np.float64) for name in MEASURES}


SWEEPS: dict[str, tuple[str, float, float, float, tuple[float, ...]]] = {
    "translation": ("x", -36.0, 36.0, 1.0, (-0.25, 0.25)),
    "rotation": ("rotation", -10.0, 10.0, 1.0, (-0.25, 0.25)),
    "scale": ("scale_x", 0.8, 1.25, 0.025, (0.995, 1.005)),
    "shear": ("shear_x", -10.0, 10.0, 1.0, (-0.25, 0.25)),
}
"""Parameter of `Affine`, from, to, step, and what lies next to no motion.  The paper's ranges;
translation is wider, to see whether a shift of 32 is a minimum."""


def measure(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE over the range of each motion: a row per layer and value."""
    network = load_network(name, settings)
    pictures = [picture for _, picture in pictures_of(settings)]
    references = still_tensors(network, pictures)
    plan = [
        (transformation, value, Affine(**{parameter: value}))
        for transformation, (parameter, low, high, step, near) in SWEEPS.items()
        for value in sorted({*steps_between(low, high, step * settings.step), *near})
    ]
    rows: list[Row] = []
    for transformation, value, affine in settings.bar(plan, f"sweep, {network.title}"):
        cases = [(number, affine) for number in range(len(pictures))]
        found = predictions(network, pictures, references, cases)
        for layer, column in zip(network.layers, zip(*found, strict=True), strict=True):
            fields = _columns(column)
            rows.append(
                {
                    **network.stamp,
                    "layer": layer,
                    "stride": network.layers[layer].stride_x,
                    "transformation": transformation,
                    "value": value,
                    "images": len(pictures),
                    **_summary(fields["nrmse"]),
                    **{f"mean_{key}": np.nanmean(fields[key]) if np.isfinite(fields[key]).any()
                       else math.nan for key in MEASURES[1:]},
                }
            )  # fmt: skip
    return rows


AXIS_NAMES = {
    "translation": "translation, px",
    "rotation": "rotation, degrees",
    "scale": "horizontal scale",
    "shear": "shear, degrees",
}


def draw(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE over the parameter of each motion; bands: one standard deviation over pictures."""
    networks = values_of(rows, "network")
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
                for colour, layer in zip(COLOURS, values_of(own, "layer"), strict=False):
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
                axis.axhline(LIMIT, color=MUTED, linewidth=0.9, linestyle="--")
                axis.set_xlabel(AXIS_NAMES[transformation])
            line[0].set_ylim(bottom=0)
            line[0].set_xticks(range(-32, 33, 16))
            line[0].set_ylabel("NRMSE")
            line[0].set_title(network_title(rows, name))
            line[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return figure


LIKE = 1.5
"""Factor within which two curves are alike: pictures and weights differ from the paper's."""
FIG5_MAXIMA = {
    ("resnet34", "conv1"): (0.005, 0.010, 0.007, 0.007),
    ("resnet34", "add_3"): (0.033, 0.0385, 0.0335, 0.0315),
    ("resnet34", "add_7"): (0.030, 0.029, 0.032, 0.025),
    ("densenet121", "features.transition2"): (0.0195, 0.0185, 0.020, 0.0145),
    ("densenet121", "features.transition3"): (0.0225, 0.026, 0.0225, 0.020),
}
"""Maxima over translation, rotation, scale and shear, read off."""
FIG5_MINIMA = {
    ("resnet34", "conv1"): 0.0022,
    ("resnet34", "add_3"): 0.011,
    ("resnet34", "add_7"): 0.012,
    ("densenet121", "features.transition2"): 0.0065,
}
"""At whole latent shifts other than zero, read off."""
FIG5_TRANSLATION = 30
FIG5_JUMPS = {("resnet34", "add_3"): (0.018, 0.0285, 0.0165, 0.0125)}
"""Next to no motion, where the paper's curves jump away from zero, read off."""


TRANSFORMATIONS = ("translation", "rotation", "scale", "shear")


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    findings = []
    for key in layers_in(rows):
        own = rows_at(rows, key)
        maxima = [
            max(row["mean"] for row in own if row["transformation"] == kind and _in_range(row))
            for kind in TRANSFORMATIONS
        ]
        paper = FIG5_MAXIMA.get(key)
        within = max(maxima) <= LIMIT * ABOUT
        findings.append(
            Finding(
                f"{layer_title(*key)}: largest NRMSE",
                "up to about 0.04" if paper else "up to about 0.04 (other layers)",
                f"{max(maxima):.4f}",
                within,
                f"at most {max(row['mean_relative'] for row in own):.0%} of the tensor's standard "
                "deviation" + ("" if within else "; " + _why_larger(own)),
            )
        )
        if paper is not None:
            findings.append(_heights(own, key, maxima))
    minima = [_minima(rows_at(rows, key), key) for key in layers_in(rows)]
    findings += [finding for finding in minima if finding is not None]
    findings += [_jump(rows_at(rows, key), key) for key in layers_in(rows) if key in FIG5_JUMPS]
    return Report(
        "sweep",
        "Sweep (Fig. 5)",
        "NRMSE over the range of each motion: mean over pictures; bands: one standard deviation. "
        "Pictures are moved by cubic splines, rounded to 8 bits, and reach beyond the frame "
        "(mirrored at their own edges); tensors by the codec's cubic filter. Only what enters the"
        " frame is left out, as in the paper; “inner” columns also leave out what has seen the "
        "zero padding, within 32 px of an edge. “About 0.04” is taken as at most 0.05; curves are "
        f"called alike within a factor of {LIKE}, in the geometric mean over the four motions.",
        {"motion-sweep": rows},
        [
            saved_figure(
                draw(rows),
                output,
                "sweep",
                "Dashed: 0.04. Translation: minima wherever the shift is whole samples.",
            )
        ],
        findings,
        [
            table(
                ("layer", "motion", "mean at the worst", "std", "p95", "max", "inner", "no motion"),
                [
                    _worst_row(rows_at(rows, key), key, kind)
                    for key in layers_in(rows)
                    for kind in TRANSFORMATIONS
                ],
                "Where the mean over pictures is largest. Inner: without what saw the padding; no "
                "motion: the reference where it is.",
            )
        ],
    )


def _in_range(row: Row) -> bool:
    """Tell whether a row belongs to the paper's range."""
    return bool(row["transformation"] != "translation" or abs(row["value"]) <= FIG5_TRANSLATION)


def _worst_row(rows: Sequence[Row], key: tuple[str, str], kind: str) -> tuple[Any, ...]:
    worst = max((row for row in rows if row["transformation"] == kind), key=lambda r: r["mean"])
    return (
        layer_title(*key),
        f"{kind} {worst['value']:g}",
        *(f"{worst[name]:.4f}" for name in ("mean", "std", "p95", "max")),
        fixed(worst["mean_inner"], 4),
        f"{worst['mean_still']:.4f}",
    )


def _ratios(own: Sequence[float], paper: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(own, paper, strict=True)]


def _four(values: Sequence[float]) -> str:
    return ", ".join(
        f"{kind} {value:.4f}" for kind, value in zip(TRANSFORMATIONS, values, strict=True)
    )


def _heights(rows: Sequence[Row], key: tuple[str, str], maxima: Sequence[float]) -> Finding:
    """Compare the heights of the curves with those of the paper's own."""
    paper = FIG5_MAXIMA[key]
    ratios = _ratios(maxima, paper)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    alike = 1 / LIKE <= mean <= LIKE
    why = f"{min(ratios):.1f} to {max(ratios):.1f} times the paper's"
    if not alike:
        stride = rows[0]["stride"]
        whole = [
            row["mean"]
            for row in rows
            if row["transformation"] == "translation"
            and row["value"] != 0
            and row["value"] % stride == 0
            and _in_range(row)
        ]
        if key in FIG5_MINIMA and whole:
            exact = float(np.mean(whole)) / FIG5_MINIMA[key]
            why += f", {exact:.1f} times at whole shifts, where only the edges of the frame err"
            if exact >= mean:
                why += ": no less than elsewhere, which points to R rather than to the motion"
        why += "; " + _why_larger(rows)
    return Finding(
        f"{layer_title(*key)} ({PAPER_LAYERS[key]}): heights of the curves",
        f"{_four(paper)} (read off)",
        _four(maxima),
        alike,
        why,
    )


def _why_larger(rows: Sequence[Row]) -> str:
    """Explain an NRMSE beyond the paper's, with what the rows say about it."""
    worst = max(rows, key=lambda row: row["mean"])
    if not worst["mean_relative"]:
        return ""
    extent = worst["mean_relative"] / worst["mean"]
    return (
        f"(13) divides by the range, here {extent:.0f} standard deviations; pictures have from "
        f"{worst['min']:.3f} to {worst['max']:.3f} there, and the paper does not say which it took"
        + ("" if rows[0]["network"] in PAPER_NETWORKS else "; not a network of the paper")
    )


def _minima(rows: Sequence[Row], key: tuple[str, str]) -> Finding | None:
    """Look for local minima where the shift is whole samples; None if the sweep is too coarse."""
    stride = rows[0]["stride"]
    curve = {
        row["value"]: row
        for row in rows
        if row["transformation"] == "translation" and row["value"] % 1 == 0
    }
    values = sorted(curve)
    if values[1] - values[0] > stride / 2:
        return None
    neighbours = dict(zip(values[1:-1], zip(values, values[2:], strict=False), strict=False))
    inside = [value for value in neighbours if value % stride == 0 and value != 0]
    middle = [row["mean"] for value, row in curve.items() if value % stride == stride / 2]
    if not inside or not middle:
        return None

    def held(value: float, measure: str) -> bool:
        around = [curve[other][measure] for other in neighbours[value]]
        return all(curve[value][measure] < other for other in around)

    there = [value for value in inside if abs(value) <= FIG5_TRANSLATION]
    minima = sum(held(value, "mean") for value in inside)
    core = sum(held(value, "mean_inner") for value in inside)
    whole = np.mean([curve[value]["mean"] for value in inside])
    inner = [
        np.mean([curve[value]["mean_inner"] for value in chosen])
        for chosen in (inside, [value for value in curve if value % stride == stride / 2])
    ]
    expected = FIG5_MINIMA.get(key)
    why = (
        f"away from the edges {inner[0]:.4f} there, {inner[1]:.4f} half-way, minima at {core} of "
        f"{len(inside)}: at whole shifts only the edges of the frame err, by their padding and by "
        "what enters, as far as receptive fields reach"
    )
    if not there:
        why = f"the first whole shift lies outside the paper's ±{FIG5_TRANSLATION} px; {why}"
    return Finding(
        f"{layer_title(*key)}, n^k = {stride}: minima at whole latent shifts",
        "local minima" + (f", about {expected} (read off)" if expected else ""),
        f"at {sum(held(value, 'mean') for value in there)} of {len(there)} shifts in the paper's "
        f"range, {minima} of {len(inside)} in all; {whole:.4f} there, {np.mean(middle):.4f} "
        "half-way",
        all(held(value, "mean") for value in there) if there else None,
        why,
    )


def _jump(rows: Sequence[Row], key: tuple[str, str]) -> Finding:
    """Compare the smallest motion of each kind with none."""
    near = []
    for kind in TRANSFORMATIONS:
        own = [row for row in rows if row["transformation"] == kind]
        still = 1.0 if kind == "scale" else 0.0
        closest = min(
            (row for row in own if row["value"] != still), key=lambda r: abs(r["value"] - still)
        )
        near.append(closest["mean"])
    paper = FIG5_JUMPS[key]
    agrees = all(0.5 < ratio < 2 for ratio in _ratios(near, paper))
    return Finding(
        f"{layer_title(*key)}: next to no motion (¼ px, ¼°, 0.5 %)",
        f"{_four(paper)} (read off: the curves jump away from zero)",
        _four(near),
        agrees,
        ""
        if agrees
        else "with the codec's interpolating filter a small motion is a small error; the paper "
        "does not say what it moved tensors with. A filter that smooths, left out at whole "
        "shifts, would look like this (see “Phase and filters”), but that is a guess",
    )
