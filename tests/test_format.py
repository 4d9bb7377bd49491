"""Headers and packets: round trips, damage of every byte, limits."""

from __future__ import annotations

import dataclasses
import tracemalloc
import zlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import end_packets, headers, packet_sequences

from codec.errors import (
    BitstreamError,
    CorruptBitstreamError,
    LimitExceededError,
    TruncatedBitstreamError,
    UnsupportedBitstreamError,
)
from codec.format.constants import FORMAT_VERSION, MAGIC, MAX_PTS, MAX_QP
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import EndPacket, FramePacket
from codec.format.primitives import ByteReader, ByteWriter, crc32
from codec.format.slots import Slots
from codec.limits import Limits

SPEC = TensorSpec("features", 2, 3, 4, 8, 8, 7, 7)
HEADER = SequenceHeader((SPEC,), 224, 224, b"12345678", profile=b"profile" * 5)
HEADER_PREFIX = len(MAGIC) + 1


def behind(packet: FramePacket | None) -> Slots[FramePacket]:
    """What is kept behind a packet of a stream that keeps one frame."""
    kept = Slots[FramePacket]()
    kept.keep(packet, None, key=False)
    return kept


def read_all(content: bytes, count: int, frame_duration: int = 1) -> list[FramePacket]:
    source, packets = ByteReader(content), []
    for _ in range(count):
        kept = behind(packets[-1] if packets else None)
        packets.append(FramePacket.read(source, kept, frame_duration))
    source.end("packets")
    return packets


def write_all(packets: list[FramePacket]) -> bytes:
    previous, content = None, b""
    for packet in packets:
        content += packet.to_bytes(previous)
        previous = packet
    return content


def sealed(body: bytes) -> bytes:
    """A header with any body and a CRC that holds."""
    out = ByteWriter()
    out.raw(MAGIC)
    out.u8(FORMAT_VERSION)
    out.varint(len(body))
    out.raw(body)
    out.fixed(crc32(bytes(out.content)), 4)
    return bytes(out.content)


def body_of(header: SequenceHeader) -> bytes:
    source = ByteReader(header.to_bytes(), HEADER_PREFIX)
    return source.raw(source.varint())


# --- primitives -----------------------------------------------------------------------------------


@given(st.integers(0, 2**63 - 1))
def test_varint_round_trip_and_size(value):
    out = ByteWriter()
    out.varint(value)
    assert len(out.content) == max(1, -(-value.bit_length() // 7))
    source = ByteReader(bytes(out.content))
    assert source.varint() == value
    source.end("varint")


@pytest.mark.parametrize("value", [-1, 1 << 63])
def test_varint_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="outside"):
        ByteWriter().varint(value)


@given(st.integers(-(2**62), 2**62 - 1))
def test_signed_round_trip(value):
    out = ByteWriter()
    out.signed(value)
    assert ByteReader(bytes(out.content)).signed() == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("8000", "varint at offset 0 is longer than needed"),
        ("ff00", "longer than needed"),
        ("808000", "longer than needed"),
        ("ff" * 9, "varint at offset 0 exceeds 63 bits"),
        ("80" * 9 + "01", "exceeds 63 bits"),
    ],
)
def test_varints_have_one_form(content, message):
    with pytest.raises(CorruptBitstreamError, match=message):
        ByteReader(bytes.fromhex(content)).varint()


@given(st.binary(max_size=12))
def test_varint_is_canonical(content):
    source = ByteReader(content)
    try:
        value = source.varint()
    except BitstreamError:
        return
    out = ByteWriter()
    out.varint(value)
    assert bytes(out.content) == content[: source.position]


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_text_round_trip_or_refusal(value):
    out = ByteWriter()
    if len(value.encode()) > 255:
        with pytest.raises(ValueError, match="at most 255"):
            out.text(value)
        return
    out.text(value)
    assert ByteReader(bytes(out.content)).text() == value


def test_the_longest_text():
    out = ByteWriter()
    out.text("x" * 255)
    assert ByteReader(bytes(out.content)).text() == "x" * 255
    with pytest.raises(ValueError, match="name of 256 bytes: at most 255 fit"):
        out.text("x" * 256)


def test_text_that_is_not_utf8_is_corrupt():
    with pytest.raises(CorruptBitstreamError, match="name at offset 1 is not UTF-8"):
        ByteReader(b"\x02\xff\xff").text()


def test_leftovers_are_corrupt():
    with pytest.raises(CorruptBitstreamError, match="1 bytes left over"):
        ByteReader(b"\x00").end("thing")


# --- the sequence header --------------------------------------------------------------------------


@given(headers(), st.binary(max_size=5))
def test_header_round_trip(header, rest):
    content = header.to_bytes()
    parsed, size = SequenceHeader.from_bytes(content + rest)
    assert parsed == header
    assert size == len(content)
    assert parsed.to_bytes() == content


def test_header_prefixes_are_truncated():
    content = HEADER.to_bytes()
    for size in range(len(content)):
        with pytest.raises(TruncatedBitstreamError):
            SequenceHeader.from_bytes(content[:size])


@settings(max_examples=15)
@given(headers(), st.integers(1, 255))
def test_header_byte_changes_are_errors(header, change):
    content = header.to_bytes()
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= change
        with pytest.raises(BitstreamError):
            SequenceHeader.from_bytes(bytes(damaged))


def test_magic_and_version_are_unsupported():
    content = HEADER.to_bytes()
    for index in range(HEADER_PREFIX):
        damaged = bytearray(content)
        damaged[index] ^= 0x20
        with pytest.raises(UnsupportedBitstreamError):
            SequenceHeader.from_bytes(bytes(damaged))


@given(st.binary(max_size=60))
def test_header_of_any_body_is_parsed_or_refused(body):
    try:
        header, size = SequenceHeader.from_bytes(sealed(body))
    except BitstreamError:
        return
    assert size == len(sealed(body))
    assert header.tensors


@given(headers(), st.data())
def test_header_damage_behind_a_valid_crc_is_parsed_or_refused(header, data):
    body = bytearray(body_of(header))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed, _ = SequenceHeader.from_bytes(sealed(bytes(body)))
    except BitstreamError:
        return
    # what is accepted can be written again
    assert SequenceHeader.from_bytes(parsed.to_bytes())[0] == parsed


def test_body_that_ends_early_behind_a_valid_crc_is_corrupt():
    body = body_of(HEADER)
    for size in range(len(body)):
        with pytest.raises(CorruptBitstreamError, match="sequence header: needed"):
            SequenceHeader.from_bytes(sealed(body[:size]))
    with pytest.raises(CorruptBitstreamError, match="sequence header: 1 bytes left over"):
        SequenceHeader.from_bytes(sealed(body + b"\0"))


def test_names_that_no_file_can_have_are_corrupt():
    body = body_of(HEADER)
    for name in (b"../eatur", b"feat/res", b"feat\nres", b"feat\xc3\xa9r"):
        with pytest.raises(CorruptBitstreamError, match="name"):
            SequenceHeader.from_bytes(sealed(body.replace(b"features", name)))


def test_a_time_base_has_one_form():
    header = dataclasses.replace(HEADER, time_base=Fraction(3, 25))
    body = body_of(header)
    at = body.index(bytes([3, 25]))
    damaged = body[:at] + bytes([5, 25]) + body[at + 2 :]
    with pytest.raises(CorruptBitstreamError, match="lowest terms"):
        SequenceHeader.from_bytes(sealed(damaged))


def test_reserved_header_flags_are_corrupt():
    body = body_of(HEADER)
    for bit in range(4, 8):
        with pytest.raises(CorruptBitstreamError, match="reserved"):
            SequenceHeader.from_bytes(sealed(bytes([body[0] | 1 << bit]) + body[1:]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_height": 0}, "input height 0 is outside 1 … 65536"),
        ({"input_width": (1 << 16) + 1}, "input width 65537 is outside 1 … 65536"),
        ({"grid": 3}, "motion grid 3 is outside 4 … 1024"),
        ({"grid": 1025}, "motion grid 1025"),
        ({"tensors": ()}, "number of tensors 0"),
        ({"tensors": (SPEC, SPEC)}, "two tensors have one name"),
        ({"tensors": (dataclasses.replace(SPEC, height=(1 << 16) + 1),)}, "height 65537"),
        ({"tensors": (dataclasses.replace(SPEC, stride_x=(1 << 16) + 1),)}, "stride 65537"),
        ({"model": "two\nlines"}, "a name has control characters"),
    ],
)
def test_header_values_out_of_range_are_corrupt(changes, message):
    with pytest.raises(CorruptBitstreamError, match=message):
        SequenceHeader.from_bytes(dataclasses.replace(HEADER, **changes).to_bytes())


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "pts"},
        {"name": "../up"},
        {"name": ".hidden"},
        {"name": "two\nlines"},
        {"name": "a/b"},
        {"channels": 0},
        {"height": 0},
        {"stride_x": 0},
        {"offset_y2": (1 << 16) + 1},
        {"offset_x2": -(1 << 16) - 1},
    ],
)
def test_tensors_that_cannot_be_are_refused(changes):
    with pytest.raises(ValueError, match=r"must|tensor name"):
        dataclasses.replace(SPEC, **changes)


def test_what_a_header_says_unless_it_is_told():
    spec = TensorSpec("x", 1, 1, 1, 1, 1)
    assert (spec.offset_y2, spec.offset_x2) == (0, 0)
    header = SequenceHeader((spec,), 1, 1, bytes(8))
    assert (header.grid, header.time_base, header.frame_duration) == (32, Fraction(1, 25), 1)
    assert (header.model, header.split, header.weights) == ("", "", "")
    assert header.weights_hash == bytes(8)


def tensors_of_size(*shapes: tuple[int, int, int]) -> SequenceHeader:
    specs = tuple(TensorSpec(f"{n}", *shape, 8, 8) for n, shape in enumerate(shapes))
    return dataclasses.replace(HEADER, tensors=specs)


@pytest.mark.parametrize(
    ("header", "limits", "what"),
    [
        (HEADER, Limits(header_bytes=20), "header bytes"),
        (HEADER, Limits(profile_bytes=34), "profile bytes"),
        (HEADER, Limits(tensors=0), "tensors"),
        (HEADER, Limits(channels=1), "channels"),
        (HEADER, Limits(elements=23), "elements"),
        (HEADER, Limits(input_pixels=224 * 224 - 1), "input pixels"),
        (HEADER, Limits(vectors=48), "vectors"),
        (
            dataclasses.replace(HEADER, input_height=1 << 16, input_width=1 << 16),
            Limits(),
            "input pixels",
        ),
        (tensors_of_size((2049, 1, 1)), Limits(), "channels"),
        (tensors_of_size((2, 1 << 13, 1 << 13)), Limits(), "elements"),
        (tensors_of_size((1, 1 << 40, 1 << 20)), Limits(), "elements"),
        (tensors_of_size(*[(1, 1 << 13, 1 << 10)] * 3), Limits(), "elements"),
        (tensors_of_size(*[(1, 1, 1)] * 257), Limits(), "tensors"),
    ],
)
def test_limits_of_headers(header, limits, what):
    with pytest.raises(LimitExceededError, match=f"^{what}: .* in the stream, limit"):
        SequenceHeader.from_bytes(header.to_bytes(), limits)


def test_channels_are_bounded_whatever_the_limits():
    limits = Limits(channels=1 << 20)
    content = tensors_of_size((1 << 13, 1, 1)).to_bytes()
    assert SequenceHeader.from_bytes(content, limits)[0].tensors[0].channels == 1 << 13
    with pytest.raises(CorruptBitstreamError, match="channels 8193 is outside 1 … 8192"):
        SequenceHeader.from_bytes(tensors_of_size(((1 << 13) + 1, 1, 1)).to_bytes(), limits)


def test_what_is_at_the_limits_is_accepted():
    limits = Limits(
        profile_bytes=35,
        tensors=1,
        channels=2,
        elements=24,
        input_pixels=224 * 224,
        vectors=49,
    )
    assert SequenceHeader.from_bytes(HEADER.to_bytes(), limits)[0] == HEADER


def memory_of(action) -> int:
    tracemalloc.start()
    try:
        action()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def embed(announced: int, packed: bytes) -> bytes:
    """A sealed header whose embedded profile says one size and inflates to whatever it does."""
    out = ByteWriter()
    bare = body_of(dataclasses.replace(HEADER, profile=None))
    out.raw(bytes([bare[0] | 1]) + bare[1:])
    out.varint(announced)
    out.varint(len(packed))
    out.raw(packed)
    return sealed(bytes(out.content))


def test_a_profile_that_inflates_to_more_than_it_says_is_not_inflated():
    content = embed(100, zlib.compress(bytes(1 << 25), 9))

    def parse() -> None:
        with pytest.raises(CorruptBitstreamError, match="announced"):
            SequenceHeader.from_bytes(content)

    assert memory_of(parse) < 1 << 20


@pytest.mark.parametrize("announced", [(1 << 26) + 1, 1 << 60])
def test_a_profile_that_announces_too_much_is_not_inflated(announced):
    content = embed(announced, zlib.compress(bytes(1 << 25), 9))

    def parse() -> None:
        with pytest.raises(LimitExceededError, match="profile bytes"):
            SequenceHeader.from_bytes(content)

    assert memory_of(parse) < 1 << 20


@pytest.mark.parametrize(
    ("announced", "packed"),
    [
        (101, zlib.compress(bytes(100))),
        (99, zlib.compress(bytes(100))),
        (100, zlib.compress(bytes(100)) + b"\0"),
        (100, zlib.compress(bytes(100))[:-1]),
        (100, b"not zlib at all"),
        (100, b""),
    ],
)
def test_embedded_profiles_that_contradict_their_size_are_corrupt(announced, packed):
    with pytest.raises(CorruptBitstreamError, match="embedded profile: "):
        SequenceHeader.from_bytes(embed(announced, packed))


def test_field_shape_counts_started_cells():
    header = dataclasses.replace(HEADER, input_height=65, input_width=64, grid=32)
    assert header.field_shape == (3, 2)


# --- frame packets --------------------------------------------------------------------------------


@given(packet_sequences(frame_duration=3))
def test_packets_round_trip(packets):
    assert read_all(write_all(packets), len(packets), frame_duration=3) == packets


@settings(max_examples=15)
@given(packet_sequences())
def test_packet_prefixes_are_truncated(packets):
    last = packets[-1].to_bytes(packets[-2] if len(packets) > 1 else None)
    for size in range(len(last)):
        with pytest.raises(TruncatedBitstreamError):
            FramePacket.read(ByteReader(last[:size]), behind(packets[-1]), 1)


@settings(max_examples=15)
@given(packet_sequences(), st.integers(1, 255))
def test_packet_byte_changes_are_told_by_the_check(packets, change):
    before = packets[-2] if len(packets) > 1 else None
    packet = packets[-1]
    content = packet.to_bytes(before)
    latents = [memoryview(b"latents")]
    right = packet.sealed(before, latents)
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= change
        try:
            found = FramePacket.read(ByteReader(bytes(damaged)), behind(before), 1)
        except BitstreamError:
            continue
        if index < len(content) - (8 if packet.key else 2) * (not packet.repeat):
            assert found.crc != packet.crc
            assert (found.key, found.check_of(latents)) != (right.key, right.check)
        elif not packet.key or index < len(content) - 4:
            assert found.check != packet.check


def test_a_running_crc_is_compared_where_one_is_known():
    key = FramePacket(True, 0, 20, False, b"abc", 1)
    content = key.to_bytes(None, 0x12345678)
    assert FramePacket.read(ByteReader(content), behind(None), 1) == replace_crc(key)
    assert FramePacket.read(
        ByteReader(content), behind(None), 1, running=0x12345678
    ) == replace_crc(key)
    with pytest.raises(CorruptBitstreamError, match="0x12345678, computed 0x12345679"):
        FramePacket.read(ByteReader(content), behind(None), 1, running=0x12345679)


def replace_crc(packet: FramePacket) -> FramePacket:
    """With the CRC of its own bytes, and the check that it has."""
    return dataclasses.replace(packet.sealed(None, []), check=packet.check)


@given(st.binary(max_size=40))
def test_packets_of_any_bytes_are_parsed_or_refused(content):
    previous = FramePacket(True, 0, 20, False, b"", 1)
    try:
        packet = FramePacket.read(ByteReader(content), behind(previous), 1)
    except BitstreamError:
        return
    assert 0 <= packet.qp <= MAX_QP


@given(
    st.binary(max_size=16383),
    st.integers(1, 1 << 20),
    st.integers(0, 1 << 50),
    st.booleans(),
)
@settings(max_examples=20)
def test_inter_packets_cost_at_most_five_bytes(payload, duration, pts, has_vectors):
    before = FramePacket(False, pts, 30, True, b"x", duration)
    packet = FramePacket(False, pts + duration, 30, has_vectors, payload, duration)
    assert len(packet.to_bytes(before)) - len(payload) <= 4 + (len(payload) > 127)


def test_inter_packets_of_the_largest_usual_payload_cost_five_bytes():
    before = FramePacket(True, 0, 30, False, b"x", 1)
    packet = FramePacket(False, 1, 30, True, bytes(16383), 1)
    assert len(packet.to_bytes(before)) - 16383 == 5


def test_a_repeated_frame_is_one_byte():
    before = FramePacket(False, 5, 30, True, b"x", 3, has_offsets=True)
    packet = FramePacket(False, 8, 30, False, b"", 3, repeat=True).sealed(before, [])
    assert packet.to_bytes(before) == b"\x40"
    assert FramePacket.read(ByteReader(b"\x40"), behind(before), 1) == packet
    with pytest.raises(CorruptBitstreamError, match="no frame is before it"):
        FramePacket.read(ByteReader(b"\x40"), behind(None), 1)
    with pytest.raises(CorruptBitstreamError, match="tag 0x41"):
        FramePacket.read(ByteReader(b"\x41\0\0\0"), behind(before), 1)


def test_a_key_packet_needs_no_predecessor_and_an_inter_packet_does():
    key = FramePacket(True, 5, 20, False, b"abc", 1)
    inter = FramePacket(False, 6, 20, False, b"abc", 1)
    assert read_all(key.to_bytes(None), 1) == [replace_crc(key)]
    assert key.to_bytes(None) == key.to_bytes(inter)
    with pytest.raises(ValueError, match="key frame"):
        inter.to_bytes(None)
    with pytest.raises(CorruptBitstreamError, match="no frame is before it"):
        FramePacket.read(ByteReader(inter.to_bytes(key)), behind(None), 1)


def test_bits_that_key_frames_have_not_are_corrupt():
    key = FramePacket(True, 0, 20, False, b"", 1)
    content = key.to_bytes(None)
    for bit in (1, 2, 4):
        damaged = bytes([content[0] | bit]) + content[1:]
        with pytest.raises(CorruptBitstreamError, match="bits are set that no key frame has"):
            FramePacket.read(ByteReader(damaged), behind(None), 1)


def test_a_qp_out_of_range_is_corrupt():
    packet = FramePacket(True, 0, MAX_QP + 1, False, b"", 1)
    with pytest.raises(CorruptBitstreamError, match="qp"):
        FramePacket.read(ByteReader(packet.to_bytes(None)), behind(None), 1)


def test_a_pts_out_of_range_is_corrupt():
    for pts in (MAX_PTS - 1, -MAX_PTS):
        key = FramePacket(True, pts, 20, False, b"", 5)
        inter = FramePacket(False, pts + 10 * (pts > 0) - 10 * (pts < 0), 20, False, b"", 1)
        assert FramePacket.read(ByteReader(key.to_bytes(None)), behind(None), 5) == replace_crc(key)
        with pytest.raises(CorruptBitstreamError, match="pts"):
            FramePacket.read(ByteReader(inter.to_bytes(key)), behind(key), 1)


def test_packet_limit_comes_before_the_payload():
    packet = FramePacket(True, 0, 20, False, bytes(100), 1).to_bytes(None)
    with pytest.raises(LimitExceededError, match="packet bytes"):
        FramePacket.read(ByteReader(packet), behind(None), 1, Limits(packet_bytes=99))
    out = ByteWriter()
    out.raw(packet[:3])
    out.varint(1 << 60)
    with pytest.raises(LimitExceededError, match="packet bytes"):
        FramePacket.read(ByteReader(bytes(out.content)), behind(None), 1)


# --- the end packet -------------------------------------------------------------------------------


@given(end_packets())
def test_end_packets_round_trip_and_are_found_from_the_end(packet):
    content = packet.to_bytes()
    source = ByteReader(content)
    assert EndPacket.read(source) == packet
    source.end("end packet")
    assert int.from_bytes(content[-8:-4], "little") == len(content)


@settings(max_examples=15)
@given(end_packets(), st.integers(1, 255))
def test_end_packet_damage_is_an_error(packet, change):
    content = packet.to_bytes()
    for index in range(len(content)):
        with pytest.raises(TruncatedBitstreamError):
            EndPacket.read(ByteReader(content[:index]))
        damaged = bytearray(content)
        damaged[index] ^= change
        with pytest.raises(BitstreamError):
            EndPacket.read(ByteReader(bytes(damaged)))


@given(st.binary(max_size=30))
def test_end_packets_of_any_body_are_parsed_or_refused(body):
    out = ByteWriter()
    out.u8(0x30)
    out.varint(len(body))
    out.raw(body)
    out.fixed(len(out.content) + 8, 4)
    out.fixed(crc32(bytes(out.content)), 4)
    try:
        packet = EndPacket.read(ByteReader(bytes(out.content)))
    except BitstreamError:
        return
    assert packet.to_bytes() == bytes(out.content)


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        (EndPacket(3, ((3, 10),)), "key frame 3 of 3 frames"),
        (EndPacket(3, ((0, 10), (3, 20))), "key frame 3 of 3 frames"),
        (EndPacket(3, ((0, 10), (0, 20))), "not in ascending order"),
        (EndPacket(3, ((0, 10), (1, 10))), "not in ascending order"),
    ],
)
def test_indices_that_cannot_be_are_corrupt(packet, message):
    with pytest.raises(CorruptBitstreamError, match=message):
        EndPacket.read(ByteReader(packet.to_bytes()))


def test_the_largest_offset_of_an_index():
    packet = EndPacket(1, ((0, 1 << 62),))
    assert EndPacket.read(ByteReader(packet.to_bytes())) == packet
    with pytest.raises(CorruptBitstreamError, match="offset of a key frame 4611686018427387905"):
        EndPacket.read(ByteReader(EndPacket(1, ((0, (1 << 62) + 1),)).to_bytes()))


def test_end_packets_behind_something_and_of_other_tags():
    packet = EndPacket(1, ((0, 0),))
    content = packet.to_bytes()
    assert EndPacket.read(ByteReader(b"xy" + content, 2)) == packet
    for tag in (0x20, 0x31):
        body = bytes([tag]) + content[1:-4]
        with pytest.raises(CorruptBitstreamError, match=f"packet tag {tag:#04x} at offset 0"):
            EndPacket.read(ByteReader(body + crc32(body).to_bytes(4, "little")))


def test_index_limit():
    packet = EndPacket(9, ((0, 10), (4, 99)))
    with pytest.raises(LimitExceededError, match="index entries: 2 in the stream, limit 1"):
        EndPacket.read(ByteReader(packet.to_bytes()), Limits(index_entries=1))
