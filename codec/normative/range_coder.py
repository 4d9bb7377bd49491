"""Bytes -> symbols under the frozen tables: the range decoder.  FORMAT.md 7.1 and 7.2.

There is a method for each kind of table: levels of one class, flags, and bits of probability 1/2.
The encoder's half is `encoding.symbol_writer`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptBitstreamError
from codec.format.tables import BINARY_TABLES, PROBABILITY_BITS, binary_weights, tables

__all__ = ["WORD_BYTES", "SymbolReader", "bit_model", "flag_models", "level_models"]

WORD_BYTES = 4


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
        return self._several(level_models()[number], count)

    def level(self, number: int) -> int:
        """Read one symbol, 0 … 63, under the levels of class `number`."""
        return self._one(level_models()[number])

    def flag(self, index: int) -> int:
        """Read 0 or 1, P(1) = (2 · index + 1) / 128."""
        return self._one(flag_models()[index])

    def bits(self, count: int) -> list[int]:
        """Read zeros and ones, both equally probable."""
        found: list[int] = self._several(bit_model(), count).tolist()
        return found

    def _several(self, model: Any, count: int) -> NDArray[np.int32]:  # noqa: ANN401
        try:
            found: NDArray[np.int32] = self._decoder.decode(model, count)
        except AssertionError as error:  # constriction's word for it
            raise CorruptBitstreamError(f"payload: {error}") from error
        return found

    def _one(self, model: Any) -> int:  # noqa: ANN401
        try:
            return int(self._decoder.decode(model))
        except AssertionError as error:
            raise CorruptBitstreamError(f"payload: {error}") from error


@cache
def level_models() -> list[Any]:
    """Return constriction's model of each table of levels."""
    # The weights of a table sum to 2^24 - 64, so that constriction's fast quantisation leaves them
    # as they are and adds one to each: FORMAT.md 7.1.  float32 holds them exactly.
    return [_categorical(weights) for weights in tables().levels]


@cache
def flag_models() -> list[Any]:
    """Return constriction's model of each table of a flag."""
    return [_categorical(np.array(binary_weights(index))) for index in range(BINARY_TABLES)]


@cache
def bit_model() -> Any:  # noqa: ANN401
    """Return constriction's model of a bit."""
    half = (1 << (PROBABILITY_BITS - 1)) - 1
    return _categorical(np.array([half, half]))


def _categorical(weights: NDArray[np.int64]) -> Any:  # noqa: ANN401
    return constriction.stream.model.Categorical(weights.astype(np.float32), perfect=False)
