"""How fast to send: from what arrives and from how long it waits, never from losses alone.

    queueing delay = (arrival - sending) - the least that this difference has been,

in which the two clocks' offset cancels.  While the least queueing delay of the newest few reports
is above `high`, the rate falls under what arrives, by more the longer the queue; below `low` it
grows, faster where the link is known or believed to carry more.  Links lose datagrams at random;
only those that queue are full.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from codec.link.downstream import Feedback
from codec.link.least import Least
from codec.link.wire import TICKS

__all__ = ["RateControl"]

FIRST_RATE: Final = 300e3
"""bit/s, until something is known of the link."""
LEAST_RATE: Final = 8e3
BASE_WINDOW: Final = 20.0
"""Seconds over which the least delay is sought: clocks drift, routes change."""
GOODPUT_WINDOW: Final = 0.25
NEWEST: Final = 4
"""Reports whose least queueing delay counts: one late datagram is no queue."""
LOSS_DATAGRAMS: Final = 20
"""Datagrams from one measurement of losses to the next."""
HIGH: Final = 0.04
DRAIN: Final = 0.5
"""Seconds in which a queue is to be gone."""
GROWTH_UNKNOWN: Final = 1.0
GROWTH_BELOW: Final = 0.6
GROWTH_NEAR: Final = 0.06
"""Per second: before the link was ever full, far below where it was, and near that."""
USED: Final = 0.7
"""Share of the rate that has to be in use for it to grow: what is not tried is not known."""
MOVED_BASE: Final = 4
"""Decreases in vain after which the delay is taken for the link's own."""


@dataclass(slots=True)
class _Sent:
    sequence: int
    size: int
    total: int
    """Bytes up to and including this datagram."""
    at: float


class RateControl:
    """Rate, round trip and queue, as far as the feedback tells.

    Args:
        bitrate: ceiling in bit/s, None for none.
        max_latency: seconds that a frame may wait.
        frame_rate: nominal frames a second.
    """

    def __init__(self, *, bitrate: float | None, max_latency: float, frame_rate: float) -> None:
        self.bitrate = bitrate
        self.rate = FIRST_RATE if bitrate is None else bitrate
        self.goodput: float | None = None
        self.rtt: float | None = None
        self.loss = 0.0
        self._random_loss = 0.0
        self._recent = 0.0
        self.capacity: float | None = None
        self.high = min(HIGH, max_latency / 4)
        self._interval = 1 / frame_rate
        self._max_latency = max_latency
        self._window = max(GOODPUT_WINDOW, 5 * self._interval)
        self._base = Least(BASE_WINDOW)
        self._least_rtt = Least(BASE_WINDOW)
        self._newest: deque[float] = deque(maxlen=NEWEST)
        self._decreased_at = float("-inf")
        self._in_vain = 0
        self._run = (0.0, 0.0)
        self.restarted()

    def restarted(self) -> None:
        """Begin a connection: sequence numbers start anew; what is known of the rate stays."""
        self._flight: deque[_Sent] = deque()
        self._times: dict[int, float] = {}
        self._bytes_in_flight = self._total = 0
        self._reliable: tuple[float, float] = (0.0, 0.0)
        self._arrivals: deque[tuple[float, int, int]] = deque()
        self._sendings: deque[tuple[float, int]] = deque()
        self._reported = (0, 0)
        self._newest.clear()
        self._queue = 0.0
        self._queue_at = 0.0
        self.feedback_at: float | None = None
        self._base.reset()

    def sent(self, sequence: int, size: int, now: float) -> None:
        """Note a datagram, overhead included."""
        self._total += size
        self._flight.append(_Sent(sequence, size, self._total, now))
        self._bytes_in_flight += size
        self._sendings.append((now, size))
        while self._sendings and now - self._sendings[0][0] > 2 * self._window:
            self._sendings.popleft()

    def sent_reliably(self, size: int, now: float) -> None:
        """Note a message: it is not acknowledged here, but takes its time on the link."""
        self._reliable = (self._reliable_left(now) + size, now)

    def _reliable_left(self, now: float) -> float:
        left, since = self._reliable
        return max(0.0, left - (now - since) * self._drain() / 8)

    def _drain(self) -> float:
        """Tell what the link carries: what arrives if there is a queue, else at least the rate."""
        if self.goodput is None or self._queue < self.high / 2:
            return max(self.rate, self.goodput or 0.0)
        return max(min(self._carried(self.goodput), self._recent), LEAST_RATE)

    def _carried(self, goodput: float) -> float:
        """Tell what has to be sent for so much to arrive, where losses are none of the queue's."""
        return goodput / (1 - min(self._random_loss, 0.5))

    def queue(self, now: float, local: int = 0) -> float:
        """Estimate how long a frame sent now would wait, with `local` bytes still here.

        That is the time to drain what is in flight, less what the round trip explains; and what
        the newest datagram is known to have waited, less what has drained since.
        """
        stale = now - (self.rtt or 1.0) - 2 * self._max_latency
        while self._flight and self._flight[0].at < stale:
            self._bytes_in_flight -= self._flight.popleft().size
        drain = self._drain() / 8
        waiting = (self._bytes_in_flight + local + self._reliable_left(now)) / drain
        if self.rtt is not None:
            waiting -= min(self._least_rtt.value, waiting)
        return max(waiting, local / drain + self._queue - (now - self._queue_at))

    def feedback(self, report: Feedback, now: float) -> None:
        """Take a report on the datagrams of this connection, newer than those before."""
        before, self.feedback_at = self.feedback_at, now
        if report.sequence is None:
            return
        newest = None
        while self._flight and self._flight[0].sequence <= report.sequence:
            newest = self._flight.popleft()
            self._bytes_in_flight -= newest.size
        self._measure_loss(report.sequence, report.datagrams)
        if newest is None or newest.sequence != report.sequence:
            return
        self._measure_goodput(report, newest.total)
        held = (report.time - report.arrived) / TICKS
        rtt = max(now - newest.at - held, 0.0)
        self.rtt = rtt if self.rtt is None else self.rtt + (rtt - self.rtt) / 8
        self._least_rtt.add(rtt, now)
        delay = report.arrived / TICKS - newest.at
        self._base.add(delay, now)
        self._queue, self._queue_at = delay - self._base.value, now - held
        if newest.at > self._decreased_at:  # what was sent before says nothing of the new rate
            self._newest.append(self._queue)
        self._adapt(now, min(now - before, 0.5) if before is not None else 0.0)

    def _measure_loss(self, sequence: int, received: int) -> None:
        before, received_before = self._reported
        sent = sequence + 1 - before
        if sent < LOSS_DATAGRAMS:
            return
        lost = max(0.0, 1 - (received - received_before) / sent)
        self.loss += (lost - self.loss) / 4
        self._reported = (sequence + 1, received)
        if self._queue < self.high / 2:
            self._random_loss += (lost - self._random_loss) / 8

    def _measure_goodput(self, report: Feedback, total: int) -> None:
        arrived = report.arrived / TICKS
        self._arrivals.append((arrived, report.size, total))
        while len(self._arrivals) > 2 and arrived - self._arrivals[1][0] > self._window:
            self._arrivals.popleft()
        since, size, _ = self._arrivals[0]
        if arrived - since >= self._window / 2:
            self.goodput = (report.size - size) * 8 / (arrived - since)
        for since, _, before in reversed(self._arrivals):
            if arrived - since >= self._window / 3:
                self._recent = (total - before) * 8 / (arrived - since)
                break

    def _adapt(self, now: float, elapsed: float) -> None:
        if self.goodput is None or not self._newest:
            return
        queue = min(self._newest)
        urgent = self._queue > self._max_latency / 2 and len(self._newest) > 1
        if queue > self.high or (urgent and queue > self.high / 2):
            if len(self._newest) == NEWEST or urgent:
                self._decrease(now, queue)
            return
        if queue < self.high / 2:
            self._in_vain = 0
            self._increase(now, elapsed)

    def _decrease(self, now: float, queue: float) -> None:
        assert self.goodput is not None  # noqa: S101 -- asked by the only caller
        if self._in_vain == 0:
            self._run = (self.rate, queue)
        self._in_vain += 1
        self._decreased_at = now
        self._newest.clear()
        share = min(max(1 - (queue - self.high / 2) / DRAIN, 0.7), 0.95)
        self.capacity = self._carried(self.goodput)
        self.rate = max(min(self.rate, self.capacity * share), LEAST_RATE)
        if self._in_vain >= MOVED_BASE:
            rate, delay = self._run
            if queue >= 0.9 * delay and self.rate <= 0.8 * rate:
                # no queue stays as long as it was while less is sent than drains
                self._base.reset()
            self._in_vain = 0

    def _increase(self, now: float, elapsed: float) -> None:
        since = now - self._window
        used = sum(size for at, size in self._sendings if at >= since) * 8 / self._window
        if used < USED * self.rate:
            return
        if self.capacity is not None and self.rate > 1.1 * self.capacity:
            self.capacity = None
        if self.capacity is None:
            growth = GROWTH_UNKNOWN
        elif self.rate < 0.85 * self.capacity:
            growth = GROWTH_BELOW
        else:
            growth = GROWTH_NEAR
        self.rate *= 1 + growth * elapsed
        if self.bitrate is not None:
            self.rate = min(self.rate, self.bitrate)
