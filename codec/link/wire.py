"""Datagrams and messages of the link <-> bytes: bitstreams/LINK.md."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from codec.errors import CorruptBitstreamError, UnsupportedBitstreamError
from codec.format.primitives import ByteReader, ByteWriter, in_range

__all__ = [
    "DATAGRAM_OVERHEAD",
    "LINK_VERSION",
    "MAX_FRAGMENTS",
    "MAX_HELLO_BYTES",
    "MAX_REQUEST_BYTES",
    "REPORTED",
    "SESSION_BYTES",
    "TICKS",
    "Bye",
    "Feedback",
    "Fragment",
    "FrameHead",
    "FrameReport",
    "Header",
    "Hello",
    "Importance",
    "Quality",
    "Refusal",
    "Welcome",
    "WholeFrame",
    "read_from_receiver",
    "read_from_sender",
]

LINK_VERSION: Final = 1
TICKS: Final = 10_000
"""Units of time on the wire, in a second."""


# Bounds
MAX_COUNT: Final = (1 << 48) - 1
"""Numbers, sequence numbers, bytes and ticks."""
MAX_FRAGMENTS: Final = 255
MAX_HELLO_BYTES: Final = 512
"""What is read of a peer that has not shown its token."""
MAX_TOKEN_BYTES: Final = 128
MAX_REQUEST_BYTES: Final = 1 << 16
"""A map of importance or a request for quality."""
SESSION_BYTES: Final = 16
REPORTED: Final = 64
"""Frames before the newest decoded one that a report speaks of."""

DATAGRAM_OVERHEAD: Final = 60
"""IPv4, UDP and QUIC around a datagram: counted in every rate, since the link carries it too."""

FLAG_WANTS_KEY: Final = 0x01
FLAG_RESUMED: Final = 0x01


class Kind(IntEnum):
    """The first byte: bit 7 set from the receiver, bit 6 set in datagrams."""

    HELLO = 0x01
    HEADER = 0x02
    WHOLE = 0x03
    BYE = 0x04
    FRAGMENT = 0x41
    WELCOME = 0x81
    REFUSAL = 0x82
    IMPORTANCE = 0x83
    QUALITY = 0x84
    FEEDBACK = 0xC1


DATAGRAMS: Final = 0x40


def _count(source: ByteReader, what: str) -> int:
    return in_range(what, source.varint(), 0, MAX_COUNT)


def _flag(source: ByteReader, what: str) -> bool:
    return bool(in_range(what, source.u8(), 0, 1))


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a connection: who asks to be let in."""

    version: int
    token: bytes
    session: bytes
    frame_interval: int
    """Ticks between frames."""
    first: int
    """No frame below this number is still to come."""

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.u8(Kind.HELLO)
        out.u8(self.version)
        out.u8(len(self.token))
        out.raw(self.token)
        out.raw(self.session)
        out.varint(self.frame_interval)
        out.varint(self.first)
        return bytes(out.content)

    @classmethod
    def read(cls, source: ByteReader) -> Hello:
        """Take the fields off `source`; of another version, nothing behind it is known."""
        version = source.u8()
        if version != LINK_VERSION:
            raise UnsupportedBitstreamError(
                f"link version {version}, this receiver speaks {LINK_VERSION}; "
                "use one release at both ends"
            )
        token = source.raw(in_range("length of the token", source.u8(), 0, MAX_TOKEN_BYTES))
        session = source.raw(SESSION_BYTES)
        interval = in_range("frame interval", source.varint(), 1, 3600 * TICKS)
        return cls(version, token, session, interval, _count(source, "first frame"))


@dataclass(frozen=True, slots=True)
class Header:
    """The sequence header of the stream that is sent."""

    content: bytes

    def to_bytes(self) -> bytes:
        """Serialise."""
        return bytes([Kind.HEADER]) + self.content


@dataclass(frozen=True, slots=True)
class FrameHead:
    """What is said of a frame beside its packet."""

    number: int
    reference: int | None
    """Number of the frame predicted from, None for a key frame."""
    skipped: int
    """How many frames directly before it were never sent."""
    captured: int
    """Ticks of the sender's clock."""

    def write(self, out: ByteWriter) -> None:
        """Append number, distance of the reference (0: key frame) and frames skipped."""
        out.varint(self.number)
        out.varint(0 if self.reference is None else self.number - self.reference)
        out.varint(self.skipped)

    @classmethod
    def read(cls, source: ByteReader, captured: int) -> FrameHead:
        """Take the same off `source`."""
        number = _count(source, "frame number")
        distance = in_range("distance of the reference", source.varint(), 0, number)
        skipped = in_range("frames skipped", source.varint(), 0, number)
        return cls(number, number - distance if distance else None, skipped, captured)


@dataclass(frozen=True, slots=True)
class WholeFrame:
    """A frame on the reliable stream: key frames, and those too large for datagrams."""

    head: FrameHead
    packet: bytes

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.u8(Kind.WHOLE)
        out.varint(self.head.captured)
        self.head.write(out)
        out.raw(self.packet)
        return bytes(out.content)

    @classmethod
    def read(cls, source: ByteReader) -> WholeFrame:
        """Take the fields off `source`."""
        head = FrameHead.read(source, _count(source, "time of capture"))
        return cls(head, _content(source))


@dataclass(frozen=True, slots=True)
class Fragment:
    """A datagram: one part of a frame, most often all of it."""

    sequence: int
    """Counts the datagrams of a connection."""
    sent: int
    """Ticks of the sender's clock."""
    head: FrameHead
    index: int
    count: int
    content: bytes

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.u8(Kind.FRAGMENT)
        out.varint(self.sequence)
        out.varint(self.sent)
        out.varint(self.sent - self.head.captured)
        self.head.write(out)
        out.u8(self.index)
        out.u8(self.count)
        out.raw(self.content)
        return bytes(out.content)

    @classmethod
    def read(cls, source: ByteReader) -> Fragment:
        """Take the fields off `source`."""
        sequence = _count(source, "sequence number")
        sent = _count(source, "time of sending")
        age = in_range("age of the frame", source.varint(), 0, sent)
        head = FrameHead.read(source, sent - age)
        index = source.u8()
        count = in_range("number of fragments", source.u8(), 1, MAX_FRAGMENTS)
        in_range("index of the fragment", index, 0, count - 1)
        return cls(sequence, sent, head, index, count, _content(source))


def _content(source: ByteReader) -> bytes:
    if not source.remaining:
        raise CorruptBitstreamError("a frame of no bytes")
    return source.raw(source.remaining)


@dataclass(frozen=True, slots=True)
class Bye:
    """The source has ended."""

    end: int
    """One more than the number of its last frame."""

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.u8(Kind.BYE)
        out.varint(self.end)
        return bytes(out.content)


@dataclass(frozen=True, slots=True)
class FrameReport:
    """What became of frames, cumulatively: a lost report does no harm."""

    due: int = 0
    """Below this number, everything that is not decoded has been given up in the results."""
    decoded: int | None = None
    """Number of the newest decoded frame."""
    before: int = 0
    """Bit i: frame `decoded` - 1 - i was decoded."""

    def write(self, out: ByteWriter) -> None:
        """Append the fields."""
        out.varint(self.due)
        out.varint(0 if self.decoded is None else self.decoded + 1)
        out.fixed(self.before, REPORTED // 8)

    @classmethod
    def read(cls, source: ByteReader) -> FrameReport:
        """Take the fields off `source`."""
        due = _count(source, "frame due")
        decoded = _count(source, "newest decoded frame")
        before = source.fixed(REPORTED // 8)
        if before >> max(decoded - 1, 0):
            raise CorruptBitstreamError("frames before the first are said to be decoded")
        return cls(due, decoded - 1 if decoded else None, before)

    def has(self, number: int) -> bool:
        """Tell whether a frame is said to be decoded."""
        if self.decoded is None or not self.decoded - REPORTED <= number <= self.decoded:
            return False
        return number == self.decoded or bool(self.before >> (self.decoded - 1 - number) & 1)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The sender is let in; its session may still be known here."""

    resumed: bool
    report: FrameReport

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.u8(Kind.WELCOME)
        out.u8(FLAG_RESUMED if self.resumed else 0)
        self.report.write(out)
        return bytes(out.content)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The sender is not let in."""

    reason: str

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.u8(Kind.REFUSAL)
        out.text(self.reason)
        return bytes(out.content)


@dataclass(frozen=True, slots=True)
class Importance:
    """A map of importance, of whatever form the two ends agree on."""

    content: bytes

    def to_bytes(self) -> bytes:
        """Serialise."""
        return bytes([Kind.IMPORTANCE]) + self.content


@dataclass(frozen=True, slots=True)
class Quality:
    """A request for another quality, likewise."""

    content: bytes

    def to_bytes(self) -> bytes:
        """Serialise."""
        return bytes([Kind.QUALITY]) + self.content


@dataclass(frozen=True, slots=True)
class Feedback:
    """What has arrived so far, and when the newest datagram did."""

    time: int
    """Ticks of the receiver's clock."""
    sequence: int | None
    """The highest that has arrived."""
    arrived: int
    """When it did, in ticks of the receiver's clock; its `sent` is known to the sender."""
    datagrams: int
    """How many different ones have arrived on this connection."""
    size: int
    """Their bytes, overhead included."""
    wants_key: bool
    report: FrameReport

    def to_bytes(self) -> bytes:
        """Serialise."""
        out = ByteWriter()
        out.u8(Kind.FEEDBACK)
        out.varint(self.time)
        out.varint(0 if self.sequence is None else self.sequence + 1)
        out.varint(self.time - self.arrived)
        out.varint(self.datagrams)
        out.varint(self.size)
        out.u8(FLAG_WANTS_KEY if self.wants_key else 0)
        self.report.write(out)
        return bytes(out.content)

    @classmethod
    def read(cls, source: ByteReader) -> Feedback:
        """Take the fields off `source`."""
        time = _count(source, "time")
        sequence = _count(source, "highest sequence number")
        held = in_range("time since its arrival", source.varint(), 0, time)
        datagrams = in_range("datagrams received", source.varint(), 0, sequence)
        size = _count(source, "bytes received")
        wants_key = _flag(source, "flags")
        report = FrameReport.read(source)
        newest = sequence - 1 if sequence else None
        return cls(time, newest, time - held, datagrams, size, wants_key, report)


FromSender = Hello | Header | WholeFrame | Fragment | Bye
FromReceiver = Welcome | Refusal | Importance | Quality | Feedback


def _opened(content: bytes, datagram: bool) -> tuple[ByteReader, int]:
    source = ByteReader(content)
    kind = source.u8()
    if bool(kind & DATAGRAMS) != datagram:
        raise CorruptBitstreamError(
            f"type {kind:#04x} came as a {'datagram' if datagram else 'message'}"
        )
    return source, kind


def read_from_sender(content: bytes, *, datagram: bool) -> FromSender:
    """Parse what a sender sent; anything wrong with it is a `BitstreamError`."""
    source, kind = _opened(content, datagram)
    read: FromSender
    match kind:
        case Kind.FRAGMENT:
            read = Fragment.read(source)
        case Kind.HELLO:
            read = Hello.read(source)
        case Kind.HEADER:
            read = Header(source.raw(source.remaining))
        case Kind.WHOLE:
            read = WholeFrame.read(source)
        case Kind.BYE:
            read = Bye(_count(source, "end"))
        case _:
            raise CorruptBitstreamError(f"type {kind:#04x} is none that a sender sends")
    source.end("link")
    return read


def read_from_receiver(content: bytes, *, datagram: bool) -> FromReceiver:
    """Parse what a receiver sent; anything wrong with it is a `BitstreamError`."""
    source, kind = _opened(content, datagram)
    read: FromReceiver
    match kind:
        case Kind.FEEDBACK:
            read = Feedback.read(source)
        case Kind.WELCOME:
            read = Welcome(_flag(source, "flags"), FrameReport.read(source))
        case Kind.REFUSAL:
            read = Refusal(source.text())
        case Kind.IMPORTANCE | Kind.QUALITY:
            size = in_range("bytes of a request", source.remaining, 1, MAX_REQUEST_BYTES)
            read = (Importance if kind == Kind.IMPORTANCE else Quality)(source.raw(size))
        case _:
            raise CorruptBitstreamError(f"type {kind:#04x} is none that a receiver sends")
    source.end("link")
    return read
