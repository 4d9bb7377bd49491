"""The quantiser: levels -> coefficients.  FORMAT.md 6.3.

Which level is written is the encoder's choice (`encoding.levels`).  The reconstruction point of
a level depends on the scale class under which it was coded, since that class says how steep the
density of the coefficient is there.
"""

import numpy as np
from numpy.typing import NDArray

from codec.format.constants import MAX_QP, POINT_BITS

__all__ = ["COEFFICIENT_LIMIT", "dequantise", "step_size", "step_sizes"]

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


_STEPS = np.array([step_size(qp) for qp in range(MAX_QP + 1)], np.int64)


def step_sizes(qps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the step of each of several qp: see `step_size`."""
    return _STEPS[qps]


def dequantise(
    levels: NDArray[np.int64], points: NDArray[np.int64], steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Turn levels into coefficients.

    Args:
        levels: (M,), magnitude at most `MAX_LEVEL`.
        points: (M,) -32 … 32: how far the reconstruction point of a level lies towards zero, in
            1/64 step.
        steps: (M,) from `step_sizes`.

    Returns:
        (M,), magnitude at most `COEFFICIENT_LIMIT`.  Products stay below 2^15 · 2^6 · 2^15 = 2^36.
    """
    magnitude = (np.abs(levels) << POINT_BITS) - points
    coefficients = (magnitude * steps + (1 << (POINT_BITS - 1))) >> POINT_BITS
    return np.asarray(np.sign(levels) * np.minimum(coefficients, COEFFICIENT_LIMIT))
