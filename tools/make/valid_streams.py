"""The conformance streams: what each exercises, and how it is made.

All but those whose maker is "encoder" are composed from symbols.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.files.streams import StreamWriter
from codec.format.constants import (
    FLAG_PTS,
    FLAG_QP,
    MAX_LEVEL,
    MAX_OFFSET,
    MAX_QP,
    MAX_REFERENCES,
    MAX_VECTOR,
)
from codec.format.header import Preprocessing, SequenceHeader, TensorSpec
from codec.format.profile import MAX_POINT, Band, TensorProfile
from codec.format.tables import DEFAULT_POINTS
from codec.profiling.simple import simple_header
from tools.make.composing import (
    REVISION,
    Composer,
    assemble,
    dense_band,
    header_of,
    noise,
    packet_from,
    parts,
    plain_profile,
    usual_header,
)

__all__ = ["VALID", "Valid"]


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


@valid("offsets of the blocks of key frames, small and large, of some tensors", "7.5, 7.6, 6.3")
def offsets_key(label: str) -> bytes:
    tensors = [TensorSpec(name, 3, 12, 16, 8, 8) for name in ("first", "second")]
    stream = Composer(header_of(tensors), label)
    for reach in (2, None, 0, MAX_OFFSET):
        stream.frame(key=True, offsets=reach)
        stream.frame()
    return stream.content()


@valid("offsets that change in inter frames, with skipped and intra blocks, and stay", "7.5, 7.7")
def offsets_inter(label: str) -> bytes:
    stream = Composer(header_of([TensorSpec("features", 4, 16, 16, 8, 8)]), label)
    for number, reach in enumerate((1, None, 3, None, MAX_OFFSET, None, 0, 2, None)):
        stream.frame(
            key=number == 0,
            offsets=reach,
            qp=20 + number // 2,
            weights=(2, 3, 2),
            vectors=stream.field(number, 9) if number % 3 == 2 else None,
        )
    return stream.content()


@valid("offsets beyond the least and the largest qp", "7.5")
def offsets_bounds(label: str) -> bytes:
    stream = Composer(header_of([TensorSpec("features", 2, 16, 16, 8, 8)]), label)
    for number, qp in enumerate((0, 0, 51, 51, 24)):
        stream.frame(key=number % 2 == 0, offsets=MAX_OFFSET, qp=qp)
    return stream.content()


@valid("forty frames of blocks that keep different offsets: adaptation across qp", "7.7")
def offsets_long(label: str) -> bytes:
    stream = Composer(header_of([TensorSpec("features", 2, 16, 16, 4, 4)]), label)
    for number in range(41):
        stream.frame(key=not number, density=30, offsets=None if number else 6)
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
    again = bytes([stream.packets[1].qp, 0])
    payload = stream.packets[1].payload
    latents = b"".join(stream.latents[1])
    packet = packet_from(second[0] | FLAG_QP | FLAG_PTS, again, payload, latents)
    return assemble([header, first, packet])


def _kept(header: SequenceHeader, references: int) -> SequenceHeader:
    """Return a header of a stream that keeps so many frames."""
    return replace(header, references=references)


@valid(
    "three slots: from the same into the same, from older frames, repeats, qp and pts of slots",
    "4.5, 4.8, 7.9",
)
def references(label: str) -> bytes:
    header = header_of([TensorSpec(name, 3, 12, 16, 8, 8) for name in ("first", "second")])
    stream = Composer(_kept(replace(header, frame_duration=3), 3), label)
    stream.frame(key=True, offsets=2)
    chosen = ((0, 1), (1, 2), (1, 0), (2, 2), (0, 1), (2, 0), (0, 0), (1, 2))
    for number, slots in enumerate(chosen):
        moved = stream.field(number, 9) if number % 2 else None
        pts = 3 * number + 3 if number % 3 else None
        stream.frame(qp=20 + number, vectors=moved, pts=pts, weights=(3, 3, 1), slots=slots)
        if number in {2, 5}:
            stream.frame(repeat=True, slots=(slots[1], 1))
    return stream.content()


@valid("sixteen slots, and key frames that empty them", "4.8, 7.8")
def references_most(label: str) -> bytes:
    stream = Composer(_kept(usual_header(), MAX_REFERENCES), label)
    for _ in range(2):
        stream.frame(key=True)
        for number in range(1, 19):
            far = 3 if number % 4 == 0 else 1
            stream.frame(slots=((number - far) % MAX_REFERENCES, number % MAX_REFERENCES))
    return stream.content()


@valid(
    "what has arrived of a stream: every third packet is missing, none is predicted from it", "4.8"
)
def references_lost(label: str) -> bytes:
    stream = Composer(_kept(usual_header(), 4), label)
    stream.frame(key=True, pts=0)
    slot = 0
    for number in range(1, 13):
        lost = number % 3 == 0
        slots = (slot, 3 if lost else (slot + 1) % 3)
        moved = stream.field(number, 9) if number % 2 else None
        stream.frame(qp=20 + number % 5, pts=number, vectors=moved, slots=slots)
        slot = slot if lost else slots[1]
    stream.packets = [packet for packet in stream.packets if packet.pts % 3 or packet.key]
    return stream.content()


@valid("repeated frames: at once, in runs, at any pace, between frames that adapt", "4.5, 7.9")
def repeats(label: str) -> bytes:
    header = replace(
        header_of([TensorSpec(name, 3, 12, 16, 8, 8) for name in ("first", "second")]),
        frame_duration=3,
    )
    stream = Composer(header, label)
    stream.frame(key=True, offsets=2)
    stream.frame(repeat=True)
    for number in range(4):
        moved = stream.field(number, 9) if number % 2 else None
        stream.frame(qp=20 + number, vectors=moved, pts=10 * number + 9, weights=(3, 3, 1))
        for _ in range(number):
            stream.frame(repeat=True)
    stream.frame(key=True, pts=0)
    stream.frame(repeat=True)
    stream.frame(vectors=stream.field(4, 9))
    return stream.content()


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
