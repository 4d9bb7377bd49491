"""Write the conformance streams and the streams that must be refused, with their manifest.

    python -m tools.make_bitstreams FOLDER

Nothing is ever overwritten: a stream, once published, stays; a changed one gets the next revision
in its name.

All but the streams whose maker is "encoder" are built from symbols, not from tensors: modes, levels
and vectors come from SHAKE-256 and integer arithmetic, so every platform writes the same packets,
and values occur that no sensible encoder would choose.  No weights, no video, no GPU.
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from codec.encoding.encoder import Encoder, EncoderConfig
from codec.errors import BitstreamError, CorruptBitstreamError
from codec.files.outputs import one_line, open_output
from codec.files.streams import StreamReader, StreamWriter
from codec.format.constants import (
    FLAG_PTS,
    FLAG_QP,
    FLAG_VECTORS,
    FORMAT_VERSION,
    MAGIC,
    MAX_LEVEL,
    MAX_QP,
    MAX_VECTOR,
    TYPE_INTER,
    TYPE_KEY,
)
from codec.format.header import Preprocessing, SequenceHeader, TensorSpec
from codec.format.packets import EndPacket, FramePacket
from codec.format.primitives import ByteWriter, crc32
from codec.format.profile import MAX_POINT, Band, Profile, TensorProfile, profile_of
from codec.format.tables import DEFAULT_POINTS
from codec.limits import Limits
from codec.normative.decoder import DecodedFrame, Decoder
from codec.normative.entropy import (
    MODE_INTER,
    MODE_INTRA,
    MODE_SKIP,
    FrameSymbols,
    FrameSyntax,
    SymbolWriter,
    TensorSymbols,
)
from codec.normative.exact import LATENT_LIMIT
from codec.normative.reconstruction import Reconstructor, checksum, integers_of
from codec.profiling.simple import simple_header

__all__ = ["INVALID", "VALID", "decode", "stream_md5", "write_all"]

SUFFIX = ".lmc"
REVISION = 2
"""Of all streams: version 2 of the format changed the bytes of every one."""
CRC_BYTES = 4
LARGEST_FILE, LARGEST_TOTAL = 32 << 10, 500 << 10


# --- random numbers that every platform has ---


def noise(label: str, *shape: int) -> NDArray[np.uint8]:
    """Return bytes that depend on nothing but the label."""
    content = hashlib.shake_256(label.encode()).digest(math.prod(shape))
    return np.ndarray(shape, np.uint8, content)


def random_levels(label: str, positions: int, blocks: int, density: int) -> NDArray[np.int32]:
    """Return (P, M) levels, of geometric magnitude; along the scan, density / 256 to 0 of them are
    not zero.
    """
    magnitude = 1 + np.zeros((positions, blocks), np.int32)
    bits = noise(label + " magnitude", positions, blocks)
    for place in range(8):
        magnitude += (bits & ((2 << place) - 1)) == 0
    threshold = density * (positions - np.arange(positions))[:, None] // positions
    magnitude[noise(label + " zero", positions, blocks) >= threshold] = 0
    sign = 1 - 2 * (noise(label + " sign", positions, blocks) & 1).astype(np.int32)
    return (magnitude * sign).astype(np.int32)


def random_modes(label: str, count: int, weights: Sequence[int]) -> NDArray[np.uint8]:
    """Return modes of blocks: skip, inter and intra with the given weights."""
    bounds = np.cumsum(weights)
    value = noise(label, count).astype(np.int64) * bounds[-1] >> 8
    return np.asarray(np.searchsorted(bounds, value, side="right"), np.uint8)


# --- headers ---


def plain_profile(
    channels: int,
    block_size: int = 4,
    *,
    fraction_bits: int = 6,
    gain: int | Sequence[int] = 1 << 14,
    shift: int = 14,
) -> TensorProfile:
    """Return a profile with one diagonal band, means and scales unlike each other."""
    channel = np.arange(channels)
    frequency = np.arange(block_size**2)
    slope = frequency // block_size + frequency % block_size
    return TensorProfile(
        fraction_bits,
        block_size,
        (37 * channel - 55).astype(np.int32),
        (
            Band(
                np.full(channels, gain, np.int16),
                shift,
                np.stack([30 - channel % 8, 22 - channel % 8]).astype(np.int8),
            ),
        ),
        np.zeros(block_size**2, np.uint8),
        np.full(block_size**2, channels),
        np.stack([-3 * slope, -2 * slope]).astype(np.int8),
        np.array(DEFAULT_POINTS, np.int8),
    )


def dense_band(label: str, channels: int, columns: int, shift: int, scale: int = 30) -> Band:
    """Return a band with a matrix of noise, of a gain around one."""
    matrix = noise(f"{label} matrix", channels, columns).astype(np.int16) - 128
    scales = scale - 2 * np.arange(columns)
    return Band(
        (matrix * (1 << shift >> 7)).astype(np.int16),
        shift,
        np.stack([scales, scales - 8]).astype(np.int8),
    )


def header_of(
    specs: Sequence[TensorSpec],
    profiles: Sequence[TensorProfile] | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    grid: int = 16,
) -> SequenceHeader:
    """Return a header with an embedded profile."""
    profile = Profile(tuple(profiles or (plain_profile(spec.channels) for spec in specs)))
    return SequenceHeader(
        tensors=tuple(specs),
        input_height=size[0],
        input_width=size[1],
        profile_hash=profile.hash,
        profile=profile.to_bytes(),
        grid=grid,
    )


def usual_header() -> SequenceHeader:
    """Return the header of streams that are about something else: 4 x 8 x 8 at stride 8."""
    return header_of([TensorSpec("features", 4, 8, 8, 8, 8, 7, 7)])


# --- streams from symbols ---


class Composer:
    """Writes a stream frame by frame from symbols that its caller chooses, or from noise."""

    def __init__(self, header: SequenceHeader, label: str) -> None:
        self.header = header
        self.label = label
        self.packets: list[FramePacket] = []
        self._profile = profile_of(header)
        self._syntax = FrameSyntax(header, self._profile)
        self._reconstructor = Reconstructor(header.tensors, self._profile, header.grid)
        self._counts = [
            int(np.prod(tensor.blocks(spec.height, spec.width)))
            for tensor, spec in zip(self._profile.tensors, header.tensors, strict=True)
        ]

    def frame(
        self,
        *,
        key: bool = False,
        qp: int = 24,
        vectors: NDArray[np.int32] | None = None,
        weights: Sequence[int] = (2, 5, 1),
        density: int = 120,
        pts: int | None = None,
        levels: Callable[[NDArray[np.int32]], NDArray[np.int32]] = lambda drawn: drawn,
        tail: bytes = b"",
    ) -> None:
        """Append a frame.

        Args:
            key: a key frame.
            qp: quantiser.
            vectors: the motion field.
            weights: of the modes skip, inter, intra.
            density: share of non-zero levels in the first position of the scan, in 1/256.
            pts: default: as expected.
            levels: makes of the drawn levels the ones to code.
            tail: appended to the payload.
        """
        label = f"{self.label} {len(self.packets)}"
        tensors = []
        for number, (count, profile) in enumerate(
            zip(self._counts, self._profile.tensors, strict=True)
        ):
            modes = (
                np.full(count, MODE_INTRA, np.uint8)
                if key
                else random_modes(f"{label} {number} modes", count, weights)
            )
            shape = (len(profile.scan.position), int((modes != MODE_SKIP).sum()))
            drawn = levels(random_levels(f"{label} {number}", *shape, density))
            tensors.append(TensorSymbols(modes, drawn, np.zeros(shape, np.uint8)))
        frame = FrameSymbols(key, qp, vectors, tensors)
        writer = SymbolWriter()
        self._syntax.code(writer, frame)
        latents = self._reconstructor.reconstruct(self._reconstructor.predict(vectors), frame)
        assert max(float(latent.abs().max()) for latent in latents) <= LATENT_LIMIT
        previous = self.packets[-1] if self.packets else None
        if pts is None:
            pts = previous.pts + previous.duration if previous else 0
        usual = self.header.frame_duration
        self.packets.append(
            FramePacket(
                key=key,
                pts=pts,
                qp=qp,
                has_vectors=vectors is not None,
                checksum=checksum(latents),
                payload=writer.finish() + tail,
                duration=usual if key or previous is None else pts - previous.pts,
            )
        )

    def field(self, number: int, reach: int) -> NDArray[np.int32]:
        """Return a random motion field with components of magnitude at most `reach`."""
        shape = (*self.header.field_shape, 2)
        label = f"{self.label} vectors {number}"
        value = noise(label, *shape).astype(np.int64) << 8 | noise(label + " low", *shape)
        return (value * (2 * reach + 1) // (1 << 16) - reach).astype(np.int32)

    def content(self, index: Sequence[int] | None = None) -> bytes:
        """Return the stream; `index` restricts which key frames its index names."""
        file = io.BytesIO()
        writer = StreamWriter(file, self.header)
        entries = []
        for number, packet in enumerate(self.packets):
            if packet.key and (index is None or number in index):
                entries.append((number, writer.bytes_written))
            writer.write(packet)
        return file.getvalue() + EndPacket(len(self.packets), tuple(entries)).to_bytes()


# --- streams to decode ---


@dataclass(frozen=True)
class Valid:
    """A stream to decode: what it exercises, where that is specified, who makes it."""

    name: str
    exercises: str
    clause: str
    maker: str
    make: Callable[[], bytes]


VALID: list[Valid] = []


def valid(
    exercises: str, clause: str, maker: str = "symbols"
) -> Callable[[Callable[[str], bytes]], Callable[[str], bytes]]:
    """Enter a function in the list of valid streams, under its name and letter a."""

    def enter(make: Callable[[str], bytes]) -> Callable[[str], bytes]:
        name = f"{make.__name__}_a_{REVISION}"
        VALID.append(Valid(name, exercises, clause, maker, lambda: make(name)))
        return make

    return enter


@valid("a stream without frames", "4.1")
def no_frames(label: str) -> bytes:
    return Composer(usual_header(), label).content()


@valid("key frames only", "6.2, 7.6, 7.8")
def key_only(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    for _ in range(4):
        stream.frame(key=True)
    return stream.content()


@valid("a key frame whose payload is empty: zero bytes behind the end", "7.1")
def empty_payload(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True, levels=lambda drawn: np.full_like(drawn, -31))
    assert not stream.packets[0].payload
    stream.frame()
    return stream.content()


@valid("bytes behind the last symbol of a payload, which are ignored", "7.1")
def long_payload(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True, tail=bytes(9))
    stream.frame(tail=bytes(3) + b"\x01")
    return stream.content()


@valid("inter frames without a motion field", "6.1, 7.5, 7.7")
def zero_motion(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    for number in range(6):
        stream.frame(key=not number)
    return stream.content()


@valid("uniform motion by whole samples of the tensor", "6.1")
def motion_whole(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True, density=250)
    for dy, dx in ((32, 0), (0, -32), (64, 96), (-32, 32)):
        field = np.zeros((*stream.header.field_shape, 2), np.int32) + np.array([dy, dx], np.int32)
        stream.frame(vectors=field, weights=(6, 1, 1), density=40)
    return stream.content()


@valid(
    "fields of quarter pixels, another at every node; all phases of the interpolation", "6.1, 7.3"
)
def motion_quarter(label: str) -> bytes:
    spec = TensorSpec("features", 3, 12, 16, 4, 4, 3, 3)
    stream = Composer(header_of([spec], size=(48, 64), grid=8), label)
    stream.frame(key=True, density=250)
    for number in range(5):
        stream.frame(vectors=stream.field(number, 9 * (number + 1)), weights=(5, 2, 1), density=60)
    return stream.content()


@valid("fields in quarter, half, whole and double pixels, in any order", "7.3")
def motion_precision(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True, density=250)
    for number, shift in enumerate((0, 1, 3, 2, 3, 0, 2, 5)):
        field = stream.field(number, 40 >> shift) << shift
        stream.frame(vectors=field, weights=(5, 2, 1), density=60)
    return stream.content()


@valid("vectors that lead beyond the frame, up to the largest", "6.1, 7.3")
def motion_edges(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True, density=250)
    for number, reach in enumerate((300, 1500, MAX_VECTOR)):
        field = stream.field(number, reach)
        field[0, 0], field[-1, -1] = (-reach, reach), (reach, -reach)
        stream.frame(vectors=field, weights=(5, 2, 1), density=60)
    return stream.content()


@valid("motion fields in some frames only, and fields of zeros", "7.3")
def motion_presence(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True)
    for number, reach in enumerate((12, 0, 12, -1, 12, 12)):
        stream.frame(vectors=None if reach < 0 else stream.field(number, reach))
    stream.frame(key=True)
    stream.frame(vectors=stream.field(6, 12))
    return stream.content()


@valid("latents at their bounds under fractional motion: predictions are clipped", "6.1, 6.5")
def motion_bounds(label: str) -> bytes:
    spec = TensorSpec("features", 2, 8, 8, 8, 8, 7, 7)
    profile = plain_profile(2, 1, fraction_bits=0, gain=32767, shift=12)
    stream = Composer(header_of([spec], [profile]), label)

    def saturate(drawn: NDArray[np.int32]) -> NDArray[np.int32]:
        sign = 1 - 2 * np.arange(len(drawn), dtype=np.int32)[:, None]
        return np.full_like(drawn, MAX_LEVEL) * sign

    # a residual reaches half of the bound: two frames add up to it, intra blocks then make edges
    stream.frame(key=True, qp=MAX_QP, levels=saturate)
    for weights in ((0, 1, 0), (0, 1, 0), (0, 1, 1)):
        stream.frame(qp=MAX_QP, levels=saturate, weights=weights)
    for number in range(4):
        stream.frame(qp=24, vectors=stream.field(number, 21), weights=(3, 1, 0), density=20)
    return stream.content()


@valid("frames of skipped blocks only, with and without motion", "6.2, 7.5")
def skip_all(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True)
    for number in range(8):
        stream.frame(
            weights=(1, 0, 0), vectors=stream.field(number, 7) if number % 3 == 2 else None
        )
    stream.frame()
    return stream.content()


@valid("all modes beside one another; inter frames of intra blocks only", "6.2, 7.5")
def intra_blocks(label: str) -> bytes:
    spec = TensorSpec("features", 2, 20, 24, 4, 4)
    stream = Composer(header_of([spec], size=(80, 96)), label)
    stream.frame(key=True)
    for weights in ((1, 1, 1), (0, 0, 1), (1, 1, 1), (3, 0, 1), (0, 1, 1)):
        stream.frame(weights=weights, density=50)
    return stream.content()


@valid("three tensors of odd sizes, strides, offsets and block sizes of their own", "4.3, 6")
def multi_tensor(label: str) -> bytes:
    specs = [
        TensorSpec("low", 3, 13, 9, 4, 6, 3, 5),
        TensorSpec("middle", 5, 7, 5, 8, 11, -7, 0),
        TensorSpec("2.high_-", 1, 3, 3, 17, 19, 40, -12),
    ]
    profiles = [plain_profile(3, 4), plain_profile(5, 7, fraction_bits=9), plain_profile(1, 2)]
    stream = Composer(header_of(specs, profiles, size=(52, 55), grid=12), label)
    stream.frame(key=True)
    for number in range(4):
        stream.frame(vectors=stream.field(number, 30) if number != 2 else None)
    return stream.content()


@valid("several bands, dense matrices of few columns, a band without a frequency", "5.1, 6.4, 7.4")
def dense_profile(label: str) -> bytes:
    channels, size = 6, 4
    bands = [
        dense_band(f"{label} {number}", channels, columns, shift, 30 - 6 * number)
        for number, (columns, shift) in enumerate(((6, 14), (4, 12), (1, 15), (2, 0)))
    ]
    bands.insert(1, plain_profile(channels).bands[0])
    frequency = np.arange(size**2)
    band_of = np.minimum(frequency // size + frequency % size, 3).astype(np.uint8)
    profile = replace(
        plain_profile(channels, size),
        bands=tuple(bands),
        band_of=band_of,
        ranks=np.array([band.rank for band in bands])[band_of],
    )
    return _five_frames(label, profile)


def _five_frames(label: str, profile: TensorProfile, density: int = 120) -> bytes:
    """Return a stream of an 8 x 8 tensor with this profile: a key frame, then inter frames."""
    spec = TensorSpec("features", profile.channels, 8, 8, 8, 8)
    stream = Composer(header_of([spec], [profile]), label)
    for number in range(5):
        stream.frame(key=not number, density=density)
    return stream.content()


@valid(
    "ranks below the columns of a dense matrix, other ones in every frequency, some 0", "5.1, 7.4"
)
def ranks_dense(label: str) -> bytes:
    channels, size = 7, 4
    bands = (dense_band(f"{label} 0", channels, 6, 14), dense_band(f"{label} 1", channels, 7, 13))
    profile = replace(
        plain_profile(channels, size),
        bands=bands,
        band_of=(np.arange(size**2) % 3 % 2).astype(np.uint8),
        ranks=np.array([5, 7, 4, 3, 0, 5, 3, 2, 4, 1, 1, 0, 2, 1, 0, 0]),
    )
    return _five_frames(label, profile)


@valid("ranks of a diagonal band, the one of the lowest frequency 0", "5.1, 6.4, 7.4")
def ranks_diagonal(label: str) -> bytes:
    profile = replace(plain_profile(5, 3), ranks=np.array([0, 5, 4, 1, 2, 3, 0, 1, 0]))
    return _five_frames(label, profile)


@valid("one coefficient a block: all ranks but one are 0", "5.1, 7.4")
def ranks_single(label: str) -> bytes:
    profile = replace(plain_profile(3, 2), ranks=np.array([0, 0, 1, 0]))
    return _five_frames(label, profile)


@valid("reconstruction points at their bounds and of either sign", "5.1, 6.3")
def points_extreme(label: str) -> bytes:
    profile = plain_profile(4)
    points = np.tile(np.array([[1, -1], [-1, 1]], np.int8) * MAX_POINT, (20, 1))
    return _five_frames(label, replace(profile, points=points.astype(np.int8)), density=240)


@valid("reconstruction points that differ in every class", "5.1, 6.3")
def points_all(label: str) -> bytes:
    profile = plain_profile(4, fraction_bits=10)
    drawn = noise(f"{label} points", len(DEFAULT_POINTS), 2) % (2 * MAX_POINT + 1)
    profile = replace(profile, points=(drawn.astype(np.int16) - MAX_POINT).astype(np.int8))
    stream = Composer(header_of([TensorSpec("features", 4, 8, 8, 8, 8)], [profile]), label)
    for number, qp in enumerate((24, 0, 51, 12, 40)):
        stream.frame(key=not number, qp=qp, density=200)
    return stream.content()


@valid("a dense band for each of 49 frequencies, ranks falling with the frequency", "5.1, 6.4, 7.4")
def many_bands(label: str) -> bytes:
    channels, size = 8, 7
    frequency = np.arange(size**2)
    profile = replace(
        plain_profile(channels, size),
        bands=tuple(
            dense_band(f"{label} {number}", channels, channels, 13 + number % 3)
            for number in range(size**2)
        ),
        band_of=frequency.astype(np.uint8),
        ranks=np.maximum(channels - (frequency // size + frequency % size), 0),
    )
    return _five_frames(label, profile, density=60)


@valid(
    "bands of one frequency each, diagonal and dense, of unlike columns, shifts and ranks",
    "5.1, 6.4, 7.4",
)
def mixed_bands(label: str) -> bytes:
    channels, size = 6, 4
    bands: list[Band] = []
    for number in range(size**2):
        if number % 3 == 1:
            bands.append(plain_profile(channels, gain=4096 << number % 2, shift=12).bands[0])
        else:
            shift = (14, 7, 13, 15, 11)[number % 5]
            bands.append(
                dense_band(f"{label} {number}", channels, 1 + 5 * number % channels, shift)
            )
    band_of = np.arange(size**2)[::-1].astype(np.uint8)
    columns = np.array([band.rank for band in bands])[band_of]
    profile = replace(
        plain_profile(channels, size),
        bands=tuple(bands),
        band_of=band_of,
        ranks=np.maximum(columns - np.arange(size**2) % 3, 0),
    )
    return _five_frames(label, profile)


@valid("every block size from 1 to 16, blocks that reach beyond the tensor", "6.2, 6.4, 7.4")
def block_sizes(label: str) -> bytes:
    specs = [TensorSpec(f"B{size}", 1, 18, 17, 4, 4) for size in range(1, 17)]
    profiles = [plain_profile(1, size) for size in range(1, 17)]
    stream = Composer(header_of(specs, profiles, size=(72, 68)), label)
    stream.frame(key=True, density=50)
    stream.frame(density=50)
    return stream.content()


@valid("escapes of every length, in levels and in vectors, at qp 0", "7.2, 7.6")
def escapes(label: str) -> bytes:
    stream = Composer(usual_header(), label)

    def enlarge(drawn: NDArray[np.int32]) -> NDArray[np.int32]:
        enlarged = drawn.copy()
        flat = enlarged.reshape(-1)
        for place in range(15):
            for extra, value in enumerate((31 + (1 << place), 30 + (2 << place))):
                flat[(7 * place + 3 * extra) % flat.size] = min(value, MAX_LEVEL) * (-1) ** place
        return enlarged

    stream.frame(key=True, qp=0, levels=enlarge)
    stream.frame(qp=0, levels=enlarge, weights=(0, 1, 1))
    stream.frame(qp=0, vectors=stream.field(0, MAX_VECTOR))
    return stream.content()


@valid("all qp, rising by one a frame", "6.3, 7.2")
def qp_all(label: str) -> bytes:
    stream = Composer(header_of([TensorSpec("features", 2, 4, 4, 16, 16)]), label)
    for qp in range(MAX_QP + 1):
        stream.frame(key=qp % 13 == 0, qp=qp, weights=(1, 3, 1))
    return stream.content()


@valid("changes of qp between inter frames, large and small", "4.5, 7.6")
def qp_change(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    for number, qp in enumerate((24, 24, 30, 29, 0, 51, 51, 20)):
        stream.frame(key=not number, qp=qp)
    stream.frame(qp=35, weights=(1, 0, 0))
    stream.frame(qp=20)
    return stream.content()


@valid("irregular pts: negative, repeated, backward, far", "4.5")
def vfr_pts(label: str) -> bytes:
    header = replace(
        header_of([TensorSpec("features", 1, 4, 4, 16, 16)]),
        time_base=Fraction(1001, 90000),
        frame_duration=3,
    )
    stream = Composer(header, label)
    for number, pts in enumerate((-9, -6, -3, 1, 5, 5, 4, 1 << 40, (1 << 40) + 3)):
        stream.frame(key=number == 0, pts=pts)
    stream.frame(key=True, pts=7)
    stream.frame(pts=10)
    return stream.content()


@valid("flags that announce a qp and a pts equal to the expected ones", "4.5")
def redundant_flags(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    stream.frame(key=True)
    stream.frame()
    header, first, second, _ = parts(stream.content())
    packet = bytearray([second[0] | FLAG_QP | FLAG_PTS, stream.packets[1].qp, 0]) + second[1:]
    return assemble([header, first, seal(bytes(packet))])


@valid("one key frame, then forty inter frames: adaptation over many blocks", "7.7")
def long_gop(label: str) -> bytes:
    stream = Composer(header_of([TensorSpec("features", 2, 16, 16, 4, 4)]), label)
    for number in range(41):
        stream.frame(
            key=not number,
            density=30,
            vectors=stream.field(number, 3) if number % 4 == 1 else None,
        )
    return stream.content()


@valid("key frames every third frame, to start at", "4.6, 7.8")
def keyint(label: str) -> bytes:
    stream = Composer(usual_header(), label)
    for number in range(13):
        stream.frame(
            key=number % 3 == 0,
            qp=20 + number,
            vectors=stream.field(number, 20) if number % 3 == 2 else None,
        )
    return stream.content()


@valid("an index that names some of the key frames only", "4.6")
def index_partial(label: str) -> bytes:
    stream = Composer(header_of([TensorSpec("features", 1, 4, 4, 16, 16)]), label)
    for number in range(9):
        stream.frame(key=number % 2 == 0)
    return stream.content(index=(2, 6))


@valid("strides larger than the motion grid, and up to the frame", "6.1")
def large_stride(label: str) -> bytes:
    specs = [TensorSpec("half", 3, 3, 2, 40, 64), TensorSpec("whole", 2, 1, 1, 120, 128, 119, 127)]
    stream = Composer(header_of(specs, size=(120, 128), grid=8), label)
    stream.frame(key=True)
    for number in range(3):
        stream.frame(vectors=stream.field(number, 400))
    return stream.content()


@valid("a motion grid coarser than the frame, and offsets at their bounds", "4.3, 6.1")
def coarse_grid(label: str) -> bytes:
    specs = [
        TensorSpec("near", 2, 5, 6, 8, 8, 7, 7),
        TensorSpec("far", 1, 5, 6, 8, 8, 1 << 16, -(1 << 16)),
    ]
    stream = Composer(header_of(specs, size=(41, 47), grid=1024), label)
    stream.frame(key=True)
    for number in range(3):
        stream.frame(vectors=stream.field(number, 50))
    return stream.content()


@valid("one tensor of one element in a frame of one pixel", "6")
def one_by_one(label: str) -> bytes:
    header = header_of([TensorSpec("x", 1, 1, 1, 1, 1)], [plain_profile(1, 1)], size=(1, 1), grid=4)
    stream = Composer(header, label)
    for number in range(4):
        stream.frame(
            key=number == 0, density=256, vectors=stream.field(number, 5) if number == 2 else None
        )
    return stream.content()


@valid("residuals and latents that are clipped", "6.3, 6.4, 6.5")
def clipping(label: str) -> bytes:
    profile = plain_profile(4, fraction_bits=22, gain=(-32768, 2048, 32767, -512), shift=12)
    stream = Composer(header_of([TensorSpec("features", 4, 8, 8, 8, 8)], [profile]), label)

    def extremes(drawn: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.clip(drawn * 20000, -MAX_LEVEL, MAX_LEVEL).astype(np.int32)

    stream.frame(key=True, qp=MAX_QP, levels=extremes)
    stream.frame(qp=MAX_QP, levels=extremes, weights=(1, 3, 1))
    stream.frame(qp=40)
    return stream.content()


@valid("names in UTF-8, preprocessing, a time base that is not reduced to 1", "4.2, 4.4")
def header_fields(label: str) -> bytes:
    header = replace(
        header_of([TensorSpec("features", 1, 4, 4, 16, 16)]),
        model="model",
        split="blocks.7",
        weights="größe.pt",
        weights_hash=bytes(range(8)),
        time_base=Fraction((1 << 31) - 1, 1 << 31),
        frame_duration=0,
        preprocessing=Preprocessing(256, 224, 0, (127000, 0, 1), (128000, 1, 1 << 32)),
    )
    stream = Composer(header, label)
    for number in range(3):
        stream.frame(key=not number)
    return stream.content()


def _moving_texture(label: str, frames: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield (4, 14, 14) tensors moving by 3/8 and 5/8 sample a frame, and the scene they show."""
    size = 14 * 8 + 64
    for number in range(frames):
        scene = int(number >= frames - 4)
        coarse = noise(f"{label} scene {scene}", 4, size // 16 + 2, size // 16 + 2).astype(np.int64)
        fine = np.kron(coarse, np.ones((1, 16, 16), np.int64))
        for axis in (1, 2):
            total = np.cumsum(fine, axis)
            fine = _box(total, 16, axis)
        y, x = 3 * number % 32, 5 * number % 64
        window = fine[:, y : y + 112 : 8, x : x + 112 : 8]
        yield torch.from_numpy(window.astype(np.float32) / 2**14), scene


def _box(total: NDArray[np.int64], width: int, axis: int) -> NDArray[np.int64]:
    """Return sums over `width` neighbours from cumulative ones."""
    length = total.shape[axis]
    later = np.take(total, range(width, length), axis)
    return later - np.take(total, range(length - width), axis)


@valid("what the encoder makes of a moving texture with a scene cut", "6, 7", "encoder")
def encoder(label: str) -> bytes:
    frames = list(_moving_texture(label, 12))
    spec = TensorSpec("features", 4, 14, 14, 8, 8, 7, 7)
    header = simple_header([spec], ([tensor] for tensor, _ in frames[:3]), 112, 112)
    codec = Encoder(header, EncoderConfig(qp=22, keyint=6))
    vectors = np.zeros((*header.field_shape, 2), np.int32) + np.array([12, 20], np.int32)
    file = io.BytesIO()
    writer = StreamWriter(file, header)
    for tensor, _ in frames:
        writer.write(codec.encode([tensor], vectors).packet)
    writer.close()
    return file.getvalue()


# --- streams to refuse ---


@dataclass(frozen=True)
class Invalid:
    """A stream to refuse: the error, why, and words of its message that show that it is that."""

    name: str
    error: str
    note: str
    clause: str
    message: str
    make: Callable[[], bytes]


INVALID: list[Invalid] = []
CORRUPT, TRUNCATED = "CorruptBitstreamError", "TruncatedBitstreamError"
UNSUPPORTED, LIMIT = "UnsupportedBitstreamError", "LimitExceededError"


def base() -> Composer:
    """Return the stream that invalid ones are made from: a key frame and three inter frames, the
    second with vectors.
    """
    stream = Composer(header_of([TensorSpec("features", 2, 8, 8, 8, 8, 7, 7)]), "base")
    stream.frame(key=True)
    for number in range(3):
        stream.frame(vectors=stream.field(number, 9) if number == 1 else None)
    return stream


def seal(content: bytes) -> bytes:
    """Replace the CRC at the end of a header or packet by the right one."""
    body = content[:-CRC_BYTES]
    return body + crc32(body).to_bytes(CRC_BYTES, "little")


def parts(content: bytes) -> list[bytes]:
    """Cut a stream into header, packets and end packet."""
    reader = StreamReader(io.BytesIO(content))
    sizes = [reader.header_bytes, *(reader.packet_bytes for _ in reader)]
    ends = np.cumsum(sizes).tolist()
    return [content[a:b] for a, b in zip([0, *ends], [*ends, len(content)], strict=True)]


def assemble(pieces: Sequence[bytes], frames: int | None = None) -> bytes:
    """Join header and packets, and end them with an end packet that names the first frame."""
    index = ((0, len(pieces[0])),) if len(pieces) > 1 else ()
    count = len(pieces) - 1 if frames is None else frames
    return b"".join(pieces) + EndPacket(count, index).to_bytes()


def header_from(body: bytes, *, version: int = FORMAT_VERSION) -> bytes:
    """Return a sequence header with that body and the right CRC."""
    out = ByteWriter()
    out.raw(MAGIC)
    out.u8(version)
    out.varint(len(body))
    out.raw(body)
    return seal(bytes(out.content) + bytes(CRC_BYTES))


def header_body(header: SequenceHeader) -> bytes:
    """Return the body of a header, without magic, version, length and CRC."""
    content = header.to_bytes()
    out = ByteWriter()
    out.varint(len(content))  # of as many bytes as that of the body, which is a little shorter
    return content[len(MAGIC) + 1 + len(out.content) : -CRC_BYTES]


def packet_from(tag: int, fields: bytes, payload: bytes, stored: int = 0) -> bytes:
    """Return a frame packet with any tag, fields in front of the length, and the right CRC."""
    out = ByteWriter()
    out.u8(tag)
    out.raw(fields)
    out.varint(len(payload))
    out.fixed(stored, 2)
    out.raw(payload)
    return seal(bytes(out.content) + bytes(CRC_BYTES))


def _changed(part: int, position: int, value: int, *, sealed: bool) -> bytes:
    """Return the base stream with one byte of one part exclusive-ored."""
    pieces = parts(base().content())
    piece = bytearray(pieces[part])
    piece[position] ^= value
    pieces[part] = seal(bytes(piece)) if sealed else bytes(piece)
    return b"".join(pieces)


def _other_header(header: SequenceHeader) -> bytes:
    """Return the base stream behind another header."""
    return b"".join([header.to_bytes(), *parts(base().content())[1:]])


def _other_body(change: Callable[[bytes], bytes]) -> bytes:
    """Return the base stream with another body in its header."""
    pieces = parts(base().content())
    return b"".join([header_from(change(header_body(base().header))), *pieces[1:]])


def _embedding(packed: bytes, size: int) -> bytes:
    """Return the base stream with this in the place of its embedded profile."""
    bare = header_body(replace(base().header, profile=None))
    out = ByteWriter()
    out.raw(bytes([bare[0] | 1]) + bare[1:])
    out.varint(size)
    out.varint(len(packed))
    out.raw(packed)
    return header_from(bytes(out.content)) + b"".join(parts(base().content())[1:])


def _profile(content: bytes) -> bytes:
    """Return the base stream with this profile, under its right hash."""
    digest = hashlib.sha256(content).digest()[:8]
    return _other_header(replace(base().header, profile=content, profile_hash=digest))


def _unchecked(**changes: object) -> bytes:
    """Return the base stream with a profile that its own class would refuse."""
    (tensor,) = profile_of(base().header).tensors
    damaged = copy.copy(tensor)
    for name, value in changes.items():
        object.__setattr__(damaged, name, value)
    return _profile(Profile((damaged,)).to_bytes())


def _point(value: int) -> NDArray[np.int8]:
    """Return points all of which are right but one."""
    points = np.array(DEFAULT_POINTS, np.int8)
    points[17, 1] = value
    return points


def _cut(part: int, size: int) -> bytes:
    """Return the base stream up to `size` bytes into a part."""
    pieces = parts(base().content())
    return b"".join(pieces[:part]) + pieces[part][:size]


def _packets(order: Sequence[int]) -> bytes:
    """Return the base stream with its packets in this order, and an end packet to match."""
    header, *packets, _ = parts(base().content())
    return assemble([header, *(packets[number] for number in order)])


def _replaced(number: int, content: bytes) -> bytes:
    """Return the base stream with another packet at `number`."""
    pieces = parts(base().content())
    pieces[1 + number] = content
    return b"".join(pieces)


def _end(frames: int, index: tuple[tuple[int, int], ...]) -> bytes:
    """Return the base stream with another end packet."""
    return b"".join([*parts(base().content())[:-1], EndPacket(frames, index).to_bytes()])


def _refused_payload(symbols: FrameSymbols) -> bytes:
    """Return the payload up to the symbol that the syntax refuses to go beyond."""
    header = base().header
    syntax = FrameSyntax(header, profile_of(header))
    writer = SymbolWriter()
    try:
        syntax.code(writer, symbols)
    except CorruptBitstreamError:
        return writer.finish()
    raise AssertionError("these symbols are legal")


def _symbols(*, key: bool, value: int = 0, vector: int = 0) -> FrameSymbols:
    """Return symbols of the base stream's shapes, all zero but one level or the vectors."""
    mode = MODE_INTRA if key else MODE_INTER
    levels = np.zeros((32, 4), np.int32)
    levels[0, 0] = value
    tensor = TensorSymbols(np.full(4, mode, np.uint8), levels, np.zeros((32, 4), np.uint8))
    field = None if key else np.full((*base().header.field_shape, 2), vector, np.int32)
    return FrameSymbols(key, 24, field, [tensor])


def _enter_invalid() -> None:
    """Enter all invalid streams."""
    key_qp_pts = bytes([24, 0])
    content = base().header.profile
    assert content is not None
    profile = content
    specs = base().header.tensors
    header = base().header

    def tensors(**changes: int) -> SequenceHeader:
        # dataclasses.replace cannot say of which field a value is, hence the type
        return replace(header, tensors=(replace(specs[0], **changes),))  # type: ignore[arg-type]

    # one stream, one row
    # fmt: off
    rows: list[tuple[str, str, str, str, str, Callable[[], bytes]]] = [
        ("empty", TRUNCATED, "4.1", "no bytes at all", "sequence header",
         lambda: b""),
        ("bad_magic", UNSUPPORTED, "4.2", "another first byte", "magic",
         lambda: _changed(0, 0, 32, sealed=True)),
        ("text_transfer", UNSUPPORTED, "4.2", "CR LF became LF on the way", "magic",
         lambda: base().content().replace(b"\r\n", b"\n")),
        ("bad_version", UNSUPPORTED, "4.2", "format version 3", "format version 3",
         lambda: _changed(0, len(MAGIC), 1, sealed=True)),
        ("old_version", UNSUPPORTED, "4.2", "format version 1", "format version 1",
         lambda: _changed(0, len(MAGIC), 3, sealed=True)),
        ("crc_header", CORRUPT, "4.2", "a bit of the header body flipped", "CRC-32",
         lambda: _changed(0, 20, 4, sealed=False)),
        ("truncated_header", TRUNCATED, "4.1", "ends within the header", "sequence header",
         lambda: _cut(0, 40)),
        ("truncated_packet", TRUNCATED, "4.1", "ends within the third packet", "packet 2",
         lambda: _cut(3, 9)),
        ("truncated_end", TRUNCATED, "4.1", "the last byte is missing", "packet 4",
         lambda: base().content()[:-1]),
        ("missing_end_packet", TRUNCATED, "4.1", "ends behind the last frame", "packet 4",
         lambda: _cut(5, 0)),
        ("long_varint", CORRUPT, "3",
         "the length of the header in one byte too many", "longer than needed",
         lambda: MAGIC + bytes([FORMAT_VERSION, 0x85, 0])),
        ("oversize_header", LIMIT, "4.2", "a header of 2^40 bytes", "header bytes",
         lambda: MAGIC + bytes([FORMAT_VERSION, *[0x80] * 5, 0x20])),
        ("header_left_over", CORRUPT, "4.2", "a byte too many in the header", "left over",
         lambda: _other_body(lambda body: body + b"\x00")),
        ("header_short", CORRUPT, "4.2", "a header that ends within its fields", "needed",
         lambda: _other_body(lambda body: body[:14])),
        ("reserved_bit_header", CORRUPT, "4.2", "a reserved flag of the header", "reserved",
         lambda: _other_body(lambda body: bytes([body[0] | 4]) + body[1:])),
        ("zero_height", CORRUPT, "4.2", "an input frame without rows", "input height",
         lambda: _other_header(replace(header, input_height=0))),
        ("grid_small", CORRUPT, "4.2", "a motion grid of 3", "motion grid",
         lambda: _other_header(replace(header, grid=3))),
        ("oversize_dims", LIMIT, "4.2", "an input frame of 65536 x 65536", "input pixels",
         lambda: _other_header(replace(header, input_height=1 << 16, input_width=1 << 16))),
        ("oversize_vectors", LIMIT, "4.2", "a motion field of 1024 x 512 vectors", "vectors",
         lambda: _other_header(replace(header, input_height=4096, input_width=2048, grid=4))),
        ("oversize_channels", LIMIT, "4.3", "2^40 channels", "channels",
         lambda: _other_header(tensors(channels=1 << 40))),
        ("oversize_elements", LIMIT, "4.3", "a tensor of 2 x 65536 x 65536", "elements",
         lambda: _other_header(tensors(height=1 << 16, width=1 << 16))),
        ("oversize_sum", LIMIT, "4.2",
         "two tensors, each as large as all may be together", "elements",
         lambda: _other_header(replace(header, tensors=(TensorSpec("a", 256, 256, 256, 1, 1),
             TensorSpec("b", 256, 256, 256, 1, 1))))),
        ("oversize_blocks", LIMIT, "8",
         "a tensor of one row, within the limits but for what its blocks add", "elements",
         lambda: _other_header(header_of([TensorSpec("x", 64, 1, 1 << 16, 1, 1)], [plain_profile(
             64, 16)]))),
        ("name_with_slash", CORRUPT, "4.3", "the tensor name ../../tmp", "tensor name",
         lambda: _other_body(lambda body: body.replace(b"features", b"../../tm"))),
        ("name_reserved", CORRUPT, "4.3", "a tensor called pts", "tensor name",
         lambda: _other_body(lambda body: body.replace(b"\x08features", b"\x03pts"))),
        ("no_tensors", CORRUPT, "4.2", "a stream of no tensors", "number of tensors",
         lambda: _other_header(replace(header, tensors=()))),
        ("duplicate_names", CORRUPT, "4.2", "two tensors of one name", "one name",
         lambda: _other_header(replace(header, tensors=specs * 2))),
        ("name_not_utf8", CORRUPT, "3", "a name that is not UTF-8", "UTF-8",
         lambda: _other_body(lambda body: body.replace(b"features", b"featur\xffs"))),
        ("unknown_profile", UNSUPPORTED, "5.2", "names a profile that nobody ships", "not shipped",
         lambda: _other_header(replace(header, profile=None, profile_hash=b"\xde\xad" * 4))),
        ("profile_hash", CORRUPT, "5.2", "the embedded profile has another hash", "profile of hash",
         lambda: _other_header(replace(header, profile_hash=bytes(8)))),
        ("profile_channels", CORRUPT, "5.1",
         "the profile is for tensors of other channels", "channels",
         lambda: _other_header(tensors(channels=3))),
        ("profile_short", CORRUPT, "5.1", "the profile ends within its fields", "profile",
         lambda: _profile(profile[:-1])),
        ("profile_left_over", CORRUPT, "5.1", "a byte too many in the profile", "left over",
         lambda: _profile(profile + b"\x00")),
        ("profile_fraction_bits", CORRUPT, "5.1", "23 fraction bits", "fraction bits",
         lambda: _profile(profile[:1] + b"\x17" + profile[2:])),
        ("profile_block_size", CORRUPT, "5.1", "block size 0", "profile",
         lambda: _profile(profile[:2] + b"\x00" + profile[3:])),
        ("profile_rank_columns", CORRUPT, "5.1",
         "rank 2 in a frequency whose matrix has one column", "ranks beyond",
         lambda: _unchecked(bands=(dense_band("one column", 2, 1, 14),))),
        ("profile_rank_channels", CORRUPT, "5.1", "rank 3 of two channels", "rank over",
         lambda: _unchecked(ranks=np.array([3] + [2] * 15))),
        ("profile_rank_huge", CORRUPT, "5.1", "a rank of 2^62", "rank over",
         lambda: _unchecked(ranks=np.array([2] * 15 + [1 << 62]))),
        ("profile_ranks_zero", CORRUPT, "5.1", "nothing is coded of any frequency", "all zero",
         lambda: _unchecked(ranks=np.zeros(16, np.int64))),
        ("profile_ranks_short", CORRUPT, "5.1", "the profile ends within its ranks", "needed",
         lambda: _profile(profile[:30])),
        ("profile_point_large", CORRUPT, "5.1", "a reconstruction point of 33", "point out of",
         lambda: _unchecked(points=_point(33))),
        ("profile_point_small", CORRUPT, "5.1", "a reconstruction point of -33", "point out of",
         lambda: _unchecked(points=_point(-33))),
        ("profile_point_least", CORRUPT, "5.1", "a reconstruction point of -128", "point out of",
         lambda: _unchecked(points=_point(-128))),
        ("profile_points_short", CORRUPT, "5.1", "the profile ends within its points", "needed",
         lambda: _profile(profile[:100])),
        ("profile_deflate", CORRUPT, "4.2",
         "the packed profile is not a zlib stream", "embedded profile",
         lambda: _embedding(b"\xff" * 20, 100)),
        ("profile_announced", LIMIT, "4.2", "announces a profile of 2^40 bytes", "profile bytes",
         lambda: _embedding(zlib.compress(profile), 1 << 40)),
        ("zip_bomb", CORRUPT, "4.2",
         "announces 100 bytes of profile and unpacks to 16 MiB", "100 announced",
         lambda: _embedding(zlib.compress(bytes(1 << 24), 9), 100)),
        ("crc_packet", CORRUPT, "4.5", "a bit of a payload flipped", "CRC-32",
         lambda: _changed(2, 9, 1, sealed=False)),
        ("packet_type", CORRUPT, "4.5", "a packet of type 4", "tag 0x40",
         lambda: _replaced(1, packet_from(0x40, b"", b""))),
        ("reserved_bit_packet", CORRUPT, "4.5", "the reserved bit of an inter frame", "reserved",
         lambda: _changed(2, 0, 8, sealed=True)),
        ("key_with_vectors", CORRUPT, "4.5",
         "a key frame that announces a motion field", "reserved",
         lambda: _changed(1, 0, 1, sealed=True)),
        ("qp_out_of_range", CORRUPT, "4.5", "qp 52", "qp 52",
         lambda: _replaced(0, packet_from(TYPE_KEY, bytes([52, 0]), b""))),
        ("oversize_packet", LIMIT, "4.5", "announces a payload of 2^40 bytes", "packet bytes",
         lambda: parts(base().content())[0] + bytes([TYPE_KEY, 24, 0, *[0x80] * 5, 0x20])),
        ("inter_first", CORRUPT, "4.1", "begins with an inter frame", "without a frame before",
         lambda: _packets((1, 2, 3))),
        ("swapped_packets", CORRUPT, "6.6", "two inter frames in the wrong order", "drifted",
         lambda: _packets((0, 2, 1, 3))),
        ("dropped_packet", CORRUPT, "6.6",
         "an inter frame is missing, the count is right", "drifted",
         lambda: _packets((0, 2, 3))),
        ("repeated_packet", CORRUPT, "6.6",
         "an inter frame comes twice, the count is right", "drifted",
         lambda: _packets((0, 1, 1, 2, 3))),
        ("wrong_checksum", CORRUPT, "6.6", "a right payload, another checksum", "drifted",
         lambda: _changed(3, 2, 1, sealed=True)),
        ("symbol_garbage", CORRUPT, "6.6", "a payload of noise", "packet|payload|drifted",
         lambda: _replaced(0, packet_from(TYPE_KEY, key_qp_pts, noise("garbage", 60).tobytes()))),
        ("payload_impossible", CORRUPT, "7.1",
         "a payload beyond the interval of the range coder", "payload",
         lambda: _replaced(0, packet_from(TYPE_KEY, key_qp_pts, b"\xff" * 12))),
        ("escape_long", CORRUPT, "7.2", "an escape of over fourteen bits", "escape",
         lambda: _replaced(0, packet_from(TYPE_KEY, key_qp_pts, _refused_payload(_symbols(
             key=True, value=1 << 16))))),
        ("level_out_of_range", CORRUPT, "7.2", "a level of magnitude 32768", "level of magnitude",
         lambda: _replaced(0, packet_from(TYPE_KEY, key_qp_pts, _refused_payload(_symbols(
             key=True, value=MAX_LEVEL + 1))))),
        ("vector_out_of_range", CORRUPT, "7.3",
         "a motion vector of 8192 quarter pixels", "motion vector",
         lambda: _replaced(1, packet_from(TYPE_INTER | FLAG_VECTORS, b"", _refused_payload(_symbols(
             key=False, vector=MAX_VECTOR + 1))))),
        ("frame_count", CORRUPT, "4.6", "the end packet counts five frames of four", "announced",
         lambda: _end(5, ())),
        ("crc_end", CORRUPT, "4.6", "a bit of the end packet flipped", "CRC-32",
         lambda: _changed(5, 2, 1, sealed=False)),
        ("end_size", CORRUPT, "4.6", "the trailer gives another size of the end packet", "trailer",
         lambda: _changed(5, -8, 1, sealed=True)),
        ("end_tag", CORRUPT, "4.6", "a low bit in the tag of the end packet", "tag 0x31",
         lambda: _changed(5, 0, 1, sealed=True)),
        ("index_order", CORRUPT, "4.6", "the index names a key frame twice", "ascending",
         lambda: _end(4, ((0, 300), (0, 300)))),
        ("index_beyond", CORRUPT, "4.6", "the index names key frame 4 of 4 frames", "key frame 4",
         lambda: _end(4, ((4, 300),))),
        ("trailing_bytes", CORRUPT, "4.1", "a byte behind the end packet", "behind the end",
         lambda: base().content() + b"\x00"),
        ("two_streams", CORRUPT, "4.1", "a stream behind a stream", "behind the end",
         lambda: base().content() * 2),
    ]
    # fmt: on
    INVALID.extend(
        Invalid(f"{name}_{REVISION}", error, note, clause, message, make)
        for name, error, clause, note, message, make in rows
    )


_enter_invalid()


# --- manifest ---


def decode(content: bytes, limits: Limits | None = None) -> list[DecodedFrame]:
    """Decode a whole stream."""
    reader = StreamReader(io.BytesIO(content), limits or Limits())
    decoder = Decoder(reader.header)
    return [decoder.decode(packet) for packet in reader]


def stream_md5(frames: Sequence[DecodedFrame]) -> str:
    """Return the MD5 of a stream: of the latents of all its frames (FORMAT.md 9)."""
    digest = hashlib.md5(usedforsecurity=False)
    for frame in frames:
        for latent in frame.latents:
            digest.update(integers_of(latent).data)
    return digest.hexdigest()


def _row(kind: str, values: dict[str, str | int | list[int] | list[str]]) -> str:
    """Return a row of the manifest in TOML."""
    lines = [f"[[{kind}]]"]
    for name, value in values.items():
        if isinstance(value, str):
            assert not set(value) & set('"\\')
            lines.append(f'{name} = "{value}"')
        elif isinstance(value, list) and value and isinstance(value[0], str):
            lines += [f"{name} = [", *(f'  "{item}",' for item in value), "]"]
        else:
            lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


def _valid_row(stream: Valid, content: bytes) -> str:
    frames = decode(content)
    return _row(
        "valid",
        {
            "file": f"valid/{stream.name}{SUFFIX}",
            "exercises": stream.exercises,
            "clause": stream.clause,
            "maker": stream.maker,
            "bytes": len(content),
            "frames": len(frames),
            "key_frames": [number for number, frame in enumerate(frames) if frame.key],
            "pts": [frame.pts for frame in frames],
            "md5": stream_md5(frames),
            "frame_md5": [frame.md5() for frame in frames],
        },
    )


def _invalid_row(stream: Invalid, content: bytes) -> str:
    try:
        decode(content)
    except BitstreamError as error:
        words = stream.message.split("|")
        if type(error).__name__ != stream.error or not any(word in str(error) for word in words):
            raise AssertionError(f"{stream.name}: {error!r}") from error
    else:
        raise AssertionError(f"{stream.name} decodes")
    return _row(
        "invalid",
        {
            "file": f"invalid/{stream.name}{SUFFIX}",
            "error": stream.error,
            "note": stream.note,
            "clause": stream.clause,
            "bytes": len(content),
        },
    )


def write_all(folder: Path) -> None:
    """Write all streams and the manifest into `folder`.

    Raises:
        FileExistsError: one of them is there; nothing has been written then.
    """
    files: dict[Path, bytes] = {}
    rows = [
        "# Written by tools/make_bitstreams.py; README.md explains it.\n\n"
        f"format_version = {FORMAT_VERSION}\n"
    ]
    for good in VALID:
        content = files[folder / "valid" / f"{good.name}{SUFFIX}"] = good.make()
        rows.append(_valid_row(good, content))
    for bad in INVALID:
        content = files[folder / "invalid" / f"{bad.name}{SUFFIX}"] = bad.make()
        rows.append(_invalid_row(bad, content))
    assert max(len(content) for content in files.values()) <= LARGEST_FILE
    assert sum(len(content) for content in files.values()) <= LARGEST_TOTAL
    files[folder / "manifest.toml"] = "\n".join(rows).encode()
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path}: exists; streams are never overwritten")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_output(str(path)) as file:
            file.write(content)


def main() -> None:
    """Write into the folder named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.make_bitstreams FOLDER")
    try:
        write_all(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(one_line(error))


if __name__ == "__main__":
    main()
