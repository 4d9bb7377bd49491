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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Final, TypeVar

import torch
from torch import Tensor

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
from codec.link.door import Door
from codec.link.events import Ended, Frame, Missing, Opened, ReceiverEvent, Skipped
from codec.link.receiver import ReceiverSession
from codec.link.wire import MAX_HELLO_BYTES
from codec.live.figures import Latencies, Speed
from codec.live.identity import Identity
from codec.live.page import FRAMES, FrameState, LiveStatus, ShownFrame, ShownSender
from codec.live.thumbnails import thumbnails
from codec.live.transport import Connection, Listener, listen
from codec.models.submodels import SplitModel
from codec.normative.decoder import DecodedFrame, Decoder
from codec.pipeline.concealment import Concealer
from codec.pipeline.decoding import TaskOutput, geometry_of, model_of

__all__ = ["Channel", "Counts", "ReceiveOptions", "Receiver"]

MOST_WAITING: Final = 1024
"""Events of a sender that wait for its thread; with more, a flood is taken for one."""
MOST_BYTES: Final = 1 << 24
"""Of the frames among them."""
RESULT_SECONDS: Final = 0.5
"""Without a result for so long, the next frame gets one, however late."""
PATIENT: Final = 3600.0
"""Seconds that a frame may be late where every frame counts."""
TICK: Final = 1.0
MODELS: Final = 4
"""Networks that are kept, for the senders that come next."""
PAST: Final = 8
"""Senders that are shown when they have gone."""
PICTURES: Final = 6
"""Channels to look at."""

Rows = list[dict[str, Any]]
Done = TypeVar("Done")


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """Where to listen, who may send, and what is made of it.

    `max_latency` is in seconds.  `every_frame`: wait for every frame and every result, as senders
    of a whole file do.  `finish`: finish the task, for which `model` and `weights` name the files,
    if the stream was made with some.  `look`: somebody looks at it, and at results, if there can be
    some.
    """

    address: tuple[str, int]
    token: str
    max_latency: float
    senders: int = 1
    every_frame: bool = False
    finish: bool = False
    look: bool = False
    model: str | None = None
    weights: str | None = None
    any_weights: bool = False
    profile: Profile | None = None
    source_size: tuple[int, int] | None = None
    device: str = "cpu"
    limits: Limits = DEFAULT_LIMITS


@dataclass(slots=True)
class Counts:
    """What became of the frames of a sender, whose numbers are all in one of these."""

    decoded: int = 0
    concealed: int = 0
    skipped: int = 0
    dropped: int = 0
    """Decoded or concealed, but without a result, which would have been late."""
    lost: int = 0
    """Neither decoded nor concealed: there was none before."""
    damaged: int = 0
    """Arrived, but not decodable, and so concealed or lost."""


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
        self._ending: set[asyncio.Task[None]] = set()
        self._past: deque[ShownSender] = deque(maxlen=PAST)
        self._number = 0
        self._told_at = float("-inf")
        self._models: dict[tuple[object, ...], SplitModel] = {}
        self._opening = threading.Lock()
        self.listener: Listener | None = None
        self._failure: BaseException | None = None
        self._stop = asyncio.Event()

    @property
    def refused(self) -> int:
        """Connections, packets and messages that were not taken."""
        strangers = 0 if self.listener is None else self.listener.refused
        return strangers + sum(self.door.refused.values())

    def status(self) -> LiveStatus:
        """Say how it goes."""
        options = self.options
        host, port = options.address if self.listener is None else self.listener.address
        here = [channel.shown(pictures=options.look) for channel in self.channels.values()]
        return LiveStatus(
            senders=tuple(sorted((*here, *self._past), key=lambda sender: sender.number)),
            listening=f"{host}:{port}",
            refused=self.refused,
            max_latency=None if options.every_frame else options.max_latency,
        )

    async def open(self) -> tuple[str, int]:
        """Begin to listen; return where."""
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
                self._end(channel)
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
        """Let go of senders that stayed away too long."""
        self.door.poll(time.monotonic())
        for key, channel in list(self.channels.items()):
            if key not in self.door.sessions:
                self._end(channel)

    def _arrived(self, connection: Connection) -> None:
        try:
            number = self.door.knock(time.monotonic())
        except LinkError as error:
            self._send_away(connection, error)
            return
        connection.end = _Guest(self, connection, number)

    def _send_away(self, connection: Connection, error: LinkError) -> None:
        connection.send([], [Door.refusal(error)])
        connection.refuse(str(error))
        now = time.monotonic()
        if now - self._told_at >= TICK:  # whoever guesses tokens fills no disk with this
            self._told_at = now
            self.tell(f"refused {connection.address}: {error}")

    def greet(self, connection: Connection, number: int, content: bytes) -> Channel | None:
        """Let the sender of a first message in, or send it away."""
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

    def _end(self, channel: Channel) -> None:
        name = channel.session.session
        if self.channels.get(name) is not channel:
            return
        del self.channels[name]
        shown = channel.shown(pictures=self.options.look)
        self._past.append(replace(shown, connected=False, kbit_per_s=0.0, frames_per_s=0.0))
        if self.door.sessions.get(name) is channel.session:
            self.door.forget(name)
        task = asyncio.create_task(channel.close())
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
            with self._contained():
                self._channel.datagram(self._connection, content)

    def message(self, content: bytes) -> None:
        """Take a message: the first says who it is."""
        with self._contained():
            if self._channel is None:
                self._channel = self._receiver.greet(self._connection, self._number, content)
            else:
                self._channel.message(self._connection, content)

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Let a fault of ours that a sender finds end its connection, and no other's."""
        try:
            yield
        except Exception as error:
            self._receiver.tell(f"{self._connection.address}: a fault of this program: {error!r}")
            self._connection.refuse("a fault of the receiver")

    def closed(self, reason: str) -> None:
        """Take note that the connection is gone."""
        del reason
        if self._channel is None:
            self._receiver.door.gone(self._number)
        else:
            self._channel.detach(self._connection)


class Channel:
    """One sender, over one connection after another; its thread decodes and finishes."""

    def __init__(self, receiver: Receiver, session: ReceiverSession, number: int) -> None:
        self._receiver, self.session, self.number = receiver, session, number
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[ReceiverEvent] = deque()
        self._ready = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, f"lmc-sender-{number}")
        self._work = _Work(receiver, number)
        self._closing = False
        self._finished = float("-inf")
        self._name = ""
        self._bytes, self._results = Speed(), Speed()
        self._frames: deque[ShownFrame] = deque(maxlen=FRAMES)
        self._latest: Latest | None = None
        self.over = False
        """The source has ended, and all its frames are accounted for."""
        self._task = asyncio.create_task(self._run())

    @property
    def counts(self) -> Counts:
        """What became of its frames."""
        return self._work.counts

    def shown(self, *, pictures: bool) -> ShownSender:
        """Say how it goes, with pictures of some channels if asked."""
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
            thumbnails=thumbnails(latest.features, PICTURES) if latest and pictures else (),
        )

    # --- the connection ---------------------------------------------------------------------------

    def attach(self, connection: Connection) -> None:
        """Go on over this connection; one before it is void."""
        before, self._connection = self._connection, connection
        self._name = connection.address
        if before is not None:
            before.refuse("the sender has come back over another connection")
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
        size = sum(len(event.packet) for event in self._waiting if isinstance(event, Frame))
        if len(self._waiting) > MOST_WAITING or size > MOST_BYTES:
            self._refuse("more comes than can be decoded")
        if events:
            self._ready.set()
        self._pump()

    def _refuse(self, reason: str) -> None:
        """Send the sender away for good."""
        self._waiting.clear()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.send([], [Door.refusal(LinkError(reason))])
            connection.refuse(reason)
        self.over = True
        self._receiver.left(self)

    def _pump(self) -> None:
        """Send what is to be sent now, and come back when something is due."""
        self._cancel_timer()
        if self._connection is None:
            return
        now = time.monotonic()
        out = self.session.pull(now)
        if out.datagrams or out.messages:
            self._connection.send(out.datagrams, out.messages)
        when = self.session.next_time(now)
        if when is not None:
            delay = max(when - now, 0.001)
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
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
        try:
            while True:
                while not self._waiting:
                    if self._closing:
                        return
                    self._ready.clear()
                    await self._ready.wait()
                await self._take(self._waiting.popleft())
        except FeatureCodecError as error:  # this sender's stream cannot be taken
            self._receiver.tell(f"sender {self.number}: {one_line(error)}")
            self._refuse(one_line(error))
        except OSError as error:  # results or recordings cannot be written
            self._receiver.fail(error)
        except Exception as error:  # a fault of ours ends this sender's session, and no other
            self._receiver.tell(f"sender {self.number}: a fault of this program: {error!r}")
            self._refuse("a fault of the receiver")

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
                await self._in_thread(self._work.close)
                self._receiver.tell(f"sender {self.number}: {self._work.account()}")
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
        if frame is None:
            self.counts.lost += 1
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
        rows = await self._in_thread(self._work.finish, shown, frame)
        if captured is not None:
            latency = max(time.monotonic() - captured, 0.0)
            self._work.latencies.add(latency)
            shown = replace(shown, latency=latency)
        self._frames.append(shown)
        self._latest = Latest(shown, rows, frame.features)

    async def close(self) -> None:
        """End: what has come is finished, the recording is whole."""
        self._closing = True
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
        self._cancel_timer()
        self._ready.set()
        if self._task is not asyncio.current_task():
            await self._task
        if not self.over:
            self._receiver.tell(f"sender {self.number}: {self._work.account()}")
        try:
            await self._in_thread(self._work.close)
        except Exception as error:  # a disk that is full
            self._receiver.fail(error)
        self._pool.shutdown()


class _Work:
    """What the thread of a sender does."""

    def __init__(self, receiver: Receiver, number: int) -> None:
        self._receiver, self._number = receiver, number
        self.counts = Counts()
        self.latencies = Latencies()
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
        if not event.late:
            self.counts.decoded += 1
        self._write(packet)
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
            frame = self._concealer.conceal(pts + (number - last) * self._header.frame_duration)
        if frame is not None:
            self.counts.concealed += 1
        return frame

    def finish(self, shown: ShownFrame, frame: DecodedFrame) -> Rows:
        """Finish the task of a frame, and write what comes out."""
        if self._output is None:
            return []
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
        return rows

    def account(self) -> str:
        """Say what became of the frames."""
        counts, middle = self.counts, self.latencies.quantile(0.5)
        most = self.latencies.quantile(0.95)
        text = (
            f"{counts.decoded} frames decoded, {counts.concealed} concealed, "
            f"{counts.skipped} skipped by the sender, {counts.lost} lost, "
            f"{counts.dropped} without a result"
        )
        if middle is not None and most is not None:
            text += f"; latency {middle * 1e3:.0f} ms, of 95 % at most {most * 1e3:.0f} ms"
        return text

    def close(self) -> None:
        """Finish the recording."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._files.close()


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest result, to look at."""

    frame: ShownFrame
    rows: Rows
    features: tuple[Tensor, ...]
