"""Frame packets and the end packet <-> bytes; what payloads mean is left to `normative.syntax`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from codec.errors import CorruptBitstreamError, TruncatedBitstreamError
from codec.format.constants import (
    CHECK_BYTES,
    CRC_BYTES,
    FLAG_OFFSETS,
    FLAG_PTS,
    FLAG_QP,
    FLAG_VECTORS,
    MAX_FILE_BYTES,
    MAX_PTS,
    MAX_QP,
    SLOT_BITS,
    TRAILER_BYTES,
    TYPE_END,
    TYPE_INTER,
    TYPE_KEY,
    TYPE_MASK,
    TYPE_REPEAT,
)
from codec.format.primitives import ByteReader, ByteWriter, crc32, in_range, varint_size
from codec.format.slots import Slots
from codec.limits import DEFAULT_LIMITS, Limits

__all__ = ["EndPacket", "FramePacket", "check_running"]


@dataclass(frozen=True, slots=True)
class FramePacket:
    """One coded frame: FORMAT.md 4.5.

    `pts` and `qp` are absolute here; on the wire an inter frame carries only what differs from what
    its predecessor makes expected, so reading and writing need `previous`: the packet of the frame
    that it is predicted from, which is the one before it where only one frame is kept; of a key
    frame nothing.
    """

    key: bool
    pts: int
    qp: int
    has_vectors: bool
    payload: bytes
    duration: int
    """pts minus that of `previous`; the header's frame duration at a key frame."""
    has_offsets: bool = False
    repeat: bool = False
    """That frame once more: an inter frame without anything of its own."""
    slots: tuple[int, int] | None = None
    """Predicted from, kept in; None in key frames, and where the stream keeps one frame."""
    crc: int = 0
    """CRC-32 of the bytes from the tag to the end of the payload."""
    check: int = 0
    """What the stream says of these bytes and the reconstruction, as `check_of` returns it."""

    @property
    def predicted_from(self) -> int:
        """The slot of `previous`."""
        return self.slots[0] if self.slots else 0

    @property
    def without_payload(self) -> FramePacket:
        """What those predicted from it need to know of it."""
        return replace(self, payload=b"")

    @property
    def next_pts(self) -> int:
        """The pts that a packet predicted from this one is expected to have."""
        return self.pts + self.duration

    def sealed(self, previous: FramePacket | None, latents: Iterable[memoryview]) -> FramePacket:
        """Return the packet with its CRC and its check.

        Args:
            previous: the packet of the frame that it is predicted from.
            latents: of the frame, tensor by tensor, as FORMAT.md 6.6 writes them.
        """
        packet = replace(self, crc=crc32(self._content(previous)))
        return replace(packet, check=packet.check_of(latents))

    def check_of(self, latents: Iterable[memoryview]) -> int:
        """Return the check of this packet if its reconstruction is `latents`: FORMAT.md 6.6."""
        if self.repeat:
            return 0
        crc = self.crc
        for content in latents:
            crc = crc32(content, crc)
        return crc & ((1 << 8 * self._check_bytes) - 1)

    @property
    def _check_bytes(self) -> int:
        return CRC_BYTES if self.key else CHECK_BYTES

    def to_bytes(self, previous: FramePacket | None, running: int = 0) -> bytes:
        """Serialise; `running` is what a key frame says of the bytes before it: FORMAT.md 4.7."""
        content = self._content(previous)
        if self.repeat:
            return content
        out = ByteWriter(bytearray(content))
        out.fixed(self.check, self._check_bytes)
        if self.key:
            out.fixed(running, CRC_BYTES)
        return bytes(out.content)

    def _content(self, previous: FramePacket | None) -> bytes:
        """Serialise what the CRC is of: tag to payload."""
        slots = b""
        if self.slots is not None:
            slots = bytes([self.slots[0] << SLOT_BITS | self.slots[1]])
        if self.repeat:
            return bytes([TYPE_REPEAT]) + slots
        tag = TYPE_KEY if self.key else TYPE_INTER
        out = ByteWriter()
        if self.has_vectors:
            tag |= FLAG_VECTORS
        if self.has_offsets:
            tag |= FLAG_OFFSETS
        if self.key:
            if self.has_vectors or slots:
                raise ValueError("a key frame has neither vectors nor slots")
            out.u8(tag)
            out.u8(self.qp)
            out.signed(self.pts)
        else:
            if previous is None:
                raise ValueError(
                    "a packet that is no key frame needs one that it is predicted from"
                )
            delta = self.pts - previous.next_pts
            out.u8(tag | (FLAG_QP if self.qp != previous.qp else 0) | (FLAG_PTS if delta else 0))
            out.raw(slots)
            if self.qp != previous.qp:
                out.u8(self.qp)
            if delta:
                out.signed(delta)
        out.varint(len(self.payload))
        out.raw(self.payload)
        return bytes(out.content)

    @classmethod
    def read(
        cls,
        source: ByteReader,
        kept: Slots[FramePacket],
        frame_duration: int,
        limits: Limits = DEFAULT_LIMITS,
        running: int | None = None,
    ) -> FramePacket:
        """Take one packet off `source`.

        Its check is for whoever decodes it; that of the bytes before a key frame is compared with
        `running`, None if these have not been read.  `kept` are the packets of the frames that are
        kept, this one not yet among them.
        """
        start = source.position
        tag = source.u8()
        key = tag & TYPE_MASK == TYPE_KEY
        if tag == TYPE_REPEAT:
            return cls._repeated(source, kept)
        if not key and tag & TYPE_MASK != TYPE_INTER:
            raise CorruptBitstreamError(
                f"packet tag {tag:#04x} at offset {start} is not that of a frame"
            )
        if key and tag & (FLAG_VECTORS | FLAG_QP | FLAG_PTS):
            raise CorruptBitstreamError(
                f"packet tag {tag:#04x}: bits are set that no key frame has"
            )
        slots = None if key else _slots(source, kept)
        previous = None if key else _predicted_from(kept, slots, "an inter frame")
        explicit_qp = source.u8() if key or tag & FLAG_QP else None
        pts = source.signed() if key or tag & FLAG_PTS else 0
        length = source.varint()
        limits.check("packet_bytes", length)
        payload = source.raw(length)
        crc = crc32(source.content[start : source.position])
        check = source.fixed(CRC_BYTES if key else CHECK_BYTES)
        if key:
            check_running(source.fixed(CRC_BYTES), running)
        qp, duration = explicit_qp or 0, frame_duration
        if previous is not None:
            qp = previous.qp if explicit_qp is None else explicit_qp
            pts += previous.next_pts
            duration = pts - previous.pts
        in_range("qp", qp, 0, MAX_QP)
        in_range("pts", pts, -MAX_PTS, MAX_PTS)
        return cls(
            key=key,
            pts=pts,
            qp=qp,
            has_vectors=bool(tag & FLAG_VECTORS),
            has_offsets=bool(tag & FLAG_OFFSETS),
            payload=payload,
            duration=duration,
            slots=slots,
            crc=crc,
            check=check,
        )

    @classmethod
    def _repeated(cls, source: ByteReader, kept: Slots[FramePacket]) -> FramePacket:
        start = source.position - 1
        slots = _slots(source, kept)
        previous = _predicted_from(kept, slots, "a repeated frame")
        return cls(
            key=False,
            pts=in_range("pts", previous.next_pts, -MAX_PTS, MAX_PTS),
            qp=previous.qp,
            has_vectors=False,
            payload=b"",
            duration=previous.duration,
            repeat=True,
            slots=slots,
            crc=crc32(source.content[start : source.position]),
        )


def _slots(source: ByteReader, kept: Slots[FramePacket]) -> tuple[int, int] | None:
    """Take off the slots of a frame that is no key frame: FORMAT.md 4.8."""
    if len(kept) == 1:
        return None
    value = source.u8()
    slots = value >> SLOT_BITS, value & ((1 << SLOT_BITS) - 1)
    in_range("slot", max(slots), 0, len(kept) - 1)
    return slots


def _predicted_from(
    kept: Slots[FramePacket], slots: tuple[int, int] | None, what: str
) -> FramePacket:
    previous = kept[slots[0] if slots else 0]
    if previous is None:
        place = f"slot {slots[0]} is empty" if slots else "no frame is before it"
        raise CorruptBitstreamError(f"{what} without a frame to predict from: {place}")
    return previous


def check_running(stored: int, computed: int | None) -> None:
    """Compare a running CRC of the stream with that of the bytes read: FORMAT.md 4.7."""
    if computed is not None and stored != computed:
        raise CorruptBitstreamError(
            f"running CRC-32 {stored:#010x}, computed {computed:#010x}: of the bytes before, some "
            "have changed"
        )


@dataclass(frozen=True, slots=True)
class EndPacket:
    """The end of a stream: how many frames it has and where its key frames lie (FORMAT.md 4.6)."""

    frames: int
    key_frames: tuple[tuple[int, int], ...]
    """(frame number, offset of its packet from the start of the stream), ascending."""
    running: int = 0
    """CRC-32 of the bytes from the last key frame on: FORMAT.md 4.7."""

    def to_bytes(self) -> bytes:
        """Serialise: tag, length, body, CRC, and the length of all that as a trailer to be found
        from the end.
        """
        body = ByteWriter()
        body.fixed(self.running, CRC_BYTES)
        body.varint(self.frames)
        body.varint(len(self.key_frames))
        frame = offset = 0
        for next_frame, next_offset in self.key_frames:
            body.varint(next_frame - frame)
            body.varint(next_offset - offset)
            frame, offset = next_frame, next_offset
        out = ByteWriter()
        out.u8(TYPE_END)
        out.varint(len(body.content))
        out.raw(bytes(body.content))
        out.fixed(self.size_of(len(body.content)), TRAILER_BYTES)
        out.fixed(crc32(bytes(out.content)), CRC_BYTES)
        return bytes(out.content)

    @staticmethod
    def size_of(body: int) -> int:
        """Return the size of an end packet whose body has `body` bytes."""
        return 1 + varint_size(body) + body + TRAILER_BYTES + CRC_BYTES

    @classmethod
    def read(cls, source: ByteReader, limits: Limits = DEFAULT_LIMITS) -> EndPacket:
        """Take the end packet off `source`."""
        start = source.position
        tag = source.u8()
        if tag != TYPE_END:
            raise CorruptBitstreamError(
                f"packet tag {tag:#04x} at offset {start}, expected the end packet's"
            )
        length = source.varint()
        limits.check("packet_bytes", length)
        body = ByteReader(source.raw(length))
        size = source.fixed(TRAILER_BYTES)
        computed = crc32(source.content[start : source.position])
        stored = source.fixed(CRC_BYTES)
        if stored != computed:
            raise CorruptBitstreamError(
                f"end packet: CRC-32 {stored:#010x}, computed {computed:#010x}"
            )
        if size != source.position - start:
            raise CorruptBitstreamError(
                f"end packet: its trailer says {size} bytes, it has {source.position - start}"
            )
        try:
            running, frames, count = body.fixed(CRC_BYTES), body.varint(), body.varint()
            limits.check("index_entries", count)
            entries = []
            frame = offset = 0
            for number in range(count):
                step, advance = body.varint(), body.varint()
                if number and not (step and advance):
                    raise CorruptBitstreamError("end packet: key frames are not in ascending order")
                frame, offset = frame + step, offset + advance
                in_range("end packet: offset of a key frame", offset, 0, MAX_FILE_BYTES)
                entries.append((frame, offset))
        except TruncatedBitstreamError as error:
            raise CorruptBitstreamError(f"end packet: {error}") from error
        body.end("end packet")
        if entries and entries[-1][0] >= frames:
            raise CorruptBitstreamError(
                f"end packet: key frame {entries[-1][0]} of {frames} frames"
            )
        return cls(frames, tuple(entries), running)
