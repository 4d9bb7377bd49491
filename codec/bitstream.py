"""Headers and packets <-> bytes: every structure of FORMAT.md 4, each with `to_bytes` and
`from_bytes` side by side.

Sans-I/O and standard library only; what the payloads mean is left to `entropy.py`, files to
`container.py`.  Sizes read from bytes are checked against `Limits` before anything is allocated.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from codec.errors import (
    CorruptBitstreamError,
    LimitExceededError,
    TruncatedBitstreamError,
    UnsupportedBitstreamError,
)

__all__ = [
    "FORMAT_VERSION",
    "HASH_BYTES",
    "MAGIC",
    "MAX_LEVEL",
    "MAX_QP",
    "MAX_VECTOR",
    "ByteReader",
    "ByteWriter",
    "EndPacket",
    "FramePacket",
    "Limits",
    "Preprocessing",
    "SequenceHeader",
    "TensorSpec",
    "crc32",
]

# compatibility
MAGIC: Final = b"\xabLMC\r\n\x1a\n"
"""A non-ASCII byte and two line endings: transfers that damage binary files damage this first (as
PNG's does)."""
FORMAT_VERSION: Final = 2

TENSOR_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
RESERVED_NAME: Final = "pts"
"""Tensors are stored under their names in files, beside one called that."""

# widths, in bytes
CRC_BYTES: Final = 4
CHECKSUM_BYTES: Final = 2
HASH_BYTES: Final = 8
TRAILER_BYTES: Final = 4
MAX_VARINT_BYTES: Final = 9

# packet tags: type in the high nibble, flags in the low one
TYPE_MASK: Final = 0xF0
TYPE_INTER: Final = 0x10
TYPE_KEY: Final = 0x20
TYPE_END: Final = 0x30
FLAG_VECTORS: Final = 0x01
FLAG_QP: Final = 0x02
FLAG_PTS: Final = 0x04
FLAG_RESERVED: Final = 0x08

# sequence header flags
FLAG_PROFILE_EMBEDDED: Final = 0x01
FLAG_PREPROCESSING: Final = 0x02

# legal values
MAX_QP: Final = 51
MAX_LEVEL: Final = (1 << 15) - 1
"""Largest magnitude of a level."""
MAX_VECTOR: Final = (1 << 13) - 1
"""Largest magnitude of a motion vector component in quarter pixels: just under 2048 pixels."""
MAX_OFFSET2: Final = 1 << 16
MAX_EXTENT: Final = 1 << 16
"""Largest height, width or stride of a tensor, and side of the input."""
MAX_CHANNELS: Final = 1 << 13
"""The bounds of the exact arithmetic hold up to here, whatever `Limits` say."""
MAX_PTS: Final = 1 << 62
MAX_FILE_BYTES: Final = 1 << 62
MAX_NAME_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoder is willing to allocate for a stream; exceeding any raises
    `LimitExceededError`.
    """

    header_bytes: int = 1 << 24
    profile_bytes: int = 1 << 26
    packet_bytes: int = 1 << 26
    tensors: int = 256
    channels: int = 2048
    elements: int = 1 << 24
    input_pixels: int = 1 << 26
    index_entries: int = 1 << 22
    vectors: int = 1 << 18

    def check(self, name: str, value: int) -> None:
        """Raise `LimitExceededError` if `value` is larger than the limit called `name`."""
        limit = getattr(self, name)
        if value > limit:
            raise LimitExceededError(
                f"{name.replace('_', ' ')}: {value} in the stream, limit {limit}; "
                "pass larger Limits if you trust it"
            )


DEFAULT_LIMITS: Final = Limits()


def crc32(content: bytes | memoryview) -> int:
    """Return the CRC-32 of ISO 3309 (zlib, PNG)."""
    return zlib.crc32(content)


@dataclass(slots=True)
class ByteWriter:
    """Append primitive values to a byte string."""

    content: bytearray = field(default_factory=bytearray)

    def u8(self, value: int) -> None:
        """Write one byte."""
        self.content.append(value)

    def fixed(self, value: int, width: int) -> None:
        """Write an unsigned little-endian integer of `width` bytes."""
        self.content += value.to_bytes(width, "little")

    def varint(self, value: int) -> None:
        """Write an unsigned integer below 2^63 in LEB128: seven bits a byte, least significant
        first.
        """
        if not 0 <= value < 1 << (7 * MAX_VARINT_BYTES):
            raise ValueError(f"varint {value} is outside 0 … 2^63 - 1")
        while value >= 0x80:
            self.content.append(value & 0x7F | 0x80)
            value >>= 7
        self.content.append(value)

    def signed(self, value: int) -> None:
        """Write a signed integer as a varint: 0, -1, 1, -2, … become 0, 1, 2, 3, …."""
        self.varint(2 * value if value >= 0 else -2 * value - 1)

    def text(self, value: str) -> None:
        """Write a UTF-8 string of at most 255 bytes behind its length."""
        raw = value.encode()
        if len(raw) > MAX_NAME_BYTES:
            raise ValueError(f"name of {len(raw)} bytes: at most {MAX_NAME_BYTES} fit")
        self.u8(len(raw))
        self.content += raw

    def raw(self, value: bytes) -> None:
        """Write bytes as they are."""
        self.content += value


@dataclass(slots=True)
class ByteReader:
    """Take primitive values off a byte string; running out is a `TruncatedBitstreamError`."""

    content: bytes
    position: int = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self.content) - self.position

    def raw(self, count: int) -> bytes:
        """Read `count` bytes."""
        if count > self.remaining:
            raise TruncatedBitstreamError(
                f"needed {count} bytes at offset {self.position}, found {self.remaining}"
            )
        self.position += count
        return self.content[self.position - count : self.position]

    def u8(self) -> int:
        """Read one byte."""
        return self.raw(1)[0]

    def fixed(self, width: int) -> int:
        """Read an unsigned little-endian integer of `width` bytes."""
        return int.from_bytes(self.raw(width), "little")

    def varint(self) -> int:
        """Read a LEB128 integer; longer than needed or over 63 bits is corrupt."""
        value = 0
        for index in range(MAX_VARINT_BYTES):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise CorruptBitstreamError(
                        f"varint at offset {self.position - index - 1} is longer than needed"
                    )
                return value
        raise CorruptBitstreamError(
            f"varint at offset {self.position - MAX_VARINT_BYTES} exceeds 63 bits"
        )

    def signed(self) -> int:
        """Read a signed varint."""
        value = self.varint()
        return -(value >> 1) - 1 if value & 1 else value >> 1

    def text(self) -> str:
        """Read a UTF-8 string behind its length byte."""
        raw = self.raw(self.u8())
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise CorruptBitstreamError(
                f"name at offset {self.position - len(raw)} is not UTF-8"
            ) from error

    def end(self, what: str) -> None:
        """Raise `CorruptBitstreamError` unless everything has been read."""
        if self.remaining:
            raise CorruptBitstreamError(f"{what}: {self.remaining} bytes left over")


def _in_range(what: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise CorruptBitstreamError(f"{what} {value} is outside {low} … {high}")
    return value


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One coded tensor: its name, its shape and where its samples lie in the input frame.

    Sample (y, x) is centred on input pixel (y · stride_y + offset_y2 / 2, x · stride_x + offset_x2
    / 2), where pixel centres are integers.  Offsets are in half pixels, because kernels of even
    width centre between pixels.
    """

    name: str
    channels: int
    height: int
    width: int
    stride_y: int
    stride_x: int
    offset_y2: int = 0
    offset_x2: int = 0

    def __post_init__(self) -> None:
        """Refuse names and shapes that no tensor has."""
        if not TENSOR_NAME.fullmatch(self.name) or self.name == RESERVED_NAME:
            raise ValueError(
                f"tensor name {self.name!r}: letters, digits, '_', '-' and '.' only, "
                f"and not {RESERVED_NAME!r}"
            )
        if min(self.channels, self.height, self.width, self.stride_y, self.stride_x) < 1:
            raise ValueError(
                f"tensor {self.name!r} {self.shape}: shape and stride must be at least 1"
            )
        if max(abs(self.offset_y2), abs(self.offset_x2)) > MAX_OFFSET2:
            raise ValueError(f"{self}: offsets must lie within ±{MAX_OFFSET2} half pixels")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def elements(self) -> int:
        """Elements per frame."""
        return self.channels * self.height * self.width

    def write(self, out: ByteWriter) -> None:
        """Append FORMAT.md 4.3."""
        out.text(self.name)
        for value in (*self.shape, self.stride_y, self.stride_x):
            out.varint(value)
        out.signed(self.offset_y2)
        out.signed(self.offset_x2)

    @classmethod
    def read(cls, source: ByteReader, limits: Limits) -> TensorSpec:
        """Take FORMAT.md 4.3 off `source`."""
        name = source.text()
        if not TENSOR_NAME.fullmatch(name) or name == RESERVED_NAME:
            raise CorruptBitstreamError(
                f"tensor name {name!r}: only letters, digits, '_', '-', '.', and not 'pts'"
            )
        channels, height, width, stride_y, stride_x = (source.varint() for _ in range(5))
        limits.check("channels", channels)
        limits.check("elements", channels * height * width)
        for what, value in (
            ("height", height),
            ("width", width),
            ("stride", stride_y),
            ("stride", stride_x),
        ):
            _in_range(f"tensor {name!r}: {what}", value, 1, MAX_EXTENT)
        _in_range(f"tensor {name!r}: channels", channels, 1, MAX_CHANNELS)
        offsets = [
            _in_range(f"tensor {name!r}: offset", source.signed(), -MAX_OFFSET2, MAX_OFFSET2)
            for _ in range(2)
        ]
        return cls(name, channels, height, width, stride_y, stride_x, *offsets)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to a decoded frame before the edge sub-model.

    `short_side` > 0: resize (bicubic, RGB24) so that the short side has that length; 0: keep the
    size. `crop` > 0: centre crop to crop x crop; 0: keep the whole frame and pad it (bottom and
    right, edge pixels repeated) to multiples of `pad_multiple`. Sample = (value - mean / 1000) /
    (scale / 1000) per channel on the 0…255 scale, float32.
    """

    short_side: int
    crop: int
    pad_multiple: int
    mean_thousandths: tuple[int, int, int]
    scale_thousandths: tuple[int, int, int]

    def write(self, out: ByteWriter) -> None:
        """Append FORMAT.md 4.4."""
        values = (
            self.short_side,
            self.crop,
            self.pad_multiple,
            *self.mean_thousandths,
            *self.scale_thousandths,
        )
        for value in values:
            out.varint(value)

    @classmethod
    def read(cls, source: ByteReader) -> Preprocessing:
        """Take FORMAT.md 4.4 off `source`."""
        short_side, crop, pad_multiple, *rest = (source.varint() for _ in range(9))
        for what, value in (
            ("short side", short_side),
            ("crop", crop),
            ("pad multiple", pad_multiple),
        ):
            _in_range(what, value, 0, MAX_EXTENT)
        mean = (rest[0], rest[1], rest[2])
        scale = (rest[3], rest[4], rest[5])
        for value in scale:
            _in_range("scale of the input", value, 1, 1 << 32)
        return cls(short_side, crop, pad_multiple, mean, scale)


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What holds for the whole stream: FORMAT.md 4.2.

    Streams coded from a researcher's own tensors leave `model`, `split` and `preprocessing` empty.
    `profile` is the canonical serialisation when the profile travels in the stream, else None and
    `profile_hash` names a shipped one.
    """

    tensors: tuple[TensorSpec, ...]
    input_height: int
    input_width: int
    profile_hash: bytes
    profile: bytes | None = None
    grid: int = 32
    time_base: Fraction = Fraction(1, 25)
    frame_duration: int = 1
    model: str = ""
    split: str = ""
    weights: str = ""
    weights_hash: bytes = bytes(HASH_BYTES)
    preprocessing: Preprocessing | None = None

    @property
    def field_shape(self) -> tuple[int, int]:
        """(rows, columns) of the motion field: one vector per started grid x grid cell of the input
        frame.
        """
        return -(-self.input_height // self.grid), -(-self.input_width // self.grid)

    def to_bytes(self) -> bytes:
        """Serialise, magic number and CRC included."""
        body = ByteWriter()
        body.u8(
            (FLAG_PROFILE_EMBEDDED if self.profile is not None else 0)
            | (FLAG_PREPROCESSING if self.preprocessing is not None else 0)
        )
        for value in (self.input_height, self.input_width, self.grid, self.time_base.numerator):
            body.varint(value)
        body.varint(self.time_base.denominator)
        body.varint(self.frame_duration)
        for name in (self.model, self.split, self.weights):
            body.text(name)
        body.raw(self.weights_hash)
        if self.preprocessing is not None:
            self.preprocessing.write(body)
        body.varint(len(self.tensors))
        for spec in self.tensors:
            spec.write(body)
        body.raw(self.profile_hash)
        if self.profile is not None:
            packed = zlib.compress(self.profile, 9)
            body.varint(len(self.profile))
            body.varint(len(packed))
            body.raw(packed)
        out = ByteWriter()
        out.raw(MAGIC)
        out.u8(FORMAT_VERSION)
        out.varint(len(body.content))
        out.raw(bytes(body.content))
        out.fixed(crc32(bytes(out.content)), CRC_BYTES)
        return bytes(out.content)

    @classmethod
    def from_bytes(
        cls, content: bytes, limits: Limits = DEFAULT_LIMITS
    ) -> tuple[SequenceHeader, int]:
        """Parse a header at the start of `content`; return it and its length in bytes."""
        source = ByteReader(content)
        magic = content[: len(MAGIC)]
        if magic != MAGIC[: len(magic)]:
            raise UnsupportedBitstreamError(
                f"magic number {magic.hex()}, expected {MAGIC.hex()}: "
                "not a latent-motion stream, or damaged in transfer"
            )
        source.raw(len(MAGIC))
        version = source.u8()
        if version != FORMAT_VERSION:
            raise UnsupportedBitstreamError(
                f"format version {version}, this decoder reads {FORMAT_VERSION}; "
                "use the release of latent-motion-codec that wrote the stream"
            )
        length = source.varint()
        limits.check("header_bytes", length)
        body = ByteReader(source.raw(length))
        computed = crc32(content[: source.position])
        stored = source.fixed(CRC_BYTES)
        if stored != computed:
            raise CorruptBitstreamError(
                f"sequence header: CRC-32 {stored:#010x}, computed {computed:#010x}"
            )
        try:
            header = cls._parse(body, limits)
        except (
            TruncatedBitstreamError
        ) as error:  # the CRC holds, so the writer was wrong, not the transfer
            raise CorruptBitstreamError(f"sequence header: {error}") from error
        body.end("sequence header")
        return header, source.position

    @classmethod
    def _parse(cls, body: ByteReader, limits: Limits) -> SequenceHeader:
        flags = body.u8()
        if flags & ~(FLAG_PROFILE_EMBEDDED | FLAG_PREPROCESSING):
            raise CorruptBitstreamError(f"sequence header: reserved flags set in {flags:#04x}")
        height, width, grid, numerator, denominator, duration = (body.varint() for _ in range(6))
        _in_range("input height", height, 1, MAX_EXTENT)
        _in_range("input width", width, 1, MAX_EXTENT)
        limits.check("input_pixels", height * width)
        _in_range("motion grid", grid, 4, 1024)
        limits.check("vectors", -(-height // grid) * -(-width // grid))
        _in_range("time base numerator", numerator, 1, 1 << 31)
        _in_range("time base denominator", denominator, 1, 1 << 31)
        if math.gcd(numerator, denominator) != 1:
            raise CorruptBitstreamError(
                f"time base {numerator}/{denominator} is not in lowest terms"
            )
        model, split, weights = (body.text() for _ in range(3))
        if not (model + split + weights).isprintable():
            raise CorruptBitstreamError("sequence header: a name has control characters")
        weights_hash = body.raw(HASH_BYTES)
        preprocessing = Preprocessing.read(body) if flags & FLAG_PREPROCESSING else None
        count = _in_range("number of tensors", body.varint(), 1, 1 << 16)
        limits.check("tensors", count)
        tensors = tuple(TensorSpec.read(body, limits) for _ in range(count))
        limits.check("elements", sum(spec.elements for spec in tensors))
        if len({spec.name for spec in tensors}) != count:
            raise CorruptBitstreamError("sequence header: two tensors have one name")
        profile_hash = body.raw(HASH_BYTES)
        profile = None
        if flags & FLAG_PROFILE_EMBEDDED:
            size = body.varint()
            limits.check("profile_bytes", size)
            profile = _inflate(body.raw(body.varint()), size)
        return cls(
            tensors=tensors,
            input_height=height,
            input_width=width,
            profile_hash=profile_hash,
            profile=profile,
            grid=grid,
            time_base=Fraction(numerator, denominator),
            frame_duration=duration,
            model=model,
            split=split,
            weights=weights,
            weights_hash=weights_hash,
            preprocessing=preprocessing,
        )


def _inflate(packed: bytes, size: int) -> bytes:
    """Decompress exactly `size` bytes, allocating no more than that."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise CorruptBitstreamError(f"embedded profile: {error}") from error
    if len(content) != size or not inflater.eof or inflater.unused_data:
        raise CorruptBitstreamError(
            f"embedded profile: {len(content)} bytes or more, {size} announced"
        )
    return content


@dataclass(frozen=True, slots=True)
class FramePacket:
    """One coded frame: FORMAT.md 4.5.

    `pts` and `qp` are absolute here; on the wire an inter frame carries only what differs from what
    its predecessor makes expected, so reading and writing need `previous` (the packet before, None
    before the first).
    """

    key: bool
    pts: int
    qp: int
    has_vectors: bool
    checksum: int
    payload: bytes
    duration: int
    """pts minus that of the packet before; the header's frame duration at a key frame."""

    def to_bytes(self, previous: FramePacket | None) -> bytes:
        """Serialise, CRC included."""
        tag = TYPE_KEY if self.key else TYPE_INTER
        out = ByteWriter()
        if self.has_vectors:
            tag |= FLAG_VECTORS
        if self.key:
            if self.has_vectors:
                raise ValueError("a key frame has no vectors")
            out.u8(tag)
            out.u8(self.qp)
            out.signed(self.pts)
        else:
            if previous is None:
                raise ValueError("the first packet of a stream must be a key frame")
            delta = self.pts - previous.pts - previous.duration
            out.u8(tag | (FLAG_QP if self.qp != previous.qp else 0) | (FLAG_PTS if delta else 0))
            if self.qp != previous.qp:
                out.u8(self.qp)
            if delta:
                out.signed(delta)
        out.varint(len(self.payload))
        out.fixed(self.checksum, CHECKSUM_BYTES)
        out.raw(self.payload)
        out.fixed(crc32(bytes(out.content)), CRC_BYTES)
        return bytes(out.content)

    @classmethod
    def read(
        cls,
        source: ByteReader,
        previous: FramePacket | None,
        frame_duration: int,
        limits: Limits = DEFAULT_LIMITS,
    ) -> FramePacket:
        """Take one packet off `source`; the CRC is checked before anything in it is believed but
        its length.
        """
        start = source.position
        tag = source.u8()
        key = tag & TYPE_MASK == TYPE_KEY
        if not key and tag & TYPE_MASK != TYPE_INTER:
            raise CorruptBitstreamError(
                f"packet tag {tag:#04x} at offset {start} is not that of a frame"
            )
        explicit_qp = source.u8() if key or tag & FLAG_QP else None
        pts = source.signed() if key or tag & FLAG_PTS else 0
        length = source.varint()
        limits.check("packet_bytes", length)
        checksum = source.fixed(CHECKSUM_BYTES)
        payload = source.raw(length)
        computed = crc32(source.content[start : source.position])
        stored = source.fixed(CRC_BYTES)
        if stored != computed:
            raise CorruptBitstreamError(f"packet: CRC-32 {stored:#010x}, computed {computed:#010x}")
        if tag & FLAG_RESERVED or (key and tag & (FLAG_VECTORS | FLAG_QP | FLAG_PTS)):
            raise CorruptBitstreamError(f"packet tag {tag:#04x}: reserved bits are set")
        qp, duration = explicit_qp or 0, frame_duration
        if not key:
            if previous is None:
                raise CorruptBitstreamError(
                    "an inter frame without a frame before it to predict from"
                )
            qp = previous.qp if explicit_qp is None else explicit_qp
            pts += previous.pts + previous.duration
            duration = pts - previous.pts
        _in_range("qp", qp, 0, MAX_QP)
        _in_range("pts", pts, -MAX_PTS, MAX_PTS)
        return cls(key, pts, qp, bool(tag & FLAG_VECTORS), checksum, payload, duration)


@dataclass(frozen=True, slots=True)
class EndPacket:
    """The end of a stream: how many frames it has and where its key frames lie (FORMAT.md 4.6)."""

    frames: int
    key_frames: tuple[tuple[int, int], ...]
    """(frame number, offset of its packet from the start of the stream), ascending."""

    def to_bytes(self) -> bytes:
        """Serialise: tag, length, body, CRC, and the length of all that as a trailer to be found
        from the end.
        """
        body = ByteWriter()
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
        out.fixed(len(out.content) + TRAILER_BYTES + CRC_BYTES, TRAILER_BYTES)
        out.fixed(crc32(bytes(out.content)), CRC_BYTES)
        return bytes(out.content)

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
            frames, count = body.varint(), body.varint()
            limits.check("index_entries", count)
            entries = []
            frame = offset = 0
            for number in range(count):
                step, advance = body.varint(), body.varint()
                if number and not (step and advance):
                    raise CorruptBitstreamError("end packet: key frames are not in ascending order")
                frame, offset = frame + step, offset + advance
                _in_range("end packet: offset of a key frame", offset, 0, MAX_FILE_BYTES)
                entries.append((frame, offset))
        except TruncatedBitstreamError as error:
            raise CorruptBitstreamError(f"end packet: {error}") from error
        body.end("end packet")
        if entries and entries[-1][0] >= frames:
            raise CorruptBitstreamError(
                f"end packet: key frame {entries[-1][0]} of {frames} frames"
            )
        return cls(frames, tuple(entries))
