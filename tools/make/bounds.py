"""Streams on either side of a bound: the largest value that is legal, and the one beyond it.

Of those to refuse, only the check of that bound can know better: they have no frames that could
come out wrong, or frames whose latents are the mean of the profile whatever was decoded, since
their matrices are zero; so a decoder without the check accepts them, checks and all.
"""

from __future__ import annotations

import copy
import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple, cast

import numpy as np

from codec.format.constants import (
    CRC_BYTES,
    FLAG_OFFSETS,
    FLAG_PTS,
    FLAG_QP,
    FLAG_VECTORS,
    FORMAT_VERSION,
    MAGIC,
    MAX_LEVEL,
    MAX_PTS,
    MAX_QP,
    MAX_VECTOR,
    TRAILER_BYTES,
    TYPE_END,
    TYPE_INTER,
    TYPE_KEY,
    TYPE_REPEAT,
)
from codec.format.header import Interpolation, Preprocessing, Resize, SequenceHeader, TensorSpec
from codec.format.primitives import ByteWriter
from codec.format.profile import Band, Profile, TensorProfile, profile_of
from codec.format.tables import (
    ESCAPE,
    MAX_DIRECT_LEVEL,
    PROBABILITY_BITS,
    binary_weights,
    classify,
    expected_level,
    tables,
)
from tools.make.composing import (
    REVISION,
    Composer,
    assemble,
    chained,
    header_of,
    noise,
    packet_from,
    plain_profile,
    seal,
)
from tools.make.invalid_streams import (
    CORRUPT,
    INVALID,
    LIMIT,
    UNSUPPORTED,
    Invalid,
    Row,
    base,
    flipped,
    header_body,
    header_from,
)
from tools.make.valid_streams import valid

__all__: list[str] = []

LARGEST_VARINT = (1 << 63) - 1
SIDE = 1 << 16


# --- at the bounds ---


@valid("header fields at their upper bounds, and as many elements as a decoder has to take", "8")
def header_most(label: str) -> bytes:
    spec = TensorSpec("A-Za-z0-9_.-" * 21, 2048, 64, 128, SIDE, SIDE, SIDE, -SIDE)
    profile = replace(plain_profile(2048, 16), ranks=np.full(256, 1))
    profile = replace(profile, mean=np.zeros(2048, np.int32))
    header = replace(
        header_of([spec], [profile], size=(SIDE, 1024), grid=16),
        time_base=Fraction(1 << 31, (1 << 31) - 1),
        frame_duration=LARGEST_VARINT,
        model="m" * 255,
        split="~ \u00e9" * 63,
        weights="\U0001f600" * 63,
        weights_hash=b"\xff" * 8,
        preprocessing=Preprocessing(
            SIDE,
            SIDE,
            SIDE,
            (LARGEST_VARINT, 0, LARGEST_VARINT),
            (1 << 32, 1, 1 << 32),
            Resize.LETTERBOX,
            (SIDE, SIDE),
            (255, 0, 255),
            Interpolation.NEAREST,
            bgr=True,
        ),
        task="\u00e9" * 300,
    )
    return Composer(header, label).content()


@valid("header fields at their other bounds", "4.2, 4.3")
def header_least(label: str) -> bytes:
    specs = [TensorSpec("_", 1, 1, 1, 1, SIDE, -SIDE, SIDE), TensorSpec("-", 1, 1, 1, SIDE, 1)]
    header = replace(
        header_of(specs, [plain_profile(1, 1)] * 2, size=(1, SIDE), grid=1024),
        preprocessing=Preprocessing(0, 0, 0, (0, 0, 0), (1, 1, 1), Resize.STRETCH, (1, 1)),
    )
    stream = Composer(header, label)
    for number in range(3):
        stream.frame(key=not number, vectors=stream.field(number, 90) if number else None)
    return stream.content()


@valid("as many tensors as a decoder has to take", "4.2, 8")
def tensors_most(label: str) -> bytes:
    specs = [TensorSpec(f"{number}", 1, 1, 1, 1, 1) for number in range(256)]
    return Composer(header_of(specs, [plain_profile(1, 1)] * 256), label).content()


@valid("a profile whose every field is at a bound, and expected levels from end to end", "5.1, 7.2")
def profile_bounds(label: str) -> bytes:
    size, channels = 16, 2
    frequency = np.arange(size**2)
    drawn = noise(f"{label} scales", size**2, 2, channels).astype(np.int16) - 128
    sign = (-1) ** frequency
    bands = [
        Band(
            np.array([-32768, 32767])[:: sign[number]].astype(np.int16),
            (0, 40, 14, 17)[number % 4],
            np.where(frequency[number] % 3, drawn[number], sign[number] * 127).astype(np.int8),
        )
        for number in range(size**2)
    ]
    profile = TensorProfile(
        22,
        size,
        np.array([(1 << 23) - 1, 1 - (1 << 23)], np.int32),
        tuple(bands),
        frequency.astype(np.uint8),
        np.where(frequency % 5, channels, 0),
        np.stack([127 * sign, 127 * sign - (sign < 0)]).astype(np.int8),
        np.where(noise(f"{label} points", 40, 2) & 1, 32, -32).astype(np.int8),
    )
    stream = Composer(header_of([TensorSpec("x", channels, 17, 16, 1, 1)], [profile]), label)
    for number, qp in enumerate((0, MAX_QP, 0, 24)):
        stream.frame(key=not number, qp=qp, weights=(1, 4, 1), density=10)
    return stream.content()


@valid(
    "means at the upper end of the table of expected levels, on which classes depend", "7.2, 7.6"
)
def expected_last(label: str) -> bytes:
    channels = 8
    band = Band(
        np.full(channels, 1 << 10, np.int16),
        14,
        np.array([[60, 70, 30, 20, 18, 12, 8, 4], [61, 59, 28, 22, 16, 10, 6, 2]], np.int8),
    )
    profile = replace(plain_profile(channels, 2), bands=(band,))
    profile = replace(profile, frequency_scale=np.zeros((2, 4), np.int8))
    stream = Composer(header_of([TensorSpec("x", channels, 6, 6, 8, 8)], [profile]), label)
    for number, qp in enumerate((0, 1, 0, 51, 0, 2, 0)):
        stream.frame(key=number in {0, 3}, qp=qp, weights=(1, 8, 1), density=200)
    return stream.content()


@valid(
    "coefficients at their bound, told from larger and smaller ones by others against them", "6.3"
)
def coefficients_most(label: str) -> bytes:
    matrix = np.array([[16384, -32767], [-32768, 32767]], np.int16)
    scale = np.array([[51, 51], [51, 51]], np.int8)
    profile = replace(plain_profile(2, 1, fraction_bits=0), bands=(Band(matrix, 12, scale),))
    stream = Composer(header_of([TensorSpec("x", 2, 2, 8, 8, 8)], [profile]), label)

    def around(drawn: np.ndarray) -> np.ndarray:
        # 2^24 is 46 092 steps of qp 0, 721 of qp 36, 46 of qp 51
        value = np.array([[46, 47, -46, -47, 720, 721, -722, 32767]], np.int32)
        return np.resize(np.concatenate([value, value // 2]), drawn.shape).astype(np.int32)

    for number, qp in enumerate((51, 36, 51, 0)):
        stream.frame(key=not number, qp=qp, weights=(0, 1, 1), levels=around)
    return stream.content()


@valid("levels and vectors of the largest magnitude, in every precision of a field", "7.2, 7.3")
def values_most(label: str) -> bytes:
    stream = Composer(still_header(), label)
    stream.frame(key=True, levels=lambda drawn: np.full_like(drawn, MAX_LEVEL))
    stream.frame(weights=(0, 1, 0), levels=lambda drawn: np.full_like(drawn, -MAX_LEVEL))
    for shift in range(4):
        for sign in (-1, 1):
            largest = sign * (MAX_VECTOR >> shift) << shift
            stream.frame(weights=(1, 0, 0), vectors=np.full((1, 1, 2), largest, np.int32))
    return stream.content()


@valid("a key frame that announces offsets, none of which are other than 0", "4.5, 7.5")
def offsets_unchanged(label: str) -> bytes:
    return _stream(_key(Payload().flags(0).level(0), flags=FLAG_OFFSETS))


@valid("pts at their bounds, and a sum on the way to one that needs more than 64 bits", "3, 4.5")
def pts_bounds(label: str) -> bytes:
    header = replace(still_header(), frame_duration=LARGEST_VARINT)
    stream = Composer(header, label)
    stream.frame(key=True, pts=-MAX_PTS)
    stream.frame(pts=-1)
    stream.frame(pts=MAX_PTS - 2)
    stream.frame(pts=MAX_PTS)
    stream.frame(key=True, pts=MAX_PTS - 1)
    return stream.content()


# --- beyond the bounds: headers and profiles, without frames ---


def no_frames(header: bytes) -> bytes:
    """Return a stream of a header and an end packet."""
    return assemble([header])


def still_header() -> SequenceHeader:
    """Return the header of one element whose latents are its mean, whatever is decoded."""
    spec = TensorSpec("x", 1, 1, 1, 1, 1)
    return header_of([spec], [plain_profile(1, 1, gain=0)], size=(1, 1), grid=4)


def _header(**changes: object) -> bytes:
    return no_frames(replace(still_header(), **changes).to_bytes())  # type: ignore[arg-type]


class Ratio(NamedTuple):
    """A time base that no `Fraction` can be."""

    numerator: int
    denominator: int


def _time_base(numerator: int, denominator: int) -> bytes:
    return _header(time_base=cast(Fraction, Ratio(numerator, denominator)))


def _task(size: int, content: bytes) -> bytes:
    """Return a stream with a task that no writer puts in."""
    body = header_body(replace(still_header(), task="?"))
    before, after = body.split(b"\x01?", 1)
    number = ByteWriter()
    number.varint(size)
    return no_frames(header_from(before + bytes(number.content) + content + after))


def _preprocessing(**changes: object) -> bytes:
    usual = Preprocessing(1, 1, 1, (1, 1, 1), (1, 1, 1), Resize.STRETCH, (1, 1))
    return _header(preprocessing=replace(usual, **changes))  # type: ignore[arg-type]


def _tensor(**changes: object) -> bytes:
    """Return a stream with a tensor that its own class would refuse."""
    spec = copy.copy(still_header().tensors[0])
    for name, value in changes.items():
        object.__setattr__(spec, name, value)
    return _header(tensors=(spec,))


def _shapes(*shapes: tuple[int, int, int]) -> bytes:
    """Return a stream of tensors of these shapes, with a profile for them."""
    specs = [TensorSpec(f"{number}", *shape, 1, 1) for number, shape in enumerate(shapes)]
    return no_frames(header_of(specs, [plain_profile(shape[0], 1) for shape in shapes]).to_bytes())


def _count(count: int) -> bytes:
    """Return a stream whose header says another number of tensors, and ends behind it."""
    body = header_body(still_header())
    at = body.index(b"\x01\x01x\x01")
    out = ByteWriter()
    out.raw(body[:at])
    out.varint(count)
    return no_frames(header_from(bytes(out.content)))


def _serialised(content: bytes) -> bytes:
    digest = hashlib.sha256(content).digest()[:8]
    return _header(profile=content, profile_hash=digest)


def _profile(*, copies: int = 1, **changes: object) -> bytes:
    """Return a stream with a profile that its own class would refuse."""
    (tensor,) = profile_of(still_header()).tensors
    damaged = copy.copy(tensor)
    for name, value in changes.items():
        object.__setattr__(damaged, name, value)
    return _serialised(Profile((damaged,) * copies).to_bytes())


def _band(matrix: Sequence[object], shift: int = 14) -> Band:
    array = np.array(matrix, np.int16)
    return Band(array, shift, np.zeros((2, array.shape[-1]), np.int8))


def _packed(announced: int, packed: bytes) -> bytes:
    """Return a stream whose embedded profile is packed like this."""
    bare = header_body(replace(still_header(), profile=None))
    out = ByteWriter()
    out.raw(bytes([bare[0] | 1]) + bare[1:])
    out.varint(announced)
    out.varint(len(packed))
    out.raw(packed)
    return no_frames(header_from(bytes(out.content)))


def _header_rows() -> list[Row]:
    still = still_header().profile
    assert still is not None
    packed, size = zlib.compress(still), len(still)
    one_band = profile_of(still_header()).tensors[0].bands[0]
    # fmt: off
    return [  # one stream, one row
        ("version_zero", UNSUPPORTED, "4.2", "format version 0", "format version 0",
         lambda: no_frames(header_from(header_body(still_header()), version=0))),
        ("header_length_bound", LIMIT, "8", "a header of 2^24 + 1 bytes", "header bytes",
         lambda: MAGIC + bytes([FORMAT_VERSION]) + b"\x81\x80\x80\x08"),
        ("varint_ten_bytes", CORRUPT, "3", "a varint of ten bytes", "63 bits",
         lambda: MAGIC + bytes([FORMAT_VERSION]) + b"\x80" * 9 + b"\x01"),
        ("crc_header_stored", CORRUPT, "4.2", "a bit of the CRC of the header flipped", "CRC-32",
         lambda: flipped(base().content(), 0, -1)),
        ("input_height_bound", CORRUPT, "4.2", "65537 rows", "input height",
         lambda: _header(input_height=SIDE + 1)),
        ("input_width_bound", CORRUPT, "4.2", "65537 columns", "input width",
         lambda: _header(input_width=SIDE + 1)),
        ("input_width_zero", CORRUPT, "4.2", "an input frame without columns", "input width",
         lambda: _header(input_width=0)),
        ("input_pixels_bound", LIMIT, "8", "2^26 + 1 pixels", "input pixels",
         lambda: _header(input_height=8321, input_width=8065, grid=1024)),
        ("grid_bound", CORRUPT, "4.2", "a motion grid of 1025", "motion grid",
         lambda: _header(grid=1025)),
        ("vectors_bound", LIMIT, "8", "a motion field of 513 x 512 vectors", "vectors",
         lambda: _header(input_height=2049, input_width=2048, grid=4)),
        ("time_base_numerator_zero", CORRUPT, "4.2", "a time base of 0 / 1", "numerator",
         lambda: _time_base(0, 1)),
        ("time_base_numerator_bound", CORRUPT, "4.2", "a numerator of 2^31 + 1", "numerator",
         lambda: _time_base((1 << 31) + 1, 1)),
        ("time_base_denominator_zero", CORRUPT, "4.2", "a time base of 1 / 0", "denominator",
         lambda: _time_base(1, 0)),
        ("time_base_denominator_bound", CORRUPT, "4.2", "a denominator of 2^31 + 1", "denominator",
         lambda: _time_base(1, (1 << 31) + 1)),
        ("time_base_reducible", CORRUPT, "4.2", "a time base of 2 / 50", "lowest terms",
         lambda: _time_base(2, 50)),
        ("model_line", CORRUPT, "4.2", "a line feed in the name of the model", "control",
         lambda: _header(model="a\nb")),
        ("split_invisible", CORRUPT, "4.2", "a zero-width space in the split", "control",
         lambda: _header(split="a\u200b")),
        ("weights_space", CORRUPT, "4.2", "a no-break space in the name of the weights", "control",
         lambda: _header(weights="a\u00a0b")),
        ("task_bound", CORRUPT, "4.2", "a task of 65537 bytes", "length of the task",
         lambda: _task(SIDE + 1, b"{}")),
        ("task_line", CORRUPT, "4.2", "a line feed in the task", "control",
         lambda: _task(2, b"{\n")),
        ("task_not_utf8", CORRUPT, "4.2", "a task that is not UTF-8", "UTF-8",
         lambda: _task(2, b"{\xff")),
        ("resize_bound", CORRUPT, "4.4", "resizing of kind 3", "resize",
         lambda: _preprocessing(resize=3)),
        ("interpolation_bound", CORRUPT, "4.4", "interpolation of kind 4", "interpolation",
         lambda: _preprocessing(interpolation=4)),
        ("order_bound", CORRUPT, "4.4", "channels in order 2", "order",
         lambda: _preprocessing(bgr=2)),
        ("resized_height_zero", CORRUPT, "4.4", "resized to a height of 0", "height",
         lambda: _preprocessing(size=(0, 1))),
        ("resized_width_bound", CORRUPT, "4.4", "resized to a width of 65537", "width",
         lambda: _preprocessing(size=(1, SIDE + 1))),
        ("short_side_bound", CORRUPT, "4.4", "a short side of 65537", "short side",
         lambda: _preprocessing(short_side=SIDE + 1)),
        ("crop_bound", CORRUPT, "4.4", "a crop of 65537", "crop",
         lambda: _preprocessing(crop=SIDE + 1)),
        ("pad_multiple_bound", CORRUPT, "4.4", "padding to multiples of 65537", "pad multiple",
         lambda: _preprocessing(pad_multiple=SIDE + 1)),
        ("scale_red_zero", CORRUPT, "4.4", "a scale of 0 for red", "scale",
         lambda: _preprocessing(scale_thousandths=(0, 1, 1))),
        ("scale_green_bound", CORRUPT, "4.4", "a scale of 2^32 + 1 for green", "scale",
         lambda: _preprocessing(scale_thousandths=(1, (1 << 32) + 1, 1))),
        ("scale_blue_zero", CORRUPT, "4.4", "a scale of 0 for blue", "scale",
         lambda: _preprocessing(scale_thousandths=(1, 1, 0))),
        ("tensors_bound", LIMIT, "8", "257 tensors", "tensors",
         lambda: _shapes(*[(1, 1, 1)] * 257)),
        ("tensor_count_limit", LIMIT, "4.2", "announces 65536 tensors", "tensors",
         lambda: _count(SIDE)),
        ("tensor_count_bound", CORRUPT, "4.2", "announces 65537 tensors", "number of tensors",
         lambda: _count(SIDE + 1)),
        ("name_empty", CORRUPT, "4.3", "a tensor without a name", "tensor name",
         lambda: _tensor(name="")),
        ("name_hidden", CORRUPT, "4.3", "the tensor name .x", "tensor name",
         lambda: _tensor(name=".x")),
        ("name_line", CORRUPT, "4.3", "a tensor name that ends in a line feed", "tensor name",
         lambda: _tensor(name="x\n")),
        ("name_letter", CORRUPT, "4.3", "a letter beyond ASCII in a tensor name", "tensor name",
         lambda: _tensor(name="\u00e9")),
        ("channels_bound", LIMIT, "8", "2049 channels", "channels",
         lambda: _shapes((2049, 1, 1))),
        ("channels_zero", CORRUPT, "4.3", "a tensor without channels", "channels",
         lambda: _tensor(channels=0)),
        ("elements_bound", LIMIT, "8", "a tensor of 2^24 + 1 elements", "elements",
         lambda: _shapes((97, 257, 673))),
        ("elements_sum_bound", LIMIT, "4.2", "two tensors of 2^24 + 1 elements", "elements",
         lambda: _shapes((256, 256, 256), (1, 1, 1))),
        ("tensor_height_bound", CORRUPT, "4.3", "a tensor of 65537 rows", "height",
         lambda: _shapes((1, SIDE + 1, 1))),
        ("tensor_width_bound", CORRUPT, "4.3", "a tensor of 65537 columns", "width",
         lambda: _shapes((1, 1, SIDE + 1))),
        ("tensor_height_zero", CORRUPT, "4.3", "a tensor without rows", "height",
         lambda: _tensor(height=0)),
        ("tensor_width_zero", CORRUPT, "4.3", "a tensor without columns", "width",
         lambda: _tensor(width=0)),
        ("stride_y_bound", CORRUPT, "4.3", "a vertical stride of 65537", "stride",
         lambda: _tensor(stride_y=SIDE + 1)),
        ("stride_x_bound", CORRUPT, "4.3", "a horizontal stride of 65537", "stride",
         lambda: _tensor(stride_x=SIDE + 1)),
        ("stride_y_zero", CORRUPT, "4.3", "a vertical stride of 0", "stride",
         lambda: _tensor(stride_y=0)),
        ("stride_x_zero", CORRUPT, "4.3", "a horizontal stride of 0", "stride",
         lambda: _tensor(stride_x=0)),
        ("offset_y_bound", CORRUPT, "4.3", "a vertical offset of 65537", "offset",
         lambda: _tensor(offset_y2=SIDE + 1)),
        ("offset_y_least", CORRUPT, "4.3", "a vertical offset of -65537", "offset",
         lambda: _tensor(offset_y2=-SIDE - 1)),
        ("offset_x_bound", CORRUPT, "4.3", "a horizontal offset of 65537", "offset",
         lambda: _tensor(offset_x2=SIDE + 1)),
        ("offset_x_least", CORRUPT, "4.3", "a horizontal offset of -65537", "offset",
         lambda: _tensor(offset_x2=-SIDE - 1)),
        ("profile_bytes_bound", LIMIT, "8", "a profile of 2^26 + 1 bytes", "profile bytes",
         lambda: _packed((1 << 26) + 1, packed)),
        ("profile_one_more", CORRUPT, "4.2", "a profile a byte longer than announced", "announced",
         lambda: _packed(size - 1, packed)),
        ("profile_one_less", CORRUPT, "4.2", "a profile a byte shorter than announced", "announced",
         lambda: _packed(size + 1, packed)),
        ("profile_behind", CORRUPT, "4.2", "a byte behind the packed profile", "announced",
         lambda: _packed(size, packed + b"\0")),
        ("profile_unsealed", CORRUPT, "4.2", "a packed profile without its last byte", "announced",
         lambda: _packed(size, packed[:-1])),
        ("profile_more_tensors", CORRUPT, "5.1", "a profile of two tensors for one", "channels",
         lambda: _profile(copies=2)),
        ("profile_fewer_tensors", CORRUPT, "5.1", "a profile of one tensor for two", "channels",
         lambda: _header(tensors=(TensorSpec("a", 1, 1, 1, 1, 1), TensorSpec("b", 1, 1, 1, 1, 1)))),
        ("profile_fraction_bound", CORRUPT, "5.1", "23 fraction bits, no frame", "fraction bits",
         lambda: _profile(fraction_bits=23)),
        ("profile_block_bound", CORRUPT, "5.1", "a block size of 17", "block size",
         lambda: _profile(block_size=17, band_of=np.zeros(289, np.uint8), ranks=np.full(289, 1),
             frequency_scale=np.zeros((2, 289), np.int8))),
        ("profile_block_zero", CORRUPT, "5.1", "a block size of 0, and no frequency", "block size",
         lambda: _profile(block_size=0, band_of=np.zeros(0, np.uint8), ranks=np.full(0, 1),
             frequency_scale=np.zeros((2, 0), np.int8))),
        ("profile_mean_bound", CORRUPT, "5.1", "a mean of 2^23", "mean",
         lambda: _profile(mean=np.array([1 << 23]))),
        ("profile_mean_least", CORRUPT, "5.1", "a mean of -2^23", "mean",
         lambda: _profile(mean=np.array([-1 << 23]))),
        ("profile_mean_huge", CORRUPT, "5.1", "a mean of 2^32, which is 0 in 32 bits", "mean",
         lambda: _profile(mean=np.array([1 << 32]))),
        ("profile_bands_none", CORRUPT, "5.1", "no bands", "bands",
         lambda: _profile(bands=())),
        ("profile_bands_bound", CORRUPT, "5.1", "257 bands", "bands",
         lambda: _profile(bands=(one_band,) * 257)),
        ("profile_band_missing", CORRUPT, "5.1", "a frequency of band 1 of one", "band",
         lambda: _profile(band_of=np.array([1], np.uint8))),
        ("profile_matrix_type", CORRUPT, "5.1", "a matrix of type 2", "kind of band",
         lambda: _serialised(still[:-6] + b"\x02" + still[-5:])),
        ("profile_shift_bound", CORRUPT, "5.1", "a shift of 41", "shift",
         lambda: _profile(bands=(_band([0], 41),))),
        ("profile_shift_unused", CORRUPT, "5.1", "a shift of 41 in a band without frequency",
         "shift", lambda: _profile(bands=(_band([0]), _band([0], 41)))),
        ("profile_columns_bound", CORRUPT, "5.1", "two columns for one channel", "rank over",
         lambda: _profile(bands=(_band([[0, 0]]),))),
        ("profile_columns_none", CORRUPT, "5.1", "a matrix without columns", "rank over",
         lambda: _profile(bands=(_band([0]), _band([[]])))),
        ("profile_blocks_bound", LIMIT, "8", "2^24 elements, and 256 more in whole blocks",
         "elements", lambda: no_frames(header_of([TensorSpec("x", 1, 4096, 4080, 1, 1),
             TensorSpec("y", 1, 4096, 17, 1, 1)], [plain_profile(1, 16)] * 2).to_bytes())),
    ]
    # fmt: on


# --- beyond the bounds: packets, with frames that come out right ---


class Payload:
    """A range encoder that refuses nothing: FORMAT.md 7.1 and 7.2 on unbounded integers."""

    def __init__(self) -> None:
        self._low, self._width, self._bytes = 0, (1 << 64) - 1, 8

    def symbol(self, weights: Sequence[int], symbol: int) -> Payload:
        """Append a symbol under a table."""
        scale = self._width >> PROBABILITY_BITS
        self._low += scale * (sum(weights[:symbol]) + symbol)
        self._width = scale * (weights[symbol] + 1)
        if self._width < 1 << 32:
            self._low, self._width, self._bytes = (
                self._low << 32,
                self._width << 32,
                self._bytes + 4,
            )
        return self

    def bits(self, *values: int) -> Payload:
        """Append bits of probability 1/2."""
        half = (1 << (PROBABILITY_BITS - 1)) - 1
        for value in values:
            self.symbol((half, half), value)
        return self

    def flags(self, *values: int) -> Payload:
        """Append flags, each in its first state."""
        for value in values:
            self.symbol(binary_weights(32), value)
        return self

    def value(self, value: int, mean: int) -> Payload:
        """Append a value under the class of a mean."""
        direct = abs(value) <= MAX_DIRECT_LEVEL
        weights = tables().levels[int(classify(np.array(mean)))].tolist()
        self.symbol(weights, value + MAX_DIRECT_LEVEL if direct else ESCAPE)
        if not direct:
            excess = abs(value) - MAX_DIRECT_LEVEL
            length = excess.bit_length() - 1
            low_bits = [excess >> place & 1 for place in reversed(range(length))]
            self.bits(value < 0, *[1] * length, 0, *low_bits)
        return self

    def level(self, value: int, qp: int = 24) -> Payload:
        """Append the level of a key frame of the still stream."""
        scale = profile_of(still_header()).tensors[0].scan.scale[0]
        return self.value(value, int(expected_level(scale, qp)[0]))

    def vector(self, y: int, x: int) -> Payload:
        """Append the differences of a field of one vector."""
        start = 1 << 15
        return self.value(y, start).value(x, start)

    def finish(self) -> bytes:
        """Return the shortest payload."""
        for size in range(self._bytes + 1):
            unit = 1 << 8 * (self._bytes - size)
            number = -(-self._low // unit) * unit
            if number < self._low + self._width:
                return number.to_bytes(self._bytes, "big")[:size].rstrip(b"\0")
        raise AssertionError("the interval of a range coder is never empty")


def _latents() -> bytes:
    (mean,) = profile_of(still_header()).tensors[0].mean.tolist()
    return struct.pack("<i", mean)


def _key(payload: Payload, qp: int = 24, pts: int = 0, flags: int = 0) -> bytes:
    fields = ByteWriter()
    fields.u8(qp)
    fields.signed(pts)
    return packet_from(TYPE_KEY | flags, bytes(fields.content), payload.finish(), _latents())


def _inter(payload: Payload, flags: int = 0, fields: bytes = b"") -> bytes:
    return packet_from(TYPE_INTER | flags, fields, payload.finish(), _latents())


def _stream(*packets: bytes, **changes: object) -> bytes:
    header = replace(still_header(), **changes)  # type: ignore[arg-type]
    return assemble([header.to_bytes(), *packets])


def _level(value: int) -> bytes:
    return _stream(_key(Payload().level(value)))


def _field(precision: Sequence[int], y: int, x: int) -> bytes:
    """Return a stream with a field of one vector, in front of a skipped block."""
    payload = Payload().flags(*precision).vector(y, x).flags(1)
    return _stream(_key(Payload().level(0)), _inter(payload, FLAG_VECTORS))


def _later(pts: int, distance: int, **changes: object) -> bytes:
    """Return a stream with an inter frame that far from its expected pts."""
    fields = ByteWriter()
    fields.signed(distance)
    inter = _inter(Payload().flags(1), FLAG_PTS, bytes(fields.content))
    return _stream(_key(Payload().level(0), pts=pts), inter, **changes)


def _end_packet(running: int, *numbers: int) -> bytes:
    """Return an end packet whose body has these numbers, the first that of the frames."""
    body = ByteWriter()
    body.fixed(running, CRC_BYTES)
    for number in numbers:
        body.varint(number)
    out = ByteWriter()
    out.u8(TYPE_END)
    out.varint(len(body.content))
    out.raw(bytes(body.content))
    out.fixed(len(out.content) + TRAILER_BYTES + CRC_BYTES, TRAILER_BYTES)
    return seal(bytes(out.content) + bytes(CRC_BYTES))


def _end(*numbers: int, inter: int = 0) -> bytes:
    """Return a stream of a key frame and some inter frames with such an end packet."""
    packets = [_key(Payload().level(0)), *[_inter(Payload().flags(1))] * inter]
    pieces, running = chained([still_header().to_bytes(), *packets])
    return b"".join([*pieces, _end_packet(running, *numbers)])


def _packet_rows() -> list[Row]:
    inter: Callable[[], Payload] = lambda: Payload().flags(1)  # noqa: E731 - a skipped block
    # fmt: off
    return [  # one stream, one row
        ("level_bound", CORRUPT, "7.2", "a level of 32768", "level of magnitude",
         lambda: _level(MAX_LEVEL + 1)),
        ("level_least", CORRUPT, "7.2", "a level of -32768", "level of magnitude",
         lambda: _level(-MAX_LEVEL - 1)),
        ("level_longest", CORRUPT, "7.2", "the largest level that fourteen bits can say",
         "level of magnitude", lambda: _level(MAX_DIRECT_LEVEL + (1 << 15) - 1)),
        ("escape_bound", CORRUPT, "7.2", "an escape of fifteen bits", "escape",
         lambda: _level(MAX_DIRECT_LEVEL + (1 << 15))),
        ("vector_y_bound", CORRUPT, "7.3", "a vertical component of 8192", "motion vector",
         lambda: _field([0], MAX_VECTOR + 1, 0)),
        ("vector_y_least", CORRUPT, "7.3", "a vertical component of -8192", "motion vector",
         lambda: _field([0], -MAX_VECTOR - 1, 0)),
        ("vector_x_bound", CORRUPT, "7.3", "a horizontal component of 8192", "motion vector",
         lambda: _field([0], 0, MAX_VECTOR + 1)),
        ("vector_x_least", CORRUPT, "7.3", "a horizontal component of -8192", "motion vector",
         lambda: _field([0], 0, -MAX_VECTOR - 1)),
        ("vector_half_bound", CORRUPT, "7.3", "a component of 4096 half pixels", "motion vector",
         lambda: _field([1, 0], 4096, 0)),
        ("vector_whole_bound", CORRUPT, "7.3", "a component of 2048 pixels", "motion vector",
         lambda: _field([1, 1, 0], 0, 2048)),
        ("vector_double_bound", CORRUPT, "7.3", "a component of -1024 double pixels",
         "motion vector", lambda: _field([1, 1, 1], -1024, 0)),
        ("qp_bound", CORRUPT, "4.5", "a key frame of qp 52 that decodes", "qp 52",
         lambda: _stream(_key(Payload().level(0, 52), qp=52))),
        ("qp_largest", CORRUPT, "4.5", "a key frame of qp 255 that decodes", "qp 255",
         lambda: _stream(_key(Payload().level(0, 255), qp=255))),
        ("qp_inter_bound", CORRUPT, "4.5", "an inter frame of qp 52", "qp 52",
         lambda: _stream(_key(Payload().level(0)), _inter(inter(), FLAG_QP, b"\x34"))),
        ("pts_bound", CORRUPT, "4.5", "a pts of 2^62 + 1", "pts",
         lambda: _later(MAX_PTS - 1, 1)),
        ("pts_least", CORRUPT, "4.5", "a pts of -2^62 - 1", "pts",
         lambda: _later(-MAX_PTS, -2)),
        ("pts_wide", CORRUPT, "3", "a pts of 2^62 - 1 + 2^63 + 1, which 64 bits take for 2^62 - 1 "
         "less than nothing", "pts",
         lambda: _later(MAX_PTS - 1, 2, frame_duration=LARGEST_VARINT)),
        ("key_with_qp_flag", CORRUPT, "4.5", "bit 1 in the tag of a key frame", "no key frame",
         lambda: _stream(_key(Payload().level(0), flags=FLAG_QP))),
        ("key_with_pts_flag", CORRUPT, "4.5", "bit 2 in the tag of a key frame", "no key frame",
         lambda: _stream(_key(Payload().level(0), flags=FLAG_PTS))),
        ("offset_bound", CORRUPT, "7.5", "an offset of -13", "offset -13",
         lambda: _stream(_key(Payload().flags(1).value(-13, 1 << 15), flags=FLAG_OFFSETS))),
        ("packet_type_zero", CORRUPT, "4.5", "a packet of type 0", "tag 0x00",
         lambda: _stream(_key(Payload().level(0)), packet_from(0, b"", inter().finish(),
             _latents()))),
        ("packet_bytes_bound", LIMIT, "8", "announces a payload of 2^26 + 1 bytes", "packet bytes",
         lambda: still_header().to_bytes() + bytes([TYPE_KEY, 24, 0]) + b"\x81\x80\x80\x20"),
        ("check_key_high", CORRUPT, "6.6", "the highest bit of the check of a key frame", "drifted",
         lambda: _stream(packet_from(TYPE_KEY, bytes([24, 0]), Payload().level(0).finish(),
             _latents(), 1 << 31))),
        ("check_high", CORRUPT, "6.6", "the highest bit of the check of an inter frame", "drifted",
         lambda: _stream(_key(Payload().level(0)), packet_from(TYPE_INTER, b"",
             inter().finish(), _latents(), 1 << 15))),
        ("repeat_pts_bound", CORRUPT, "4.5", "a repeated frame at 2^62 + 1", "pts",
         lambda: _stream(_key(Payload().level(0), pts=MAX_PTS - 1), bytes([TYPE_REPEAT]),
             frame_duration=2)),
        ("crc_end_stored", CORRUPT, "4.6", "a bit of the CRC of the end packet flipped", "CRC-32",
         lambda: flipped(base().content(), 5, -1)),
        ("frame_count_less", CORRUPT, "4.6", "the end packet counts no frames of one", "announced",
         lambda: _end(0, 0)),
        ("end_left_over", CORRUPT, "4.6", "a byte too many in the end packet", "left over",
         lambda: _end(1, 0, 0)),
        ("end_short", CORRUPT, "4.6", "an index that ends within its entry", "needed",
         lambda: _end(1, 1, 0)),
        ("end_bytes_bound", LIMIT, "8", "announces an end packet of 2^26 + 1 bytes", "packet bytes",
         lambda: still_header().to_bytes() + bytes([TYPE_END]) + b"\x81\x80\x80\x20"),
        ("index_entries_bound", LIMIT, "8", "announces 2^22 + 1 entries", "index entries",
         lambda: _end(1, (1 << 22) + 1)),
        ("index_same_frame", CORRUPT, "4.6", "two offsets of one frame", "ascending",
         lambda: _end(2, 2, 0, 99, 0, 1, inter=1)),
        ("index_same_offset", CORRUPT, "4.6", "two frames at one offset", "ascending",
         lambda: _end(2, 2, 0, 99, 1, 0, inter=1)),
        ("index_offset_bound", CORRUPT, "4.6", "an offset of 2^62 + 1", "offset",
         lambda: _end(1, 1, 0, (1 << 62) + 1)),
    ]
    # fmt: on


INVALID.extend(
    Invalid(f"{name}_{REVISION}", error, note, clause, message, make)
    for rows in (_header_rows, _packet_rows)
    for name, error, clause, note, message, make in rows()
)
