"""Rows of single runs -> means over clips and seeds, and what parity would be worth: an estimate.

Not here: measuring (`measurement.py`), drawing (`figures.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.link_study.link import Condition
from tools.link_study.measurement import FIGURES
from tools.link_study.parity import GROUPS

__all__ = ["MEANT", "Curve", "estimates", "lead_of", "means"]

MEANT = (
    *FIGURES,
    "kbit_per_s",
    "payload_kbit_per_s",
    "latency_p50_ms",
    "latency_p95_ms",
    "frame_time_ms",
    "latency_multiple_p50",
    "latency_multiple_p95",
    "decoded",
    "concealed",
    "skipped",
    "late",
    "key_frames_after_first",
    "bytes_lost",
    "datagrams",
    "datagrams_lost",
    "datagrams_again",
    "mean_qp",
    "frames",
)
Row = Mapping[str, Any]


def lead_of(rows: Sequence[Row]) -> str:
    """Name the figure that goes first."""
    return next(name for name in FIGURES if any(name in row for row in rows))


def means(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return a row per strategy, qp, concealment and loss: mean over seeds, then over clips."""
    by_point: dict[tuple[Any, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        point = (row["strategy"], row.get("qp"), row["concealment"], row["loss"])
        by_point[point][row["clip"]].append(row)
    found = []
    for (strategy, qp, concealment, loss), clips in by_point.items():
        mean: dict[str, Any] = {
            "strategy": strategy,
            "qp": qp,
            "concealment": concealment,
            "loss": loss,
            "clips": len(clips),
            "runs": sum(map(len, clips.values())),
        }
        for name in MEANT:
            of_clips = [
                float(np.mean([row[name] for row in each]))
                for each in clips.values()
                if all(row.get(name) is not None for row in each)
            ]
            if of_clips and len(of_clips) == len(clips):
                mean[name] = float(np.mean(of_clips))
        found.append(mean)
    return found


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure over something that rises, interpolated linearly, its ends carried on."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Curve:
        """Make it of points in any order."""
        x, y = zip(*sorted(points), strict=True)
        return cls(x, y)

    def __call__(self, x: float) -> float:
        """Interpolate."""
        return float(np.interp(x, self.x, self.y))


def estimates(
    found: Sequence[Row],
    *,
    strategy: str,
    qp: int,
    condition: Condition,
    max_latency: float,
    frame_rate: float,
) -> list[dict[str, Any]]:
    """Estimate what parity would do at the same rate, from `means`.

        figure(loss, rate) with parity  ≈  figure(what stays lost) - what the rate of parity costs

    What stays lost comes in other bursts, and its price is that of the same loss without parity.
    """
    ours = [row for row in found if row["strategy"] == strategy and row["concealment"] == "motion"]
    lead = lead_of(ours)
    over_loss = Curve.of((row["loss"], row[lead]) for row in ours if row["qp"] == qp)
    lossless = [row for row in ours if row["loss"] == 0]
    if len(lossless) < 2:
        return []
    over_rate = Curve.of((math.log(row["kbit_per_s"]), row[lead]) for row in lossless)
    rate = next(row["kbit_per_s"] for row in lossless if row["qp"] == qp)
    rows = []
    for loss in over_loss.x:
        for group in GROUPS:
            if not loss or not group.fits(max_latency, frame_rate):
                continue
            rest = group.residual(Condition(loss=loss, burst=condition.burst))
            price = over_rate(math.log(rate)) - over_rate(math.log(rate / group.factor))
            rows.append(
                {
                    "parity": group.name,
                    "loss": loss,
                    "lost_after_parity": rest,
                    lead: over_loss(rest) - price,
                    f"{lead}_without": over_loss(loss),
                    "gained_by_restoring": over_loss(rest) - over_loss(loss),
                    "paid_in_rate": price,
                }
            )
    return rows
