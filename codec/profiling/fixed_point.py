"""Measured numbers -> the integers of a profile: what simple and weighted ones have in common.

A level of one at qp 0 is `STEP_UNITS` in the units of coefficients, whatever the profile makes of
them; scales are the qp at which the step equals a standard deviation.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from codec.format.constants import LATENT_LIMIT
from codec.format.header import TensorSpec
from codec.normative.quantization import step_size

__all__ = [
    "MAX_MATRIX",
    "STEP_LATENTS",
    "STEP_UNITS",
    "block_size_for",
    "to_int8",
    "to_latents",
]

STEP_LATENTS: Final = 8
"""Latent units in a step at qp 0: rounding to latents then adds 1/64 of the quantisation noise even
there."""
STEP_UNITS: Final = step_size(0)
MAX_MATRIX: Final = int(np.iinfo(np.int16).max)
"""Largest entry of a synthesis matrix."""
PREFERRED_BLOCK_SIZES: Final = (7, 8)
OTHER_BLOCK_SIZE: Final = 4
"""On features of a detector, 52 x 52, 26 x 26 and 13 x 13, blocks of 4 took 15 to 25 % less
rate at equal error than those of 8, which pad more, and less than those of 13, which divide them.
They need few matrices, and give a calibration many blocks to measure each by."""


def block_size_for(spec: TensorSpec) -> int:
    """Return 7 or 8, whichever divides both sides; else 4, or less in a smaller tensor."""
    return next(
        (b for b in PREFERRED_BLOCK_SIZES if spec.height % b == 0 and spec.width % b == 0),
        min(OTHER_BLOCK_SIZE, max(spec.height, spec.width)),
    )


def to_int8(values: NDArray[Any]) -> NDArray[np.int8]:
    """Round to int8, values outside to the nearest end."""
    rounded: NDArray[np.int8] = np.clip(np.round(values), -128, 127).astype(np.int8)
    return rounded


def to_latents(values: NDArray[Any]) -> NDArray[np.int32]:
    """Round to latents, values outside to the nearest end."""
    rounded: NDArray[np.int32] = np.clip(np.round(values), -LATENT_LIMIT, LATENT_LIMIT).astype(
        np.int32
    )
    return rounded
