"""The receiving end: senders let in, their frames decoded or made up, the task finished.

    connection ─► door ─► session ─► Frame ─► decoder ───────┐
                                     Missing ─► concealment ─┴─► cloud sub-model ─► results

Everything but decoding and the networks runs in one event loop; these have a thread for each
sender.  Where that is too slow for what comes, every frame is still decoded, since others are
predicted from it, but results that would come too late are left out: the newest frame wins.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from codec.errors import (
    BitstreamError,
    CorruptBitstreamError,
    FeatureCodecError,
    LinkError,
    ModelError,
)
from codec.files.outputs import one_line
from codec.files.streams import StreamWriter
from codec.format.header import SequenceHeader
from codec.format.packets import FramePacket
from codec.format.primitives import ByteReader
from codec.format.profile import Profile
from codec.format.slots import Slots
from codec.limits import DEFAULT_LIMITS, Limits
from codec.link.door import Door, FullError
from codec.link.events import Ended, Frame, Missing, Opened, ReceiverEvent, Skipped
from codec.link.receiver import ReceiverSession
from codec.link.wire import MAX_HELLO_BYTES, TICKS
from codec.link.wishes import FinerQuality, ImportanceGrid
from codec.live.figures import Latencies, Speed, in_words
from codec.live.identity import Identity
from codec.live.page import FRAMES, FrameState, LiveStatus, ShownFrame, ShownSender
from codec.live.thumbnails import thumbnails
from codec.live.transport import Connection, Listener, listen
from codec.live.wishes import BackChannel, Wish, focus
from codec.models.submodels import SplitModel
from codec.normative.decoder import DecodedFrame, Decoder
from codec.pipeline.concealment import Concealer
from codec.pipeline.decoding import TaskOutput, geometry_of, model_of
from codec.tasks.task import Geometry

__all__ = ["Channel", "Counts", "ReceiveOptions", "Receiver"]

MOST_WAITING: Final = 1024
"""Events of a sender that wait for its thread; with more, a flood is taken for one."""
MOST_BYTES: Final = 1 << 24
"""Of the frames among them."""
RESULT_SECONDS: Final = 0.5
"""Without a result for so long, the next frame gets one, however late."""
PATIENT: Final = 3600.0
"""Seconds that a frame may be late where every frame counts."""
MOST_MADE_UP: Final = TICKS
"""Frames behind the end: what a session waits for beyond what it has heard of, a second, at the
highest frame rate.
"""
TICK: Final = 1.0
MODELS: Final = 4
"""Networks that are kept, for the senders that come next."""
PAST: Final = 8
"""Senders that are shown when they have gone."""
PICTURES: Final = 6
"""Channels to look at."""
STOP_SECONDS: Final = 1.0
"""For which results are still made once it is stopped."""
DEFAULT_BYTES: Final = 2048
"""A second."""

Rows = list[dict[str, Any]]
Pictures = Sequence[NDArray[np.uint8]]
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """Where to listen, who may send, and what is made of it.

    `max_latency` is in seconds.  `every_frame`: wait for every frame and every result, as senders
    of a whole file do.  `finish`: finish the task, for which `model` and `weights` name the files,
    if the stream was made with some.  `look`: somebody looks at it, and at results, if there can be
    some.  `focus`: senders are asked to code finer where boxes of results are.  `max_bytes`: what
    this and other wishes to a sender may take in a second.
    """

    address: tuple[str, int]
    token: str
    max_latency: float
    senders: int = 1
    every_frame: bool = False
    finish: bool = False
    look: bool = False
    focus: bool = False
    max_bytes: int = DEFAULT_BYTES
    model: str | None = None
    weights: str | None = None
    any_weights: bool = False
    profile: Profile | None = None
    source_size: tuple[int, int] | None = None
    device: str = "cpu"
    limits: Limits = DEFAULT_LIMITS


@dataclass(slots=True)
class Counts:
    """What became of the frames of a sender: each is in one of the first four."""

    decoded: int = 0
    concealed: int = 0
    skipped: int = 0
    """Never sent, or in a gap so long that nothing was left to conceal them from."""
    lost: int = 0
    """Neither decoded nor concealed: there was none before, or the end came first."""
    dropped: int = 0
    """Decoded or concealed, but without a result, which would have been late."""
    late: int = 0
    """Decoded when they had been concealed, for the sake of others."""
    damaged: int = 0
    """Arrived, but not decodable, and so concealed or lost."""

    @property
    def frames(self) -> int:
        """How many there are."""
        return self.decoded + self.concealed + self.skipped + self.lost


class Receiver:
    """Receives from senders until it is stopped.

    Args:
        options: where, who, what.
        identity: what senders know it by.
        write: takes the rows of a frame, from the thread of its sender.
        record: opens the file that a sender's stream is recorded in, by the sender's number.
        tell: takes a line for people.
    """

    def __init__(
        self,
        options: ReceiveOptions,
        identity: Identity,
        *,
        write: Callable[[Rows], None] | None = None,
        record: Callable[[int], AbstractContextManager[BinaryIO]] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.options, self._identity = options, identity
        self.write, self.record, self.tell = write, record, tell
        latency = PATIENT if options.every_frame else options.max_latency
        self.door = Door(
            options.token.encode(),
            max_latency=latency,
            limits=options.limits,
            senders=options.senders,
        )
        self.channels: dict[bytes, Channel] = {}
        self._guests: dict[int, Connection] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._past: deque[ShownSender] = deque(maxlen=PAST)
        self._number = 0
        self._told_at = float("-inf")
        self._models: dict[tuple[object, ...], SplitModel] = {}
        self._opening = threading.Lock()
        self.listener: Listener | None = None
        self._failure: BaseException | None = None
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def refused(self) -> int:
        """Connections, packets and messages that were not taken."""
        strangers = 0 if self.listener is None else self.listener.refused
        return strangers + sum(self.door.refused.values())

    def status(self) -> LiveStatus:
        """Say how it goes."""
        options = self.options
        host, port = options.address if self.listener is None else self.listener.address
        here = [channel.shown() for channel in self.channels.values()]
        return LiveStatus(
            # those that are here come first: the first one is shown to who names none
            senders=tuple(
                sorted((*here, *self._past), key=lambda each: (not each.connected, each.number))
            ),
            listening=f"{host}:{port}",
            refused=self.refused,
            max_latency=None if options.every_frame else options.max_latency,
        )

    # --- wishes, from any thread ------------------------------------------------------------------

    def importance(self, grid: ImportanceGrid, sender: int | None = None) -> None:
        """Ask a sender, by its number, or all, to code finer where errors cost more.

        A grid that takes more than `max_bytes` is made coarser; the newest takes the place of those
        that could not be sent yet.
        """
        self._wish(grid, sender)

    def request_quality(self, qp: int, frames: int, sender: int | None = None) -> None:
        """Ask a sender, or all, for a qp at most so large in its next so many frames; the link's
        rate, and `--bitrate`, bound it as ever.

        Raises:
            ValueError: qp or frames are out of range.
        """
        self._wish(FinerQuality(qp, frames), sender)

    def _wish(self, wish: Wish, sender: int | None) -> None:
        if self._loop is None:
            raise ValueError("the receiver is not open yet")
        with suppress(RuntimeError):  # the loop has ended, and with it all senders
            self._loop.call_soon_threadsafe(self._pass_on, wish, sender)

    def _pass_on(self, wish: Wish, sender: int | None) -> None:
        for channel in list(self.channels.values()):
            if sender is None or channel.number == sender:
                channel.wish(wish)

    # --- connections ------------------------------------------------------------------------------

    async def open(self) -> tuple[str, int]:
        """Begin to listen; return where."""
        self._loop = asyncio.get_running_loop()
        self.listener = await listen(
            self.options.address, self._identity, self._arrived, largest=MAX_HELLO_BYTES
        )
        return self.listener.address

    async def run(self, stop: asyncio.Event) -> None:
        """Receive until `stop` is set.

        Raises:
            OSError: results or recordings cannot be written.
        """
        try:
            while not stop.is_set() and self._failure is None:
                self._sweep()
                waiting = [asyncio.create_task(each.wait()) for each in (stop, self._stop)]
                await asyncio.wait(waiting, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                for task in waiting:
                    task.cancel()
        finally:
            for channel in list(self.channels.values()):
                self._end(channel, STOP_SECONDS)
            if self.listener is not None:
                self.listener.close()
            if self._ending:
                await asyncio.wait(self._ending)
        if self._failure is not None:
            raise self._failure

    def fail(self, error: BaseException) -> None:
        """Stop receiving: what is wrong is no sender's fault."""
        self._failure = self._failure or error
        self._stop.set()

    def _sweep(self) -> None:
        """Let go of senders that stayed away too long, and of who says nothing."""
        for number in self.door.poll(time.monotonic()):
            silent = self._guests.pop(number, None)
            if silent is not None:
                silent.abandon("nothing was said in time", later=True)
        for key, channel in list(self.channels.items()):
            if key not in self.door.sessions:
                self._end(channel)

    def _arrived(self, connection: Connection) -> None:
        number = self.door.knock(time.monotonic())
        self._guests[number] = connection
        connection.end = _Guest(self, connection, number)

    def away(self, number: int) -> None:
        """Take note that a connection is gone before its sender was let in."""
        self._guests.pop(number, None)
        self.door.gone(number)

    @contextmanager
    def contained(self, connection: Connection | None) -> Iterator[None]:
        """Let a fault of ours that a sender finds end its connection, and nothing else."""
        try:
            yield
        except Exception as error:
            place = "somewhere" if connection is None else connection.address
            self.tell(f"{place}: a fault of this program: {error!r}")
            if connection is not None:
                connection.abandon("a fault of the receiver")

    def _send_away(self, connection: Connection, error: LinkError) -> None:
        later = isinstance(error, FullError)
        if not later:
            connection.send([], [Door.refusal(error)])
        connection.refuse(str(error), later=later)
        now = time.monotonic()
        if now - self._told_at >= TICK:  # whoever guesses tokens fills no disk with this
            self._told_at = now
            self.tell(f"refused {connection.address}: {error}")

    def greet(self, connection: Connection, number: int, content: bytes) -> Channel | None:
        """Let the sender of a first message in, or send it away."""
        self._guests.pop(number, None)
        try:
            session, events = self.door.greet(number, content, time.monotonic())
        except LinkError as error:
            self._send_away(connection, error)
            return None
        if self.listener is not None:
            self.listener.known(connection)
        connection.largest = session.message_bytes
        self._sweep()
        channel = self.channels.get(session.session)
        if channel is not None and channel.session is not session:  # it has begun anew
            self._end(channel)
            channel = None
        if channel is None:
            self._number += 1
            channel = Channel(self, session, self._number)
            self.channels[session.session] = channel
            self.tell(f"sender {channel.number} is here, from {connection.address}")
        else:
            self.tell(f"sender {channel.number} is back, from {connection.address}")
        channel.attach(connection)
        channel.take(events)
        return channel

    def left(self, channel: Channel) -> None:
        """Take note that the connection of a sender is gone."""
        self.door.left(channel.session, time.monotonic())
        if channel.over:
            self._end(channel)
        else:
            self.tell(f"sender {channel.number} is gone, and may come back")

    def _end(self, channel: Channel, seconds: float = float("inf")) -> None:
        name = channel.session.session
        if self.channels.get(name) is not channel:
            return
        del self.channels[name]
        shown = channel.shown()
        self._past.append(replace(shown, connected=False, kbit_per_s=0.0, frames_per_s=0.0))
        if self.door.sessions.get(name) is channel.session:
            self.door.forget(name)
        task = asyncio.create_task(channel.close(seconds))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def split_of(self, header: SequenceHeader) -> SplitModel:
        """Return the sub-models that a stream was made with, opened once for all senders."""
        key = (
            header.model,
            header.split,
            header.weights,
            header.weights_hash,
            header.input_height,
            header.input_width,
            tuple(spec.shape for spec in header.tensors),
        )
        with self._opening:
            if key not in self._models:
                while len(self._models) >= MODELS:
                    self._models.pop(next(iter(self._models)))
                self._models[key] = model_of(
                    header,
                    model=self.options.model,
                    weights=self.options.weights,
                    any_weights=self.options.any_weights,
                    device=self.options.device,
                )
            return self._models[key]


class _Guest:
    """A connection, before and after its sender is let in."""

    def __init__(self, receiver: Receiver, connection: Connection, number: int) -> None:
        self._receiver, self._connection, self._number = receiver, connection, number
        self._channel: Channel | None = None

    def datagram(self, content: bytes) -> None:
        """Take a datagram."""
        if self._channel is not None:
            with self._receiver.contained(self._connection):
                self._channel.datagram(self._connection, content)

    def message(self, content: bytes) -> None:
        """Take a message: the first says who it is."""
        with self._receiver.contained(self._connection):
            if self._channel is None:
                self._channel = self._receiver.greet(self._connection, self._number, content)
            else:
                self._channel.message(self._connection, content)

    def closed(self, reason: str, *, later: bool) -> None:
        """Take note that the connection is gone."""
        del reason, later
        with self._receiver.contained(None):
            if self._channel is None:
                self._receiver.away(self._number)
            else:
                self._channel.detach(self._connection)


class Channel:
    """One sender, over one connection after another; its thread decodes and finishes."""

    def __init__(self, receiver: Receiver, session: ReceiverSession, number: int) -> None:
        self._receiver, self.session, self.number = receiver, session, number
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[ReceiverEvent] = deque()
        self._waiting_bytes = 0
        self._ready = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, f"lmc-sender-{number}")
        self._work = _Work(receiver, number)
        self._closes_at: float | None = None
        self._told = False
        self._wishes = BackChannel(receiver.options.max_bytes)
        self._finished = float("-inf")
        self._name = ""
        self._bytes, self._results = Speed(), Speed()
        self._frames: deque[ShownFrame] = deque(maxlen=FRAMES)
        self._made_up: deque[tuple[int, bool]] = deque(maxlen=MOST_MADE_UP)
        """Numbers of frames that were missing, ascending, and whether they were concealed."""
        self._latest: Latest | None = None
        self.over = False
        """The source has ended, and all its frames are accounted for."""
        self._task = asyncio.create_task(self._run())

    @property
    def counts(self) -> Counts:
        """What became of its frames."""
        return self._work.counts

    def shown(self) -> ShownSender:
        """Say how it goes."""
        now, counts, work, link = time.monotonic(), self.counts, self._work, self.session.status
        frames, latest, header = tuple(self._frames), self._latest, work.header
        return ShownSender(
            number=self.number,
            name=self._name,
            model="" if header is None else header.model,
            split="" if header is None else header.split,
            connected=self._connection is not None,
            decoded=counts.decoded,
            concealed=counts.concealed,
            skipped=counts.skipped,
            lost=counts.lost,
            kbit_per_s=self._bytes.of(link.received_bytes, now) * 8e-3,
            frames_per_s=self._results.of(counts.decoded + counts.concealed, now),
            loss=link.loss,
            latency_p50=work.latencies.quantile(0.5),
            latency_p95=work.latencies.quantile(0.95),
            frames=frames,
            result_of=None if latest is None else latest.frame,
            result=() if latest is None else latest.rows,
            thumbnails=() if latest is None else latest.pictures,
        )

    # --- the connection ---------------------------------------------------------------------------

    def attach(self, connection: Connection) -> None:
        """Go on over this connection; one before it is void."""
        before, self._connection = self._connection, connection
        self._name = connection.address
        self._wishes.forget()
        if before is not None:
            before.refuse("the sender has come back over another connection", later=True)
        self._pump()

    def detach(self, connection: Connection) -> None:
        """Take note that a connection is gone."""
        if connection is self._connection:
            self._connection = None
            self._cancel_timer()
            self._receiver.left(self)

    def datagram(self, connection: Connection, content: bytes) -> None:
        """Take a datagram."""
        if connection is self._connection:
            self.take(self.session.datagram(content, time.monotonic()))

    def message(self, connection: Connection, content: bytes) -> None:
        """Take a message."""
        if connection is self._connection:
            self.take(self.session.message(content, time.monotonic()))

    def take(self, events: list[ReceiverEvent]) -> None:
        """Queue what has become of frames, and answer."""
        self._waiting.extend(events)
        self._waiting_bytes += sum(map(_size, events))
        if len(self._waiting) > MOST_WAITING or self._waiting_bytes > MOST_BYTES:
            self._refuse("more comes than can be decoded")
        if events:
            self._ready.set()
        self._pump()

    def _refuse(self, reason: str) -> None:
        """Send the sender away for good."""
        self._forgo()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.send([], [Door.refusal(LinkError(reason))])
            connection.refuse(reason)
        self.over = True
        self._receiver.left(self)

    def wish(self, wish: Wish) -> None:
        """Ask the sender for something."""
        with self._receiver.contained(self._connection):
            self._wishes.wish(wish)
            self._pump()

    def _pump(self) -> None:
        """Send what is to be sent now, and come back when something is due."""
        self._cancel_timer()
        if self._connection is None:
            return
        now = time.monotonic()
        for kind, content in self._wishes.take(now):
            if kind is ImportanceGrid:
                self.session.importance(content)
            else:
                self.session.request_quality(content)
        out = self.session.pull(now)
        if out.datagrams or out.messages:
            self._connection.send(out.datagrams, out.messages)
        when = self.session.next_time(now)
        if when is not None:
            delay = max(when - now, 0.001)
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        with self._receiver.contained(self._connection):
            self.take(self.session.poll(time.monotonic()))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the frames -------------------------------------------------------------------------------

    async def _in_thread(self, call: Callable[..., Done], *arguments: object) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    async def _run(self) -> None:
        """Take one event after another."""
        event: ReceiverEvent | None = None
        before = 0
        try:
            while True:
                while not self._waiting:
                    if self._closes_at is not None:
                        return
                    self._ready.clear()
                    await self._ready.wait()
                if self._closes_at is not None and time.monotonic() >= self._closes_at:
                    self._forgo()
                    return
                event = self._waiting.popleft()
                self._waiting_bytes -= _size(event)
                before = self.counts.frames
                await self._take(event)
                event = None
        except FeatureCodecError as error:  # this sender's stream cannot be taken
            self._receiver.tell(f"sender {self.number}: {one_line(error)}")
            self._give_up(event, before, one_line(error))
        except OSError as error:  # results or recordings cannot be written
            self._give_up(event, before, "results cannot be written")
            self._receiver.fail(error)
        except Exception as error:  # a fault of ours ends this sender's session, and no other
            self._receiver.tell(f"sender {self.number}: a fault of this program: {error!r}")
            self._give_up(event, before, "a fault of the receiver")

    def _give_up(self, event: ReceiverEvent | None, before: int, reason: str) -> None:
        """Send the sender away, in the middle of an event; `before` it so many frames had been
        counted.
        """
        if event is not None and self.counts.frames == before:
            self._waiting.appendleft(event)
            self._waiting_bytes += _size(event)
        self._refuse(reason)

    def _forgo(self) -> None:
        """Make nothing of what waits."""
        for event in self._waiting:
            match event:
                case Frame() if not event.late:
                    self.counts.lost += 1
                case Missing():
                    self._note_missing(event.number, concealed=False)
                case Skipped():
                    self.counts.skipped += event.last + 1 - event.first
                case Ended():
                    self._uncount(event.end)
                case _:
                    pass
        self._waiting.clear()
        self._waiting_bytes = 0

    def _note_missing(self, number: int, *, concealed: bool) -> None:
        self.counts.concealed += concealed
        self.counts.lost += not concealed
        self._made_up.append((number, concealed))

    def _uncount(self, end: int) -> None:
        """Take back what was made up from `end` on, before it was known: these never were."""
        while self._made_up and self._made_up[-1][0] >= end:
            _, concealed = self._made_up.pop()
            self.counts.concealed -= concealed
            self.counts.lost -= not concealed
        while self._frames and self._frames[-1].number >= end:
            self._frames.pop()

    def _account(self) -> None:
        """Say, once, what became of all frames."""
        if not self._told and self._work.header is not None:
            self._told = True
            account = self._work.account(self.session.accounted)
            self._receiver.tell(f"sender {self.number}: {account}")

    async def _take(self, event: ReceiverEvent) -> None:
        match event:
            case Opened():
                await self._in_thread(self._work.open, event.header)
            case Frame():
                await self._take_frame(event)
            case Missing():
                await self._conceal(event.number)
            case Skipped():
                self.counts.skipped += event.last + 1 - event.first
                for number in range(max(event.first, event.last + 1 - FRAMES), event.last + 1):
                    self._frames.append(ShownFrame(number, FrameState.SKIPPED))
            case Ended():
                self.over = True
                self._uncount(event.end)
                await self._in_thread(self._work.close)
                self._account()
                if self._connection is not None:  # now that the results are there
                    self._connection.close()

    async def _take_frame(self, event: Frame) -> None:
        frame = await self._in_thread(self._work.decode, event)
        every_frame = self._receiver.options.every_frame
        if not every_frame:
            self._decoded(event, frame is not None)
        if not event.late:  # else another has stood in for it
            if frame is None:
                await self._conceal(event.number, len(event.packet))
            else:
                state = FrameState.KEY if event.key else FrameState.DECODED
                shown = ShownFrame(event.number, state, len(event.packet))
                await self._finish(shown, frame, event.captured_at)
        if every_frame:  # the sender waits for the result
            self._decoded(event, frame is not None)

    def _decoded(self, event: Frame, ok: bool) -> None:
        if event.key and not ok:
            self.session.need_key()
        self.take(self.session.decoded(event.number, ok, time.monotonic()))

    async def _conceal(self, number: int, size: int = 0) -> None:
        frame = await self._in_thread(self._work.conceal, number)
        self._note_missing(number, concealed=frame is not None)
        if frame is None:
            self._frames.append(ShownFrame(number, FrameState.LOST, size))
        else:
            await self._finish(ShownFrame(number, FrameState.CONCEALED, size), frame, None)

    async def _finish(self, shown: ShownFrame, frame: DecodedFrame, captured: float | None) -> None:
        """Finish the task, unless that would be too late and there is something newer."""
        options = self._receiver.options
        now = time.monotonic()
        behind = bool(self._waiting) and not options.every_frame
        late = captured is None or now - captured > options.max_latency
        if behind and late and now - self._finished < RESULT_SECONDS:
            self.counts.dropped += 1
            self._frames.append(shown)
            return
        self._finished = now
        rows, pictures = await self._in_thread(self._work.finish, shown, frame)
        if captured is not None:
            latency = max(time.monotonic() - captured, 0.0)
            self._work.latencies.add(latency)
            shown = replace(shown, latency=latency)
        self._frames.append(shown)
        self._latest = Latest(shown, rows, pictures)
        if options.focus and self._work.geometry is not None:
            self.wish(focus(rows, self._work.geometry))

    async def close(self, seconds: float) -> None:
        """End: what has come is finished within these seconds, the recording is whole."""
        self._closes_at = time.monotonic() + seconds
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
        self._cancel_timer()
        self._ready.set()
        if self._task is not asyncio.current_task():
            await self._task
        self._account()
        try:
            await self._in_thread(self._work.close)
        except OSError as error:  # a disk that is full
            self._receiver.fail(error)
        except Exception as error:
            self._receiver.tell(f"sender {self.number}: a fault of this program: {error!r}")
        self._pool.shutdown()


def _size(event: ReceiverEvent) -> int:
    return len(event.packet) if isinstance(event, Frame) else 0


class _Work:
    """What the thread of a sender does."""

    def __init__(self, receiver: Receiver, number: int) -> None:
        self._receiver, self._number = receiver, number
        self.counts = Counts()
        self.latencies, self.decoding, self.cloud = Latencies(), Latencies(), Latencies()
        self._files = ExitStack()
        self._writer: StreamWriter | None = None
        self._output: TaskOutput | None = None
        self.header: SequenceHeader | None = None

    def open(self, content: bytes) -> None:
        """Prepare for a stream."""
        options = self._receiver.options
        header, length = SequenceHeader.from_bytes(content, options.limits)
        if length != len(content):
            raise LinkError(f"{len(content) - length} bytes behind the sequence header")
        self.header = self._header = header
        self._decoder = Decoder(
            header, profile=options.profile, device=options.device, limits=options.limits
        )
        self._concealer = Concealer(header, self._decoder.profile)
        self._packets = Slots[FramePacket](header.references)
        self._numbers = Slots[int](header.references)
        self._last = (0, 0)
        try:
            if options.finish or options.look:
                geometry = None
                if options.source_size is not None:
                    geometry = geometry_of(header, options.source_size)
                self._output = TaskOutput(header, self._receiver.split_of(header), geometry)
        except ModelError:
            if options.finish:  # else there are features to look at
                raise

    def decode(self, event: Frame) -> DecodedFrame | None:
        """Return a frame; None if it cannot be decoded."""
        header, limits = self._header, self._receiver.options.limits
        start = time.monotonic()
        try:
            source = ByteReader(event.packet)
            packet = FramePacket.read(source, self._packets, header.frame_duration, limits)
            source.end("packet")
        except BitstreamError:
            self.counts.damaged += 1
            return None
        before = None if packet.key else self._numbers[packet.predicted_from]
        try:
            if packet.key != (event.reference is None) or before != event.reference:
                raise CorruptBitstreamError("its slot holds another frame than the sender's")
            with torch.no_grad():
                frame = self._decoder.decode(packet)
        except BitstreamError:
            self._packets.keep(None, packet.slots, key=packet.key)
            self._numbers.keep(None, packet.slots, key=packet.key)
            self.counts.damaged += 1
            return None
        self._packets.keep(packet.without_payload, packet.slots, key=packet.key)
        self._numbers.keep(event.number, packet.slots, key=packet.key)
        self._concealer.note(frame, steps=1 if before is None else event.number - before)
        self._last = (event.number, frame.pts)
        self.counts.late += event.late
        self.counts.decoded += not event.late
        self._write(packet)
        self.decoding.add(time.monotonic() - start)
        return frame

    def _write(self, packet: FramePacket) -> None:
        if self._receiver.record is None:
            return
        if self._writer is None:
            file = self._files.enter_context(self._receiver.record(self._number))
            self._writer = StreamWriter(file, self._header, self._receiver.options.limits)
        self._writer.write(packet)

    def conceal(self, number: int) -> DecodedFrame | None:
        """Make up a frame that is missing; None before the first."""
        last, pts = self._last
        with torch.no_grad():
            return self._concealer.conceal(pts + (number - last) * self._header.frame_duration)

    @property
    def geometry(self) -> Geometry | None:
        """Where places in results lie in the input; None: there are no results."""
        return None if self._output is None else self._output.geometry

    def finish(self, shown: ShownFrame, frame: DecodedFrame) -> tuple[Rows, Pictures]:
        """Finish the task of a frame, and write what comes out; draw what is looked at."""
        pictures: Pictures = ()
        if self._receiver.options.look:
            pictures = thumbnails(frame.features, PICTURES)
        if self._output is None:
            return [], pictures
        start = time.monotonic()
        result = self._output.result(self._output.outputs(frame.features))
        options = self._receiver.options
        mark: dict[str, Any] = {}
        if shown.state is FrameState.CONCEALED:
            mark["concealed"] = True
        if options.senders > 1 or self._number > 1:
            mark["sender"] = self._number
        rows = [row | mark for row in self._output.rows(shown.number, frame, result)]
        if self._receiver.write is not None:
            self._receiver.write(rows)
        self.cloud.add(time.monotonic() - start)
        return rows, pictures

    def account(self, frames: int) -> str:
        """Say what became of so many frames."""
        counts = self.counts
        return (
            f"of {frames} frames {counts.decoded} decoded, {counts.concealed} concealed, "
            f"{counts.skipped} skipped, {counts.lost} lost; "
            f"{counts.late} decoded late, {counts.dropped} without a result"
            + in_words("latency", self.latencies)
            + in_words("decoding", self.decoding)
            + in_words("cloud", self.cloud)
        )

    def close(self) -> None:
        """Finish the recording."""
        writer, self._writer = self._writer, None
        with self._files:  # even if the end of the recording cannot be written
            if writer is not None:
                writer.close()


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest result, to look at."""

    frame: ShownFrame
    rows: Rows
    pictures: Pictures
