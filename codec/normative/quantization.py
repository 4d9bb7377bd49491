"""The quantiser: levels -> coefficients.  FORMAT.md 6.3.

Which level is written is the encoder's choice (`encoding.levels`).  The reconstruction point of
a level depends on the scale class under which it was coded, since that class says how steep the
density of the coefficient is there.
"""

import torch
from torch import Tensor

from codec.format.constants import MAX_QP, POINT_BITS
from codec.normative.exact import clip, round_shift

__all__ = ["COEFFICIENT_LIMIT", "dequantise", "step_size"]

COEFFICIENT_LIMIT = 1 << 24
"""Largest magnitude of a dequantised coefficient, in 1/64 of the profile's coefficient unit."""

STEPS_PER_OCTAVE = 6
BASE_STEPS = (64, 72, 81, 91, 102, 114)
"""round(64 · 2^(k/6)): the step of qp 0…5; every six qp double it."""


def step_size(qp: int) -> int:
    """Return the step of `qp` (0 … 51) in 1/64 of the profile's coefficient unit: 64 … 23 296."""
    if not 0 <= qp <= MAX_QP:
        raise ValueError(f"qp {qp} is outside 0 … {MAX_QP}")
    return BASE_STEPS[qp % STEPS_PER_OCTAVE] << (qp // STEPS_PER_OCTAVE)


def dequantise(levels: Tensor, points: Tensor, step: int) -> Tensor:
    """Turn levels into coefficients.

    Args:
        levels: float64 integers, magnitude at most `MAX_LEVEL`.
        points: float64 integers of the same shape, -32 … 32: how far the reconstruction point of a
            non-zero level lies towards zero, in 1/64 step.
        step: from `step_size`.

    Returns:
        float64 integers, magnitude at most `COEFFICIENT_LIMIT`.  Products stay below 2^15 · 2^6 ·
        2^15 = 2^36.
    """
    magnitude = levels.abs() * (1 << POINT_BITS) - points
    coefficients = round_shift(magnitude * step, POINT_BITS) * torch.sign(levels)
    return clip(coefficients, COEFFICIENT_LIMIT)
