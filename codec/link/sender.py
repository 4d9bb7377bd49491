"""The sending end: frames planned, packetised and paced; feedback followed."""

from __future__ import annotations

from itertools import chain
from typing import Final

from codec.errors import BitstreamError
from codec.link.downstream import (
    Feedback,
    FrameReport,
    Importance,
    Quality,
    Refusal,
    Welcome,
    read_from_receiver,
)
from codec.link.events import (
    Acked,
    FramePlan,
    ImportanceMap,
    Lost,
    Outgoing,
    QualityRequest,
    Refused,
    SenderEvent,
    SenderStatus,
    Welcomed,
)
from codec.link.mending import Mending
from codec.link.pacing import Pacer, Part
from codec.link.rate import RateControl
from codec.link.references import References
from codec.link.upstream import Bye, Fragment, FrameHead, Header, Hello, WholeFrame
from codec.link.wire import (
    DATAGRAM_OVERHEAD,
    LINK_VERSION,
    MAX_FRAGMENTS,
    REPORTED,
    SESSION_BYTES,
    TICKS,
)

__all__ = ["SenderSession"]

HEAD_BYTES: Final = 45
"""The most that stands before the content of a fragment."""
USUAL_HEAD_BYTES: Final = 16
KEY_PAUSE: Final = 1.0
"""Seconds between key frames that a receiver may ask for."""
KEY_TIMES: Final = 2
"""Of the time that a key frame takes at the rate, after which one that is neither decoded nor lost
does not count any more: it has arrived, and cannot be decoded.
"""
LEAST_SHARE: Final = 0.25
"""Of a frame's budget; with less left, the frame is skipped rather than coded worse still."""
WAITING: Final = 0.4
"""Of the latency allowed, what a new frame may be expected to wait: a queue that has begun to grow
shows only a round trip later.
"""
SAVED: Final = 1.5
"""Budgets that a frame may have, if those before left some of theirs: the time that one takes at
low frame rates, as far as the latency allows it.
"""
CHAINS_OFTEN: Final = 0.08
CHAINS_SELDOM: Final = 0.05
"""Share of frames that broken chains would take, beside those that are lost: where to change the
way of predicting.
"""
KNOWN: Final = 0.06
"""Seconds until a loss is known, beside the round trip."""
BREAK_MEMORY: Final = 64
"""Frames over which broken chains are counted."""
SILENCE: Final = 0.25
"""Seconds in which nothing is known to arrive, beside two round trips, after which the link is only
probed.
"""


LONG_WAY: Final = 3
"""Round trips beyond the latency allowed after which a lost frame is not sent again: what is
predicted from it would come too late as well, but for a few frames.
"""


class SenderSession:
    """One source sent to one receiver, over one connection after another.

    `connect` begins each connection; until `Welcomed`, no frame is wanted.  For each frame of the
    source, by its number: `next_frame`; if it returns a plan, `frame` with the packet (or
    `abandon`).  Send what `pull` returns, again at `next_time` and after every other call.

    Args:
        token: shown to the receiver.
        session: 16 random bytes that name this session.
        header: sequence header of the stream.
        references: slots of the stream, 2 … 16; from 4 on, links of any length are followed well.
        max_latency: seconds that a frame may wait on its way.
        bitrate: most bit/s, None for what the link carries.
        frame_rate: nominal frames a second.
        datagram_bytes: most bytes of a datagram.
    """

    def __init__(
        self,
        *,
        token: bytes,
        session: bytes,
        header: bytes,
        references: int,
        max_latency: float,
        bitrate: float | None,
        frame_rate: float,
        datagram_bytes: int = 1150,
    ) -> None:
        if len(session) != SESSION_BYTES:
            raise ValueError(f"a session is named by {SESSION_BYTES} bytes, found {len(session)}")
        if datagram_bytes <= HEAD_BYTES:
            raise ValueError(f"datagrams of {datagram_bytes} bytes: more than {HEAD_BYTES} needed")
        self.status = SenderStatus()
        self._token, self._session, self._header = token, session, header
        self._max_latency, self._frame_rate = max_latency, frame_rate
        self._part_bytes = datagram_bytes - HEAD_BYTES
        self._pacer = Pacer(self._part_bytes, 1 / frame_rate)
        self._references = References(references)
        self._mending = Mending()
        self._rate = RateControl(bitrate=bitrate, max_latency=max_latency, frame_rate=frame_rate)
        self.status.rate = self._rate.rate
        self._origin: float | None = None
        self._welcomed = False
        self._next_number = 0
        self._last_sent = -1
        self._messages: list[bytes] = []
        self._sequence = 0
        self._reported_time = -1
        self._credit = 0.0
        self._credit_at: float | None = None
        self._planned_at = float("-inf")
        self._key_at = float("-inf")
        self._key_bytes = 0
        self._lost: set[int] = set()
        self._hurt: set[int] = set()
        """Frames of which something was lost, whether or not it was mended."""
        self._breaks = 0.0
        self._broken = False

    # --- connection -------------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """Begin a connection, the first or another: what the one before had queued is void."""
        if self._origin is None:
            self._origin = now
        self.disconnect()
        self._sequence = 0
        self._reported_time = -1
        self._rate.restarted()
        interval = max(round(TICKS / self._frame_rate), 1)
        hello = Hello(LINK_VERSION, self._token, self._session, interval, self._next_number)
        self._messages = [hello.to_bytes()]

    def disconnect(self) -> None:
        """Note that the connection is gone."""
        self._welcomed = False
        self._messages = []
        self._mending.clear()
        for number in self._pacer.clear():
            self._references.abandoned(number)

    def finish(self, end: int | None = None) -> None:
        """Say that the source has ended, with frame `end` - 1 if that is known: those that were not
        planned are skipped.
        """
        if end is not None and end > self._next_number:
            self.status.frames_skipped += end - self._next_number
            self._next_number = end
        if self._welcomed:
            self._messages.append(Bye(self._next_number).to_bytes())

    # --- frames -----------------------------------------------------------------------------------

    def next_frame(self, now: float, number: int, *, key: bool = False) -> FramePlan | None:
        """Plan a frame before anything of it is computed; None: skip it.

        Args:
            now: when it was captured.
            number: of the frame, larger than any before; numbers left out count as skipped.
            key: ask for a key frame, where the scene changes.
        """
        if number < self._next_number:
            raise ValueError(f"frame {number} follows frame {self._next_number - 1}")
        self.status.frames_skipped += number - self._next_number
        self._next_number = number + 1
        room = self.room(now)
        if room is None:
            self.status.frames_skipped += 1
            return None
        choice = self._references.choose(acknowledged_only=self._doubtful(now), key=key)
        self._references.sent(number, choice, reliable=choice.slots is None)
        if choice.slots is None:
            self._key_at = now
            self.status.key_frames += 1
        self.status.frames_sent += 1
        self._planned_at = now
        return FramePlan(number, choice.slots is None, choice.slots, choice.reference, room, now)

    def room(self, now: float) -> float | None:
        """Tell how many bytes the link will carry of a frame captured now; None: none."""
        budget = self._rate.rate / 8 / self._frame_rate
        if self._credit_at is None:
            self._credit = budget
        else:
            self._credit += (now - self._credit_at) * self._rate.rate / 8
        self._credit = min(self._credit, SAVED * budget)
        self._credit_at = now
        if not self._welcomed:
            return None
        if self._silent(now) and now - self._planned_at < max(SILENCE, self._max_latency):
            return None
        queue = self._rate.queue(now, self._pacer.waiting)
        interval = 1 / self._frame_rate
        own = max(interval, min(SAVED * interval, self._max_latency))
        left = max(WAITING * self._max_latency, own) - queue
        carried = self._rate.carried / 8
        room = min(self._credit, left * carried)
        if room < LEAST_SHARE * min(budget, carried / self._frame_rate):
            return None
        datagrams = -(-room // (self._part_bytes + DATAGRAM_OVERHEAD))
        return max(room - datagrams * (DATAGRAM_OVERHEAD + USUAL_HEAD_BYTES), 1.0)

    def _doubtful(self, now: float) -> bool:
        """Tell whether to predict from acknowledged frames only: chains break often and are mended
        too late for the frames behind the break, or the receiver has long been silent.
        """
        late = (self._rate.rtt or 0.0) + KNOWN - self._max_latency
        share = self._breaks * max(late, 0.0) * self._frame_rate
        if share > CHAINS_OFTEN:
            self.status.acknowledged_only = True
        elif share < CHAINS_SELDOM:
            self.status.acknowledged_only = False
        return self.status.acknowledged_only or self._silent(now)

    def _silent(self, now: float) -> bool:
        unanswered = self._rate.unanswered
        return unanswered is not None and now - unanswered > 2 * (self._rate.rtt or 0.0) + SILENCE

    def frame(self, plan: FramePlan, packet: bytes, now: float) -> None:
        """Queue a planned frame, coded."""
        number = plan.number
        if not (self._welcomed and self._references.alive(number)):
            # while it was coded, its reference was lost or the connection went
            self.abandon(plan)
            return
        head = FrameHead(
            number, plan.reference_number, number - self._last_sent - 1, self._ticks(plan.captured)
        )
        self._last_sent = number
        count = self._pacer.parts(packet)
        if plan.key or count > MAX_FRAGMENTS:
            self._references.reliable(number)
            self._messages.append(WholeFrame(head, packet).to_bytes())
            self._rate.sent_reliably(len(self._messages[-1]), now)
            if plan.key:
                self._key_bytes = len(packet)
        else:
            self._pacer.add(head, packet, now)
        if not plan.key:
            self._credit -= len(packet) + count * (DATAGRAM_OVERHEAD + USUAL_HEAD_BYTES)

    def abandon(self, plan: FramePlan) -> None:
        """Note that a planned frame will not come."""
        self.status.frames_dropped += 1
        self._references.abandoned(plan.number)

    # --- bytes out --------------------------------------------------------------------------------

    def pull(self, now: float) -> Outgoing:
        """Return what is to be sent now."""
        out = Outgoing([], self._messages)
        self._messages = []
        for part in self._pacer.take(now, self._rate.rate, lambda part: self._wanted(part, now)):
            datagram = Fragment(
                self._sequence, self._ticks(now), part.head, part.index, part.count, part.content
            ).to_bytes()
            self._rate.sent(self._sequence, len(datagram) + DATAGRAM_OVERHEAD, now)
            self._mending.sent(self._sequence, part, now)
            self._sequence += 1
            out.datagrams.append(datagram)
        return out

    def sent_beside(self, size: int, now: float) -> None:
        """Note what the transport has sent of its own, acknowledgements say: the link carries that
        as well, and frames make room for it.
        """
        self._credit -= size
        self._rate.sent_beside(size, now)

    def _wanted(self, part: Part, now: float) -> bool:
        """Tell whether a part is still worth sending: in time, and of a frame that can be used."""
        number = part.head.number
        if part.before and self._references.decoded(number):
            return False  # it was on its way after all
        if now - part.queued <= self._max_latency and self._references.alive(number):
            return True
        if part.before:
            self._give_up(number)
            return False
        if part.index == part.count - 1:
            self.status.frames_dropped += 1
        self._references.abandoned(number)
        return False

    def next_time(self, now: float) -> float | None:
        """Tell when to pull again at the latest, if nothing else happens."""
        if self._messages:
            return now
        return self._pacer.next_time(now, self._rate.rate)

    def _ticks(self, now: float) -> int:
        return max(round((now - (self._origin or 0.0)) * TICKS), 0)

    # --- bytes in ---------------------------------------------------------------------------------

    def datagram(self, content: bytes, now: float) -> list[SenderEvent]:
        """Take a datagram of the receiver."""
        return self._take(content, now, datagram=True)

    def message(self, content: bytes, now: float) -> list[SenderEvent]:
        """Take a message of the receiver."""
        return self._take(content, now, datagram=False)

    def _take(self, content: bytes, now: float, *, datagram: bool) -> list[SenderEvent]:
        try:
            read = read_from_receiver(content, datagram=datagram)
        except BitstreamError:
            return self._refuse("malformed")
        events: list[SenderEvent] = []
        match read:
            case Refusal():
                self._welcomed = False
                events = [Refused(read.reason)]
            case Welcome():
                events = self._welcome(read)
            case _ if not self._welcomed:
                events = self._refuse("before the welcome")
            case Importance():
                events = [ImportanceMap(read.content)]
            case Quality():
                events = [QualityRequest(read.content)]
            case Feedback():
                events = self._feedback(read, now)
        return events

    def _refuse(self, reason: str) -> list[SenderEvent]:
        self.status.refused[reason] += 1
        return []

    def _welcome(self, welcome: Welcome) -> list[SenderEvent]:
        if self._welcomed:
            return self._refuse("a second welcome")
        if not self._possible(welcome.report):
            return self._refuse("frames never sent")
        self._welcomed = True
        events: list[SenderEvent] = [Welcomed(welcome.resumed)]
        if welcome.resumed:
            events += self._reported(welcome.report)
            self._references.doubted()
        else:
            self._references.forgotten()
            self._messages.append(Header(self._header).to_bytes())
        return events

    def _possible(self, report: FrameReport) -> bool:
        return report.decoded is None or report.decoded < self._next_number

    def _feedback(self, feedback: Feedback, now: float) -> list[SenderEvent]:
        if feedback.time <= self._reported_time:
            return self._refuse("outdated")
        sequence = -1 if feedback.sequence is None else feedback.sequence
        if sequence >= self._sequence or not self._possible(feedback.report):
            return self._refuse("frames never sent")
        self._reported_time = feedback.time
        self._rate.feedback(feedback, now)
        events = self._reported(feedback.report)
        self._mend(feedback, now)
        if feedback.wants_key and self._may_key(now):
            self._references.forgotten()
        status, rate = self.status, self._rate
        status.rate, status.goodput, status.loss = rate.rate, rate.goodput or 0.0, rate.loss
        status.rtt, status.queue_delay = rate.rtt, rate.queue(now, self._pacer.waiting)
        return events

    def _may_key(self, now: float) -> bool:
        """Tell whether a key frame may come because the receiver wants one."""
        pause = KEY_PAUSE + 2 * (self._rate.rtt or 0.0)
        if self._references.pending_key():
            pause += KEY_TIMES * self._key_bytes * 8 / self._rate.carried
        return now - self._key_at > pause

    def _mend(self, feedback: Feedback, now: float) -> None:
        """Send again what is lost, as long as that is of use; give up the frame otherwise."""
        missing = chain.from_iterable(feedback.missing)
        lost = self._mending.lost(missing, self._rate.overdue(feedback), now)
        for number, parts in lost.items():
            self._hurt.add(number)
            if not self._references.alive(number) or self._references.decoded(number):
                self._mending.forget(number)
            elif self._mends(number, now):
                self._pacer.again(parts, now)
                self._credit -= sum(part.size for part in parts)
                self.status.datagrams_again += len(parts)
            else:
                self._give_up(number)
        # neither decoded nor lost: whatever became of them
        for number in self._mending.before(now - 2 * (self._rate.rtt or 0.0) - SILENCE):
            if number < feedback.report.due:
                self._give_up(number)

    def _mends(self, number: int, now: float) -> bool:
        """Tell whether a lost frame is worth sending again.

        What follows waits for it only where it is predicted from it.
        """
        return (
            self._references.needed(number)
            and now - self._mending.queued(number) <= self._mendable()
            and self._rate.queue(now, self._pacer.waiting) <= self._max_latency
        )

    def _mendable(self) -> float:
        """Tell how old a frame may be for being sent again, in seconds."""
        return self._max_latency + LONG_WAY * (self._rate.rtt or 0.0)

    def _give_up(self, number: int) -> None:
        self._references.given_up(number)
        self._mending.forget(number)

    @property
    def under_way(self) -> int:
        """How many frames are neither known decoded nor given up."""
        return self._references.under_way

    def _reported(self, report: FrameReport) -> list[SenderEvent]:
        acked, lost = self._references.reported(report)
        if any(self._references.went_reliably(number) for number in acked):
            self._rate.reliable_arrived()
        for number in acked:
            self._mending.forget(number)
        self.status.frames_acked += len(acked)
        # a frame that came too late for its result has been decoded all the same
        self.status.frames_lost += len(lost) - len(self._lost.intersection(acked))
        told_of = self._next_number - 16 * REPORTED
        self._lost = {n for n in self._lost.difference(acked).union(lost) if n > told_of}
        self._hurt = {n for n in self._hurt if n > told_of}
        for number in sorted({*acked, *lost}):
            broke = number in self._hurt
            # of a burst of losses the first
            breaks = broke and not self._broken
            self._broken = broke
            self._breaks += (breaks - self._breaks) / BREAK_MEMORY
        return [*(Acked(number) for number in acked), *(Lost(number) for number in lost)]
