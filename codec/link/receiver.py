"""The receiving end, for one sender: frames in decodable order, what is missing, feedback.

Rules:
1. Frames are delivered in the order of their numbers, each after its reference; what comes after a
   later frame has been delivered is void.
2. Every number has one outcome in order: `Frame`, `Missing` or `Skipped`.  The outcome is due when
   the frame is delivered; or `max_latency` after it should have come; or once a later frame can be
   decoded without it, a little after that overtook it, in case that datagrams have changed places.
3. A frame that becomes decodable when its outcome was `Missing` is still delivered, as late: those
   predicted from it can be decoded then.
4. Before the first frame has been delivered, there is nothing to conceal from: nothing is missing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from codec.errors import BitstreamError
from codec.limits import DEFAULT_LIMITS, Limits
from codec.link.arrivals import AHEAD, Arrivals
from codec.link.downstream import Feedback, FrameReport, Importance, Quality, Welcome
from codec.link.events import (
    Ended,
    Frame,
    Missing,
    Opened,
    Outgoing,
    ReceiverEvent,
    ReceiverStatus,
    Skipped,
)
from codec.link.reassembly import Reassembly
from codec.link.upstream import (
    Bye,
    Fragment,
    FrameHead,
    Header,
    Hello,
    WholeFrame,
    read_from_sender,
)
from codec.link.wire import DATAGRAM_OVERHEAD, MAX_REQUEST_BYTES, REPORTED, TICKS

__all__ = ["ReceiverSession"]

FRAME_BYTES: Final = 1 << 20
"""Most bytes of a frame, beside `Limits.packet_bytes`."""
HELD_FRAMES: Final = 64
HELD_BYTES: Final = 4 * FRAME_BYTES
DELIVERED: Final = 1024
"""Delivered frames that may still be referred to."""
FEEDBACK_GAP: Final = 0.01
FEEDBACK_NARROW_GAP: Final = 0.05
FEEDBACK_PAUSE: Final = 0.1
"""Seconds between reports: at least, on a wide link and on a narrow one, and at most."""
FEEDBACK_WAITING: Final = 0.02
"""At most, while a frame is late: reports are lost like everything else."""
REPORT_BYTES: Final = 64
REPORTS_SHARE: Final = 0.4
"""Bytes in which a transport acknowledges a report, and what share of all that arrives these may
become before reports are fewer.
"""
LATE: Final = 0.015
"""Seconds after which a frame is."""
LONG_GAP: Final = 64
"""Frames in a row that may be missing; more were not meant to be seen."""
SILENCE: Final = 1.0
"""Seconds of silence after which no more frames are expected."""


class ReceiverSession:
    """One sender's session, over one connection after another; `Door.greet` makes and resumes it.

    Args:
        hello: what the sender said first.
        max_latency: seconds that a frame's result may wait for it beyond the link's own delay.
        limits: what a stream may ask for.
        now: the time.
    """

    def __init__(
        self, hello: Hello, now: float, *, max_latency: float, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.session = hello.session
        self.status = ReceiverStatus()
        self._limits = limits
        self._max_latency = max_latency
        self._origin = now
        self._interval = hello.frame_interval / TICKS
        self._opened = False
        self._held = Reassembly(
            most_frames=HELD_FRAMES,
            most_bytes=HELD_BYTES,
            frame_bytes=min(FRAME_BYTES, limits.packet_bytes),
        )
        self._first = self._due = hello.first
        self._delivered = hello.first - 1
        self._started = False
        self._usable: OrderedDict[int, None] = OrderedDict()
        self._decoding: set[int] = set()
        """Delivered, and nothing said of what became of them."""
        self._decoded: deque[int] = deque(maxlen=REPORTED + 1)
        self._unsent: deque[tuple[int, int]] = deque(maxlen=HELD_FRAMES)
        self._heard: deque[tuple[int, float]] = deque(maxlen=4 * HELD_FRAMES)
        self._wants_key = False
        self._pending: list[bytes] = []
        self._end: int | None = None
        self._ends_at = float("inf")
        """When what nothing has been heard of counts as never sent, behind the last frame."""
        self.ended = False
        """The source has ended, and every frame has had its outcome."""
        self._connect(resumed=False)

    # --- connection -------------------------------------------------------------------------------

    def resume(self, hello: Hello, now: float) -> list[ReceiverEvent]:
        """Go on over another connection: what is not there will not come, up to `hello.first`."""
        self.disconnect()
        self._held.clear()
        self._interval = hello.frame_interval / TICKS
        events: list[ReceiverEvent] = []
        if hello.first > self._due:
            events.append(self._skip(self._due, hello.first - 1))
        self._connect(resumed=self._opened)
        return events

    def _connect(self, *, resumed: bool) -> None:
        self.connected = True
        self._arrivals = Arrivals(self._max_latency / 2)
        self._newest: FrameHead | None = None
        self._newest_sent = 0.0
        self._feedback_at = float("-inf")
        self._news = False
        self._pending.append(Welcome(resumed, self._report()).to_bytes())

    def disconnect(self) -> None:
        """Note that the connection is gone: nothing is missing until it is back."""
        self.connected = False
        self._pending = []

    @property
    def accounted(self) -> int:
        """How many numbers have had their outcome in this session."""
        return (self._due if self._end is None or not self.ended else self._end) - self._first

    @property
    def message_bytes(self) -> int:
        """The most bytes that a message of this sender may have."""
        return max(self._limits.header_bytes, min(FRAME_BYTES, self._limits.packet_bytes)) + 64

    # --- bytes in ---------------------------------------------------------------------------------

    def datagram(self, content: bytes, now: float) -> list[ReceiverEvent]:
        """Take a datagram of the sender."""
        return self._take(content, now, datagram=True)

    def message(self, content: bytes, now: float) -> list[ReceiverEvent]:
        """Take a message of the sender."""
        if len(content) > self.message_bytes:
            return self._refuse("oversize")
        return self._take(content, now, datagram=False)

    def _take(self, content: bytes, now: float, *, datagram: bool) -> list[ReceiverEvent]:
        if not self.connected or self.ended:
            return self._refuse("not connected")
        try:
            read = read_from_sender(content, datagram=datagram)
        except BitstreamError:
            return self._refuse("malformed")
        events: list[ReceiverEvent] = []
        match read:
            case Fragment():
                events = self._fragment(read, len(content), now)
            case WholeFrame():
                events = self._frame(read, len(content), now)
            case Header():
                events = self._header(read, now)
            case Bye():
                events = self._bye(read, now)
            case Hello():
                events = self._refuse("a second hello")
        return events

    def _refuse(self, reason: str) -> list[ReceiverEvent]:
        self.status.refused[reason] += 1
        return []

    def _header(self, header: Header, now: float) -> list[ReceiverEvent]:
        if self._opened:
            return self._refuse("a second header")
        self._opened = True
        return [Opened(header.content), *self.poll(now)]

    def _bye(self, bye: Bye, now: float) -> list[ReceiverEvent]:
        if not self._delivered < bye.end <= self._due + AHEAD:
            return self._refuse("out of range")
        self._end, self._ends_at = bye.end, now + self._max_latency
        return self.poll(now)

    def _frame(self, frame: WholeFrame, size: int, now: float) -> list[ReceiverEvent]:
        refused = self._unwanted(frame.head) or self._held.frame(frame)
        if refused is not None:
            return self._refuse(refused)
        self.status.received_bytes += size
        self._note(frame.head, None, now)
        return self.poll(now)

    def _unwanted(self, head: FrameHead) -> str | None:
        if head.number <= self._delivered:
            return "outdated"
        if head.number > self._due + AHEAD:
            return "out of range"
        return None

    def _fragment(self, fragment: Fragment, size: int, now: float) -> list[ReceiverEvent]:
        size += DATAGRAM_OVERHEAD
        refused = self._arrivals.add(fragment.sequence, fragment.sent, size, now)
        if refused is None:
            self.status.datagrams += 1
            self.status.received_bytes += size
            self.status.loss = self._arrivals.loss
            self._news = True
            refused = self._unwanted(fragment.head) or self._held.fragment(fragment)
        if refused is not None:
            return self._refuse(refused)
        self._note(fragment.head, fragment.sent / TICKS, now)
        return self.poll(now)

    def _note(self, head: FrameHead, sent: float | None, now: float) -> None:
        """Note that something of a frame has arrived."""
        if not self._heard or head.number > self._heard[-1][0]:
            self._heard.append((head.number, now))
        if head.skipped:
            self._unsent.append((head.number - head.skipped, head.number - 1))
        if sent is not None and (self._newest is None or head.number > self._newest.number):
            self._newest, self._newest_sent = head, sent

    # --- what became of frames --------------------------------------------------------------------

    def poll(self, now: float) -> list[ReceiverEvent]:
        """Return what has become due."""
        events: list[ReceiverEvent] = []
        if not self._opened or not self.connected or self.ended:
            return events
        while True:
            event = self._next_event(now)
            if event is None:
                return events
            events.append(event)
            self._news = True

    def _next_event(self, now: float) -> ReceiverEvent | None:
        self._due = max(self._due, self._delivered + 1)
        for number in sorted(self._held.whole):
            if number > self._due:
                break
            if self._decodable(number):
                return self._deliver(number, now)
        due = self._due
        if self._end is not None and due >= self._end and not self.ended:
            self.ended = True
            return Ended(self._end)
        if self._end is not None and self._ends_at <= now and self._nothing_heard_from(due):
            self._unsent.append((due, self._end - 1))
        for first, last in self._unsent:
            if first <= due <= last:
                return self._skip(due, last)
        deadline = self._deadline()
        if deadline is not None and deadline <= now:
            if self._heard and self._heard[-1][0] - due > LONG_GAP:
                return self._skip(due, self._heard[-1][0] - LONG_GAP - 1)
            self._due += 1
            self.status.missing += 1
            if due in self._held.whole:
                self.status.undecodable += 1
            return Missing(due)
        return None

    def _decodable(self, number: int) -> bool:
        reference = self._held.whole[number].head.reference
        return reference is None or reference in self._usable

    def _deliver(self, number: int, now: float) -> Frame:
        whole = self._held.whole[number]
        late = number < self._due
        self._delivered = number
        self._due = max(self._due, number + 1)
        self._held.drop_until(number)
        key = whole.head.reference is None
        self._started = True
        self._wants_key = self._wants_key and not key
        self._usable[number] = None
        self._decoding.add(number)
        if len(self._usable) > DELIVERED:
            self._usable.popitem(last=False)
        self.status.frames += 1
        self.status.late += late
        self.status.key_frames += key
        offset = self._arrivals.offset
        captured = now if offset is None else whole.head.captured / TICKS + offset
        return Frame(number, whole.packet, key, whole.head.reference, captured, late)

    def _skip(self, first: int, last: int) -> Skipped:
        self._due = last + 1
        self.status.skipped += last + 1 - first
        return Skipped(first, last)

    def _nothing_heard_from(self, number: int) -> bool:
        return not self._heard or self._heard[-1][0] < number

    def _deadline(self) -> float | None:
        """Tell when the frame that is due will be missing: rule 2."""
        if not self._started:
            return None
        due = self._due
        expected = self._expected(due, self._max_latency)
        useless = expected is None or any(
            number > due and self._decodable(number) for number in self._held.whole
        )
        overtaken = next((at for number, at in self._heard if number > due), None)
        if useless and overtaken is not None:
            overtaken += self._arrivals.patience
            return overtaken if expected is None else min(overtaken, expected)
        return expected

    def _expected(self, number: int, latency: float) -> float | None:
        """Tell when a frame comes, so much later than one can, if the source goes on as before."""
        offset = self._arrivals.offset
        if self._newest is None or offset is None:
            return None
        ahead = (number - self._newest.number) * self._interval
        if ahead > SILENCE:
            return None
        return self._newest_sent + offset + ahead + latency

    def decoded(self, number: int, ok: bool, now: float) -> list[ReceiverEvent]:
        """Take what became of a delivered frame, in the order of delivery; return what has become
        due.
        """
        self._decoding.discard(number)
        if ok:
            self._decoded.append(number)
        else:
            self._usable.pop(number, None)
        self._news = True
        return self.poll(now)

    def need_key(self) -> None:
        """Ask for a key frame: the decoder has lost its references."""
        self._wants_key = True
        self._usable.clear()
        self._decoding.clear()
        self._news = True

    # --- bytes out --------------------------------------------------------------------------------

    def request_quality(self, content: bytes) -> None:
        """Ask the sender for another quality."""
        self._request(Quality(content).to_bytes())

    def importance(self, content: bytes) -> None:
        """Send a map of importance."""
        self._request(Importance(content).to_bytes())

    def _request(self, message: bytes) -> None:
        if not 1 < len(message) <= MAX_REQUEST_BYTES + 1:
            raise ValueError(
                f"a request of {len(message) - 1} bytes: 1 … {MAX_REQUEST_BYTES} expected"
            )
        if self.connected:
            self._pending.append(message)

    def pull(self, now: float) -> Outgoing:
        """Return what is to be sent now."""
        out = Outgoing([], self._pending)
        self._pending = []
        due = self._feedback_due()
        if due is not None and due <= now:
            out.datagrams.append(self._feedback(now).to_bytes())
            self._feedback_at = now
            self._news = False
        return out

    def _feedback_due(self) -> float | None:
        if not self.connected or not self._opened or (self.ended and not self._news):
            return None
        before = self._feedback_at
        pause = min(REPORT_BYTES / (REPORTS_SHARE * self._arrivals.speed), FEEDBACK_PAUSE)
        gap = before + max(FEEDBACK_GAP, min(pause, FEEDBACK_NARROW_GAP))
        if self._news:
            return gap
        late = self._expected(self._due, self._arrivals.patience + LATE)
        if late is not None and late <= before:
            return before + max(FEEDBACK_WAITING, pause)
        times = [before + FEEDBACK_PAUSE, self._arrivals.matures(before), late]
        return max(gap, min(time for time in times if time is not None))

    def next_time(self, now: float) -> float | None:
        """Tell when to poll and pull again at the latest, if nothing else happens."""
        if self._pending:
            return now
        times = [self._feedback_due()]
        if self.connected and self._opened and not self.ended:
            times.append(self._deadline())
            if self._end is not None and self._nothing_heard_from(self._due):
                times.append(self._ends_at)
        return max(now, min((time for time in times if time is not None), default=now + 1.0))

    def _feedback(self, now: float) -> Feedback:
        return Feedback(
            time=max(self._ticks(now), 1),
            sequence=self._arrivals.highest,
            arrived=self._ticks(self._arrivals.arrived),
            datagrams=self._arrivals.datagrams,
            size=self._arrivals.size,
            missing=self._arrivals.missing(now),
            wants_key=self._wants_key,
            report=self._report(),
        )

    def _report(self) -> FrameReport:
        due = min(self._decoding, default=self._due)  # what is being decoded is not given up
        if not self._decoded:
            return FrameReport(due)
        newest = self._decoded[-1]
        before = 0
        for number in self._decoded:
            if 0 < newest - number <= REPORTED:
                before |= 1 << (newest - 1 - number)
        return FrameReport(due, newest, before)

    def _ticks(self, now: float) -> int:
        return max(round((now - self._origin) * TICKS), 0)
