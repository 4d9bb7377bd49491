"""What a receiver may wish for <-> bytes: the contents of importance and quality, LINK.md 3.

Nothing here grants a wish; what they mean to an encoder is its owner's affair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from codec.format.constants import MAX_QP
from codec.format.primitives import ByteReader, ByteWriter, in_range

__all__ = ["EVEN", "STEPS", "FinerQuality", "ImportanceGrid"]

STEPS: Final = 8
"""Steps of a weight in an octave."""
EVEN: Final = 128
"""The step of weight 1."""
MAX_STEP: Final = 255
MAX_SIDE: Final = 255
MAX_FRAMES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class ImportanceGrid:
    """How much more than elsewhere errors cost, in equal cells of the network's input."""

    rows: int
    columns: int
    steps: bytes
    """Row by row: step s is weight 2^((s - EVEN) / STEPS)."""
    frames: int = 0
    """Of the source, for which this is meant; 0: until the next grid."""

    def __post_init__(self) -> None:
        """Refuse what cannot be said."""
        in_range("rows", self.rows, 1, MAX_SIDE)
        in_range("columns", self.columns, 1, MAX_SIDE)
        in_range("cells", len(self.steps), cells := self.rows * self.columns, cells)
        in_range("frames", self.frames, 0, MAX_FRAMES)

    @classmethod
    def of(cls, weights: Iterable[Iterable[float]], *, frames: int = 0) -> Self:
        """Make a grid of rows of weights, positive numbers, rounded to the next step.

        Raises:
            ValueError: rows of different lengths, too many, or weights that are not positive.
        """
        rows = [list(row) for row in weights]
        if len({len(row) for row in rows}) != 1:
            raise ValueError("importance is no grid: rows of one length are expected")
        flat = [float(weight) for row in rows for weight in row]
        wrong = [weight for weight in flat if not (math.isfinite(weight) and weight > 0)]
        if wrong:
            raise ValueError(f"importance holds {wrong[0]}, expected positive numbers")
        steps = (round(EVEN + STEPS * math.log2(weight)) for weight in flat)
        within = bytes(min(max(step, 0), MAX_STEP) for step in steps)
        return cls(len(rows), len(rows[0]), within, frames)

    @property
    def even(self) -> bool:
        """Whether it says nothing: the same weight everywhere, 1."""
        return set(self.steps) == {EVEN}

    def halved(self) -> ImportanceGrid:
        """Return half as many rows and columns, each cell the most of those it is made of."""
        rows, columns = -(-self.rows // 2), -(-self.columns // 2)
        found = bytearray(rows * columns)
        for place, step in enumerate(self.steps):
            row, column = divmod(place, self.columns)
            cell = row // 2 * columns + column // 2
            found[cell] = max(found[cell], step)
        return ImportanceGrid(rows, columns, bytes(found), self.frames)

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.varint(self.frames)
        out.u8(self.rows)
        out.u8(self.columns)
        out.raw(self.steps)
        return bytes(out.content)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Parse; anything wrong with it is a `BitstreamError`."""
        source = ByteReader(content)
        frames, rows, columns = source.varint(), source.u8(), source.u8()
        return cls(rows, columns, source.raw(source.remaining), frames)


@dataclass(frozen=True, slots=True)
class FinerQuality:
    """A wish for a qp at most so large, in the next so many frames of the source."""

    qp: int
    frames: int

    def __post_init__(self) -> None:
        """Refuse what cannot be said."""
        in_range("qp", self.qp, 0, MAX_QP)
        in_range("frames", self.frames, 1, MAX_FRAMES)

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.varint(self.frames)
        out.u8(self.qp)
        return bytes(out.content)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Parse; anything wrong with it is a `BitstreamError`."""
        source = ByteReader(content)
        frames, qp = source.varint(), source.u8()
        source.end("wish")
        return cls(qp, frames)
