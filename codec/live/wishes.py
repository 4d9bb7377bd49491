"""Wishes of a receiver: what it asks of a sender, in so many bytes, and how one is granted.

results ─► focus ─► grid ─► BackChannel ─► link ─► Granted ─► importance of blocks, qp
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from codec.encoding.importance import pooled
from codec.format.header import SequenceHeader
from codec.format.profile import Profile
from codec.link.wire import DATAGRAM_OVERHEAD
from codec.link.wishes import EVEN, STEPS, FinerQuality, ImportanceGrid
from codec.tasks.task import Geometry

__all__ = ["LEAST_BYTES", "BackChannel", "Granted", "Wish", "focus"]

Wish = ImportanceGrid | FinerQuality

LEAST_BYTES: Final = 128
"""A second: what a wish of any kind takes, the network's own bytes included."""
CELLS: Final = 16
"""Rows and columns of a focus."""
FINER: Final = 4 * STEPS
"""Steps between what is in focus and what is not: 16 times the weight."""


class BackChannel:
    """What is wished of one sender: of each kind the newest, and no more than so many bytes a
    second.

    Args:
        max_bytes: a second, with what the network adds; at least `LEAST_BYTES`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._most = self._allowed = float(max(max_bytes, LEAST_BYTES))
        self._since: float | None = None
        self._waiting: dict[type[Wish], bytes] = {}
        self._last: dict[type[Wish], bytes] = {}

    def wish(self, wish: Wish) -> None:
        """Take a wish, in place of one of its kind that waits; a grid that is too large for the
        bytes becomes a coarser one.
        """
        while isinstance(wish, ImportanceGrid) and _cost(wish.to_bytes()) > self._most:
            wish = wish.halved()
        content = wish.to_bytes()
        self._waiting.pop(type(wish), None)
        if isinstance(wish, ImportanceGrid) and not wish.frames:
            known = self._last.get(ImportanceGrid)
            if content == known or (known is None and wish.even):
                return
        self._waiting[type(wish)] = content

    def take(self, now: float) -> list[tuple[type[Wish], bytes]]:
        """Return what may be sent now."""
        if self._since is not None:
            self._allowed += (now - self._since) * self._most
        self._allowed, self._since = min(self._allowed, self._most), now
        taken = []
        for kind, content in list(self._waiting.items()):
            if _cost(content) <= self._allowed:
                self._allowed -= _cost(content)
                self._last[kind] = self._waiting.pop(kind)
                taken.append((kind, content))
        return taken

    def forget(self) -> None:
        """Take nothing for known at the other end; a grid that is to stay is sent again, unless
        another one waits.
        """
        content = self._last.pop(ImportanceGrid, None)
        if content is not None and ImportanceGrid not in self._waiting:
            grid = ImportanceGrid.from_bytes(content)
            if not grid.frames:
                self.wish(grid)


def _cost(content: bytes) -> int:
    return len(content) + DATAGRAM_OVERHEAD


class Granted:
    """What a sender has been asked for, as an encoder takes it.

    Args:
        header, profile: of its stream.
        qp: that it codes at without a wish.
    """

    def __init__(self, header: SequenceHeader, profile: Profile, qp: int) -> None:
        self._header, self._profile, self._qp = header, profile, qp
        self.clear()

    def clear(self) -> None:
        """Forget all wishes."""
        self._grid: ImportanceGrid | None = None
        self._grid_end: float = 0
        self._maps: tuple[ImportanceGrid, list[NDArray[np.float64]]] | None = None
        self._finer, self._finer_end = self._qp, 0

    def grid(self, content: bytes, number: int) -> None:
        """Grant importance from frame `number` on.

        Raises:
            BitstreamError: that is none.
        """
        grid = ImportanceGrid.from_bytes(content)
        self._grid = None if grid.even else grid
        self._grid_end = number + grid.frames if grid.frames else float("inf")

    def finer(self, content: bytes, number: int) -> None:
        """Grant a finer quality from frame `number` on.

        Raises:
            BitstreamError: that is none.
        """
        wish = FinerQuality.from_bytes(content)
        self._finer, self._finer_end = min(wish.qp, self._qp), number + wish.frames

    def importance(self, number: int) -> list[NDArray[np.float64]] | None:
        """Return the importance of a frame's blocks, None: even.  Takes a while behind a new grid:
        for the thread that codes.
        """
        grid = self._grid
        if grid is None or number >= self._grid_end:
            return None
        if self._maps is None or self._maps[0] is not grid:
            self._maps = grid, self._maps_of(grid)
        return self._maps[1]

    def _maps_of(self, grid: ImportanceGrid) -> list[NDArray[np.float64]]:
        weights = 2.0 ** ((np.frombuffer(grid.steps, np.uint8).astype(np.float64) - EVEN) / STEPS)
        height, width = self._header.input_height, self._header.input_width
        rows = np.arange(height) * grid.rows // height
        columns = np.arange(width) * grid.columns // width
        pixels = weights.reshape(grid.rows, grid.columns)[rows[:, None], columns]
        return pooled(pixels, self._header.tensors, self._profile)

    def qp(self, number: int) -> int:
        """Return the qp to aim at in a frame."""
        return self._finer if number < self._finer_end else self._qp


def focus(rows: Sequence[Mapping[str, Any]], geometry: Geometry) -> ImportanceGrid:
    """Return a grid that is finer where the boxes of results are, and in the cells around them,
    since things move; and coarser elsewhere, so that the rate stays about what it is.  Where there
    are none, it is even.

    Args:
        rows: those of one frame; a "bbox" is x, y, width, height in its pixels.  One that is
            nowhere, since networks give any numbers, says nothing.
        geometry: where these lie in the network's input.
    """
    fine = np.zeros((CELLS, CELLS), bool)
    for row in rows:
        if "bbox" not in row:
            continue
        x, y, width, height = row["bbox"]
        left, right = _cells(x, width, geometry.scale_x, geometry.left, geometry.input_width)
        top, bottom = _cells(y, height, geometry.scale_y, geometry.top, geometry.input_height)
        fine[top:bottom, left:right] = True
    steps = np.rint(EVEN + FINER * (fine - fine.mean()))
    return ImportanceGrid(CELLS, CELLS, steps.astype(np.uint8).tobytes())


def _cells(start: float, extent: float, scale: float, offset: float, size: int) -> tuple[int, int]:
    """Return the half-open range of cells that a side of a box lies in, and one more each way."""
    first = (start * scale + offset) * CELLS / size
    last = ((start + extent) * scale + offset) * CELLS / size
    if not (math.isfinite(first) and math.isfinite(last)):
        return 0, 0
    return max(int(first) - 1, 0), min(max(int(last) + 2, 0), CELLS)
