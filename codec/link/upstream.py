"""What a sender sends <-> bytes: bitstreams/LINK.md 2."""

from __future__ import annotations

from dataclasses import dataclass

from codec.errors import CorruptBitstreamError, UnsupportedBitstreamError
from codec.format.primitives import ByteReader, ByteWriter, in_range
from codec.link.wire import (
    LINK_VERSION,
    MAX_FRAGMENTS,
    MAX_TOKEN_BYTES,
    SESSION_BYTES,
    TICKS,
    Kind,
    read_count,
    read_kind,
)

__all__ = [
    "Bye",
    "Fragment",
    "FrameHead",
    "FromSender",
    "Header",
    "Hello",
    "WholeFrame",
    "read_from_sender",
]


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
        return cls(version, token, session, interval, read_count(source, "first frame"))


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
        number = read_count(source, "frame number")
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
        head = FrameHead.read(source, read_count(source, "time of capture"))
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
        sequence = read_count(source, "sequence number")
        sent = read_count(source, "time of sending")
        age = in_range("age of the frame", source.varint(), 0, sent)
        head = FrameHead.read(source, sent - age)
        index = source.u8()
        count = in_range("number of fragments", source.u8(), 1, MAX_FRAGMENTS)
        in_range("index of the fragment", index, 0, count - 1)
        return cls(sequence, sent, head, index, count, _content(source))


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


FromSender = Hello | Header | WholeFrame | Fragment | Bye


def _content(source: ByteReader) -> bytes:
    if not source.remaining:
        raise CorruptBitstreamError("a frame of no bytes")
    return source.raw(source.remaining)


def read_from_sender(content: bytes, *, datagram: bool) -> FromSender:
    """Parse what a sender sent; anything wrong with it is a `BitstreamError`."""
    source = ByteReader(content)
    kind = read_kind(source, datagram=datagram)
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
            read = Bye(read_count(source, "end"))
        case _:
            raise CorruptBitstreamError(f"type {kind:#04x} is none that a sender sends")
    source.end("link")
    return read
