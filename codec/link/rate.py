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
FIRST_TRIP: Final = 0.25
"""Seconds that the round trip is taken for until it is known."""
LEAST_RATE: Final = 8e3
BASE_WINDOW: Final = 20.0
"""Seconds over which the least delay is sought: clocks drift, routes change."""
GOODPUT_WINDOW: Final = 0.25
NEWEST: Final = 4
"""Reports whose least queueing delay counts: one late datagram is no queue."""
DRAIN_INTERVALS: Final = 2
CAPACITY_INTERVALS: Final = 4
"""Frame intervals over which it is measured what a queue drains at, to tell how long it is and to
fall below that.
"""
LOSS_DATAGRAMS: Final = 20
"""Datagrams from one measurement of losses to the next."""
HIGH: Final = 0.03
"""Seconds of queue that are too long, beside what delays vary by."""
JITTER_MEMORY: Final = 64
"""Reports over which it is measured how delays vary."""
DRAIN: Final = 0.5
"""Seconds in which a queue is to be gone."""
GROWTH_UNKNOWN: Final = 1.0
GROWTH_BELOW: Final = 0.6
GROWTH_NEAR: Final = 0.05
"""Per second: before the link was ever full, far below where it was, and near that."""
USED: Final = 0.7
"""Share of the rate that has to be in use for it to grow: what is not tried is not known."""
MOST_LOST: Final = 2.0
"""How many times what arrives may be sent: a full queue too short to be seen is no random loss."""
FEEDBACK_PAUSE: Final = 0.1
"""Seconds without a report that mean nothing: it may have been lost."""
OVERDUE: Final = 0.01
"""Seconds beyond the longest that a datagram took lately, after which it is taken for lost."""
DELAY_WINDOW: Final = 2.0
"""Seconds over which that is sought."""
NARROW: Final = 0.5
"""Of the rate: a link that has just become so narrow makes nothing overdue."""
FALL: Final = 0.002
"""Seconds by which the least delay falls where a queue drains that had been taken for the link's
own delay.
"""
EMPTYING: Final = 0.85
"""Of what the link carries, what is sent until that is over."""
WIDER: Final = 1.05
"""Times what the link was believed to carry; where so much passes, it has become wider."""
STALE: Final = 4096
"""Datagrams that are remembered when no report is expected of them any more."""
MOVED_BASE: Final = 4
"""Decreases in vain after which the delay is taken for the link's own."""


@dataclass(slots=True)
class _Sent:
    sequence: int
    size: int
    total: int
    """Bytes up to and including this datagram, of whatever kind."""
    beside: int
    """Of these, what was no datagram of the session."""
    at: float


@dataclass(slots=True)
class _Arrival:
    """What a report says of the newest datagram."""

    at: float
    """On the receiver's clock."""
    received: int
    """Bytes until then, with those beside the datagrams, which are taken to arrive."""
    sent: int
    """Bytes up to that datagram, lost ones included."""
    queue: float


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
        self._jitter = 0.0
        self._passed = 0.0
        self.capacity: float | None = None
        self.high = min(HIGH, max_latency / 4)
        self._interval = 1 / frame_rate
        self._max_latency = max_latency
        self._window = max(GOODPUT_WINDOW, 5 * self._interval)
        self._base = Least(BASE_WINDOW)
        self._least_rtt = Least(BASE_WINDOW)
        self._most = Least(DELAY_WINDOW)
        """Of delays, the most: negative."""
        self._newest: deque[float] = deque(maxlen=NEWEST)
        self._decreased_at = float("-inf")
        self._fell_at = float("-inf")
        self._in_vain = 0
        self._run = (0.0, 0.0)
        self.restarted()

    def restarted(self) -> None:
        """Begin a connection: sequence numbers start anew; what is known of the rate stays."""
        self._flight: deque[_Sent] = deque()
        self._stale: deque[_Sent] = deque(maxlen=STALE)
        """Sent before those in flight, and as good as lost; but where a route has become longer,
        reports of them come, and nothing else tells by how much.
        """
        self._arrived: _Sent | None = None
        self._bytes_in_flight = self._total = self._beside = 0
        self._reliable: tuple[float, float] = (0.0, 0.0)
        self._arrivals: deque[_Arrival] = deque()
        self._sendings: deque[tuple[float, int]] = deque()
        self._reported = (0, 0)
        self._newest.clear()
        self._queue = 0.0
        self._queue_at = 0.0
        self.feedback_at: float | None = None
        self._adapted_at: float | None = None
        self._recent: float | None = None
        """What passed lately while there was a queue."""
        self._recent_at = float("-inf")
        self.unanswered: float | None = None
        """Since when datagrams have been sent without news of any."""
        self._base.reset()
        self._most.reset()

    def sent(self, sequence: int, size: int, now: float) -> None:
        """Note a datagram, overhead included."""
        self._total += size
        if self.unanswered is None:
            self.unanswered = now
        self._flight.append(_Sent(sequence, size, self._total, self._beside, now))
        self._bytes_in_flight += size
        self._use(size, now)

    def sent_beside(self, size: int, now: float) -> None:
        """Note what went beside datagrams and messages: nothing is reported of it."""
        self._total += size
        self._beside += size
        self._use(size, now)

    def _use(self, size: int, now: float) -> None:
        self._sendings.append((now, size))
        while self._sendings and now - self._sendings[0][0] > 2 * self._window:
            self._sendings.popleft()

    def sent_reliably(self, size: int, now: float) -> None:
        """Note a message: it is not acknowledged here, but takes its time on the link."""
        self._reliable = (self._reliable_left(now) + size, now)

    def reliable_arrived(self) -> None:
        """Note that the messages have arrived: they take no more of the link's time."""
        self._reliable = (0.0, 0.0)

    def _reliable_left(self, now: float) -> float:
        left, since = self._reliable
        return max(0.0, left - (now - since) * self._drain() / 8)

    def _drain(self) -> float:
        """Tell what the link carries: what passed while there was a queue, else at least the
        rate.
        """
        if self._queue < self.high / 4:
            return max(self.rate, self._passed)
        return max(self._passed if self._recent is None else self._recent, LEAST_RATE)

    @property
    def carried(self) -> float:
        """What a new frame may count on: the rate, less where a queue has been seen to drain at
        less.
        """
        if self._recent is None or self._queue < self.high / 4:
            return self.rate
        return min(self.rate, max(self._recent, LEAST_RATE))

    def queue(self, now: float, local: int = 0) -> float:
        """Estimate how long a frame sent now would wait, with `local` bytes still here.

        That is the time to drain what is in flight, less what the round trip and the pause since
        the last report explain; and what the newest datagram is known to have waited, less what
        has drained since.
        """
        stale = now - (self.rtt or 1.0) - 2 * self._max_latency
        while self._flight and self._flight[0].at < stale:
            self._stale.append(self._flight.popleft())
            self._bytes_in_flight -= self._stale[-1].size
        drain = self._drain() / 8
        waiting = (self._bytes_in_flight + local + self._reliable_left(now)) / drain
        if self.feedback_at is None or self.rtt is None:
            waiting -= FIRST_TRIP
        else:
            trip = self._least_rtt.value
            waiting -= trip + min(now - self.feedback_at, FEEDBACK_PAUSE)
            if self._flight:
                waiting = max(waiting, now - self._flight[0].at - trip - 2 * FEEDBACK_PAUSE)
        return max(waiting, local / drain + self._queue - (now - self._queue_at), 0.0)

    def feedback(self, report: Feedback, now: float) -> None:
        """Take a report on the datagrams of this connection, newer than those before."""
        self.feedback_at = now
        if report.sequence is None:
            return
        newest = None
        while self._stale and self._stale[0].sequence <= report.sequence:
            newest = self._stale.popleft()
        while self._flight and self._flight[0].sequence <= report.sequence:
            newest = self._flight.popleft()
            self._bytes_in_flight -= newest.size
        if newest is not None:
            left = self._stale or self._flight
            self.unanswered = left[0].at if left else None
        self._measure_loss(report.sequence, report.datagrams)
        if newest is None or newest.sequence != report.sequence:
            return
        held = (report.time - report.arrived) / TICKS
        rtt = max(now - newest.at - held, 0.0)
        self.rtt = rtt if self.rtt is None else self.rtt + (rtt - self.rtt) / 8
        self._least_rtt.add(rtt, now)
        self._arrived = newest
        delay = report.arrived / TICKS - newest.at
        if delay < self._base.value - FALL:
            self._fell_at = now
        self._base.add(delay, now)
        self._most.add(-delay, now)
        # a datagram's own time on a slow link is no queue
        own = min(newest.size * 8 / max(self.rate, self._passed), self._interval / 2)
        queue = max(delay - self._base.value - own, 0.0)
        self._jitter += (abs(queue - self._queue) - self._jitter) / JITTER_MEMORY
        self.high = min(HIGH + self._jitter, self._max_latency / 4)
        self._queue, self._queue_at = queue, now - held
        self._measure_passed(
            _Arrival(report.arrived / TICKS, report.size + newest.beside, newest.total, self._queue)
        )
        if newest.at > self._decreased_at:  # what was sent before says nothing of the new rate
            self._newest.append(self._queue)
        before, self._adapted_at = self._adapted_at, now
        self._adapt(now, min(now - before, 0.5) if before is not None else 0.0)

    def overdue(self, report: Feedback) -> list[int]:
        """Return the datagrams on their way that should have arrived before a report was made.

        A link that has just become slow is given the time to carry what was sent since the newest
        that has arrived.
        """
        arrived = self._arrived
        if arrived is None or arrived.sequence != report.sequence:
            return []
        time = report.time / TICKS - OVERDUE
        sent_before = time + self._most.value
        most_bytes = (time - report.arrived / TICKS) * NARROW * self.rate / 8
        found = []
        for sent in self._flight:
            if sent.at > sent_before or sent.total - arrived.total > most_bytes:
                break
            found.append(sent.sequence)
        return found

    def _measure_loss(self, sequence: int, received: int) -> None:
        before, received_before = self._reported
        sent = sequence + 1 - before
        if sent >= LOSS_DATAGRAMS:
            lost = max(0.0, 1 - (received - received_before) / sent)
            self.loss += (lost - self.loss) / 4
            self._reported = (sequence + 1, received)

    def _measure_passed(self, newest: _Arrival) -> None:
        """Measure what arrives, and what the link carries: while there is a queue, all that it can.

        Lost datagrams count in what it carries, since most are lost behind the queue.
        """
        arrivals = self._arrivals
        arrivals.append(newest)
        while len(arrivals) > 2 and newest.at - arrivals[1].at > self._window:
            arrivals.popleft()
        span = newest.at - arrivals[0].at
        if span >= self._window / 2:
            self.goodput = (newest.received - arrivals[0].received) * 8 / span
            self._passed = (newest.sent - arrivals[0].sent) * 8 / span
        busy = self._busy(DRAIN_INTERVALS)
        if busy is not None:
            self._recent, self._recent_at = busy, newest.at
        elif newest.at - self._recent_at > 2 * self._window:
            self._recent = None

    def _busy(self, intervals: float) -> float | None:
        """Measure what passed in the newest so many frame intervals, or the newest at all, with a
        queue throughout; None if there was none.
        """
        newest = self._arrivals[-1]
        passed = None
        if newest.queue < self.high / 4:
            return None
        for before in reversed(self._arrivals):
            if before.queue < self.high / 4:
                break
            span = newest.at - before.at
            if span >= self._interval:
                passed = (newest.sent - before.sent) * 8 / span
            if span >= intervals * self._interval:
                break
        return passed

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
            if now - self._fell_at > self._window:
                self._increase(now, elapsed)
            elif self.capacity is not None:
                self.rate = min(self.rate, max(EMPTYING * self.capacity, LEAST_RATE))

    def _decrease(self, now: float, queue: float) -> None:
        if self._in_vain == 0:
            self._run = (self.rate, queue)
        self._in_vain += 1
        self._decreased_at = now
        self._newest.clear()
        share = min(max(1 - (queue - self.high / 2) / DRAIN, 0.7), 0.95)
        measured = self._busy(CAPACITY_INTERVALS) or self._passed
        self.capacity = max(measured, self.rate / 2)
        self.rate = max(min(self.rate, self.capacity * share), LEAST_RATE)
        if self._in_vain >= MOVED_BASE:
            rate, delay = self._run
            if queue >= 0.9 * delay and self.rate <= 0.8 * rate:
                # no queue stays as long as it was while less is sent than drains
                self._base.reset()
                self._least_rtt.reset()
                self._least_rtt.add(self.rtt or 0.0, now)
                self.capacity = None
            self._in_vain = 0

    def _increase(self, now: float, elapsed: float) -> None:
        since = now - self._window
        used = sum(size for at, size in self._sendings if at >= since) * 8 / self._window
        if used < USED * self.rate or self.rate > MOST_LOST * (self.goodput or 0.0):
            return
        if self.capacity is not None and self._passed > WIDER * self.capacity:
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
