"""The symbols of a frame as values: what a payload says, and what a frame is reconstructed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codec.format.constants import MAX_QP, OFFSET_UNIT

__all__ = ["MODE_INTER", "MODE_INTRA", "MODE_SKIP", "FrameSymbols", "TensorSymbols", "block_qps"]

MODE_SKIP, MODE_INTER, MODE_INTRA = 0, 1, 2


@dataclass(slots=True)
class TensorSymbols:
    """The symbols of one tensor in one frame.

    `modes`: (N,) uint8, N blocks in raster order.  `levels`: (P, M) int32, positions in scan order,
    the M blocks that are not skipped in raster order.  `classes`: (P, M) uint8, the scale class
    that each level was coded under.  `offsets`: (N,) int64, by how much the
    qp of each block differs from the frame's, in `OFFSET_UNIT`; of skipped ones they say nothing.
    """

    modes: NDArray[np.uint8]
    levels: NDArray[np.int32]
    classes: NDArray[np.uint8]
    offsets: NDArray[np.int64]


@dataclass(slots=True)
class FrameSymbols:
    """The symbols of one frame.  `vectors`: (rows, columns, 2) int32 in (y, x) quarter pixels, None
    when absent.  `repeat`: nothing is said, and nothing adapts; all blocks are skipped.  `slots`:
    predicted from, kept in; None where the stream keeps one frame, and in key frames.
    """

    key: bool
    qp: int
    vectors: NDArray[np.int32] | None
    tensors: list[TensorSymbols]
    repeat: bool = False
    slots: tuple[int, int] | None = None

    @property
    def changes_nothing(self) -> bool:
        """Whether the frame looks like the one that it is predicted from."""
        return self.vectors is None and not any(tensor.modes.any() for tensor in self.tensors)


def block_qps(qp: int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the qp of blocks of those offsets in a frame of that qp: FORMAT.md 7.5."""
    return np.clip(qp + OFFSET_UNIT * offsets, 0, MAX_QP)
