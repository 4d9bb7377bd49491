"""Symbols <-> bytes under the frozen tables: the range coder.  FORMAT.md 7.1 and 7.2.

`SymbolReader` and `SymbolWriter` have the same methods, one for each kind of table: levels of one
class, flags, and bits of probability 1/2.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptBitstreamError
from codec.format.tables import BINARY_TABLES, PROBABILITY_BITS, binary_weights, tables

__all__ = ["SymbolReader", "SymbolWriter"]

WORD_BYTES = 4
STATE_BITS = 64
TAIL_BYTES = 8
"""How much of the end of a payload is searched for a shorter form: the state of the coder."""


class SymbolReader:
    """Reads the symbols of one payload.

    All methods raise `CorruptBitstreamError` for a payload that no encoder wrote.
    """

    def __init__(self, payload: bytes) -> None:
        padded = payload + bytes(-len(payload) % WORD_BYTES + 2 * WORD_BYTES)
        self._decoder = constriction.stream.queue.RangeDecoder(
            np.frombuffer(padded, ">u4").astype(np.uint32)
        )

    def levels(self, count: int, number: int) -> NDArray[np.int32]:
        """Read symbols, 0 … 63, under the levels of class `number`."""
        try:
            found: NDArray[np.int32] = self._decoder.decode(_level_models()[number], count)
        except AssertionError as error:  # constriction's word for it
            raise CorruptBitstreamError(f"payload: {error}") from error
        return found

    def level(self, number: int) -> int:
        """Read one symbol, 0 … 63, under the levels of class `number`."""
        return self._one(_level_models()[number])

    def flag(self, index: int) -> int:
        """Read 0 or 1, P(1) = (2 · index + 1) / 128."""
        return self._one(_flag_models()[index])

    def bit(self) -> int:
        """Read 0 or 1, both equally probable."""
        return self._one(_bit_model())

    def _one(self, model: Any) -> int:  # noqa: ANN401
        try:
            return int(self._decoder.decode(model))
        except AssertionError as error:
            raise CorruptBitstreamError(f"payload: {error}") from error


class SymbolWriter:
    """Writes the symbols of one payload."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def levels(self, symbols: NDArray[np.int32], number: int) -> None:
        """Write symbols, 0 … 63, under the levels of class `number`."""
        self._encoder.encode(np.ascontiguousarray(symbols, np.int32), _level_models()[number])

    def level(self, symbol: int, number: int) -> None:
        """Write one symbol, 0 … 63, under the levels of class `number`."""
        self._encoder.encode(symbol, _level_models()[number])

    def flag(self, value: int, index: int) -> None:
        """Write 0 or 1, P(1) = (2 · index + 1) / 128."""
        self._encoder.encode(value, _flag_models()[index])

    def bit(self, value: int) -> None:
        """Write 0 or 1, both equally probable."""
        self._encoder.encode(value, _bit_model())

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


@cache
def _level_models() -> list[Any]:
    # The weights of a table sum to 2^24 - 64, so that constriction's fast quantisation leaves them
    # as they are and adds one to each: FORMAT.md 7.1.  float32 holds them exactly.
    return [_categorical(weights) for weights in tables().levels]


@cache
def _flag_models() -> list[Any]:
    return [_categorical(np.array(binary_weights(index))) for index in range(BINARY_TABLES)]


@cache
def _bit_model() -> Any:  # noqa: ANN401
    half = (1 << (PROBABILITY_BITS - 1)) - 1
    return _categorical(np.array([half, half]))


def _categorical(weights: NDArray[np.int64]) -> Any:  # noqa: ANN401
    return constriction.stream.model.Categorical(weights.astype(np.float32), perfect=False)
