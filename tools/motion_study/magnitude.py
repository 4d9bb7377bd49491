"""Carried further: NRMSE and bits against the length of a translation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from tools.motion_study.bits import CODED_PAIRS, mean_bits
from tools.motion_study.drawing import COLOURS, network_title, short, values_of
from tools.motion_study.networks import load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.predictions import predictions
from tools.motion_study.settings import Row, Settings
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
    Affine,
)
from tools.report.figures import figure_style

__all__ = ["draw", "measure", "report"]

MAGNITUDES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 16.0, 23.0, 32.0)
DIRECTIONS = 4


def measure(settings: Settings, name: str) -> list[Row]:
    """Measure NRMSE, and bits in the codec as `depth` does, against the length of translations in
    random directions.
    """
    network = load_network(name, settings)
    pictures = [picture for _, picture in pictures_of(settings)]
    references = network(np.stack([picture.still for picture in pictures]))
    generator = np.random.default_rng(settings.seed)
    rows: dict[str, list[Row]] = {layer: [] for layer in network.layers}
    for length in settings.bar(MAGNITUDES, f"magnitude, {network.title}"):
        angles = generator.uniform(0, 2 * math.pi, (DIRECTIONS, len(pictures)))
        cases = [
            (number, Affine(x=length * math.cos(angle), y=length * math.sin(angle)))
            for line in angles
            for number, angle in enumerate(line)
        ]
        found = predictions(network, pictures, references, cases)
        chosen = cases[: min(CODED_PAIRS, len(pictures))]
        after = network(np.stack([pictures[number].frame(affine) for number, affine in chosen]))
        for place, (layer, spec) in enumerate(network.layers.items()):
            column = [case[place] for case in found]
            bits = mean_bits(
                [(references[place][number], affine) for number, affine in chosen],
                list(after[place]),
                spec,
            )
            rows[layer].append(
                {
                    **network.stamp,
                    "layer": layer,
                    "stride": spec.stride_x,
                    "magnitude_px": length,
                    "cases": len(cases),
                    "nrmse": float(np.mean([one.nrmse for one in column])),
                    "still": float(np.mean([one.still for one in column])),
                    "relative": float(np.mean([one.relative for one in column])),
                    **bits,
                }
            )
    return [row for layer in rows.values() for row in layer]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE, and the bits that motion saves against none, over the length of a translation."""
    networks = values_of(rows, "network")
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
            for colour, layer in zip(COLOURS, values_of(own, "layer"), strict=False):
                chosen = [row for row in own if row["layer"] == layer]
                x = [row["magnitude_px"] for row in chosen]
                nrmse, still = ([row[key] for row in chosen] for key in ("nrmse", "still"))
                above.plot(x, nrmse, color=colour, marker="o", label=short(layer))
                above.plot(x, still, color=colour, linestyle=":", linewidth=1)
                saved = [row["bits_zero"] - row["bits_motion"] for row in chosen]
                below.plot(x, saved, color=colour, marker="o")
            above.set_title(network_title(rows, name))
            above.legend(loc="upper left")
            below.set_xscale("log", base=2)
            below.set_xticks([0.5, 1, 2, 4, 8, 16, 32], ["½", "1", "2", "4", "8", "16", "32"])
            below.set_xlabel("length of the translation, px")
        for axis in axes[:, 0]:
            axis.set_ylim(bottom=0)
        axes[0, 0].set_ylabel("NRMSE (dotted: no motion)")
        axes[1, 0].set_ylabel("bits saved per element")
        return figure


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    findings = []
    for key in layers_in(rows):
        own = rows_at(rows, key)
        stride = own[0]["stride"]
        beyond = [row["nrmse"] for row in own if row["magnitude_px"] >= stride]
        if len(beyond) > 1:
            saved = [row["bits_zero"] - row["bits_motion"] for row in own]
            findings.append(
                Finding(
                    f"{layer_title(*key)}: growth beyond one sample of motion",
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
            saved_figure(
                draw(rows),
                output,
                "magnitude",
                "Dotted: no motion assumed. Errors level off where motion exceeds one sample.",
            )
        ],
        findings,
    )
