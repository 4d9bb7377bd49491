"""Datagrams sent and not known to have been of use: which of their parts to send again.

    sent ─► kept ─┬─► its frame is decoded, or nothing more: let go of
                  └─► said to be missing, or overdue: lost, told once

A part that is sent again has a new sequence number, and may be lost again.  Whether it is sent
again is the session's affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from codec.link.pacing import Part

__all__ = ["Mending"]

KEPT: Final = 4096
"""Datagrams, at most; so many more than a report speaks of that none is missed."""

OVERDUE: Final = 2
"""How often a part is sent again at once on no more evidence than that nothing has arrived."""
PATIENCE: Final = 0.4
DOUBLINGS: Final = 2
"""Seconds from one time to the next from then on, at first, and how often they double."""


@dataclass(slots=True)
class _Kept:
    queued: float
    """When the frame was, first."""
    sent: float = 0.0
    """When something of it was, last."""
    parts: dict[int, Part] = field(default_factory=dict)
    """By sequence number."""


class Mending:
    """The parts of frames that may have to be sent again, in bounded memory."""

    def __init__(self) -> None:
        self._frames: dict[int, _Kept] = {}
        self._number_of: dict[int, int] = {}
        """The frame of each datagram; sequence numbers ascend."""

    def sent(self, sequence: int, part: Part, now: float) -> None:
        """Note a datagram."""
        number = part.head.number
        kept = self._frames.setdefault(number, _Kept(part.queued))
        kept.parts[sequence], kept.sent = part, now
        self._number_of[sequence] = number
        while len(self._number_of) > KEPT:
            self.forget(next(iter(self._number_of.values())))

    def _take(self, sequence: int) -> Part | None:
        number = self._number_of.pop(sequence, None)
        return None if number is None else self._frames[number].parts.pop(sequence)

    def lost(
        self, missing: Iterable[int], overdue: Iterable[int], now: float
    ) -> dict[int, list[Part]]:
        """Return the parts of datagrams that are lost and have not been told of, by their frame's
        number, the oldest first.

        What is only overdue is sent again ever more seldom: on a link that carries nothing, all is.
        It never stops by itself, since the newest datagram has none behind it to prove it lost.
        """
        found: dict[int, list[Part]] = {}
        late = [sequence for sequence in overdue if self._impatient(sequence, now)]
        for sequence in (*missing, *late):
            part = self._take(sequence)
            if part is not None:
                found.setdefault(part.head.number, []).append(part)
        return {
            number: sorted(found[number], key=lambda part: part.index) for number in sorted(found)
        }

    def _impatient(self, sequence: int, now: float) -> bool:
        number = self._number_of.get(sequence)
        if number is None:
            return False
        part = self._frames[number].parts[sequence]
        doubled = min(part.before - OVERDUE, DOUBLINGS)
        return doubled < 0 or now - part.queued >= PATIENCE * 2**doubled

    def queued(self, number: int) -> float:
        """Tell when a frame was queued first."""
        return self._frames[number].queued

    def forget(self, number: int) -> None:
        """Let go of a frame."""
        kept = self._frames.pop(number, None)
        for sequence in kept.parts if kept is not None else ():
            del self._number_of[sequence]

    def before(self, time: float) -> list[int]:
        """Return the numbers of the frames of which nothing has been sent since `time`."""
        return [number for number, kept in self._frames.items() if kept.sent < time]

    def clear(self) -> None:
        """Let go of everything."""
        self._frames.clear()
        self._number_of.clear()
