"""Datagrams in their turn: neither all at once nor, at usual frame rates, spread over the frame's
whole interval.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from codec.link.upstream import FrameHead
from codec.link.wire import DATAGRAM_OVERHEAD

__all__ = ["Pacer", "Part"]

SPEED: Final = 2.5
"""Times the rate, at most."""
OWN_QUEUE: Final = 0.024
"""Seconds that a frame's last datagram may wait for those before it, on a link that is just as fast
as the rate: less than what is taken for a queue.
"""
LEAST_SPEED: Final = 64e3
"""bit/s."""
BURST: Final = 4
"""Datagrams that leave at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """One datagram's share of a frame."""

    head: FrameHead
    index: int
    count: int
    content: bytes
    queued: float
    before: int = 0
    """How often it has been sent, and lost."""

    @property
    def size(self) -> int:
        """About what it takes on the link."""
        return len(self.content) + DATAGRAM_OVERHEAD


class Pacer:
    """A queue of parts of frames.

    Args:
        part_bytes: the most bytes of a part.
        interval: seconds between frames.
    """

    def __init__(self, part_bytes: int, interval: float) -> None:
        self._times = min(SPEED, interval / max(interval - OWN_QUEUE, 1e-9))
        self._most = BURST * (part_bytes + DATAGRAM_OVERHEAD)
        self._part_bytes = part_bytes
        self._queue: deque[Part] = deque()
        self._allowed = 0.0
        self._since = float("-inf")
        self.waiting = 0
        """Bytes."""

    def parts(self, packet: bytes) -> int:
        """Tell into how many parts a packet is cut."""
        return -(-len(packet) // self._part_bytes)

    def add(self, head: FrameHead, packet: bytes, now: float) -> None:
        """Queue a frame."""
        count, step = self.parts(packet), self._part_bytes
        for index in range(count):
            part = Part(head, index, count, packet[index * step : (index + 1) * step], now)
            self._queue.append(part)
            self.waiting += part.size

    def again(self, parts: Iterable[Part], now: float) -> None:
        """Queue parts of older frames again, in front of everything: newer ones wait for them."""
        again = [replace(part, queued=now, before=part.before + 1) for part in parts]
        self._queue.extendleft(reversed(again))
        self.waiting += sum(part.size for part in again)

    def clear(self) -> list[int]:
        """Empty the queue; return the numbers of the frames that were in it."""
        numbers = sorted({part.head.number for part in self._queue})
        self._queue.clear()
        self.waiting = 0
        return numbers

    def take(self, now: float, rate: float, wanted: Callable[[Part], bool]) -> Iterator[Part]:
        """Return the parts that leave now; those that are not wanted any more vanish."""
        self._allowed = min(self._allowed + (now - self._since) * self._speed(rate), self._most)
        self._since = now
        while self._queue and self._allowed > 0:
            part = self._queue.popleft()
            self.waiting -= part.size
            if wanted(part):
                self._allowed -= part.size
                yield part

    def next_time(self, now: float, rate: float) -> float | None:
        """Tell when the next part leaves, None if there is none."""
        if not self._queue:
            return None
        return max(now, self._since + max(0.0, 1 - self._allowed) / self._speed(rate))

    def _speed(self, rate: float) -> float:
        return max(self._times * rate, LEAST_SPEED) / 8
