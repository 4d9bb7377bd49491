"""What an encoder is asked for, and the constants that it decides by, as values.

    J = D + price · R,   D in squared quantiser steps, R in bits

None of them is part of the format: a study changes decisions by `dataclasses.replace`, and hands
the result to `EncoderConfig`.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

from codec.format.constants import MAX_QP

__all__ = [
    "DEFAULT_EFFORT",
    "DEFAULT_QUALITY",
    "DEFAULT_SEARCH_RANGE",
    "EFFORTS",
    "MAX_EFFORT",
    "QUALITIES",
    "Decisions",
    "EncoderConfig",
    "whole_number",
]

QUALITIES = {"high": 8, "medium": 16, "low": 24}
"""qp by name; what they cost and keep on real clips is in tools/results."""
DEFAULT_QUALITY = "high"
DEFAULT_SEARCH_RANGE = 16
"""Pixels, in each direction."""


def whole_number(name: str, value: int) -> int:
    """Return an integer of any type, NumPy's too, as Python's.

    Raises:
        TypeError: it is none.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} {value!r} is a {type(value).__name__}, expected an int") from error


@dataclass(frozen=True, slots=True)
class Decisions:
    """How an encoder decides.

    `price`: Lagrangian per squared step, what a bit may cost in squared error.  High-rate theory
    says 0.116 (6 dB a bit and a uniform cell of step² / 12), and squared error alone would be
    served best by still more; but zeroed levels shrink the features all in one direction, which the
    task notices more than as much error at random, so that less is better in KL.

    `rounding`: None: levels by J; else the plain quantiser floor(magnitude + rounding).

    `key_offset`: how much finer the qp of key frames is where 64 frames or more inherit their
    errors.

    `intra_bits`: what the mode of an intra block costs beside that of another, about.

    `intra_margin`: a block is tried intra when its estimated cost is below this multiple of the
    predicted one's; 0: never.

    `scene_cut_margin`: a frame becomes a key frame when coding all of it intra costs less than this
    share of its inter cost.

    `finest`: vectors are searched to 2^finest quarter pixels, 0 … 2; None: not at all.

    `field_or_none`: code without the field as well, and keep what is cheaper.

    `importance`: exponent of the importance that the profile's file predicts for blocks; 0: all are
    coded alike.

    `rounds`, `directions`: linearisations of the cloud sub-model, and directions of its output in
    each; no rounds: the sub-model is not asked (see `TaskRefinement`).

    `profile_share`: how much of the distortion is still the profile's where it is asked.
    """

    price: float = 0.08
    rounding: float | None = None
    key_offset: int = 9
    intra_bits: float = 2
    intra_margin: float = 1.25
    scene_cut_margin: float = 0.75
    finest: int | None = 0
    field_or_none: bool = True
    importance: float = 1.0
    rounds: int = 0
    directions: int = 0
    profile_share: float = 0.25

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        if not (math.isfinite(self.price) and self.price >= 0):
            raise ValueError(f"price {self.price}, expected a finite number from 0")
        if self.rounding is not None and not 0 <= self.rounding <= 1:
            raise ValueError(f"rounding {self.rounding}, expected None or 0 … 1")
        if self.finest is not None and whole_number("finest", self.finest) not in range(3):
            raise ValueError(f"finest {self.finest}, expected None, 0, 1 or 2")
        for name in ("intra_margin", "scene_cut_margin", "importance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)}, expected a number from 0")
        for name in ("rounds", "directions"):
            if whole_number(name, getattr(self, name)) < 0:
                raise ValueError(f"{name} {getattr(self, name)}, expected a number from 0")


EFFORTS = (
    Decisions(finest=None, field_or_none=False),
    Decisions(finest=2, field_or_none=False),
    Decisions(finest=1, field_or_none=False),
    Decisions(field_or_none=False),
    Decisions(),
    Decisions(rounds=1, directions=2),
    Decisions(rounds=1, directions=4),
    Decisions(rounds=1, directions=8),
    Decisions(rounds=2, directions=16),
    Decisions(rounds=3, directions=24),
)
"""From fast to thorough: no search; whole, half, quarter pixels; field or none; the cloud asked."""
DEFAULT_EFFORT, MAX_EFFORT = 4, len(EFFORTS) - 1


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """What the user chooses: `qp` 0…51 (6 = factor 2 in step; `QUALITIES` names some), `keyint`
    frames from key frame to key frame at most, `effort` 0…9; studies, in place of an effort,
    `decisions` of their own.
    """

    qp: int = QUALITIES[DEFAULT_QUALITY]
    keyint: int = 64
    scene_cut: bool = True
    effort: int = DEFAULT_EFFORT
    decisions: Decisions | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        for name in ("qp", "keyint", "effort"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if not 0 <= self.qp <= MAX_QP:
            raise ValueError(f"qp {self.qp} is outside 0 … {MAX_QP}")
        if self.keyint < 1:
            raise ValueError(f"keyint {self.keyint} is below 1")
        if not 0 <= self.effort <= MAX_EFFORT:
            raise ValueError(f"effort {self.effort} is outside 0 … {MAX_EFFORT}")

    def decided_by(self) -> Decisions:
        """Return the decisions, the effort's if no others are given."""
        return EFFORTS[self.effort] if self.decisions is None else self.decisions
