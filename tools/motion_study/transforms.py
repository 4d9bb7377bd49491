"""Fig. 4: one picture under four motions; channels, predicted and actual.

Source of the parameters: M. Ulhaq's thesis (Simon Fraser University), of which the paper is a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tools.motion_study.drawing import bare_axis
from tools.motion_study.networks import MAIN_LAYER, load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.settings import Row, Settings
from tools.motion_study.verdicts import ABOUT, LIMIT, Finding, Report, saved_figure
from tools.motion_study.warps import (
    Affine,
    Prediction,
    displacement_of,
    moved,
    predictable,
    prediction,
)
from tools.report.figures import MUTED, figure_style

__all__ = ["draw", "measure", "report"]

TRANSFORMS = {
    "translation by 35 px": Affine(x=35),
    "rotation by 10°": Affine(rotation=10),
    "stretching by 1.2": Affine(scale_x=1.2),
    "shearing by 10°": Affine(shear_x=10),
}
"""The motions of Fig. 4."""


@dataclass(frozen=True, slots=True)
class Transformed:
    """One row of Fig. 4: a frame, channels of its tensor, the same predicted, and the mask."""

    title: str
    frame: NDArray[np.uint8]
    actual: NDArray[np.float32]
    predicted: NDArray[np.float32]
    inside: NDArray[np.bool_]
    found: Prediction


@dataclass(frozen=True, slots=True)
class Transforms:
    """Fig. 4: the still picture first, then the four motions."""

    stamp: Row
    caption: str
    layer: str
    picture: str
    rows: list[Transformed]


def measure(settings: Settings, name: str) -> dict[str, Any]:
    """Move one picture in four ways: fields of `Transforms`."""
    network = load_network(name, settings, [MAIN_LAYER[name]])
    named = pictures_of(settings)
    title, picture = named[settings.picture % len(named)]
    ((layer, spec),) = network.layers.items()
    reference = network(picture.still[None])[0][0]
    rows = []
    for label, affine in {"reference": Affine(), **TRANSFORMS}.items():
        frame = picture.frame(affine)
        actual = network(frame[None])[0][0]
        displacement = displacement_of(affine, spec, network.size)
        rows.append(
            Transformed(
                label,
                frame,
                actual.numpy(),
                moved(reference, displacement),
                predictable(displacement),
                prediction(reference, actual, affine, spec, network.size),
            )
        )
    return asdict(Transforms(network.stamp, network.caption, layer, title, rows))


MOSAIC = 3


def _mosaic(tensor: NDArray[Any], channels: Sequence[int]) -> NDArray[Any]:
    rows = [
        np.concatenate([tensor[number] for number in channels[first : first + MOSAIC]], 1)
        for first in range(0, len(channels), MOSAIC)
    ]
    return np.concatenate(rows, 0)


def draw(found: Transforms) -> Figure:
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
                bare_axis(axis)
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


def report(results: Sequence[dict[str, Any]], output: Path) -> Report:
    """Draw and judge what `measure` found."""
    (fields,) = results
    moves = [Transformed(**{**row, "found": Prediction(**row["found"])}) for row in fields["rows"]]
    found = Transforms(**{**fields, "rows": moves})
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
            saved_figure(
                draw(found),
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
