"""Carried further: every layer, NRMSE under random motion and bits that motion saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from tools.motion_study.bits import CODED_PAIRS, mean_bits
from tools.motion_study.drawing import network_title, short, values_of
from tools.motion_study.networks import every_layer, load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.predictions import predictions, random_affine
from tools.motion_study.settings import NETWORKS, Row, Settings
from tools.motion_study.verdicts import Finding, Report, all_rows, saved_figure
from tools.report.figures import MUTED, PALETTE, figure_style

__all__ = ["draw", "measure", "report"]

DEPTH_DRAWS = 32


def measure(settings: Settings, name: str) -> list[Row]:
    """Measure every layer under the random motion of Fig. 6.

    `gain_theory`: log2 of the error without motion over the error with it, bits per element.
    `bits_*`: of the second of two frames in the codec, per element, coded intra, from the first
    without motion, and with the field of the affine motion, vectors included.
    """
    network = load_network(name, settings, every_layer(name))
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    generator = np.random.default_rng(settings.seed)
    draws = min(DEPTH_DRAWS, settings.draws)
    cases = [(draw % len(pictures), random_affine(generator)) for draw in range(draws)]
    found = predictions(network, pictures, references, cases)
    coded = cases[: min(CODED_PAIRS, len(pictures))]
    moved_tensors = network(np.stack([pictures[number].frame(affine) for number, affine in coded]))
    rows = []
    layers = list(network.layers.items())
    for place, (layer, spec) in enumerate(settings.bar(layers, f"depth, {network.title}")):
        column = [case[place] for case in found]
        bits = mean_bits(
            [(references[place][number], affine) for number, affine in coded],
            list(moved_tensors[place]),
            spec,
        )
        nrmse = math.sqrt(np.mean([one.nrmse**2 for one in column]))
        still = math.sqrt(np.mean([one.still**2 for one in column]))
        rows.append(
            {
                **network.stamp,
                "depth": place,
                "layer": layer,
                "stride": spec.stride_x,
                "draws": draws,
                "nrmse": nrmse,
                "inner": math.sqrt(np.nanmean([one.inner**2 for one in column])),
                "still": still,
                "relative": float(np.mean([one.relative for one in column])),
                "gain_theory": math.log2(still / nrmse),
                **bits,
            }
        )
    return rows


def draw(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE, and what motion saves, over the layers in order."""
    networks = values_of(rows, "network")
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
            column[0].set_title(network_title(rows, name))
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


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    findings = []
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        best = max(own, key=lambda row: row["saved_against_zero"])
        least = min(own, key=lambda row: row["saved_against_zero"])
        findings.append(
            Finding(
                f"{NETWORKS.get(name, name)}: where motion is worth most",
                "–",
                f"{short(best['layer'])}: {best['saved_against_zero']:.0%} of the bits "
                f"(error ÷ {2 ** best['gain_theory']:.1f}); least at "
                f"{short(least['layer'])}: {least['saved_against_zero']:.0%}",
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
        [saved_figure(draw(rows), output, "depth", "Layers in order, input at left.")],
        findings,
    )
