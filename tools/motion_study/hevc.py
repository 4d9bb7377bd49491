"""Equation (14): prediction of luma frames and of their tensors, by the same vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.motion_search import MotionSearch, luma
from codec.format.header import TensorSpec
from codec.metrics import FeatureNrmse, nrmse_from_psnr
from codec.normative.motion import latent_displacement
from codec.pages.shell import table
from tools.motion_study.drawing import COLOURS, network_title, short, values_of
from tools.motion_study.networks import load_network
from tools.motion_study.pictures import frames_of
from tools.motion_study.predictions import VECTOR_GRID, frame_header
from tools.motion_study.settings import NETWORKS, SIZE, Row, Settings
from tools.motion_study.verdicts import (
    ABOUT,
    HEVC_NRMSE,
    Finding,
    Report,
    all_rows,
    fixed,
    moving_clips,
    saved_figure,
)
from tools.motion_study.warps import (
    moved,
)
from tools.report.figures import GRID, PALETTE, figure_style

__all__ = ["draw", "measure", "report"]

LUMA_PEAK = 255.0
LUMA_RANGE = 256.0
"""What (14) divides by."""


def measure(settings: Settings, name: str) -> list[Row]:
    """Predict every frame of the clips, and its tensors, from the frame before, by one field.

    A row per clip, frame and what is predicted: the luma by (14), in `nrmse`, and by (13), with the
    range that it has, in `nrmse_own_range`; the tensors by (13).
    """
    network = load_network(name, settings)
    spec = TensorSpec("luma", 1, *SIZE, 1, 1)
    rows = []
    for clip in settings.clips:
        frames = frames_of(clip, settings.frames)
        search = MotionSearch(frame_header(SIZE, VECTOR_GRID), qp=0)
        before: list[Tensor] = []
        for number, rgb in enumerate(settings.bar(frames, f"hevc, {network.title}, {clip.name}")):
            vectors = search.estimate(luma(rgb))
            tensors = [luma(rgb)[None], *(tensor[0] for tensor in network(rgb[None]))]
            if vectors is not None:
                start = {**network.stamp, "clip": clip.name, "frame": number}
                specs = {"luma": spec, **network.layers}
                for (layer, own), reference, actual in zip(
                    specs.items(), before, tensors, strict=True
                ):
                    rows.append(
                        {
                            **start,
                            "what": layer,
                            **_frame_errors(reference, actual, vectors, own),
                        }
                    )
            before = tensors
    return rows


def paper_nrmse(psnr: float) -> float:
    """Convert decibels as (14) does: PSNR is of a peak of 255, the range is taken as 256."""
    return nrmse_from_psnr(psnr) * LUMA_PEAK / LUMA_RANGE


def _frame_errors(
    reference: Tensor, actual: Tensor, vectors: NDArray[np.int32], spec: TensorSpec
) -> Row:
    displacement = latent_displacement(vectors, VECTOR_GRID, spec)
    predicted, truth = moved(reference, displacement), actual.numpy()
    found: Row = {}
    for key, values in (("nrmse", predicted), ("nrmse_still", reference.numpy())):
        error = FeatureNrmse(1)
        error.update(0, truth, values)
        found[key] = error.combined()
    if spec.name == "luma":
        mse = float(np.square(np.clip(np.rint(predicted), 0, LUMA_PEAK) - truth).mean())
        still = float(np.square(reference.numpy() - truth).mean())
        found["nrmse_own_range"] = found["nrmse"]
        found["psnr"] = 10 * math.log10(LUMA_PEAK**2 / mse) if mse else math.inf
        found["nrmse"] = paper_nrmse(found["psnr"])
        found["nrmse_still"] = math.sqrt(still) / LUMA_RANGE
    else:
        found["nrmse_own_range"], found["psnr"] = found["nrmse"], math.nan
    return found


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the median NRMSE of each clip: luma, and tensors with the same vectors."""
    networks = values_of(rows, "network")
    clips = values_of(rows, "clip")
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
            kinds = values_of(own, "what")
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
            axis.axvspan(*sorted(HEVC_NRMSE), color=GRID, alpha=0.6, linewidth=0, zorder=0)
            axis.set_yticks(range(len(kinds)), [short(kind) for kind in kinds])
            axis.set_ylim(len(kinds) - 0.5, -0.5)
            axis.grid(visible=False, axis="y")
            axis.set_title(network_title(rows, name))
            axis.set_xlabel("NRMSE; shaded: 0.009–0.044")
        axes[0, 0].set_xlim(left=0)
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
        return figure


HEVC_PSNR = (27.0, 41.0)


def report(results: Sequence[list[Row]], output: Path) -> Report:
    """Draw and judge: one result for each network."""
    rows = all_rows(results)
    summary = _summary(rows)
    return Report(
        "hevc",
        "HEVC (eq. 14)",
        "The paper compares with published PSNR of HEVC's predictions. Measured here: luma of real "
        "clips predicted from the frame before (original, not decoded), and the tensors of the "
        "same frames by the same vectors, 16 px grid in quarter pixels; luma by (14), tensors by "
        "(13) frame by frame, all positions counted.",
        {"motion-hevc": rows, "motion-hevc-summary": summary},
        [
            saved_figure(
                draw(rows),
                output,
                "hevc",
                "Medians over the frames of each clip. Shaded: what (14) makes of HEVC's 27–41 dB.",
            )
        ],
        _findings(summary),
        [
            table(
                ("network", "clip", "predicted", "PSNR, dB", "NRMSE p50", "p95", "no motion"),
                [
                    (
                        NETWORKS.get(row["network"], row["network"]),
                        row["clip"],
                        short(row["what"]),
                        fixed(row["psnr"], 1) if math.isfinite(row["psnr"]) else None,
                        f"{row['p50']:.4f}",
                        f"{row['p95']:.4f}",
                        f"{row['still']:.4f}",
                    )
                    for row in summary
                ],
            )
        ],
    )


def _summary(rows: Sequence[Row]) -> list[Row]:
    """Sum up the frames of every network, clip and tensor."""
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
    return summary


def _findings(summary: Sequence[Row]) -> list[Finding]:
    """Set the medians of clips beside what HEVC reaches."""
    luma = [row for row in summary if row["what"] == "luma"]
    tensors = [row for row in summary if row["what"] != "luma"]
    low, high = (paper_nrmse(value) for value in reversed(HEVC_PSNR))
    psnr = [row["psnr"] for row in luma if math.isfinite(row["psnr"])]
    inside = np.mean([row["p50"] <= HEVC_NRMSE[0] for row in tensors])
    moving = moving_clips({row["clip"]: row["still"] / row["p50"] for row in luma if row["p50"]})
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
    return [
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
    ]
