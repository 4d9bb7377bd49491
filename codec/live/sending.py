"""The sending end: a source, its edge sub-model and encoder, and the session of one receiver.

    reader (a thread) ─► newest frame ─► plan ─► edge, search, coding (a thread) ─► packet ─► link
                                          │                ▲
                                          │                └─ wishes of the receiver
                                          └─ None: skipped before anything is computed

Everything but the two threads runs in one event loop, which never waits for a network to compute.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

import torch

from codec.encoding.config import EncoderConfig
from codec.encoding.motion_search import Seen, luma, search_by
from codec.errors import BitstreamError, LinkError
from codec.files.streams import StreamWriter
from codec.files.video import Frame
from codec.format.packets import FramePacket
from codec.format.slots import Slots
from codec.limits import DEFAULT_LIMITS, Limits
from codec.link.events import (
    Acked,
    FramePlan,
    ImportanceMap,
    Lost,
    QualityRequest,
    Refused,
    SenderEvent,
    SenderStatus,
    Welcomed,
)
from codec.link.sender import SenderSession
from codec.link.wire import MAX_REQUEST_BYTES, SESSION_BYTES
from codec.live.figures import Latencies
from codec.live.transport import DATAGRAM_BYTES, Connection, connect
from codec.live.wishes import Granted
from codec.pipeline.edge import EdgeSource

__all__ = ["DEFAULT_REFERENCES", "Account", "SendOptions", "Sender"]

DEFAULT_REFERENCES: Final = 8
LARGEST_MESSAGE: Final = MAX_REQUEST_BYTES + 1
"""Of a receiver."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between attempts to connect again."""
FIRST_SECONDS: Final = 30.0
"""How long nobody may answer at first: the network may be away just then."""
LAST_SECONDS: Final = 5.0
"""How long the last frames may take to arrive."""
STOP_SECONDS: Final = 1.0
"""The same, once it is stopped."""
BUSY_SECONDS: Final = 12.0
"""How long a receiver may be full at first: it misses one that has vanished after 5, and keeps its
place for as long.
"""
WELCOME_SECONDS: Final = 10.0
"""How long a receiver may take to say whether it lets us in."""
PATIENT: Final = 60.0
"""Seconds that a frame may wait where every frame counts."""
WINDOW: Final = 8
"""Frames on their way where every frame is to arrive: more would wait at the other end."""
OPENING_SECONDS: Final = 30.0
"""How long a receiver may take to get its network ready."""
POLL: Final = 0.005
NEVER: Final = 1 << 30
"""Frames: key frames come where the session plans them."""
ROOMY: Final = 0.75
"""Share of the bytes that a frame may have under which the next one may be finer."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """Where to, and how.

    `bitrate` is in kbit/s, a ceiling; `max_latency` in seconds.  `every_frame`: of a file, all
    frames, as fast as the link and the other end take them, none skipped and none coded coarser
    than asked.  `frame_rate`: that of a file, in place of its own.
    """

    address: tuple[str, int]
    fingerprint: str
    token: str
    max_latency: float
    bitrate: float | None = None
    references: int = DEFAULT_REFERENCES
    every_frame: bool = False
    frame_rate: float | None = None
    live: bool = False
    """The source gives its frames when they come; a file is read at its frame rate."""


@dataclass(frozen=True, slots=True)
class Account:
    """What became of all frames of the source; `frames` is the sum of the others."""

    frames: int
    decoded: int
    """By the receiver, as far as it could be told."""
    lost: int
    """On the way, or too late for their results."""
    given_up: int
    """Planned, and not sent to the end; or it is not known what became of them."""
    skipped: int
    """Before anything was computed of them."""


class Sender:
    """Sends one source to one receiver, connecting again as long as the source goes on.

    Args:
        source: opened, its header keeping `options.references` frames.
        config: how to code it.
        options: where to.
        record: also write the stream there.
        limits: those of the decoders that the stream is for.
        tell: takes a line for people.
    """

    def __init__(
        self,
        source: EdgeSource,
        config: EncoderConfig,
        options: SendOptions,
        *,
        record: BinaryIO | None = None,
        limits: Limits = DEFAULT_LIMITS,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source, self._options, self._tell = source, options, tell
        self._frame_rate = options.frame_rate or float(source.reader.frame_rate)
        self._session = SenderSession(
            token=options.token.encode(),
            session=os.urandom(SESSION_BYTES),
            header=source.header.to_bytes(),
            references=options.references,
            max_latency=PATIENT if options.every_frame else options.max_latency,
            bitrate=None if options.bitrate is None else options.bitrate * 1000,
            frame_rate=self._frame_rate,
            datagram_bytes=DATAGRAM_BYTES,
        )
        self._granted = Granted(source.header, source.profile, config.qp)
        self._coding = _Coding(source, config, self._granted, record, limits)
        self._qp = _Quality(self._granted)
        self._next_number = self._end = 0
        self.wishes = 0
        """Of the receiver, which have been granted."""
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._frames: _Frames | None = None
        self._fault: Exception | None = None
        self._gone = asyncio.Event()
        self._welcomed = asyncio.Event()
        self._refusal: str | None = None
        self._busy: str | None = None
        self._ready = self._finishing = False
        self._captured: deque[tuple[int, float]] = deque(maxlen=1000)
        self.latencies = Latencies()
        self.edge, self.coding = self._coding.edge, self._coding.coding
        self.connections = 0

    @property
    def status(self) -> SenderStatus:
        """How the link does."""
        return self._session.status

    def account(self) -> Account:
        """Say what became of all frames, at the end."""
        status = self.status
        given_up = status.frames_sent - status.frames_acked - status.frames_lost
        return Account(
            self._end,
            status.frames_acked,
            status.frames_lost,
            given_up,
            status.frames_skipped,
        )

    # --- the connection ---------------------------------------------------------------------------

    def datagram(self, content: bytes) -> None:
        """Take a datagram of the receiver."""
        with self._contained():
            self._take(self._session.datagram(content, time.monotonic()))

    def message(self, content: bytes) -> None:
        """Take a message of the receiver."""
        with self._contained():
            self._take(self._session.message(content, time.monotonic()))

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Let a fault of ours end `run`, which raises it, rather than be lost in the loop."""
        try:
            yield
        except Exception as error:
            self._fault = self._fault or error
            self._gone.set()

    def closed(self, reason: str, *, later: bool) -> None:
        """Take note that the connection is gone."""
        if reason and later:
            self._busy = reason
        elif reason and self._refusal is None:
            self._refusal = reason
        self._gone.set()

    def _take(self, events: list[SenderEvent]) -> None:
        now = time.monotonic()
        for event in events:
            match event:
                case Welcomed():
                    self.connections += 1
                    self._ready = event.resumed
                    if not event.resumed:  # it knows nothing of what it has asked for
                        self._granted.clear()
                    self._welcomed.set()
                case Refused():
                    self._refusal = event.reason
                    self._gone.set()
                case Acked():
                    self._ready = True
                    self._measure(event.number, now)
                case Lost():
                    pass
                case ImportanceMap():
                    self._grant(self._granted.grid, event.content)
                case QualityRequest():
                    self._grant(self._granted.finer, event.content)
        self._pump()

    def _grant(self, grant: Callable[[bytes, int], None], content: bytes) -> None:
        """Grant a wish from the next frame on, unless every frame is to be what it is in a file."""
        if self._options.every_frame:
            self.status.refused["wish"] += 1
            return
        try:
            grant(content, self._next_number)
        except BitstreamError:
            self.status.refused["malformed"] += 1
        else:
            self.wishes += 1

    def _measure(self, number: int, now: float) -> None:
        """Estimate when a frame was decoded: half a round trip before its report arrived."""
        while self._captured and self._captured[0][0] <= number:
            found, captured = self._captured.popleft()
            if found == number:
                back = (self.status.rtt or 0.0) / 2
                self.latencies.add(max(now - captured - back, 0.0))

    def _pump(self) -> None:
        """Send what is to be sent now, and come back when there is more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connection is None:
            return
        now = time.monotonic()
        out = self._session.pull(now)
        if out.datagrams or out.messages:
            self._connection.send(out.datagrams, out.messages)
        beside = self._connection.beside()
        if beside:
            self._session.sent_beside(beside, now)
        when = self._session.next_time(now)
        if when is not None:
            delay = max(when - now, 0.001)
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        with self._contained():
            self._pump()

    async def _stay_connected(self) -> None:
        """Connect, and again whenever the connection goes.

        Raises:
            LinkError: nobody answers at first; somebody else answers; we are refused.
        """
        options, pause = self._options, FIRST_PAUSE
        start, told = time.monotonic(), False
        while True:
            self._gone.clear()
            try:
                async with connect(
                    options.address, options.fingerprint, largest=LARGEST_MESSAGE
                ) as connection:
                    self._connection = connection
                    connection.end = self
                    self._session.connect(time.monotonic())
                    self._pump()
                    await self._let_in()
                    await self._gone.wait()
            except ConnectionError as error:
                if not self.connections:
                    if time.monotonic() - start > FIRST_SECONDS:
                        raise LinkError(str(error)) from error
                    if not told:
                        told = True
                        self._tell(f"{error}; trying again for {FIRST_SECONDS:.0f} seconds")
            finally:
                self._connection = None
                self._session.disconnect()
            if self._fault is not None:
                raise self._fault
            busy = time.monotonic() - start > BUSY_SECONDS
            if self._busy and not self.connections and busy:
                self._refusal = self._busy
            if self._refusal is not None:
                raise LinkError(f"the receiver refuses: {self._refusal}")
            if self._finishing:
                return
            pause = FIRST_PAUSE if self._welcomed.is_set() else min(2 * pause, LONGEST_PAUSE)
            self._welcomed.clear()
            await asyncio.sleep(pause)

    async def _let_in(self) -> None:
        """Wait until the receiver has said whether it lets us in.

        Raises:
            ConnectionError: it says nothing.
        """
        waiting = [asyncio.create_task(each.wait()) for each in (self._welcomed, self._gone)]
        done, left = await asyncio.wait(
            waiting, timeout=WELCOME_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for task in left:
            task.cancel()
        if not done:
            host, port = self._options.address
            raise ConnectionError(f"{host}:{port}: the receiver does not say whether we may send")

    # --- the frames -------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Send until the source ends, or `stop` is set.

        Raises:
            LinkError: the receiver refuses, is another one, or does not answer; or all frames were
                to arrive, and some have not.
            FeatureCodecError: the source or the network fails.
        """
        connecting = asyncio.create_task(self._stay_connected())
        sending = asyncio.create_task(self._send_all(stop))
        try:
            await asyncio.wait({connecting, sending}, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                await connecting  # tells why, or that all has been said
            await sending
        finally:
            for task in (connecting, sending):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            if self._frames is None:  # nobody reads it, who would close it
                self._source.close()
            self._coding.close()
        missing = self.status.frames_sent - self.status.frames_acked
        if self._options.every_frame and missing:
            raise LinkError(
                f"of {self.status.frames_sent} frames {missing} are not known to have arrived"
            )

    async def _send_all(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        loop, options = asyncio.get_running_loop(), self._options
        welcome = asyncio.create_task(self._welcomed.wait())
        await asyncio.wait({welcome, stopping}, return_when=asyncio.FIRST_COMPLETED)
        pace = None if options.live or options.every_frame else self._pace
        frames = _Frames(self._source, pace, every_frame=options.every_frame)
        self._frames = frames
        with ThreadPoolExecutor(1, "lmc-coding") as pool:
            try:
                while not stop.is_set():
                    getting = asyncio.create_task(frames.next())
                    await asyncio.wait({getting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    if not getting.done():
                        getting.cancel()
                        break
                    taken = getting.result()
                    if taken is None:
                        break
                    number, frame, captured = taken
                    if options.every_frame:
                        await self._room_for_one(stop)
                        captured = time.monotonic()
                    elif self._behind():
                        continue
                    self._next_number = number + 1
                    plan = self._session.next_frame(captured, number)
                    if plan is None:
                        frames.go_on()
                        continue
                    qp, most_bytes = self._qp.next(plan)
                    if options.every_frame or not self._ready:
                        # or it is a first frame, which others wait for
                        qp, most_bytes = None, None
                    packet, content = await loop.run_in_executor(
                        pool, self._coding.encode, frame, plan, qp, most_bytes
                    )
                    self._qp.note(plan, packet)
                    self._captured.append((number, captured))
                    self._session.frame(plan, content, time.monotonic())
                    self._pump()
                    await self._opened(stopping)
                    frames.go_on()
                await self._arrived(STOP_SECONDS if stop.is_set() else self._last_seconds)
                self._finish(frames)
                if self._connection is not None:
                    self._pump()
                    with suppress(TimeoutError):  # the receiver ends the connection
                        async with asyncio.timeout(STOP_SECONDS if stop.is_set() else LAST_SECONDS):
                            await self._gone.wait()
            finally:
                frames.close()
                self._finish(frames)
                stopping.cancel()
                welcome.cancel()

    def _finish(self, frames: _Frames) -> None:
        """Say that no frame comes behind those read so far, which all are accounted for."""
        if not self._finishing:
            self._finishing, self._end = True, frames.captured
            self._session.finish(self._end)

    def _pace(self, frame: Frame, number: int) -> float:
        """Return when a frame of a file is due, in seconds from the first one."""
        if self._options.frame_rate is not None:
            return number / self._options.frame_rate
        return float(frame.pts * self._source.header.time_base)

    async def _opened(self, stopping: asyncio.Task[bool]) -> None:
        """Wait until a receiver that did not know us has decoded a frame: it opens its network
        first, and would be given what it can only be late with.
        """
        until = time.monotonic() + OPENING_SECONDS
        while (
            self._welcomed.is_set()
            and not (self._ready or stopping.done())
            and time.monotonic() < until
        ):
            await asyncio.sleep(POLL)

    def _behind(self) -> bool:
        """Tell whether the other end decodes more slowly than frames come."""
        delay = (self.status.rtt or 0.0) + 2 * self._options.max_latency
        return self._session.under_way > WINDOW + delay * self._frame_rate

    async def _room_for_one(self, stop: asyncio.Event) -> None:
        """Wait until the link and the other end take another frame."""
        while not stop.is_set():
            room = self._session.room(time.monotonic())
            if self._session.under_way < WINDOW and room is not None:
                return
            await asyncio.sleep(POLL)

    @property
    def _last_seconds(self) -> float:
        return LAST_SECONDS + self._options.max_latency

    async def _arrived(self, seconds: float) -> None:
        """Wait for the last frames to arrive."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._connection is not None and self._left():
                    await asyncio.sleep(POLL)

    def _left(self) -> bool:
        return self._session.under_way > 0


class _Quality:
    """Which qp to try first: the one asked for, of late by the receiver; or where the link
    carries less, the one that the frames before came to, so that few are planned twice.
    """

    def __init__(self, granted: Granted) -> None:
        self._granted = granted
        self._asked = self._qp = granted.qp(0)

    def next(self, plan: FramePlan) -> tuple[int | None, float | None]:
        """Return the qp of a frame, and its most bytes."""
        before, self._asked = self._asked, self._granted.qp(plan.number)
        if self._qp == before:  # the link carries what is asked for, and may carry more
            self._qp = self._asked
        self._qp = max(self._qp, self._asked)
        return self._qp, plan.most_bytes

    def note(self, plan: FramePlan, packet: FramePacket) -> None:
        """Take note of what became of it."""
        if packet.key:
            return
        if packet.repeat:  # its qp is that of the frame before; of all room it has taken none
            self._qp = max(self._qp - 1, self._asked)
            return
        self._qp = max(packet.qp, self._asked)
        if len(packet.payload) < ROOMY * plan.most_bytes:
            self._qp = max(self._qp - 1, self._asked)


class _Coding:
    """Frames -> packets, by the slots that the session plans with; in a thread of its own."""

    def __init__(
        self,
        source: EdgeSource,
        config: EncoderConfig,
        granted: Granted,
        record: BinaryIO | None,
        limits: Limits,
    ) -> None:
        self.edge, self.coding = Latencies(), Latencies()
        self._granted = granted
        config = replace(config, keyint=NEVER, scene_cut=False)
        self._source = source
        source.compute_in_one_call()  # beside the event loop
        self._encoder = source.encoder(config)
        self._search = search_by(source.header, config)
        self._seen = Slots[Seen](source.header.references)
        self._packets = Slots[FramePacket](source.header.references)
        self._writer = None if record is None else StreamWriter(record, source.header, limits)

    def encode(
        self, frame: Frame, plan: FramePlan, qp: int | None, most_bytes: float | None
    ) -> tuple[FramePacket, bytes]:
        """Return the packet of a frame, and its bytes."""
        reference = None if plan.slots is None else plan.slots[0]
        vectors = None
        # what has no bounds, as it may have to wait for nothing, is what it would be without wishes
        importance = None if most_bytes is None else self._granted.importance(plan.number)
        start = time.monotonic()
        with torch.no_grad():
            features = self._source.features(frame)
            self.edge.add(time.monotonic() - start)
            start = time.monotonic()
            if self._search is not None:
                # vectors lead to the frame that this one is predicted from
                seen = None if reference is None else self._seen[reference]
                self._search.go_on_from(seen)
                vectors = self._search.estimate(luma(frame.rgb))
            packet = self._encoder.encode(
                features,
                vectors,
                pts=frame.pts,
                key=plan.key,
                qp=qp,
                most_bytes=most_bytes,
                importance=importance,
                slots=plan.slots,
            ).packet
        if self._search is not None:
            if not packet.has_vectors:
                self._search.forget()
            self._seen.keep(self._search.seen, packet.slots, key=packet.key)
        content = packet.to_bytes(None if packet.key else self._packets[packet.predicted_from])
        self._packets.keep(packet, packet.slots, key=packet.key)
        if self._writer is not None:
            self._writer.write(packet)
        self.coding.add(time.monotonic() - start)
        return packet, content

    def close(self) -> None:
        """Finish the recording."""
        if self._writer is not None:
            self._writer.close()


class _Frames:
    """Reads a source in a thread of its own, and holds the newest frame only; or, where every frame
    counts, waits until the last one is taken.

    A file with a pace stops behind its first frame, until it may `go_on`.  The thread closes the
    source, since nobody else may while it reads.
    """

    def __init__(
        self,
        source: EdgeSource,
        pace: Callable[[Frame, int], float] | None,
        *,
        every_frame: bool,
    ) -> None:
        self._source, self._pace = source, pace
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._held: tuple[int, Frame, float] | None = None
        self.captured = 0
        self._ended = False
        self._error: BaseException | None = None
        self._stop, self._go = threading.Event(), threading.Event()
        self._room = threading.Semaphore(1) if every_frame else None
        threading.Thread(target=self._read, name="lmc-reader", daemon=True).start()

    async def next(self) -> tuple[int, Frame, float] | None:
        """Return the number of the newest frame, itself, and when it was captured; None at the end.

        Raises:
            VideoError: the source fails.
        """
        while self._held is None and not self._ended:
            self._ready.clear()
            await self._ready.wait()
        if self._held is None:
            if self._error is not None:
                raise self._error
            return None
        taken, self._held = self._held, None
        if self._room is not None:
            self._room.release()
        return taken

    def go_on(self) -> None:
        """Read on behind the first frame."""
        self._go.set()

    def close(self) -> None:
        """Have the thread end; a source that gives nothing is left to its own time limits."""
        self._stop.set()
        self._go.set()
        if self._room is not None:
            self._room.release()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            self._read_all()
        except BaseException as caught:
            error = caught
        finally:
            self._source.close()
        self._tell(self._end, error)

    def _read_all(self) -> None:
        start = first = 0.0
        for number, frame in enumerate(self._source.frames):
            if self._pace is not None:
                due = self._pace(frame, number)
                if number == 0:
                    first = due
                elif number == 1:
                    self._go.wait()
                    start = time.monotonic() - first
                if number:
                    self._stop.wait(max(start + due - time.monotonic(), 0.0))
            if self._room is not None:
                self._room.acquire()
            if self._stop.is_set():
                return
            self._tell(self._put, (number, frame, time.monotonic()))

    def _tell(self, call: Callable[..., None], what: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, what)

    def _put(self, taken: tuple[int, Frame, float]) -> None:
        self._held = taken
        self.captured = taken[0] + 1
        self._ready.set()

    def _end(self, error: BaseException | None) -> None:
        self._ended, self._error = True, error
        self._ready.set()
