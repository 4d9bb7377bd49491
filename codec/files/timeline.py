"""Timestamps of decoded frames -> strictly increasing ones, whatever the file says.

The rules are those that `files.video.VideoReader` states.  Nothing here knows of files or frames.
"""

from __future__ import annotations

from typing import Final

from codec.format.constants import MAX_PTS

__all__ = ["REORDERED_FRAMES", "Timeline"]

REORDERED_FRAMES: Final = 16
"""How far the timestamps of one recording may be out of order, frames: where a container cannot
state times of presentation (H.264 with B-frames in AVI) they are, by the reordering at most."""


class Timeline:
    """Places frames in time, one after the other.

    Args:
        duration: of a frame, in ticks.
        longest: leap forward, in ticks, that is not taken for a new recording.
    """

    def __init__(self, duration: int, longest: int) -> None:
        self._duration, self._longest = duration, longest
        self._offset = 0  # of the present recording
        self._first: int | None = None  # timestamp of its first frame, in the file
        self.last: int | None = None

    def place(self, pts: int | None, missed: int = 0) -> int:
        """Return the timestamp of the next frame, behind so many that were lost to damage."""
        if pts is not None and abs(pts) > MAX_PTS:
            pts = None  # what no stream can hold is damage
        if self.last is None or self._first is None:
            self._first = pts
            self.last = pts or 0 if self.last is None else max(pts or 0, self.last + self._duration)
            return self.last
        following = self.last + (missed + 1) * self._duration
        placed = following if pts is None else pts + self._offset
        behind = self.last - placed
        if pts is not None and (
            behind > REORDERED_FRAMES * self._duration
            or (behind >= self._duration and pts <= self._first)
            or (-behind > self._longest and not missed)  # or else it is a hole
        ):
            self._first = pts
            placed = following
            self._offset = placed - pts
        self.last = max(placed, self.last + 1)
        return self.last
