"""A clip sent over a simulated link by the true sessions, encoder and decoder, in virtual time.

    features ─► Encoder ─► SenderSession ═ link ═► ReceiverSession ─► Decoder ─► features
                  ▲              │                        │
                  └── slots ─────┘                        └─ missing ─► concealed, three ways

Computing takes no time here: what is late, is late by the link.  Frames are captured at the frame
rate of the clip, from the moment on that the receiver has let the sender in.

Not here: what the frames are worth (`measurement.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.motion_search import Seen, luma, search_by
from codec.errors import LinkError
from codec.format.header import SequenceHeader
from codec.format.packets import FramePacket
from codec.format.primitives import ByteReader
from codec.format.profile import Profile
from codec.format.slots import Slots
from codec.limits import DEFAULT_LIMITS
from codec.link.door import Door
from codec.link.events import (
    Acked,
    Frame,
    FramePlan,
    Lost,
    Missing,
    Opened,
    ReceiverEvent,
    Refused,
    SenderEvent,
    Skipped,
    Welcomed,
)
from codec.link.receiver import ReceiverSession
from codec.link.sender import SenderSession
from codec.normative.decoder import Decoder
from codec.pipeline.concealment import Concealer
from codec.pipeline.edge import EdgeSource
from codec.pipeline.options import VideoOptions
from tools.contenders.scene import Scene
from tools.link_study.link import Clock, Condition, Path

__all__ = ["CONCEALMENTS", "STRATEGIES", "Course", "Source", "Terms", "send"]

TOKEN: Final = b"study"
NEVER: Final = 1 << 30
"""Frames: key frames come where the session or the strategy wants them."""
PLENTY: Final = 1e9
"""bit/s, where qp is fixed and the session's rate is to keep out of it."""
PATIENCE: Final = 5.0
"""Seconds in which everything has to be over after the last frame."""
STEP: Final = 1e-4
"""Seconds, below which nobody is called again."""

STRATEGIES = ("live", "reference", "acknowledged", "key-frames", "stream")
"""How a loss is mended: as `lmc send` does, by sending it again while that is of use; by predicting
from the newest frame that may still be decoded; from decoded ones only, always; by a key frame; by
sending it again until it arrives, all frames in order on one reliable stream.
"""
CONCEALMENTS = ("motion", "repeat", "zeros")
"""What the cloud gets in place of a frame that is missing: the last one moved on, itself, zeros."""

Features = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a clip is sent.

    `bitrate` is in bit/s, None: every frame at `qp`; else the session's rate bounds frames, and qp
    is at least `qp`.  `max_latency` in seconds.
    """

    strategy: str
    qp: int
    condition: Condition
    references: int = 8
    max_latency: float = 0.2
    bitrate: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """A clip as the edge has it: what is encoded, and the header and profile of its stream."""

    header: SequenceHeader
    profile: Profile
    features: tuple[NDArray[np.float32], ...]
    lumas: tuple[Tensor, ...]
    frame_rate: float

    @classmethod
    def of(cls, scene: Scene, references: int) -> Source:
        """Take it from a scene."""
        assert scene.halves is not None
        edge = EdgeSource(
            scene.path,
            VideoOptions(
                model=scene.model,
                split=scene.halves.split,
                weights=scene.weights,
                preprocessing=scene.preprocessing_file,
                task=scene.task_named,
                profile=scene.profile,
                frames=(0, scene.frames),
            ),
        )
        edge.close()
        header = replace(edge.header, references=references)
        lumas = tuple(luma(picture) for picture in scene.rgb)
        return cls(header, edge.profile, scene.features, lumas, float(scene.frame_rate))

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.lumas)


@dataclass(slots=True)
class Course:
    """What became of a clip.

    `decoded` and `concealed` (by the name of the concealment) hold features by the number of the
    frame, `skipped` the numbers of frames that were never sent; `latency` from capture to result.
    Rates are those of the link's datagrams with their overhead, what was sent again included.
    """

    frames: int
    decoded: dict[int, Features] = field(default_factory=dict)
    concealed: dict[str, dict[int, Features]] = field(
        default_factory=lambda: {name: {} for name in CONCEALMENTS}
    )
    skipped: set[int] = field(default_factory=set)
    latency: dict[int, float] = field(default_factory=dict)
    key_frames: int = 0
    qps: list[int] = field(default_factory=list)
    coding: list[float] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)
    """Seconds that the codec took for each frame, which pass in no time here."""
    packet_bytes: int = 0
    carried_bytes: int = 0
    back_bytes: int = 0
    lost_bytes: int = 0
    datagrams: int = 0
    lost: int = 0
    again: int = 0
    """Datagrams: sent, lost, sent again after that."""
    late: int = 0

    @property
    def missing(self) -> list[int]:
        """Numbers of the frames that had to be made up."""
        return sorted(self.concealed[CONCEALMENTS[0]])


class _Session(SenderSession):
    """A sender that predicts by one rule, however often chains break, and sends nothing again."""

    acknowledged_only = False

    def _doubtful(self, now: float) -> bool:
        del now
        return self.acknowledged_only

    def _mends(self, number: int, now: float) -> bool:
        del number, now
        return False


class _Acknowledged(_Session):
    acknowledged_only = True


class _Stream(_Session):
    def frame(self, plan: FramePlan, packet: bytes, now: float) -> None:
        """Queue it as key frames are: reliably."""
        super().frame(replace(plan, key=True), packet, now)


SESSIONS: dict[str, type[SenderSession]] = {
    "key-frames": _Session,
    "reference": _Session,
    "acknowledged": _Acknowledged,
    "live": SenderSession,
    "stream": _Stream,
}


@dataclass(slots=True)
class _KeyFrames:
    """Wants a key frame where something sent since the last one is lost, and that has arrived."""

    last: int = 0
    _arrived: bool = False
    _lost: set[int] = field(default_factory=set)

    def acked(self, number: int) -> None:
        self._arrived = self._arrived or number >= self.last
        self._lost.discard(number)

    def lost(self, number: int) -> None:
        if number > self.last:
            self._lost.add(number)

    def wanted(self) -> bool:
        return self._arrived and bool(self._lost)

    def sent(self, number: int) -> None:
        self.last, self._arrived = number, False
        self._lost.clear()


class _Coding:
    """Frames -> packets by the slots that the session plans with."""

    def __init__(self, source: Source, terms: Terms) -> None:
        config = EncoderConfig(qp=terms.qp, keyint=NEVER, scene_cut=False)
        self._source, self._asked = source, terms.qp
        self._encoder = Encoder(source.header, config, profile=source.profile)
        self._search = search_by(source.header, config)
        self._seen = Slots[Seen](source.header.references)
        self._packets = Slots[FramePacket](source.header.references)
        self._key_at = 0
        self._qp = terms.qp
        self._bounded = terms.bitrate is not None

    def encode(self, plan: FramePlan) -> tuple[FramePacket, bytes]:
        number, source, search = plan.number, self._source, self._search
        vectors = None
        if search is not None:
            search.go_on_from(None if plan.slots is None else self._seen[plan.slots[0]])
            vectors = search.estimate(source.lumas[number])
        packet = self._encoder.encode(
            [torch.from_numpy(tensor[number]) for tensor in source.features],
            vectors,
            pts=number * source.header.frame_duration,
            key=plan.key,
            qp=self._key_qp(number) if plan.key else self._qp,
            most_bytes=plan.most_bytes if self._bounded and not plan.key else None,
            slots=plan.slots,
        ).packet
        if search is not None:
            if not packet.has_vectors:
                search.forget()
            self._seen.keep(search.seen, packet.slots, key=packet.key)
        content = packet.to_bytes(None if packet.key else self._packets[packet.predicted_from])
        self._packets.keep(packet, packet.slots, key=packet.key)
        if packet.key:
            self._key_at = number
        elif self._bounded and not packet.repeat:
            # go on where the last one ended, so that few are planned twice
            roomy = len(packet.payload) < 0.75 * plan.most_bytes
            self._qp = max(packet.qp - roomy, self._asked)
        return packet, content

    def _key_qp(self, number: int) -> int:
        """Return the qp of a key frame: finer the longer its like last, as in files."""
        offset = self._encoder.key_offset
        since = number - self._key_at
        if not since:
            return self._qp
        return self._qp + offset - min(round(math.log2(since) * offset / 6), offset)


class _Cloud:
    """Decodes what arrives, and conceals what does not."""

    def __init__(self, source: Source, course: Course) -> None:
        self._source, self._course = source, course

    def open(self, content: bytes) -> None:
        header, _ = SequenceHeader.from_bytes(content)
        self._header = header
        self._decoder = Decoder(header, profile=self._source.profile)
        self._concealer = Concealer(header, self._decoder.profile)
        self._packets = Slots[FramePacket](header.references)
        self._numbers = Slots[int](header.references)
        self._last: Features | None = None

    def decode(self, event: Frame, *, late: bool) -> None:
        header = self._header
        read = ByteReader(event.packet)
        packet = FramePacket.read(read, self._packets, header.frame_duration, DEFAULT_LIMITS)
        read.end("packet")
        before = None if packet.key else self._numbers[packet.predicted_from]
        frame = self._decoder.decode(packet)
        self._packets.keep(packet, packet.slots, key=packet.key)
        self._numbers.keep(event.number, packet.slots, key=packet.key)
        self._concealer.note(frame, steps=1 if before is None else event.number - before)
        self._last = frame.features
        if not late:
            self._course.decoded[event.number] = frame.features

    def conceal(self, number: int) -> None:
        moved = self._concealer.conceal(number * self._header.frame_duration)
        # nothing is missing before the first frame
        assert moved is not None
        assert self._last is not None
        made = {
            "motion": moved.features,
            "repeat": self._last,
            "zeros": tuple(torch.zeros_like(tensor) for tensor in self._last),
        }
        for name, features in made.items():
            self._course.concealed[name][number] = features


class _Run:
    """Both ends, and the link between them."""

    def __init__(self, source: Source, terms: Terms) -> None:
        self.source, self.terms = source, terms
        self.clock = Clock()
        self.course = Course(source.frames)
        self.sender = SESSIONS[terms.strategy](
            token=TOKEN,
            session=bytes(16),
            header=source.header.to_bytes(),
            references=terms.references,
            max_latency=terms.max_latency,
            bitrate=PLENTY if terms.bitrate is None else terms.bitrate,
            frame_rate=source.frame_rate,
        )
        self.door = Door(TOKEN, max_latency=terms.max_latency)
        self.receiver: ReceiverSession | None = None
        condition, seed = terms.condition, 2 * terms.seed
        self.up = Path(self.clock, condition, self._up_datagram, self._up_message, seed)
        back = replace(condition, bandwidth=None)
        self.down = Path(self.clock, back, self._down_datagram, self._down_message, seed + 1)
        self.coding, self.cloud = _Coding(source, terms), _Cloud(source, self.course)
        self.keys = _KeyFrames() if terms.strategy == "key-frames" else None
        self.captured: dict[int, float] = {}
        self.began = 0.0
        self.overture = 0
        self._timers: set[tuple[str, float]] = set()

    def run(self) -> Course:
        knocked = self.door.knock(0.0)
        self._connection = knocked
        self.sender.connect(0.0)
        self._pull_sender()
        frames = self.source.frames / self.source.frame_rate
        while self._outcomes() < self.source.frames:
            self.clock.run(self.clock.now + 1)
            if self.clock.now > self.began + frames + PATIENCE:
                raise LinkError(f"{self.terms}: not over {PATIENCE:g} s after the last frame")
        course = self.course
        course.carried_bytes = self.up.carried_bytes - self.overture
        course.back_bytes = self.down.carried_bytes
        course.datagrams, course.lost = self.up.sent, self.up.lost
        course.again = self.sender.status.datagrams_again
        self._account()
        return course

    def _outcomes(self) -> int:
        course = self.course
        return len(course.decoded) + len(course.missing) + len(course.skipped)

    def _account(self) -> None:
        """See that every frame has had one outcome."""
        course = self.course
        found = sorted([*course.decoded, *course.missing, *course.skipped])
        if found != list(range(course.frames)):
            raise LinkError(f"{self.terms}: outcomes of {found}, expected 0 … {course.frames - 1}")

    # --- the edge ---------------------------------------------------------------------------------

    def _capture(self, number: int) -> None:
        if number == self.source.frames:
            self.sender.finish()
            self._pull_sender()
            return
        now = self.clock.now
        self.captured[number] = now
        plan = self.sender.next_frame(now, number, key=bool(self.keys and self.keys.wanted()))
        if plan is not None:
            start = time.perf_counter()
            packet, content = self.coding.encode(plan)
            self.course.coding.append(time.perf_counter() - start)
            self.course.qps.append(packet.qp)
            self.course.packet_bytes += len(content)
            self.course.key_frames += packet.key
            if packet.key and self.keys:
                self.keys.sent(number)
            self.sender.frame(plan, content, now)
        self._pull_sender()
        at = self.began + (number + 1) / self.source.frame_rate
        self.clock.at(at, lambda: self._capture(number + 1))

    def _pull_sender(self) -> None:
        now = self.clock.now
        out = self.sender.pull(now)
        for content in out.messages:
            self.up.send_message(content)
        for content in out.datagrams:
            self.course.lost_bytes += len(content)  # until it arrives
            self.up.send(content)
        self._again("sender", self.sender.next_time(now), self._pull_sender)

    def _again(self, name: str, at: float | None, call: Callable[[], None]) -> None:
        if at is None or (name, at) in self._timers:
            return
        self._timers.add((name, at))

        def due() -> None:
            self._timers.discard((name, at))
            call()

        self.clock.at(max(at, self.clock.now + STEP), due)

    def _down_datagram(self, content: bytes) -> None:
        self._told(self.sender.datagram(content, self.clock.now))

    def _down_message(self, content: bytes) -> None:
        self._told(self.sender.message(content, self.clock.now))

    def _told(self, events: Sequence[SenderEvent]) -> None:
        for event in events:
            match event:
                case Welcomed():
                    self._pull_sender()  # the header
                    self.began, self.overture = self.clock.now, self.up.carried_bytes
                    self._capture(0)
                case Refused():
                    raise LinkError(f"the receiver refuses: {event.reason}")
                case Acked() if self.keys:
                    self.keys.acked(event.number)
                case Lost() if self.keys:
                    self.keys.lost(event.number)
                case _:
                    pass
        self._pull_sender()

    # --- the cloud --------------------------------------------------------------------------------

    def _up_message(self, content: bytes) -> None:
        now = self.clock.now
        if self.receiver is None:
            self.receiver, events = self.door.greet(self._connection, content, now)
            self._take(events)
        else:
            self._take(self.receiver.message(content, now))
        self._pull_receiver()

    def _up_datagram(self, content: bytes) -> None:
        self.course.lost_bytes -= len(content)
        if self.receiver is not None:
            self._take(self.receiver.datagram(content, self.clock.now))
            self._pull_receiver()

    def _pull_receiver(self) -> None:
        receiver, now = self.receiver, self.clock.now
        if receiver is None:
            return
        self._take(receiver.poll(now))
        out = receiver.pull(now)
        for content in out.messages:
            self.down.send_message(content)
        for content in out.datagrams:
            self.down.send(content)
        self._again("receiver", receiver.next_time(now), self._pull_receiver)

    def _take(self, events: Sequence[ReceiverEvent]) -> None:
        assert self.receiver is not None
        course, now = self.course, self.clock.now
        left = list(events)
        while left:
            event = left.pop(0)
            match event:
                case Opened():
                    self.cloud.open(event.header)
                case Frame():
                    in_time = now <= self._deadline(event.number) + STEP
                    late = event.late or (event.number > 0 and not in_time)  # before it, nothing
                    if late and not event.late:
                        self._conceal(event.number, self._deadline(event.number))
                    start = time.perf_counter()
                    self.cloud.decode(event, late=late)
                    course.decoding.append(time.perf_counter() - start)
                    course.late += late
                    if not late:
                        course.latency[event.number] = now - self.captured[event.number]
                    left += self.receiver.decoded(event.number, True, now)
                case Missing() if event.number < course.frames:  # it expects more of the source
                    self._conceal(event.number, min(now, self._deadline(event.number)))
                case Skipped():
                    course.skipped.update(range(event.first, event.last + 1))
                case _:
                    pass

    def _deadline(self, number: int) -> float:
        """Tell when the result of a frame is wanted, whether or not the session waits longer."""
        terms = self.terms
        return self.captured[number] + terms.condition.delay + terms.max_latency

    def _conceal(self, number: int, at: float) -> None:
        self.cloud.conceal(number)
        self.course.latency[number] = at - self.captured[number]


def send(source: Source, terms: Terms) -> Course:
    """Send a clip over a link.

    Raises:
        LinkError: some frame has had no outcome: a bug of the sessions.
    """
    if len(source.header.tensors) != len(source.features):
        raise ValueError(f"{len(source.features)} tensors, expected {len(source.header.tensors)}")
    with torch.no_grad():
        return _Run(source, terms).run()
