"""What a receiver sends <-> bytes: bitstreams/LINK.md 3."""

from __future__ import annotations

from dataclasses import dataclass

from codec.errors import CorruptBitstreamError
from codec.format.primitives import ByteReader, ByteWriter, in_range
from codec.link.wire import (
    MAX_REQUEST_BYTES,
    MAX_RUNS,
    RECENT,
    REPORTED,
    Kind,
    read_count,
    read_kind,
)

__all__ = [
    "Feedback",
    "FrameReport",
    "FromReceiver",
    "Importance",
    "Quality",
    "Refusal",
    "Welcome",
    "read_from_receiver",
]


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
        due = read_count(source, "frame due")
        decoded = read_count(source, "newest decoded frame")
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
        out.u8(self.resumed)
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
    missing: tuple[range, ...]
    """Datagrams taken for lost, in runs, of the newest `RECENT`."""
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
        out.u8(len(self.missing))
        above = self.sequence or 0
        for run in reversed(self.missing):
            out.varint(above - run.stop)
            out.varint(len(run))
            above = run.start
        out.u8(self.wants_key)
        self.report.write(out)
        return bytes(out.content)

    @classmethod
    def read(cls, source: ByteReader) -> Feedback:
        """Take the fields off `source`."""
        time = read_count(source, "time")
        sequence = read_count(source, "highest sequence number")
        held = in_range("time since its arrival", source.varint(), 0, time)
        datagrams = in_range("datagrams received", source.varint(), 0, sequence)
        size = read_count(source, "bytes received")
        missing = _read_runs(source, max(sequence - 1, 0))
        wants_key = bool(in_range("flags", source.u8(), 0, 1))
        report = FrameReport.read(source)
        newest = sequence - 1 if sequence else None
        return cls(time, newest, time - held, datagrams, size, missing, wants_key, report)


def _read_runs(source: ByteReader, highest: int) -> tuple[range, ...]:
    """Read the runs of missing datagrams below the highest, newest first."""
    runs: list[range] = []
    above, least = highest, max(highest - RECENT, 0)
    for _ in range(in_range("runs of missing datagrams", source.u8(), 0, MAX_RUNS)):
        stop = above - in_range("datagrams between runs", source.varint(), 0, above - least)
        above = stop - in_range("missing datagrams", source.varint(), 1, stop - least)
        runs.append(range(above, stop))
    return tuple(reversed(runs))


FromReceiver = Welcome | Refusal | Importance | Quality | Feedback


def read_from_receiver(content: bytes, *, datagram: bool) -> FromReceiver:
    """Parse what a receiver sent; anything wrong with it is a `BitstreamError`."""
    source = ByteReader(content)
    kind = read_kind(source, datagram=datagram)
    read: FromReceiver
    match kind:
        case Kind.FEEDBACK:
            read = Feedback.read(source)
        case Kind.WELCOME:
            read = Welcome(bool(in_range("flags", source.u8(), 0, 1)), FrameReport.read(source))
        case Kind.REFUSAL:
            read = Refusal(source.text())
        case Kind.IMPORTANCE | Kind.QUALITY:
            size = in_range("bytes of a request", source.remaining, 1, MAX_REQUEST_BYTES)
            read = (Importance if kind == Kind.IMPORTANCE else Quality)(source.raw(size))
        case _:
            raise CorruptBitstreamError(f"type {kind:#04x} is none that a receiver sends")
    source.end("link")
    return read
