"""What the motion study finds: figures and tables of each experiment, and whether the paper agrees.

A finding sets what the paper reports beside what was measured.  Its verdict is computed: `agrees`
is a comparison of numbers, and so is whatever explanation is given for a departure.

The paper's numbers are those of its text, and, where it says "read off", readings of its Figs. 5
and 6 (to about ±0.001).

Source: H. Ulhaq and I. V. Bajić, arXiv:2102.04018, Section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tools.motion_study import figures
from tools.motion_study.experiments import NETWORKS, Flow, Row, Transforms, paper_nrmse
from tools.motion_study.further import BASE
from tools.report.figures import save
from tools.report.page import Section, embedded_figure, render_page, table

__all__ = ["Finding", "Report", "page", "report"]

LIMIT = 0.04
"""Up to about which NRMSE goes "for reasonable ranges of transformation parameters"."""
ABOUT = 1.25
"""What "about" may mean, as a factor."""
LIKE = 1.5
"""Factor within which two curves are alike: pictures and weights differ from the paper's."""
PAPER_LAYERS = {
    ("resnet34", "conv1"): "ResNet-34 conv0",
    ("resnet34", "add_3"): "ResNet-34 add_3",
    ("resnet34", "add_7"): "ResNet-34 add_7",
    ("densenet121", "features.transition2"): "DenseNet-121 pool3_pool",
    ("densenet121", "features.transition3"): "DenseNet-121 pool4_pool",
}
"""The layers of Figs. 5 and 6, and what the paper calls them."""
PAPER_NETWORKS = {network for network, _ in PAPER_LAYERS}
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
FIG5_TRANSLATION = 30
FIG5_JUMPS = {("resnet34", "add_3"): (0.018, 0.0285, 0.0165, 0.0125)}
"""Next to no motion, where the paper's curves jump away from zero, read off."""
HEVC_PSNR = (27.0, 41.0)
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


def _name(network: str, layer: str) -> str:
    return f"{NETWORKS.get(network, network)} {figures.short(layer)}"


def _layers(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["network"], row["layer"]) for row in rows))


def _of(rows: Sequence[Row], key: tuple[str, str]) -> list[Row]:
    return [row for row in rows if (row["network"], row["layer"]) == key]


def _flat(results: Sequence[list[Row]]) -> list[Row]:
    return [row for rows in results for row in rows]


def _stem(output: Path, name: str) -> Path:
    return output / f"motion-{name}"


def _saved(figure: Figure, output: Path, name: str, caption: str) -> tuple[Path, str]:
    stem = _stem(output, name)
    temporary = stem.with_name(f".{stem.name}.partial")
    for written in save(figure, temporary):
        written.replace(stem.with_name(stem.name + written.suffix))
    return stem, caption


# --- the experiments ----------------------------------------------------------------------------


ENOUGH_MOTION = 0.25
"""Share of a frame that has to move for a verdict about motion."""
ALIKE_DEGREES = 45
"""A random direction is 90° off in the median."""


def _flow(results: Sequence[Flow], output: Path) -> Report:
    (flow,) = results
    rows = flow.agreement()
    by_name = {row["field"]: row for row in rows}
    perfect, still = by_name["whole samples, if perfect"], by_name["no motion"]
    moves = still["moving"] >= ENOUGH_MOTION
    each, joint = by_name["each channel"], by_name["all channels at once"]
    return Report(
        "flow",
        "Flow (Fig. 2)",
        "Motion of a frame and of channels of its tensor: exhaustive block matching at every "
        "position by squared differences: 31×31 blocks and ±11 px in the frame, 3×3 and ±5 "
        "samples in channels. Vectors of channels times n^k against those of the frame, where "
        "both belong to the more textured half; angles where the frame moves by half a sample or "
        "more and the channel at all. "
        + (
            "The pair was given."
            if flow.given
            else "The pair is the one, of all clips, whose difference block motion explains best:"
            " a favourable case, as the paper's moving car is. Agreement means a median "
            "angle below "
            f"{ALIKE_DEGREES}°."
        ),
        {"motion-flow": rows},
        [
            _saved(
                figures.flow_figure(flow),
                output,
                "flow",
                "Motion of the content, as arrows and as colours (hue: direction, saturation: "
                "length). Channels: those with most texture where the frame moves.",
            )
        ],
        [
            Finding(
                "Motion of channels resembles that of the input",
                "“somewhat noisy, the similarity is evident”",
                f"each channel: median endpoint error {each['median_endpoint_px']:.1f} px, "
                f"median angle {each['median_angle_deg']:.0f}°, {each['within_30_deg']:.0%} within "
                f"30°; no motion assumed: {still['median_endpoint_px']:.1f} px",
                bool(each["median_angle_deg"] < ALIKE_DEGREES) if moves else None,
                f"{1 - each['within_30_deg']:.0%} of the vectors are more than 30° off: noisy, too"
                if moves
                else f"only {still['moving']:.0%} of the frame moves by half a sample or more, so "
                "this pair cannot tell; give a --clip or --pair that moves",
            ),
            Finding(
                "The same, all channels matched at once",
                "–",
                f"{joint['median_endpoint_px']:.1f} px, {joint['median_angle_deg']:.0f}°, "
                f"{joint['within_30_deg']:.0%} within 30°; whole samples can do no better than "
                f"{perfect['median_endpoint_px']:.1f} px",
                None,
                "one vector for all channels is all there is to know",
            ),
        ],
        [
            table(
                (
                    "vectors of", "positions", "endpoint error, px", "in samples", "angle, °",
                    "within 30°", "moving, found",
                ),
                [
                    (
                        row["field"],
                        row["positions"],
                        _number(row["median_endpoint_px"], 2),
                        _number(row["median_endpoint_samples"], 3),
                        _number(row["median_angle_deg"], 1),
                        _number(row["within_30_deg"], 2),
                        _number(row["found_moving"], 2),
                    )
                    for row in rows
                ],
                f"{flow.caption}, {flow.layer}; {flow.clip}, frames {flow.pair[0]} and "
                f"{flow.pair[1]}; medians",
            )
        ],
    )  # fmt: skip


def _number(value: float, digits: int) -> str | None:
    return None if math.isnan(value) else f"{value:.{digits}f}"


def _transforms(results: Sequence[Transforms], output: Path) -> Report:
    (found,) = results
    rows = [
        {
            **found.stamp,
            "layer": found.layer,
            "picture": found.picture,
            "motion": row.title,
            **{
                key: getattr(row.found, key)
                for key in ("nrmse", "inner", "still", "relative", "positions")
            },
        }
        for row in found.rows
    ]
    worst = max(row["nrmse"] for row in rows)
    return Report(
        "transforms",
        "Transforms (Fig. 4)",
        "One picture under the four motions of the paper. Channels of the transformed picture, "
        "and the same predicted from the tensor of the reference by (12); positions whose source "
        "lies outside the reference tensor are left out.",
        {"motion-transforms": rows},
        [
            _saved(
                figures.transforms_figure(found),
                output,
                "transforms",
                "Nine channels with the largest variance; differences on the scale of the values.",
            )
        ],
        [
            Finding(
                "Tensors are reliably predicted from the reference alone",
                "differences “are low”",
                ", ".join(f"{row['motion']} {row['nrmse']:.4f}" for row in rows[1:]),
                worst <= LIMIT * ABOUT,
                f"NRMSE at most {worst:.3f}",
            ),
            Finding(
                "No motion, no error",
                "0",
                f"{rows[0]['nrmse']:.1g}",
                rows[0]["nrmse"] < 1e-6,
            ),
        ],
    )


TRANSFORMATIONS = ("translation", "rotation", "scale", "shear")


def _sweep(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    findings = []
    for key in _layers(rows):
        own = _of(rows, key)
        maxima = [
            max(row["mean"] for row in own if row["transformation"] == kind and _in_range(row))
            for kind in TRANSFORMATIONS
        ]
        paper = FIG5_MAXIMA.get(key)
        within = max(maxima) <= LIMIT * ABOUT
        findings.append(
            Finding(
                f"{_name(*key)}: largest NRMSE",
                "up to about 0.04" if paper else "up to about 0.04 (other layers)",
                f"{max(maxima):.4f}",
                within,
                f"at most {max(row['mean_relative'] for row in own):.0%} of the tensor's standard "
                "deviation" + ("" if within else "; " + _why_larger(own)),
            )
        )
        if paper is not None:
            findings.append(_heights(own, key, maxima))
    minima = [_minima(_of(rows, key), key) for key in _layers(rows)]
    findings += [finding for finding in minima if finding is not None]
    findings += [_jump(_of(rows, key), key) for key in _layers(rows) if key in FIG5_JUMPS]
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
            _saved(
                figures.sweep_figure(rows),
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
                    _worst_row(_of(rows, key), key, kind)
                    for key in _layers(rows)
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
        _name(*key),
        f"{kind} {worst['value']:g}",
        *(f"{worst[name]:.4f}" for name in ("mean", "std", "p95", "max")),
        _number(worst["mean_inner"], 4),
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
        f"{_name(*key)} ({PAPER_LAYERS[key]}): heights of the curves",
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
        f"{_name(*key)}, n^k = {stride}: minima at whole latent shifts",
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
        f"{_name(*key)}: next to no motion (¼ px, ¼°, 0.5 %)",
        f"{_four(paper)} (read off: the curves jump away from zero)",
        _four(near),
        agrees,
        ""
        if agrees
        else "with the codec's interpolating filter a small motion is a small error; the paper "
        "does not say what it moved tensors with. A filter that smooths, left out at whole "
        "shifts, would look like this (see “Phase and filters”), but that is a guess",
    )


def _histogram(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    summary, findings = [], []
    for key in _layers(rows):
        own = _of(rows, key)
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
                    f"{_name(*key)}: density of NRMSE",
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
                f"{_name(*key)} ({PAPER_LAYERS[key]}): density of NRMSE",
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
            _saved(
                figures.histogram_figure(rows, FIG6_MODES),
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
                        _name(row["network"], row["layer"]),
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


def _moving(gains: Mapping[str, float]) -> list[str]:
    """Return the clips in which motion matters: it takes a sixth off the error, or more."""
    found = [clip for clip, gain in gains.items() if gain > 1.2]
    return found or list(gains)


def _hevc(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    summary = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        for clip in dict.fromkeys(row["clip"] for row in own):
            for what in dict.fromkeys(row["what"] for row in own):
                chosen = [row for row in own if row["clip"] == clip and row["what"] == what]
                values = np.array([row["nrmse"] for row in chosen])
                summary.append(
                    {
                        **{k: chosen[0][k] for k in ("network", "weights", "weights_hash")},
                        "clip": clip,
                        "what": what,
                        "frames": len(chosen),
                        "psnr": float(np.median([row["psnr"] for row in chosen])),
                        "p50": float(np.median(values)),
                        "p95": float(np.percentile(values, 95)),
                        "still": float(np.median([row["nrmse_still"] for row in chosen])),
                        "p50_own_range": float(
                            np.median([row["nrmse_own_range"] for row in chosen])
                        ),
                    }
                )
    luma = [row for row in summary if row["what"] == "luma"]
    tensors = [row for row in summary if row["what"] != "luma"]
    low, high = (paper_nrmse(value) for value in reversed(HEVC_PSNR))
    psnr = [row["psnr"] for row in luma if math.isfinite(row["psnr"])]
    inside = np.mean([row["p50"] <= HEVC_NRMSE[0] for row in tensors])
    moving = _moving({row["clip"]: row["still"] / row["p50"] for row in luma if row["p50"]})
    ratio, own_ratio = (
        np.median(
            [
                row["p50"] / base[measure]
                for row in tensors
                for base in luma
                if (base["clip"], base["network"]) == (row["clip"], row["network"])
                and row["clip"] in moving
                and base[measure]
            ]
            or [math.nan]
        )
        for measure in ("p50", "p50_own_range")
    )
    beyond = sorted({f"{row['clip']}" for row in tensors if row["p50"] > HEVC_NRMSE[0]})
    return Report(
        "hevc",
        "HEVC (eq. 14)",
        "The paper compares with published PSNR of HEVC's predictions. Measured here: luma of real "
        "clips predicted from the frame before (original, not decoded), and the tensors of the "
        "same frames by the same vectors, 16 px grid in quarter pixels; luma by (14), tensors by "
        "(13) frame by frame, all positions counted.",
        {"motion-hevc": rows, "motion-hevc-summary": summary},
        [
            _saved(
                figures.hevc_figure(rows),
                output,
                "hevc",
                "Medians over the frames of each clip. Shaded: what (14) makes of HEVC's 27–41 dB.",
            )
        ],
        [
            Finding(
                "27–41 dB by (14)",
                "0.009–0.044",
                f"{low:.4f}–{high:.4f}",
                abs(low - HEVC_NRMSE[1]) < 1e-3 and abs(high - HEVC_NRMSE[0]) < 1e-3,
            ),
            Finding(
                "Prediction of luma",
                "27–41 dB over HEVC test sequences",
                f"medians of clips {min(psnr, default=math.nan):.1f}–"
                f"{max(psnr, default=math.nan):.1f} dB",
                bool(psnr) and min(psnr) >= HEVC_PSNR[0],
                "clips that hardly move are predicted better than HEVC's test sequences"
                if psnr and max(psnr) > HEVC_PSNR[1]
                else "",
            ),
            Finding(
                "Tensors are predicted about as well as frames",
                "NRMSE “in the same range”",
                f"{inside:.0%} of layers and clips have a median of at most 0.044; where there is "
                f"motion ({', '.join(moving)}), tensors have {ratio:.1f} times the NRMSE of luma "
                f"with the same vectors, in the median ({own_ratio:.1f} times if luma is divided "
                "by its own range, too)",
                bool(inside >= 0.5),
                ("the same range, but not the same quality" if ratio > ABOUT else "")
                + (f"; beyond: {', '.join(beyond)}" if beyond else ""),
            ),
        ],
        [
            table(
                ("network", "clip", "predicted", "PSNR, dB", "NRMSE p50", "p95", "no motion"),
                [
                    (
                        NETWORKS.get(row["network"], row["network"]),
                        row["clip"],
                        figures.short(row["what"]),
                        _number(row["psnr"], 1) if math.isfinite(row["psnr"]) else None,
                        f"{row['p50']:.4f}",
                        f"{row['p95']:.4f}",
                        f"{row['still']:.4f}",
                    )
                    for row in summary
                ],
            )
        ],
    )


EXACT = 1e-6
"""NRMSE that is rounding of float32."""


def _operations(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)

    def worst(operation: str, kind: str) -> float:
        return float(
            max(
                row["mean"]
                for row in rows
                if row["operation"] == operation and row["interpolation"] == kind
            )
        )

    def at_whole(operation: str) -> float:
        return float(
            max(
                row["mean"]
                for row in rows
                if row["operation"] == operation
                and row["displacement_px"] % row["downsampling"] == 0
            )
        )

    claims = {
        "convolution": ("preserves motion, exactly", True),
        "ReLU": ("preserves motion", False),
        "sigmoid": ("preserves motion", False),
        "local maximum, 3×3": ("preserves motion, approximately", False),
        "local mean, 2×2": ("preserves motion (a convolution)", True),
        "scale change, band-limited": ("v/s, exactly", True),
        "scale change, as it is": ("v/s; sampling is not discussed", False),
        "strided convolution": ("convolution, then v/s", False),
        "max-pooling, 3×3 / 2": ("maximum, then v/s", False),
        "mean-pooling, 2×2 / 2": ("convolution, then v/s", False),
    }
    factors = {row["operation"]: row["downsampling"] for row in rows}
    equations = {row["operation"]: row["equations"] for row in rows}
    findings = []
    for operation, (paper, exact) in claims.items():
        error, whole = worst(operation, "ideal"), at_whole(operation)
        if exact:
            agrees, why = error < EXACT, "with ideal interpolation, at every displacement"
        else:
            sampled = factors[operation] > 1
            agrees = whole < EXACT and error <= (EXACT if sampled else LIMIT)
            why = "exact at whole samples; between them " + (
                "the samples alias, which (11) leaves out"
                if sampled
                else "the result is no longer band-limited, which costs this much where it is "
                "sampled"
            )
        findings.append(
            Finding(
                f"{operation} {equations[operation]}",
                paper,
                f"at whole samples {whole:.1g}, at worst {error:.4f} (ideal), "
                f"{worst(operation, 'cubic'):.4f} (cubic)",
                bool(agrees),
                why,
            )
        )
    return Report(
        "operations",
        "Operations (Sec. 2)",
        "Each operation alone. Luma of pictures, made periodic by their mirror images and shifted"
        " exactly, by the phase of their spectra; operations pad periodically. The operation on "
        "the shifted picture against its shifted result, interpolated ideally (by phase again) or"
        " by the codec's "
        f"cubic filter. Filters: the first convolution of {NETWORKS[rows[0]['network']]}, "
        f"{rows[0]['weights']}. Equations are numbered as in the paper.",
        {"motion-operations": rows},
        [
            _saved(
                figures.operations_figure(rows),
                output,
                "operations",
                "The period is one sample: whole displacements are exact. With ideal interpolation "
                "what is left is the operation's own.",
            )
        ],
        findings,
    )


# --- carried further ----------------------------------------------------------------------------


def _depth(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    findings = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        best = max(own, key=lambda row: row["saved_against_zero"])
        least = min(own, key=lambda row: row["saved_against_zero"])
        findings.append(
            Finding(
                f"{NETWORKS.get(name, name)}: where motion is worth most",
                "–",
                f"{figures.short(best['layer'])}: {best['saved_against_zero']:.0%} of the bits "
                f"(error ÷ {2 ** best['gain_theory']:.1f}); least at "
                f"{figures.short(least['layer'])}: {least['saved_against_zero']:.0%}",
                None,
                f"NRMSE by depth between {min(r['nrmse'] for r in own):.3f} and "
                f"{max(r['nrmse'] for r in own):.3f}",
            )
        )
    return Report(
        "depth",
        "Depth",
        "Carried further: every layer, under random motion as in Fig. 6. Theory: the gain in bits"
        " per element if errors were Gaussian and independent. Bits: of the codec itself at qp 24"
        " with a profile measured on the pair, vectors of a 16 px grid included, for the second "
        "of two frames.",
        {"motion-depth": rows},
        [_saved(figures.depth_figure(rows), output, "depth", "Layers in order, input at left.")],
        findings,
    )


def _magnitude(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    findings = []
    for key in _layers(rows):
        own = _of(rows, key)
        stride = own[0]["stride"]
        beyond = [row["nrmse"] for row in own if row["magnitude_px"] >= stride]
        if len(beyond) > 1:
            saved = [row["bits_zero"] - row["bits_motion"] for row in own]
            findings.append(
                Finding(
                    f"{_name(*key)}: growth beyond one sample of motion",
                    "–",
                    f"{beyond[0]:.4f} at one sample, {beyond[-1]:.4f} at 32 px; bits per element "
                    f"saved {saved[-len(beyond)]:.2f} and {saved[-1]:.2f}",
                    None,
                    "hardly depends on how far" if max(beyond) < 1.35 * min(beyond) else "grows",
                )
            )
    return Report(
        "magnitude",
        "Magnitude",
        "Carried further: translations in random directions, so at random phases; positions left "
        "out as before.",
        {"motion-magnitude": rows},
        [
            _saved(
                figures.magnitude_figure(rows),
                output,
                "magnitude",
                "Dotted: no motion assumed. Errors level off where motion exceeds one sample.",
            )
        ],
        findings,
    )


def _filters(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    findings = []
    for key in _layers(rows):
        own = _of(rows, key)
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
                f"{_name(*key)}: filters, mean over phases",
                "–",
                ", ".join(f"{kind} {value:.4f}" for kind, value in means.items()),
                None,
                f"longer filters change the cubic's error by {longest / cubic - 1:+.1%}"
                + (", so interpolation is not what is left" if longest > 0.95 * cubic else "")
                + f"; a kernel that smooths costs {spline[0]:.3f} at whole shifts already",
            )
        )
    findings += [_phases(_of(rows, key), key) for key in _layers(rows)]
    return Report(
        "filters",
        "Phase and filters",
        "Carried further: translation in x by one sample and a phase. All filters run in the "
        "codec's own compensation; the cubic one is its own.",
        {"motion-filters": rows},
        [
            _saved(
                figures.filters_figure(rows),
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
        f"{_name(*key)}: bits that motion saves against zero motion",
        "–",
        f"{whole:.0%} at whole samples, {half:.0%} half-way",
        None,
        f"between samples {1 - half / whole:.0%} of the gain is lost" if 0 < half < whole else "",
    )


def _real(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    still: dict[str, list[float]] = {}
    for row in rows:
        if row["prediction"] == "no motion":
            still.setdefault(row["clip"], []).append(row["ratio"])
    moving = _moving({clip: float(np.mean(ratios)) for clip, ratios in still.items()})
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
            _saved(
                figures.real_figure(rows, BASE),
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


def _coded(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
    findings = []
    for clip in dict.fromkeys(row["clip"] for row in rows):
        own = [row for row in rows if row["clip"] == clip]
        saved = [row["saved_against_zero"] for row in own]
        findings.append(
            Finding(
                f"{clip}: bits saved by motion",
                "–",
                f"{min(saved):.0%} to {max(saved):.0%} against zero motion, "
                f"{min(row['saved_against_intra'] for row in own):.0%} to "
                f"{max(row['saved_against_intra'] for row in own):.0%} against intra",
                None,
            )
        )
    return Report(
        "coded",
        "Real bits",
        "Carried further: the codec on the clips' tensors at qp 24, profile measured on the first"
        " eight frames, vectors by its own search on a 32 px grid; packets from the second frame "
        "on.",
        {"motion-coded": rows},
        [_saved(figures.coded_figure(rows), output, "coded", "Right of the line: motion saves.")],
        findings,
    )


def _worth(step: str, ratio: float) -> str:
    if step == "no motion":
        return f"motion takes {1 - 1 / ratio:.0%} off the error"
    change = 1 - ratio
    return f"takes {change:.1%} off" if change > 0 else f"adds {-change:.1%}"


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


def _offsets(results: Sequence[list[Row]], output: Path) -> Report:
    rows = _flat(results)
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
            _saved(
                figures.offsets_figure(rows),
                output,
                "offsets",
                "Below zero: up or left of where strides and paddings put the sample.",
            )
        ],
        findings,
    )


REPORTS: dict[str, Callable[[Any, Path], Report]] = {
    "flow": _flow,
    "transforms": _transforms,
    "sweep": _sweep,
    "histogram": _histogram,
    "hevc": _hevc,
    "operations": _operations,
    "depth": _depth,
    "magnitude": _magnitude,
    "filters": _filters,
    "real": _real,
    "coded": _coded,
    "offsets": _offsets,
}


def report(name: str, results: Sequence[Any], output: Path) -> Report:
    """Draw and judge one experiment: its results, one for each network."""
    return REPORTS[name](results, output)


# --- the page -----------------------------------------------------------------------------------


def page(
    reports: Sequence[Report], *, missing: Sequence[str], provenance: Mapping[str, Any]
) -> str:
    """Make the page of a whole study."""
    judged = [finding for one in reports for finding in one.findings if finding.agrees is not None]
    agreeing = sum(1 for finding in judged if finding.agrees)
    weights = ", ".join(provenance.get("weights", {}))
    lead = (
        "Ulhaq & Bajić 2021 (arXiv:2102.04018) say that motion survives the edge sub-model: v in "
        "the input is v / n^k in every channel (12). Reproduced with this library's own motion, "
        f"warping and NRMSE. Of {len(judged)} comparisons with the paper, {agreeing} agree. "
        f"Weights: {weights}."
    )
    sections = [_overview(reports, missing)]
    for one in reports:
        body = Markup("").join(embedded_figure(stem, caption) for stem, caption in one.figures)
        body += table(
            ("", "the paper reports", "measured here", "verdict"),
            [
                (finding.what, finding.paper, finding.measured, _marked(finding))
                for finding in one.findings
            ],
            numeric=(),
        )
        body += Markup("").join(one.shown)
        sections.append(Section(one.title, body, anchor=one.name, note=one.note))
    return render_page(
        title="Latent-space motion: the paper, reproduced",
        lead=lead,
        sections=sections,
        provenance=provenance,
    )


def _marked(finding: Finding) -> Markup:
    """Set off the word that counts."""
    word, colon, why = finding.verdict.partition(":")
    return Markup("<strong>{}</strong>{}{}").format(word, colon, why)


def _overview(reports: Sequence[Report], missing: Sequence[str]) -> Section:
    departures = [
        (one.title, finding.what, finding.why)
        for one in reports
        for finding in one.findings
        if finding.agrees is False
    ]
    rows = [
        (
            one.title,
            sum(1 for finding in one.findings if finding.agrees is True),
            sum(1 for finding in one.findings if finding.agrees is False),
        )
        for one in reports
        if any(finding.agrees is not None for finding in one.findings)
    ]
    body = table(("experiment", "agree", "depart"), rows)
    if departures:
        body += table(("experiment", "departure", "why"), departures, numeric=())
    note = "".join(f"Left out: {line}. " for line in missing)
    return Section("Summary", body, note=note)
