"""Frozen probability tables and the integer rules that choose among them.  FORMAT.md 7.2 and
appendix A.

The tables were computed once, in floating point, by `tools/make/tables.py`, and are data since
then: nothing that decides a bit calls exp, log or erf.  Turning tables into models of the range
coder is left to `normative.range_coder`.
"""

import json
from bisect import bisect_left
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINARY_TABLES",
    "DEFAULT_POINTS",
    "ESCAPE",
    "MAX_DIRECT_LEVEL",
    "MEAN_BITS",
    "PROBABILITY_BITS",
    "Tables",
    "binary_weights",
    "class_of",
    "classify",
    "expected_level",
    "tables",
]

PROBABILITY_BITS = 24
"""Probabilities are multiples of 2^-24: entry i of a table has probability (weight_i + 1) / 2^24.
"""
MAX_DIRECT_LEVEL = 31
"""Levels of larger magnitude are coded as an escape."""
ESCAPE = 2 * MAX_DIRECT_LEVEL + 1
"""The alphabet: level + 31 for -31 … 31, then the escape."""
MEAN_BITS = 16
"""Mean magnitudes of levels are unsigned fixed-point numbers with 16 fraction bits."""
BINARY_TABLES = 64
"""Table i of a flag says P(1) = (2i + 1) / 128."""


DEFAULT_POINTS = (
    *zip(
        (5, 5, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1),
        (5,) * 10 + (4, 3, 2, 1) + (0,) * 6,
        strict=True,
    ),
    (-1, -1), (-2, -2), (-4, -3), (-6, -5), (-7, -5), (-8, -6), (-9, -7), (-11, -9), (-11, -10),
    (-12, -11), *((-12, -12),) * 10,
)  # fmt: skip
"""Per class, where coefficients of magnitude 1 and of larger ones lie on average, in 1/64 step
towards zero: what a profile says that measures nothing better.  Negative in busy classes, whose
cells begin well below the level (dead zones) and whose density is flat."""


class Tables(NamedTuple):
    """The content of `tables.json`."""

    levels: NDArray[np.int64]
    """(classes, 64) weights."""
    thresholds: NDArray[np.int64]
    """(classes - 1,) ascending; a mean above threshold k is of a class over k."""
    expected: NDArray[np.int64]
    """Mean magnitude of a level whose coefficient has scale 2^((i + expected_low) / 6) steps."""
    expected_low: int


@cache
def tables() -> Tables:
    """Load the frozen tables."""
    content = json.loads((Path(__file__).parent / "tables.json").read_text())
    levels = np.array(content["levels"], np.int64)
    return Tables(
        levels,
        np.array(content["thresholds"], np.int64),
        np.array(content["expected"], np.int64),
        int(content["expected_low"]),
    )


def binary_weights(index: int) -> tuple[int, int]:
    """Return the weights of the values 0 and 1 of a flag under table `index` (0 … 63)."""
    one = (2 * index + 1) * ((1 << PROBABILITY_BITS) // (2 * BINARY_TABLES))
    return (1 << PROBABILITY_BITS) - one - 1, one - 1


def classify(mean: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the scale class of each mean magnitude: how many thresholds are below it.

    Args:
        mean: 0 … 2^40.
    """
    # Exponent and leading bits of a mean tell its class, but for one threshold: several times as
    # fast as a binary search.  float32 holds all means exactly that are not above all thresholds.
    least, next_threshold = _classes_by_leading_bits()
    leading = mean.astype(np.float32).view(np.int32) >> LEADING_SHIFT
    number = least.take(leading)
    number += mean > next_threshold.take(number)
    return number


LEADING_SHIFT = 20
"""Of a float32, this leaves the exponent and three bits: eight bins in every octave, a third of
what lies between two thresholds at most."""


@cache
def _classes_by_leading_bits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the class of the least mean with these leading bits, and the threshold above each
    class.
    """
    thresholds = tables().thresholds
    least_mean = (np.arange(1 << (31 - LEADING_SHIFT), dtype=np.int32) << LEADING_SHIFT).view(
        np.float32
    )
    least = np.searchsorted(thresholds, np.nan_to_num(least_mean)).astype(np.uint8)
    return least, np.append(thresholds, np.iinfo(np.int64).max)


def class_of(mean: int) -> int:
    """Return the scale class of one mean magnitude, as `classify` does, in a tenth of the time."""
    return bisect_left(_thresholds(), mean)


@cache
def _thresholds() -> list[int]:
    return [int(threshold) for threshold in tables().thresholds]


def expected_level(scale: NDArray[np.int64], qp: int) -> NDArray[np.int64]:
    """Return the mean magnitude of levels at `qp` of coefficients whose scale equals the step at qp
    `scale`.
    """
    frozen = tables()
    return frozen.expected[np.clip(scale - qp - frozen.expected_low, 0, len(frozen.expected) - 1)]
