"""Section 2: each operation of a network alone, on exactly shifted pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from codec.encoding.motion_search import luma
from codec.errors import ModelError
from codec.metrics import FeatureNrmse
from tools.motion_study.drawing import COLOURS, DASHES, title_weights, values_of
from tools.motion_study.networks import LAYERS, Network, load_network
from tools.motion_study.pictures import pictures_of
from tools.motion_study.predictions import steps_between
from tools.motion_study.settings import NETWORKS, Row, Settings
from tools.motion_study.verdicts import LIMIT, Finding, Report, all_rows, saved_figure
from tools.motion_study.warps import (
    moved,
)
from tools.report.figures import figure_style

__all__ = ["draw", "measure", "report", "shifted"]

Operation = Callable[[Tensor], Tensor]
OPERATION_STEP, OPERATION_REACH = 0.25, 4.0
FILTER_COUNT = 6


def first_filters(network: Network) -> Tensor:
    """Return (F, 1, k, k) trained filters of the first convolution, summed over colours."""
    for module in network.model.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach().sum(1, keepdim=True)[:FILTER_COUNT]
    raise ModelError(f"{network.name} has no convolution")


def operations_of(filters: Tensor) -> dict[str, tuple[int, str, Operation]]:
    """Name the operations of Section 2: downsampling, equations, function of (1, 1, H, W).

    Pictures are periodic, and so is the padding, so that nothing enters and there is no edge.
    """
    size = filters.shape[-1]

    def window(values: Tensor, before: int, after: int) -> Tensor:
        return functional.pad(values, (before, after, before, after), mode="circular")

    def convolved(values: Tensor, stride: int) -> Tensor:
        padded = window(values, size // 2, (size - 1) // 2)
        return functional.conv2d(padded, filters, stride=stride)

    def maximum(values: Tensor, stride: int) -> Tensor:
        return functional.max_pool2d(window(values, 1, 1), 3, stride)

    return {
        "nothing (interpolation alone)": (1, "(1)", lambda v: v),
        "convolution": (1, "(2)–(3)", lambda v: convolved(v, 1)),
        "ReLU": (1, "(4)–(5)", torch.relu),
        "sigmoid": (1, "(4)–(5)", torch.sigmoid),
        "local maximum, 3×3": (1, "(6)–(9)", lambda v: maximum(v, 1)),
        "local mean, 2×2": (
            1,
            "(2)–(3)",
            lambda v: functional.avg_pool2d(window(v, 0, 1), 2, 1),
        ),
        "scale change, band-limited": (2, "(10)–(11)", lambda v: low_passed(v)[..., ::2, ::2]),
        "scale change, as it is": (2, "(10)–(11)", lambda v: v[..., ::2, ::2]),
        "strided convolution": (2, "(2), (10)", lambda v: convolved(v, 2)),
        "max-pooling, 3×3 / 2": (2, "(6), (10)", lambda v: maximum(v, 2)),
        "mean-pooling, 2×2 / 2": (2, "(2), (10)", lambda v: functional.avg_pool2d(v, 2)),
    }


def low_passed(values: Tensor) -> Tensor:
    """Remove from (..., H, W) what half as many samples in each direction cannot carry."""
    spectrum = torch.fft.fft2(values.double())
    for axis in (-2, -1):
        frequency = torch.fft.fftfreq(values.shape[axis]).abs() < 0.25
        spectrum = spectrum * (frequency[:, None] if axis == -2 else frequency)
    found: Tensor = torch.fft.ifft2(spectrum).real.to(values.dtype)
    return found


def shifted(values: Tensor, pixels: float) -> Tensor:
    """Shift a periodic (..., H, W) signal to the right, exactly: by the phase of its spectrum."""
    width = values.shape[-1]
    frequency = torch.fft.rfftfreq(width, dtype=torch.float64)
    phase = torch.exp(-2j * math.pi * frequency * pixels)
    if width % 2 == 0:
        phase[-1] = math.cos(math.pi * pixels)  # the highest frequency has no direction
    found: Tensor = torch.fft.irfft(torch.fft.rfft(values.double()) * phase, n=width)
    return found


def measure(settings: Settings, name: str) -> list[Row]:
    """Apply each operation to shifted pictures, and shift its result instead: a row per operation,
    interpolation and displacement.
    """
    network = load_network(name, settings, LAYERS[name][:1])
    filters = first_filters(network).double()
    pictures = [luma(picture.still).double() for _, picture in pictures_of(settings)]
    table = operations_of(filters)
    shifts = steps_between(0, OPERATION_REACH, OPERATION_STEP)
    errors: dict[tuple[str, str, float], list[float]] = {}
    for plane in settings.bar(pictures, "operations"):
        centred = (plane - plane.mean()) / plane.std()
        # its mirror images make it periodic without a seam
        periodic = torch.cat([centred, centred.flip(-1)], -1)
        periodic = torch.cat([periodic, periodic.flip(-2)], -2)[None, None]
        for operation, (stride, _, function) in table.items():
            before = function(periodic)[0]
            for shift in shifts:
                actual = function(shifted(periodic, shift))[0]
                for kind, predicted in (
                    ("ideal", shifted(before, shift / stride)),
                    ("cubic", _cubically(before, shift / stride)),
                ):
                    errors.setdefault((operation, kind, shift), []).append(
                        _central_nrmse(actual, predicted)
                    )
    return [
        {
            **network.stamp,
            "operation": operation,
            "equations": table[operation][1],
            "downsampling": table[operation][0],
            "interpolation": kind,
            "displacement_px": shift,
            "images": len(values),
            "mean": float(np.mean(values)),
            "max": float(np.max(values)),
        }
        for (operation, kind, shift), values in errors.items()
    ]


def _cubically(values: Tensor, samples: float) -> Tensor:
    """Shift (C, H, W) to the right by the codec's own compensation."""
    height, width = values.shape[-2:]
    displacement = np.zeros((height, width, 2), np.int64)
    displacement[..., 1] = math.floor(-samples * 64 + 0.5)
    return torch.from_numpy(moved(values, displacement)).double()


def _central_nrmse(actual: Tensor, predicted: Tensor) -> float:
    """Compute (13) away from the edges, which the codec's compensation does not wrap around."""
    height, width = (side // 8 for side in actual.shape[-2:])
    inside = (slice(None), slice(height, -height), slice(width, -width))
    error = FeatureNrmse(1)
    error.update(0, actual[inside].float().numpy(), predicted[inside].float().numpy())
    return error.combined()


def draw(rows: Sequence[Row]) -> Figure:
    """Draw NRMSE over displacement: with ideal interpolation, and with the codec's."""
    kinds = {"ideal": "ideal interpolation", "cubic": "the codec's cubic"}
    names = values_of(rows, "operation")
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
        title_weights(figure, rows)
        return figure


def _downsampling(rows: Sequence[Row], operation: str) -> int:
    return next(int(row["downsampling"]) for row in rows if row["operation"] == operation)


EXACT = 1e-6
"""NRMSE that is rounding of float32."""


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)

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
            saved_figure(
                draw(rows),
                output,
                "operations",
                "The period is one sample: whole displacements are exact. With ideal interpolation "
                "what is left is the operation's own.",
            )
        ],
        findings,
    )
