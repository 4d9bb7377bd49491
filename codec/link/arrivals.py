"""The datagrams of one connection as they arrive: counted, timed, told from repetitions."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import islice
from typing import Final

from codec.link.least import Least
from codec.link.wire import MAX_RUNS, RECENT, TICKS

__all__ = ["AHEAD", "Arrivals"]

AHEAD: Final = 1 << 20
"""How far a number may lie above those before; half a day of frames at 25 a second."""
ORDERED: Final = 64
"""Newest datagrams by which it is measured how late others come."""
BASE_WINDOW: Final = 20.0
"""Seconds over which the least delay is sought."""
FIRST_PATIENCE: Final = 0.02
LEAST_PATIENCE: Final = 0.005
MARGIN: Final = 1.25
SPEED_WINDOW: Final = 0.5
"""Seconds over which it is measured how much arrives."""
TOLD: Final = 1.0
"""Seconds over which a report says that a datagram is missing, and until a later one arrives: maybe
nothing is sent before it is known.
"""


class Arrivals:
    """What feedback says of datagrams, and how long one is worth waiting for.

    Args:
        most_patience: seconds that are never exceeded.
    """

    def __init__(self, most_patience: float) -> None:
        self.highest: int | None = None
        """Sequence number."""
        self.arrived = 0.0
        """When that one did."""
        self.datagrams = 0
        self.size = 0
        self.speed = float("inf")
        """Bytes a second, of late; at first it is not known."""
        self._speed_from: tuple[float, int] | None = None
        self.patience = FIRST_PATIENCE
        """Seconds that a datagram is waited for once a later one has arrived."""
        self._most_patience = most_patience
        self._least_delay = Least(BASE_WINDOW)
        self._known: set[int] = set()
        self._newest: deque[tuple[int, float]] = deque(maxlen=ORDERED)
        self._overtaken: list[tuple[range, float]] = []
        """Runs of datagrams that have not arrived, and when they were overtaken; both ascend, and
        between two of them one has arrived.
        """

    def add(self, sequence: int, sent: int, size: int, now: float) -> str | None:
        """Take an arrival, sent at ticks of the sender's clock; return why it is refused, None if
        it is not.
        """
        highest = -1 if self.highest is None else self.highest
        if sequence in self._known or sequence <= highest - RECENT:
            return "repeated"
        if sequence > highest + AHEAD:
            return "out of range"
        self._known.add(sequence)
        self.datagrams += 1
        self.size += size
        self._measure_speed(now)
        self._least_delay.add(now - sent / TICKS, now)
        if sequence > highest:
            self._overtake(max(highest + 1, sequence - RECENT), sequence, now)
            self.highest, self.arrived = sequence, now
            self._newest.append((sequence, now))
            self.patience = max(self.patience * 0.999, LEAST_PATIENCE)
            if len(self._known) > 2 * RECENT:
                self._known = {known for known in self._known if known > sequence - RECENT}
        else:
            self._fill(sequence)
            overtaken = next((at for later, at in self._newest if later > sequence), now)
            lateness = min(MARGIN * (now - overtaken), self._most_patience)
            self.patience = max(self.patience, lateness)
        return None

    def _measure_speed(self, now: float) -> None:
        if self._speed_from is None:
            self._speed_from = now, self.size
        since, before = self._speed_from
        if now - since >= SPEED_WINDOW:
            self.speed = (self.size - before) / (now - since)
            self._speed_from = now, self.size

    def _overtake(self, first: int, sequence: int, now: float) -> None:
        """Note that datagrams from `first` on have been overtaken by the new highest."""
        if first < sequence:
            self._overtaken.append((range(first, sequence), now))
        least, outdated = sequence - RECENT, 0
        for missed, at in self._overtaken:
            if missed.stop > least and now - at <= TOLD:
                break
            outdated += 1
        del self._overtaken[:outdated]
        if self._overtaken:
            missed, at = self._overtaken[0]
            self._overtaken[0] = range(max(missed.start, least), missed.stop), at

    def _fill(self, sequence: int) -> None:
        """Note that one that may have been overtaken has arrived."""
        place = bisect_right(self._overtaken, sequence, key=lambda run: run[0].start) - 1
        if place < 0 or sequence not in self._overtaken[place][0]:
            return
        missed, at = self._overtaken[place]
        parts = range(missed.start, sequence), range(sequence + 1, missed.stop)
        self._overtaken[place : place + 1] = [(part, at) for part in parts if part]

    def missing(self, now: float) -> tuple[range, ...]:
        """Return the datagrams taken for lost, in runs: the newest, overtaken long enough ago."""
        lost = (run for run, at in reversed(self._overtaken) if at + self.patience <= now)
        return tuple(reversed(list(islice(lost, MAX_RUNS))))

    def matures(self, since: float) -> float | None:
        """Tell when, after `since`, the next datagram is to be taken for lost."""
        earliest = None
        for _, at in reversed(self._overtaken):
            if at + self.patience <= since:
                break
            earliest = at + self.patience
        return earliest

    @property
    def offset(self) -> float | None:
        """What to add to the sender's clock for the earliest arrival on ours, None at first."""
        offset = self._least_delay.value
        return offset if offset < float("inf") else None

    @property
    def loss(self) -> float:
        """Share of the datagrams up to the highest that have not arrived."""
        return 0.0 if self.highest is None else max(0.0, 1 - self.datagrams / (self.highest + 1))
