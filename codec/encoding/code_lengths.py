"""What symbols cost: ideal code lengths under the frozen tables, in bits.

For the encoder's decisions and for reports; no decoder needs any of it, and floating point is
welcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from codec.format.tables import BINARY_TABLES, PROBABILITY_BITS, binary_weights, tables

__all__ = ["CodeLength", "flag_bits", "symbol_bits"]


class CodeLength:
    """Adds up the code lengths of symbols: takes the place of a `SymbolWriter`."""

    def __init__(self) -> None:
        self.bits = 0.0

    def levels(self, symbols: NDArray[np.int32], number: int) -> None:
        """Count symbols, 0 … 63, under the levels of class `number`."""
        self.bits += float(symbol_bits()[number][symbols].sum(dtype=np.float64))

    def level(self, symbol: int, number: int) -> None:
        """Count one symbol, 0 … 63, under the levels of class `number`."""
        self.bits += _bits_of_one()[number][symbol]

    def flag(self, value: int, index: int) -> None:
        """Count a flag, P(1) = (2 · index + 1) / 128."""
        self.bits += flag_bits()[index][value]

    def plain_bits(self, values: Sequence[int]) -> None:
        """Count zeros and ones, both equally probable."""
        self.bits += len(values)


@cache
def symbol_bits() -> NDArray[np.float32]:
    """Return the (classes, 64) code length of each symbol of a level."""
    probability = (tables().levels + 1) / (1 << PROBABILITY_BITS)
    return np.asarray(-np.log2(probability).astype(np.float32))


@cache
def _bits_of_one() -> list[list[float]]:
    """Return `symbol_bits` as numbers of Python, which are found in a third of the time."""
    found: list[list[float]] = symbol_bits().tolist()
    return found


@cache
def flag_bits() -> list[list[float]]:
    """Return the code lengths of 0 and 1 under each table of a flag."""
    return [
        [PROBABILITY_BITS - float(np.log2(weight + 1)) for weight in binary_weights(index)]
        for index in range(BINARY_TABLES)
    ]
