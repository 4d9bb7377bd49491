"""The streams that must be refused: what is wrong with each, and the error that says so."""

from __future__ import annotations

import copy
import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codec.encoding.payloads import FrameWriter
from codec.encoding.symbol_writer import SymbolWriter
from codec.errors import CorruptBitstreamError
from codec.format.constants import (
    CRC_BYTES,
    FLAG_OFFSETS,
    FLAG_VECTORS,
    FORMAT_VERSION,
    MAGIC,
    MAX_LEVEL,
    MAX_OFFSET,
    MAX_VECTOR,
    TYPE_INTER,
    TYPE_KEY,
    TYPE_REPEAT,
)
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.primitives import ByteWriter
from codec.format.profile import Profile, profile_of
from codec.format.tables import DEFAULT_POINTS
from codec.normative.symbols import MODE_INTER, MODE_INTRA, FrameSymbols, TensorSymbols
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
    seal,
)

__all__ = ["INVALID", "Invalid", "flipped"]


@dataclass(frozen=True)
class Invalid:
    """A stream to refuse: the error, why, and words of its message that show that it is that."""

    name: str
    error: str
    note: str
    clause: str
    message: str
    make: Callable[[], bytes]


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


def _changed(part: int, position: int, value: int) -> bytes:
    """Return the base stream with one byte of the header or the end packet exclusive-ored."""
    pieces = parts(base().content())
    piece = bytearray(pieces[part])
    piece[position] ^= value
    pieces[part] = seal(bytes(piece))
    return b"".join(pieces)


def flipped(content: bytes, part: int, position: int) -> bytes:
    """Return a stream with a bit of one part flipped, and all else as it was."""
    pieces = parts(content)
    piece = bytearray(pieces[part])
    piece[position] ^= 1
    pieces[part] = bytes(piece)
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
    pieces = parts(base().content())[:-1]
    pieces[1 + number] = content
    return assemble(pieces)


def _end(frames: int, index: tuple[tuple[int, int], ...]) -> bytes:
    """Return the base stream with another end packet."""
    return assemble(parts(base().content())[:-1], frames, index)


def _two_keys() -> Composer:
    stream = base()
    stream.frame(key=True)
    return stream


def _unnoticed() -> bytes:
    """Return the base stream with bytes behind a payload under which its check still holds."""
    stream = base()
    last = stream.packets[-1]
    for tail in range(1 << 20):
        payload = last.payload + tail.to_bytes(3, "big")
        packet = replace(last, payload=payload).sealed(stream.packets[-2], stream.latents[-1])
        if packet.check == last.check:
            pieces = parts(stream.content())
            pieces[-2] = packet.to_bytes(stream.packets[-2])
            return b"".join(pieces)
    raise AssertionError("sixteen bits do not tell a million payloads apart")


def _references(count: int) -> bytes:
    """Return the base stream with a header that announces so many references."""
    plain, two = (header_body(replace(base().header, references=number)) for number in (1, 2))
    place = next(n for n in range(1, len(plain)) if plain[n] != two[n])
    return _other_body(lambda _: two[:place] + bytes([count]) + two[place + 1 :])


def _slots(last: bytes, *before: tuple[int, int] | None) -> bytes:
    """Return a stream of three slots that ends with a packet of these bytes, behind a key frame and
    frames in these slots; None: another key frame.
    """
    stream = Composer(replace(base().header, references=3), "slots")
    stream.frame(key=True)
    for slots in before:
        stream.frame(key=slots is None, slots=slots)
    return assemble([*parts(stream.content())[:-1], last])


def _inter_in(slots: int) -> bytes:
    return packet_from(TYPE_INTER, bytes([slots]), b"")


def _other_in_slot() -> bytes:
    """Return a stream without the second of three inter frames, from whose slot the third is
    predicted.
    """
    stream = Composer(replace(base().header, references=3), "slots")
    stream.frame(key=True)
    for slots in ((0, 1), (1, 1), (1, 2)):
        stream.frame(slots=slots)
    del stream.packets[2]
    return stream.content()


def _refused_payload(symbols: FrameSymbols) -> bytes:
    """Return the payload up to the symbol that the syntax refuses to go beyond."""
    header = base().header
    payloads, writer = FrameWriter(header, profile_of(header)), SymbolWriter()
    if not symbols.key:
        payloads.write(_symbols(key=True))
    try:
        payloads.put(symbols, lambda _: writer)
    except CorruptBitstreamError:
        return writer.finish()
    raise AssertionError("these symbols are legal")


def _symbols(*, key: bool, value: int = 0, vector: int = 0, offset: int = 0) -> FrameSymbols:
    """Return symbols of the base stream's shapes, all zero but one level, vectors or offsets."""
    mode = MODE_INTRA if key else MODE_INTER
    levels = np.zeros((32, 4), np.int32)
    levels[0, 0] = value
    classes, offsets = np.zeros((32, 4), np.uint8), np.full(4, offset)
    tensor = TensorSymbols(np.full(4, mode, np.uint8), levels, classes, offsets)
    field = None if key else np.full((*base().header.field_shape, 2), vector, np.int32)
    return FrameSymbols(key, 24, field, [tensor])


KEY_QP_PTS = bytes([24, 0])
"""Fields of a key frame's packet in front of its length."""
Row = tuple[str, str, str, str, str, Callable[[], bytes]]
"""Name, error, clause, note, message, maker."""


def _tensors(**changes: int) -> SequenceHeader:
    """Return the base stream's header with another tensor."""
    header = base().header
    # dataclasses.replace cannot say of which field a value is, hence the type
    return replace(header, tensors=(replace(header.tensors[0], **changes),))  # type: ignore[arg-type]


def _container_rows() -> list[Row]:
    """Streams that end too early, or are none."""
    # fmt: off
    return [  # one stream, one row
        ("empty", TRUNCATED, "4.1", "no bytes at all", "sequence header",
         lambda: b""),
        ("bad_magic", UNSUPPORTED, "4.2", "another first byte", "magic",
         lambda: _changed(0, 0, 32)),
        ("text_transfer", UNSUPPORTED, "4.2", "CR LF became LF on the way", "magic",
         lambda: base().content().replace(b"\r\n", b"\n")),
        ("bad_version", UNSUPPORTED, "4.2", "format version 7", "format version 7",
         lambda: _changed(0, len(MAGIC), FORMAT_VERSION ^ 7)),
        ("old_version", UNSUPPORTED, "4.2", "format version 1", "format version 1",
         lambda: _changed(0, len(MAGIC), FORMAT_VERSION ^ 1)),
        ("crc_header", CORRUPT, "4.2", "a bit of the header body flipped", "CRC-32",
         lambda: flipped(base().content(), 0, 20)),
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
    ]
    # fmt: on


def _header_rows() -> list[Row]:
    """Streams whose header is at fault."""
    header = base().header
    specs = header.tensors
    # fmt: off
    return [  # one stream, one row
        ("header_left_over", CORRUPT, "4.2", "a byte too many in the header", "left over",
         lambda: _other_body(lambda body: body + b"\x00")),
        ("header_short", CORRUPT, "4.2", "a header that ends within its fields", "needed",
         lambda: _other_body(lambda body: body[:14])),
        ("reserved_bit_header", CORRUPT, "4.2", "a reserved flag of the header", "reserved",
         lambda: _other_body(lambda body: bytes([body[0] | 16]) + body[1:])),
        ("references_one", CORRUPT, "4.2", "announces references, and then one", "references 1",
         lambda: _references(1)),
        ("references_over", CORRUPT, "4.2", "seventeen references", "references 17",
         lambda: _references(17)),
        ("oversize_kept", LIMIT, "4.2", "sixteen frames kept of 2^23 elements", "kept elements",
         lambda: _other_header(replace(header, references=16, tensors=(
             TensorSpec("a", 128, 256, 256, 1, 1),)))),
        ("oversize_kept_blocks", LIMIT, "5.1",
         "sixteen frames kept of a tensor of one row, of which blocks make more",
         "kept elements",
         lambda: _other_header(replace(header_of([TensorSpec("x", 64, 1, 4200, 1, 1)], [
             plain_profile(64, 16)]), references=16))),
        ("zero_height", CORRUPT, "4.2", "an input frame without rows", "input height",
         lambda: _other_header(replace(header, input_height=0))),
        ("grid_small", CORRUPT, "4.2", "a motion grid of 3", "motion grid",
         lambda: _other_header(replace(header, grid=3))),
        ("oversize_dims", LIMIT, "4.2", "an input frame of 65536 x 65536", "input pixels",
         lambda: _other_header(replace(header, input_height=1 << 16, input_width=1 << 16))),
        ("oversize_vectors", LIMIT, "4.2", "a motion field of 1024 x 512 vectors", "vectors",
         lambda: _other_header(replace(header, input_height=4096, input_width=2048, grid=4))),
        ("oversize_channels", LIMIT, "4.3", "2^40 channels", "channels",
         lambda: _other_header(_tensors(channels=1 << 40))),
        ("oversize_elements", LIMIT, "4.3", "a tensor of 2 x 65536 x 65536", "elements",
         lambda: _other_header(_tensors(height=1 << 16, width=1 << 16))),
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
    ]
    # fmt: on


def _profile_rows() -> list[Row]:
    """Streams whose profile is at fault."""
    header = base().header
    profile = header.profile
    assert profile is not None
    # fmt: off
    return [  # one stream, one row
        ("unknown_profile", UNSUPPORTED, "5.2", "names a profile that nobody ships", "not shipped",
         lambda: _other_header(replace(header, profile=None, profile_hash=b"\xde\xad" * 4))),
        ("profile_hash", CORRUPT, "5.2", "the embedded profile has another hash", "profile of hash",
         lambda: _other_header(replace(header, profile_hash=bytes(8)))),
        ("profile_channels", CORRUPT, "5.1",
         "the profile is for tensors of other channels", "channels",
         lambda: _other_header(_tensors(channels=3))),
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
    ]
    # fmt: on


def _packet_rows() -> list[Row]:
    """Streams one of whose packets is at fault."""
    # fmt: off
    return [  # one stream, one row
        ("packet_damaged", CORRUPT, "6.6", "a bit of a payload flipped", "packet|payload|drifted",
         lambda: flipped(base().content(), 2, 9)),
        ("packet_unnoticed", CORRUPT, "4.7", "three bytes more, which the check does not notice",
         "running CRC-32", _unnoticed),
        ("running_first", CORRUPT, "4.7", "the first key frame stands behind another header",
         "running CRC-32", lambda: flipped(base().content(), 1, -1)),
        ("running_key", CORRUPT, "4.7", "a bit of the running CRC of a key frame flipped",
         "running CRC-32", lambda: flipped(_two_keys().content(), 5, -1)),
        ("packet_type", CORRUPT, "4.5", "a packet of type 5", "tag 0x50",
         lambda: _replaced(1, packet_from(0x50, b"", b""))),
        ("repeat_flag", CORRUPT, "4.5", "a low bit in the tag of a repeated frame", "tag 0x41",
         lambda: _replaced(1, bytes([TYPE_REPEAT | 1]))),
        ("repeat_first", CORRUPT, "4.1", "begins with a repeated frame", "no frame is before",
         lambda: assemble([base().header.to_bytes(), bytes([TYPE_REPEAT])])),
        ("slot_empty", CORRUPT, "4.8", "predicted from a slot that nothing was kept in",
         "slot 2 is empty", lambda: _slots(_inter_in(0x20), (0, 1))),
        ("slot_emptied", CORRUPT, "4.8", "predicted from a slot that a key frame has emptied",
         "slot 1 is empty", lambda: _slots(_inter_in(0x12), (0, 1), None)),
        ("slot_emptied_repeat", CORRUPT, "4.8", "repeats what a key frame has emptied",
         "slot 1 is empty", lambda: _slots(bytes([TYPE_REPEAT, 0x12]), (0, 1), None)),
        ("slot_from_over", CORRUPT, "4.8", "predicted from slot 3 of three", "slot 3",
         lambda: _slots(_inter_in(0x31))),
        ("slot_kept_over", CORRUPT, "4.8", "kept in slot 15 of three", "slot 15",
         lambda: _slots(_inter_in(0x0F))),
        ("slot_repeat_over", CORRUPT, "4.8", "a repeated frame, kept in slot 3 of three", "slot 3",
         lambda: _slots(bytes([TYPE_REPEAT, 0x03]))),
        ("slot_other_frame", CORRUPT, "6.6", "a packet is missing whose frame another is predicted "
         "from, and the slot holds an older one", "drifted", _other_in_slot),
        ("key_with_vectors", CORRUPT, "4.5",
         "a key frame that announces a motion field", "no key frame",
         lambda: flipped(base().content(), 1, 0)),
        ("qp_out_of_range", CORRUPT, "4.5", "qp 52", "qp 52",
         lambda: _replaced(0, packet_from(TYPE_KEY, bytes([52, 0]), b""))),
        ("oversize_packet", LIMIT, "4.5", "announces a payload of 2^40 bytes", "packet bytes",
         lambda: parts(base().content())[0] + bytes([TYPE_KEY, 24, 0, *[0x80] * 5, 0x20])),
        ("inter_first", CORRUPT, "4.1", "begins with an inter frame", "no frame is before",
         lambda: _packets((1, 2, 3))),
        ("swapped_packets", CORRUPT, "6.6", "two inter frames in the wrong order", "drifted",
         lambda: _packets((0, 2, 1, 3))),
        ("dropped_packet", CORRUPT, "6.6",
         "an inter frame is missing, the count is right", "drifted",
         lambda: _packets((0, 2, 3))),
        ("repeated_packet", CORRUPT, "6.6",
         "an inter frame comes twice, the count is right", "drifted",
         lambda: _packets((0, 1, 1, 2, 3))),
        ("wrong_check", CORRUPT, "6.6", "a right payload, another check", "drifted",
         lambda: flipped(base().content(), 3, -2)),
        ("symbol_garbage", CORRUPT, "6.6", "a payload of noise", "packet|payload|drifted",
         lambda: _replaced(0, packet_from(TYPE_KEY, KEY_QP_PTS, noise("garbage", 60).tobytes()))),
        ("payload_impossible", CORRUPT, "7.1",
         "a payload beyond the interval of the range coder", "payload",
         lambda: _replaced(0, packet_from(TYPE_KEY, KEY_QP_PTS, b"\xff" * 12))),
        ("escape_long", CORRUPT, "7.2", "an escape of over fourteen bits", "escape",
         lambda: _replaced(0, packet_from(TYPE_KEY, KEY_QP_PTS, _refused_payload(_symbols(
             key=True, value=1 << 16))))),
        ("level_out_of_range", CORRUPT, "7.2", "a level of magnitude 32768", "level of magnitude",
         lambda: _replaced(0, packet_from(TYPE_KEY, KEY_QP_PTS, _refused_payload(_symbols(
             key=True, value=MAX_LEVEL + 1))))),
        ("vector_out_of_range", CORRUPT, "7.3",
         "a motion vector of 8192 quarter pixels", "motion vector",
         lambda: _replaced(1, packet_from(TYPE_INTER | FLAG_VECTORS, b"", _refused_payload(_symbols(
             key=False, vector=MAX_VECTOR + 1))))),
        ("offset_out_of_range", CORRUPT, "7.5", "an offset of 13", "offset 13",
         lambda: _replaced(0, packet_from(TYPE_KEY | FLAG_OFFSETS, KEY_QP_PTS, _refused_payload(
             _symbols(key=True, offset=MAX_OFFSET + 1))))),
        ("offset_out_of_range_inter", CORRUPT, "7.5", "an offset of -13 in an inter frame",
         "offset -13",
         lambda: _replaced(1, packet_from(
             TYPE_INTER | FLAG_VECTORS | FLAG_OFFSETS, b"",
             _refused_payload(_symbols(key=False, vector=4, offset=-MAX_OFFSET - 1))))),
    ]
    # fmt: on


def _end_rows() -> list[Row]:
    """Streams whose end is at fault."""
    # fmt: off
    return [  # one stream, one row
        ("frame_count", CORRUPT, "4.6", "the end packet counts five frames of four", "announced",
         lambda: _end(5, ())),
        ("crc_end", CORRUPT, "4.6", "a bit of the end packet flipped", "CRC-32",
         lambda: flipped(base().content(), 5, 7)),
        ("end_size", CORRUPT, "4.6", "the trailer gives another size of the end packet", "trailer",
         lambda: _changed(5, -8, 1)),
        ("end_tag", CORRUPT, "4.6", "a low bit in the tag of the end packet", "tag 0x31",
         lambda: _changed(5, 0, 1)),
        ("running_end", CORRUPT, "4.7", "a bit of the running CRC of the end packet flipped",
         "running CRC-32", lambda: _changed(5, 2, 1)),
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


INVALID = [
    Invalid(f"{name}_{REVISION}", error, note, clause, message, make)
    for rows in (_container_rows, _header_rows, _profile_rows, _packet_rows, _end_rows)
    for name, error, clause, note, message, make in rows()
]
