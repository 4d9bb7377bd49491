"""The sequence header <-> bytes: every structure of it with `to_bytes` and `from_bytes` side by
side.

Sizes read from bytes are checked against `Limits` before anything is allocated.
"""

from __future__ import annotations

import math
import sys
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction

from codec.errors import (
    BitstreamError,
    CorruptBitstreamError,
    TruncatedBitstreamError,
    UnsupportedBitstreamError,
)
from codec.format.constants import (
    CRC_BYTES,
    DEFAULT_GRID,
    FLAG_PREPROCESSING,
    FLAG_PROFILE_EMBEDDED,
    FLAG_REFERENCES,
    FLAG_TASK,
    FORMAT_VERSION,
    HASH_BYTES,
    MAGIC,
    MAX_CHANNELS,
    MAX_EXTENT,
    MAX_GRID,
    MAX_OFFSET2,
    MAX_REFERENCES,
    MAX_TASK_BYTES,
    MIN_GRID,
    RESERVED_NAME,
    TENSOR_NAME,
)
from codec.format.primitives import ByteReader, ByteWriter, crc32, in_range
from codec.limits import DEFAULT_LIMITS, Limits

__all__ = ["Interpolation", "Preprocessing", "Resize", "SequenceHeader", "TensorSpec"]

PADDED_TO = 4
"""Profiles are measured with larger blocks where these divide both sides, else with blocks of 4."""


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
            in_range(f"tensor {name!r}: {what}", value, 1, MAX_EXTENT)
        in_range(f"tensor {name!r}: channels", channels, 1, MAX_CHANNELS)
        offsets = [
            in_range(f"tensor {name!r}: offset", source.signed(), -MAX_OFFSET2, MAX_OFFSET2)
            for _ in range(2)
        ]
        return cls(name, channels, height, width, stride_y, stride_x, *offsets)


class Resize(IntEnum):
    """How a frame is brought to the size of the model's input; the numbers are FORMAT.md's."""

    SHORT_SIDE = 0
    STRETCH = 1
    LETTERBOX = 2


class Interpolation(IntEnum):
    """How pixels are resampled; the numbers are FORMAT.md's."""

    BICUBIC = 0
    BILINEAR = 1
    AREA = 2
    NEAREST = 3


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to a decoded frame before the edge sub-model.

    `resize`: by short side: so that it has the length `short_side`, 0: keep the size; stretched: to
    `size`, (height, width); letterboxed: as large as fits into `size`, in the middle, the rest of
    the colour `fill` (R, G, B).  `interpolation`: of that, on RGB24.  `crop` > 0: centre crop to
    crop x crop; 0: keep the whole frame and pad it (bottom and right, edge pixels repeated) to
    multiples of `pad_multiple`.  `bgr`: channels in the order B, G, R.  Sample = (value - mean /
    1000) / (scale / 1000) per channel, in that order, on the 0…255 scale, float32.
    """

    short_side: int
    crop: int
    pad_multiple: int
    mean_thousandths: tuple[int, int, int]
    scale_thousandths: tuple[int, int, int]
    resize: Resize = Resize.SHORT_SIDE
    size: tuple[int, int] = (0, 0)
    fill: tuple[int, int, int] = (0, 0, 0)
    interpolation: Interpolation = Interpolation.BICUBIC
    bgr: bool = False

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of the model's input, None if it depends on the frame."""
        if self.crop:
            return self.crop, self.crop
        if self.resize is Resize.SHORT_SIDE:
            return None
        height, width = self.size
        multiple = max(self.pad_multiple, 1)
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    def write(self, out: ByteWriter) -> None:
        """Append FORMAT.md 4.4."""
        out.u8(self.resize)
        out.u8(self.interpolation)
        out.u8(self.bgr)
        if self.resize is not Resize.SHORT_SIDE:
            for side in self.size:
                out.varint(side)
        if self.resize is Resize.LETTERBOX:
            for value in self.fill:
                out.u8(value)
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
        resize = Resize(in_range("resize", source.u8(), 0, max(Resize)))
        interpolation = Interpolation(in_range("interpolation", source.u8(), 0, max(Interpolation)))
        bgr = bool(in_range("order of channels", source.u8(), 0, 1))
        size, fill = (0, 0), (0, 0, 0)
        if resize is not Resize.SHORT_SIDE:
            height = in_range("resized height", source.varint(), 1, MAX_EXTENT)
            size = height, in_range("resized width", source.varint(), 1, MAX_EXTENT)
        if resize is Resize.LETTERBOX:
            fill = source.u8(), source.u8(), source.u8()
        short_side, crop, pad_multiple, *rest = (source.varint() for _ in range(9))
        for what, value in (
            ("short side", short_side),
            ("crop", crop),
            ("pad multiple", pad_multiple),
        ):
            in_range(what, value, 0, MAX_EXTENT)
        mean = (rest[0], rest[1], rest[2])
        scale = (rest[3], rest[4], rest[5])
        for value in scale:
            in_range("scale of the input", value, 1, 1 << 32)
        return cls(
            short_side, crop, pad_multiple, mean, scale, resize, size, fill, interpolation, bgr
        )


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What holds for the whole stream: FORMAT.md 4.2.

    Streams coded from a researcher's own tensors leave `model`, `split` and `preprocessing` empty.
    `task` says what the network's outputs stand for, one JSON object, or nothing.
    `references` is how many frames are kept to predict from, 1 … 16; with more than one, decoding
    can go on behind a lost frame.
    `profile` is the canonical serialisation when the profile travels in the stream, else None and
    `profile_hash` names one that is shipped, or that decoders are given.
    """

    tensors: tuple[TensorSpec, ...]
    input_height: int
    input_width: int
    profile_hash: bytes
    profile: bytes | None = None
    grid: int = DEFAULT_GRID
    time_base: Fraction = Fraction(1, 25)
    frame_duration: int = 1
    model: str = ""
    split: str = ""
    weights: str = ""
    weights_hash: bytes = bytes(HASH_BYTES)
    preprocessing: Preprocessing | None = None
    task: str = ""
    references: int = 1

    def __post_init__(self) -> None:
        """Refuse a number of references that no stream has."""
        if not 1 <= self.references <= MAX_REFERENCES:
            raise ValueError(f"references {self.references} is outside 1 … {MAX_REFERENCES}")

    @property
    def field_shape(self) -> tuple[int, int]:
        """(rows, columns) of the motion field: one vector per started grid x grid cell of the input
        frame.
        """
        return -(-self.input_height // self.grid), -(-self.input_width // self.grid)

    @property
    def frame_rate(self) -> Fraction | None:
        """Nominal frames per second, None if the stream names none."""
        duration = self.frame_duration * self.time_base
        return 1 / duration if duration else None

    def to_bytes(self) -> bytes:
        """Serialise, magic number and CRC included."""
        body = ByteWriter()
        body.u8(
            (FLAG_PROFILE_EMBEDDED if self.profile is not None else 0)
            | (FLAG_PREPROCESSING if self.preprocessing is not None else 0)
            | (FLAG_TASK if self.task else 0)
            | (FLAG_REFERENCES if self.references > 1 else 0)
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
        if self.task:
            task = self.task.encode()
            if len(task) > MAX_TASK_BYTES:
                raise ValueError(f"a task of {len(task)} bytes: at most {MAX_TASK_BYTES} fit")
            body.varint(len(task))
            body.raw(task)
        if self.references > 1:
            body.u8(self.references)
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
        if flags & ~(FLAG_PROFILE_EMBEDDED | FLAG_PREPROCESSING | FLAG_TASK | FLAG_REFERENCES):
            raise CorruptBitstreamError(f"sequence header: reserved flags set in {flags:#04x}")
        height, width, grid, numerator, denominator, duration = (body.varint() for _ in range(6))
        in_range("input height", height, 1, MAX_EXTENT)
        in_range("input width", width, 1, MAX_EXTENT)
        limits.check("input_pixels", height * width)
        in_range("motion grid", grid, MIN_GRID, MAX_GRID)
        limits.check("vectors", -(-height // grid) * -(-width // grid))
        in_range("time base numerator", numerator, 1, 1 << 31)
        in_range("time base denominator", denominator, 1, 1 << 31)
        if math.gcd(numerator, denominator) != 1:
            raise CorruptBitstreamError(
                f"time base {numerator}/{denominator} is not in lowest terms"
            )
        model, split, weights = (body.text() for _ in range(3))
        if not (model + split + weights).isprintable():
            raise CorruptBitstreamError("sequence header: a name has control characters")
        weights_hash = body.raw(HASH_BYTES)
        preprocessing = Preprocessing.read(body) if flags & FLAG_PREPROCESSING else None
        task = ""
        if flags & FLAG_TASK:
            task = body.utf8(in_range("length of the task", body.varint(), 0, MAX_TASK_BYTES))
            if not task.isprintable():
                raise CorruptBitstreamError("sequence header: the task has control characters")
        references = 1
        if flags & FLAG_REFERENCES:
            references = in_range("references", body.u8(), 2, MAX_REFERENCES)
        count = in_range("number of tensors", body.varint(), 1, 1 << 16)
        limits.check("tensors", count)
        _check_elements(body, count, references, limits)
        tensors = tuple(TensorSpec.read(body, limits) for _ in range(count))
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
            task=task,
            references=references,
        )


def _check_elements(body: ByteReader, count: int, references: int, limits: Limits) -> None:
    """Look ahead at all tensors: the error shall name a limit that will do for all of them, in
    whole blocks too.
    """
    start = body.position
    unbounded = replace(limits, elements=sys.maxsize)
    try:
        tensors = [TensorSpec.read(body, unbounded) for _ in range(count)]
    except BitstreamError:  # is raised again in the order of FORMAT.md 4.3
        return
    finally:
        body.position = start
    enough = sum(
        spec.channels * _rounded_up(spec.height) * _rounded_up(spec.width) for spec in tensors
    )
    limits.check("elements", sum(spec.elements for spec in tensors), enough)
    if references > 1:
        limits.check("kept_elements", references * sum(spec.elements for spec in tensors))


def _rounded_up(side: int) -> int:
    return -(-side // PADDED_TO) * PADDED_TO


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
