"""Damaged and hostile streams: a `BitstreamError`, or the right tensors; never anything else."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from codec.errors import BitstreamError, CorruptBitstreamError, TruncatedBitstreamError
from codec.files.streams import StreamReader
from codec.format.constants import FORMAT_VERSION, MAGIC, TYPE_REPEAT
from codec.format.header import SequenceHeader
from codec.format.packets import FramePacket
from codec.format.primitives import ByteReader, ByteWriter, crc32
from codec.format.slots import Slots
from codec.limits import Limits
from codec.normative.decoder import Decoder
from codec.normative.reconstruction import bytes_of
from tools.make.composing import REVISION, assemble

VALID = Path(__file__).resolve().parent.parent / "bitstreams" / "valid"
ALL = sorted(VALID.glob("*.lmc"), key=lambda path: (path.stat().st_size, path.name))
SMALLEST = [path for path in ALL if path.stat().st_size <= 312]
STRIDE = 7
"""The default run changes every seventh byte of the streams that are not the smallest."""
LIMITS = Limits(
    header_bytes=1 << 16,
    profile_bytes=1 << 16,
    packet_bytes=1 << 16,
    elements=1 << 13,
    input_pixels=1 << 16,
    vectors=1 << 10,
)
"""Small enough for a fuzzer: what a damaged header announces must not be computed for minutes."""

CRC_BYTES = 4

Result = list[tuple[int, bool, int, str]]


def streams(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


class Dribble(io.RawIOBase):
    """A file that cannot seek and returns as many bytes a read as it is told, again and again."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._content, self._sizes, self._position, self._reads = content, sizes, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        count = min(size, self._sizes[self._reads % len(self._sizes)])
        self._reads += 1
        piece = self._content[self._position : self._position + count]
        self._position += len(piece)
        return piece


def frames_of(file, limits: Limits = LIMITS) -> Iterator[tuple[int, bool, int, str]]:
    reader = StreamReader(file, limits)
    decoder = Decoder(reader.header, limits=limits)
    for packet in reader:
        frame = decoder.decode(packet)
        assert packet.check_of(bytes_of(frame.latents)) == packet.check
        yield frame.pts, frame.key, frame.qp, frame.md5()


def attempt(file, limits: Limits = LIMITS) -> tuple[Result, BitstreamError | None]:
    """Return the frames that came out, and the error that ended it; others propagate."""
    found: Result = []
    try:
        found.extend(frames_of(file, limits))
    except BitstreamError as error:
        return found, error
    return found, None


@cache
def expected_of(path: Path) -> Result:
    found, error = attempt(io.BytesIO(path.read_bytes()), Limits())
    assert error is None
    return found


def pieces_of(content: bytes) -> list[bytes]:
    """Cut a stream into header, packets and end packet."""
    reader = StreamReader(io.BytesIO(content))
    pieces, start = [content[: reader.header_bytes]], reader.header_bytes
    for _ in reader:
        pieces.append(content[start : start + reader.packet_bytes])
        start += reader.packet_bytes
    return [*pieces, content[start:]]


def sealed(body: bytes) -> bytes:
    return body + crc32(body).to_bytes(CRC_BYTES, "little")


# --- cut off ---


@streams(ALL)
def test_every_prefix_is_truncated(path):
    content = path.read_bytes()
    for size in range(len(content)):
        with pytest.raises(TruncatedBitstreamError):
            for _ in StreamReader(io.BytesIO(content[:size])):
                pass
    last = len(content) - len(pieces_of(content)[-1])
    found, error = attempt(io.BytesIO(content[:last]), Limits())
    assert found == expected_of(path)
    assert type(error) is TruncatedBitstreamError


@pytest.mark.slow
@streams(SMALLEST)
def test_frames_before_the_cut_are_right(path):
    content, expected = path.read_bytes(), expected_of(path)
    for size in range(len(content)):
        found, error = attempt(io.BytesIO(content[:size]))
        assert type(error) is TruncatedBitstreamError
        assert found == expected[: len(found)]


@streams(SMALLEST)
def test_index_of_a_prefix_is_refused(path):
    """Seeking in a file that was cut off stays at the start, and goes nowhere into its middle."""
    content = path.read_bytes()
    header = len(pieces_of(content)[0])
    for size in range(header, len(content)):
        reader = StreamReader(io.BytesIO(content[:size]))
        with pytest.raises(BitstreamError):
            reader.index()
        reader.seek(1)
        assert (reader.frames_read, reader.bytes_read) == (0, header)


# --- one byte changed ---


def check_changes(path: Path, positions: range, values: list[int]) -> None:
    content, expected = path.read_bytes(), expected_of(path)
    escaped = []
    for position in positions:
        for value in values:
            damaged = bytearray(content)
            damaged[position] ^= value
            found, error = attempt(io.BytesIO(bytes(damaged)), Limits())
            assert error is not None, f"byte {position} ^ {value:#04x} went unseen"
            if found == expected[: len(found)]:
                continue
            if damaged[position] == TYPE_REPEAT and found[:-1] == expected[: len(found) - 1]:
                assert found[-1][3] == found[-2][3]  # what follows it told that it was none
                continue
            escaped.append((position, value))
    # the check of an inter frame holds once in 65 536 times; the running CRC told the end of it
    assert len(escaped) <= 1 + len(positions) * len(values) // 20_000, escaped


@pytest.mark.slow
@streams(SMALLEST)
def test_every_changed_byte_of_a_small_stream_is_seen(path):
    check_changes(path, range(path.stat().st_size), [0x01, 0x80, 0xFF])


@pytest.mark.slow
@streams(ALL[len(SMALLEST) :])
def test_changed_bytes_are_seen(path):
    size = path.stat().st_size
    check_changes(path, range(size % STRIDE, size, max(size // 40, STRIDE)), [0x10])


@pytest.mark.slow
@streams(ALL[len(SMALLEST) :])
def test_every_changed_byte_is_seen(path):
    check_changes(path, range(path.stat().st_size), [0x40])


@pytest.mark.slow
@streams(SMALLEST[:1])
def test_every_value_of_every_byte_is_seen(path):
    check_changes(path, range(path.stat().st_size), list(range(1, 256)))


@streams(SMALLEST[:3])
def test_inserted_and_removed_bytes_are_seen(path):
    check_lengths(path)


@pytest.mark.slow
@streams(SMALLEST[3:])
def test_inserted_and_removed_bytes_of_more_streams_are_seen(path):
    check_lengths(path)


def check_lengths(path: Path) -> None:
    """Insert a byte anywhere, and remove any."""
    content, expected = path.read_bytes(), expected_of(path)
    for position in range(len(content) + 1):
        for inserted in (b"\0", content[position - 1 : position] or b"\xff"):
            found, error = attempt(io.BytesIO(content[:position] + inserted + content[position:]))
            assert error is not None
            assert found == expected[: len(found)]
        if position < len(content):
            found, error = attempt(io.BytesIO(content[:position] + content[position + 1 :]))
            assert error is not None
            assert found == expected[: len(found)]


# --- packets lost, repeated and out of order ---


def rearranged(path: Path, order: list[int]) -> bytes:
    """Put packets in another order, behind the right header and before an end packet to match,
    under right running CRCs.
    """
    header, *packets, _ = pieces_of(path.read_bytes())
    return assemble([header, *(packets[number] for number in order)], index=())


def several(name: str) -> Path:
    return VALID / f"{name}_a_{REVISION}.lmc"


@pytest.mark.parametrize("name", ["zero_motion", "motion_quarter", "multi_tensor", "keyint"])
def test_lost_packets_are_seen_unless_a_key_frame_follows(name):
    path = several(name)
    expected = expected_of(path)
    for lost in range(len(expected)):
        order = [number for number in range(len(expected)) if number != lost]
        found, error = attempt(io.BytesIO(rearranged(path, order)))
        harmless = lost + 1 == len(expected) or expected[lost + 1][1]
        assert (error is None) == harmless
        assert [f[3] for f in found] == [expected[n][3] for n in order][: len(found)]


@pytest.mark.parametrize("name", ["zero_motion", "motion_quarter", "multi_tensor", "keyint"])
def test_lost_packets_are_seen_by_the_running_crc(name):
    pieces = pieces_of(several(name).read_bytes())
    for lost in range(1, len(pieces) - 1):
        _, error = attempt(io.BytesIO(b"".join(pieces[:lost] + pieces[lost + 1 :])))
        assert isinstance(error, CorruptBitstreamError)


@pytest.mark.parametrize("name", ["zero_motion", "motion_quarter", "multi_tensor"])
def test_repeated_and_swapped_packets_are_seen(name):
    path = several(name)
    expected = expected_of(path)
    numbers = list(range(len(expected)))
    for at in range(1, len(expected) - 1):
        for order in (
            [*numbers[: at + 1], at, *numbers[at + 1 :]],
            [*numbers[:at], at + 1, at, *numbers[at + 2 :]],
        ):
            found, error = attempt(io.BytesIO(rearranged(path, order)))
            assert isinstance(error, CorruptBitstreamError)
            # behind a frame that changed nothing, its successor is in place one frame earlier
            assert [f[3] for f in found] == [expected[n][3] for n in order[: len(found)]]


def test_packets_of_another_stream_are_seen():
    zero, keys = (pieces_of(several(name).read_bytes()) for name in ("zero_motion", "key_only"))
    mixed = assemble([*zero[:2], keys[1], *zero[2:-1]], index=())
    found, error = attempt(io.BytesIO(mixed))
    assert isinstance(error, CorruptBitstreamError)
    assert len(found) == 2


def test_decoding_goes_on_at_the_next_key_frame():
    reader = StreamReader(io.BytesIO(several("keyint").read_bytes()))
    decoder = Decoder(reader.header)
    expected, found = expected_of(several("keyint")), {}
    for number, packet in enumerate(reader):
        damaged = replace(packet, check=packet.check ^ 1) if number == 4 else packet
        try:
            found[number] = decoder.decode(damaged).md5()
        except CorruptBitstreamError:
            continue
    assert sorted(found) == [number for number in range(len(expected)) if number not in (4, 5)]
    assert all(digest == expected[number][3] for number, digest in found.items())


def decode_from(reader: StreamReader, start: int) -> list[str]:
    reader.seek(start)
    decoder = Decoder(reader.header)
    return [decoder.decode(packet).md5() for packet in reader]


def test_index_that_leads_elsewhere_is_refused_when_used():
    header, *packets, _ = pieces_of(several("zero_motion").read_bytes())
    body = b"".join([header, *packets])
    start = len(header) + len(packets[0])
    for offset in (0, len(header) - 1, start, start + 1, len(body), 1 << 40):
        content = assemble([header, *packets], index=((1, offset),))
        reader = StreamReader(io.BytesIO(content))
        with pytest.raises(BitstreamError):
            decode_from(reader, 1)


# --- chopped reads ---


@streams(ALL)
def test_reads_of_few_bytes_give_the_same_frames(path):
    sizes = [1] if path in SMALLEST else [1, 2, 3, 50, 7]
    assert attempt(Dribble(path.read_bytes(), sizes), Limits()) == (expected_of(path), None)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8), cut=st.integers(0, 1000))
def test_chopped_reads_change_nothing(sizes, cut):
    path = several("keyint")
    content = path.read_bytes()[:cut] if cut % 2 else path.read_bytes()
    whole, whole_error = attempt(io.BytesIO(content))
    found, error = attempt(Dribble(content, sizes))
    assert found == whole
    assert type(error) is type(whole_error)
    assert str(error) == str(whole_error)


def test_seeking_without_a_seekable_file_starts_at_the_first_frame():
    path = several("keyint")
    reader = StreamReader(Dribble(path.read_bytes(), [100]))
    assert reader.index() is None
    found = decode_from(reader, 7)
    assert found == [frame[3] for frame in expected_of(path)]


def test_stream_inside_a_file_is_seekable():
    path = several("keyint")
    file = io.BytesIO(b"prefix" + path.read_bytes())
    file.seek(6)
    reader = StreamReader(file)
    reader.seek(7)
    assert [reader.packet_number for _ in reader] == list(range(6, 13))


# --- past the check ---


def check_payload(path: Path, number: int, payload: bytes) -> None:
    """Decode a stream in which one packet has another payload, under a check that holds if the
    same comes out.
    """
    reader = StreamReader(io.BytesIO(path.read_bytes()))
    decoder, other = Decoder(reader.header), Decoder(reader.header)
    expected = expected_of(path)
    for index, packet in enumerate(reader):
        right = other.decode(packet).latents
        if index < number:
            decoder.decode(packet)
            continue
        previous = None if packet.key else replace(packet, pts=packet.pts - packet.duration)
        content = replace(packet, payload=payload).sealed(previous, bytes_of(right))
        content = content.to_bytes(previous)
        kept = Slots(reader.header.references)
        kept.keep(previous, (0, packet.predicted_from), key=False)
        parsed = FramePacket.read(ByteReader(content), kept, reader.header.frame_duration, LIMITS)
        try:
            frame = decoder.decode(parsed)
        except CorruptBitstreamError:
            return
        # other bytes for the same symbols are common; of wrong frames one in 65 536 gets here
        assert parsed.check_of(bytes_of(frame.latents)) == parsed.check
        if payload == packet.payload:
            assert frame.md5() == expected[index][3]
        return


FUZZED = [
    "keyint",
    "escapes",
    "multi_tensor",
    "motion_edges",
    "one_by_one",
    "dense_profile",
    "ranks_dense",
    "points_extreme",
]


def payload_of(path: Path, number: int) -> bytes:
    packets = list(StreamReader(io.BytesIO(path.read_bytes())))
    return packets[number].payload


@given(name=st.sampled_from(FUZZED), number=st.integers(0, 2), payload=st.binary(max_size=200))
@example(name="keyint", number=0, payload=b"")
@example(name="keyint", number=2, payload=b"\xff" * 100)
@example(name="escapes", number=1, payload=b"\xff\xff\xfe" * 100)
def test_any_payload_past_the_check(name, number, payload):
    check_payload(several(name), number, payload)


@given(
    name=st.sampled_from(FUZZED),
    number=st.integers(0, 2),
    position=st.integers(0, 1000),
    value=st.integers(1, 255),
)
def test_changed_payload_past_the_crc(name, number, position, value):
    payload = bytearray(payload_of(several(name), number))
    if payload:
        payload[position % len(payload)] ^= value
    check_payload(several(name), number, bytes(payload))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZED)
def test_every_changed_byte_of_a_payload_past_the_crc(name):
    for number in (0, 2):
        payload = payload_of(several(name), number)
        for position in range(len(payload)):
            damaged = bytearray(payload)
            damaged[position] ^= 0x55
            check_payload(several(name), number, bytes(damaged))


def header_around(body: bytes) -> bytes:
    out = ByteWriter()
    out.raw(MAGIC)
    out.u8(FORMAT_VERSION)
    out.varint(len(body))
    out.raw(body)
    return sealed(bytes(out.content))


def body_of(header: bytes) -> bytes:
    source = ByteReader(header, len(MAGIC) + 1)
    return source.raw(source.varint())


@pytest.mark.parametrize("name", ["multi_tensor", "header_fields", "one_by_one"])
def test_changed_header_past_the_crc(name):
    """A changed name or time base decodes, and what the tensors depend on is found out."""
    path = several(name)
    header, *rest = pieces_of(path.read_bytes())
    body = body_of(header)
    plain = SequenceHeader.from_bytes(header)[0]
    for position in range(len(body)):
        for value in (0x01, 0x80, 0xFF):
            damaged = bytearray(body)
            damaged[position] ^= value
            content = b"".join([header_around(bytes(damaged)), *rest])
            found, error = attempt(io.BytesIO(content))
            if error is None and StreamReader(io.BytesIO(content)).header.profile == plain.profile:
                assert len(found) == len(expected_of(path))


PROFILES = ["one_by_one", "dense_profile", "header_fields", "ranks_dense", "mixed_bands"]


@given(data=st.data(), name=st.sampled_from(PROFILES))
def test_changed_profile_under_its_right_hash(data, name):
    header, *rest = pieces_of(several(name).read_bytes())
    parsed = SequenceHeader.from_bytes(header)[0]
    assert parsed.profile is not None
    profile = bytearray(parsed.profile)
    for _ in range(data.draw(st.integers(1, 3))):
        profile[data.draw(st.integers(0, len(profile) - 1))] = data.draw(st.integers(0, 255))
    digest = hashlib.sha256(profile).digest()[: len(parsed.profile_hash)]
    damaged = replace(parsed, profile=bytes(profile), profile_hash=digest)
    attempt(io.BytesIO(b"".join([damaged.to_bytes(), *rest])))


# --- anything at all ---


@given(content=st.binary(max_size=300))
def test_any_bytes(content):
    assert attempt(io.BytesIO(content))[1] is not None


@given(body=st.binary(max_size=200), rest=st.binary(max_size=100))
def test_any_header_body_past_the_crc(body, rest):
    assert attempt(io.BytesIO(header_around(body) + rest))[1] is not None


@given(content=st.binary(max_size=200))
def test_any_bytes_behind_a_header(content):
    header = pieces_of(several("one_by_one").read_bytes())[0]
    attempt(io.BytesIO(header + content))


@given(
    packets=st.lists(
        st.tuples(st.integers(0, 255), st.binary(max_size=12), st.binary(max_size=20)), max_size=4
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_packets_past_their_crc(packets):
    pieces = [pieces_of(several("one_by_one").read_bytes())[0]]
    for tag, fields, payload in packets:
        out = ByteWriter()
        out.u8(tag)
        out.raw(fields)
        out.varint(len(payload))
        out.raw(bytes(2) + payload)
        pieces.append(sealed(bytes(out.content)))
    attempt(io.BytesIO(b"".join(pieces)))
