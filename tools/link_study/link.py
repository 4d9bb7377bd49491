"""A link in virtual time: loss in bursts, delay, jitter, a finite queue in front of a bandwidth.

    datagram ─► queue (first in, first out; full: dropped) ─► bandwidth ─► loss ─► delay, jitter ─►

Nothing here knows what is sent.  Messages are reliable as on a QUIC stream: cut into datagrams,
each sent again a while after it was lost, handed over whole and in order.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

__all__ = ["Clock", "Condition", "Path"]

OVERHEAD = 60
"""IPv4, UDP and QUIC around a datagram."""
SEGMENT = 1150
"""Bytes of a message in one datagram."""


class Clock:
    """Virtual time: calls that are due, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Make a call at a time; those of one time in the order in which they were asked for."""
        heapq.heappush(self._calls, (max(time, self.now), next(self._order), call))

    def run(self, until: float) -> None:
        """Make all calls up to a time."""
        while self._calls and self._calls[0][0] <= until:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = until


@dataclass(frozen=True, slots=True)
class Condition:
    """What a link is like, from some moment on.

    Losses are those of Gilbert and Elliott: two states, nothing lost in one, everything in the
    other, in which it stays `burst` datagrams in the mean.
    """

    delay: float = 0.05
    """Seconds one way, without queue and jitter."""
    bandwidth: float | None = None
    """bit/s, None: without bound."""
    queue_bytes: int = 1 << 20
    loss: float = 0.0
    burst: float = 1.0
    jitter: float = 0.0
    """Seconds of further delay at most, evenly; datagrams overtake each other where it exceeds the
    time between them."""
    duplicated: float = 0.0


@dataclass(slots=True)
class _Message:
    content: bytes
    at: float = 0.0
    """When the last of its parts that were not lost arrives."""
    complete: bool = False


@dataclass(slots=True)
class Path:
    """One direction of a link.

    Args:
        clock: virtual time.
        condition: what it is like; may be replaced at any time.
        datagram: called with each that arrives.
        message: likewise.
        seed: of everything random.
    """

    clock: Clock
    condition: Condition
    datagram: Callable[[bytes], None]
    message: Callable[[bytes], None]
    seed: int = 0
    sent: int = 0
    lost: int = 0
    queue_delays: list[tuple[float, float]] = field(default_factory=list)
    """(time, seconds in the queue, own transmission not counted) of each datagram taken."""
    _random: random.Random = field(init=False)
    _bad: bool = False
    _free_at: float = 0.0
    _carried: int = 0
    _leaving: deque[tuple[float, int]] = field(default_factory=deque)
    """(when it has left the queue, bytes) of what had not, when this was looked at last."""
    _messages: deque[_Message] = field(default_factory=deque)
    closed: bool = False

    def __post_init__(self) -> None:
        """Seed the losses."""
        self._random = random.Random(self.seed)

    @property
    def carried_bytes(self) -> int:
        """What has left the queue, overhead included."""
        while self._leaving and self._leaving[0][0] <= self.clock.now:
            self._carried += self._leaving.popleft()[1]
        return self._carried

    def send(self, content: bytes) -> None:
        """Send a datagram."""
        if (arrival := self._carry(len(content))) is None:
            return
        self.clock.at(arrival, lambda: self._arrive(content))
        if self._random.random() < self.condition.duplicated:
            again = arrival + self._random.uniform(0, self.condition.jitter or 0.001)
            self.clock.at(again, lambda: self._arrive(content))

    def send_message(self, content: bytes) -> None:
        """Send a message."""
        message = _Message(content)
        self._messages.append(message)
        self._attempt(message, list(range(0, max(len(content), 1), SEGMENT)))

    def _attempt(self, message: _Message, starts: list[int]) -> None:
        """Send parts of a message, those that are lost again after a while."""
        again = []
        for start in starts:
            arrival = self._carry(min(SEGMENT, len(message.content) - start))
            if arrival is None:
                again.append(start)
            else:
                message.at = max(message.at, arrival)
        if again:
            retry = self.clock.now + 3 * self.condition.delay + 0.01
            self.clock.at(retry, lambda: self._attempt(message, again))
        else:
            self.clock.at(message.at, lambda: self._complete(message))

    def _complete(self, message: _Message) -> None:
        message.complete = True
        while self._messages and self._messages[0].complete:
            self._arrive(self._messages.popleft().content, whole=True)

    def _arrive(self, content: bytes, *, whole: bool = False) -> None:
        if not self.closed:
            (self.message if whole else self.datagram)(content)

    def _carry(self, size: int) -> float | None:
        """Put a datagram on the link; return when it arrives, None if it does not."""
        condition, now = self.condition, self.clock.now
        size += OVERHEAD
        self.sent += 1
        start = max(now, self._free_at)
        if condition.bandwidth is not None:
            if (start - now) * condition.bandwidth / 8 > condition.queue_bytes:
                self.lost += 1
                return None
            self._free_at = start + size * 8 / condition.bandwidth
        else:
            self._free_at = start
        self.queue_delays.append((now, start - now))
        self._leaving.append((self._free_at, size))
        if self._drops():
            self.lost += 1
            return None
        return self._free_at + condition.delay + self._random.uniform(0, condition.jitter)

    def _drops(self) -> bool:
        loss, burst = self.condition.loss, self.condition.burst
        if loss <= 0:
            return False
        if self._bad:
            self._bad = self._random.random() >= 1 / burst
        else:
            self._bad = self._random.random() < loss / (1 - loss) / burst
        return self._bad
