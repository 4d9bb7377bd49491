"""Symbols -> bytes under the frozen tables: the range encoder, the mirror of
`normative.range_coder`.
"""

from __future__ import annotations

from collections.abc import Sequence

import constriction
import numpy as np
from numpy.typing import NDArray

from codec.normative.range_coder import WORD_BYTES, bit_model, flag_models, level_models

__all__ = ["SymbolWriter"]

STATE_BITS = 64
TAIL_BYTES = 8
"""How much of the end of a payload is searched for a shorter form: the state of the coder."""


class SymbolWriter:
    """Writes the symbols of one payload."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def levels(self, symbols: NDArray[np.int32], number: int) -> None:
        """Write symbols, 0 … 63, under the levels of class `number`."""
        self._encoder.encode(np.ascontiguousarray(symbols, np.int32), level_models()[number])

    def level(self, symbol: int, number: int) -> None:
        """Write one symbol, 0 … 63, under the levels of class `number`."""
        self._encoder.encode(symbol, level_models()[number])

    def flag(self, value: int, index: int) -> None:
        """Write 0 or 1, P(1) = (2 · index + 1) / 128."""
        self._encoder.encode(value, flag_models()[index])

    def plain_bits(self, values: Sequence[int]) -> None:
        """Write zeros and ones, both equally probable."""
        self._encoder.encode(np.array(values, np.int32), bit_model())

    def finish(self) -> bytes:
        """Return the shortest payload that decodes to the symbols: FORMAT.md 7.1.

        The decoder reads zero bytes beyond the end of a payload, so any number inside the final
        interval [lower, lower + range) of the coder will do; the one with the most trailing zero
        bytes is written.
        """
        words, (lower, width) = self._encoder.pos()
        # The words that are out may still change by a carry.  The sealed form settles it: its
        # number lies in the interval, at a distance from the lower end that the lowest 64 bits
        # tell.
        sealed: bytes = (
            np.asarray(self._encoder.get_compressed(), np.uint32).astype(">u4").tobytes()
        )
        full = words * WORD_BYTES + STATE_BITS // 8
        sealed = sealed.ljust(full, b"\0")
        settled, tail = sealed[: full - TAIL_BYTES], int.from_bytes(sealed[-TAIL_BYTES:], "big")
        low = tail - ((tail - lower) & ((1 << STATE_BITS) - 1))
        for size in range(TAIL_BYTES + 1):
            unit = 1 << (8 * (TAIL_BYTES - size))
            candidate = -(-low // unit) * unit
            if low <= candidate < min(low + width, 1 << (8 * TAIL_BYTES)):
                payload: bytes = settled + candidate.to_bytes(TAIL_BYTES, "big")
                return payload.rstrip(b"\0")
        raise AssertionError("the interval of a range coder is never empty")
