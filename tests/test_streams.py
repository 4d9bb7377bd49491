"""Streams over files and pipes: chopped reads, the index, seeking, streams that are cut."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from codec.encoding.config import EncoderConfig
from codec.errors import BitstreamError, CorruptBitstreamError, TruncatedBitstreamError
from codec.files.streams import StreamReader, StreamWriter
from codec.format.header import SequenceHeader
from codec.format.packets import EndPacket, FramePacket
from codec.format.profile import Profile
from codec.normative.decoder import Decoder
from codec.pipeline.decoding import decode_frames
from tests.strategies import TensorSpec, encode_all, header_of, plausible_profile, random_features

FRAMES = 7
KEYINT = 3


@pytest.fixture(scope="module")
def header() -> SequenceHeader:
    rng = np.random.default_rng(5)
    spec = TensorSpec("t", 3, 5, 6, 8, 8)
    return header_of((spec,), Profile((plausible_profile(rng, 3, 4),)), size=(40, 48))


@pytest.fixture(scope="module")
def packets(header: SequenceHeader) -> list[FramePacket]:
    features = random_features(np.random.default_rng(6), header, FRAMES)
    config = EncoderConfig(qp=20, keyint=KEYINT, scene_cut=False)
    return [coded.packet for coded in encode_all(header, config, features, [None] * FRAMES)]


@pytest.fixture(scope="module")
def stream(header: SequenceHeader, packets: list[FramePacket]) -> bytes:
    file = io.BytesIO()
    writer = StreamWriter(file, header)
    sizes = [writer.write(packet) for packet in packets]
    writer.close()
    content = file.getvalue()
    assert writer.bytes_written == len(content) > writer.header_bytes + sum(sizes)
    return content


class Pipe(io.RawIOBase):
    """Cannot seek, and gives at most `chunk` bytes a read."""

    def __init__(self, content: bytes, chunk: int) -> None:
        self._file, self._chunk = io.BytesIO(content), chunk

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(self._chunk, size) if size >= 0 else self._chunk)


def test_what_is_written_is_read(stream, header, packets):
    reader = StreamReader(io.BytesIO(stream))
    assert reader.header == header
    start = reader.header_bytes
    for number, packet in enumerate(reader):
        assert packet == packets[number]
        assert reader.packet_number == number
        start += reader.packet_bytes
        assert reader.bytes_read == start
    assert reader.frames_read == FRAMES
    assert reader.bytes_read == len(stream)


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_reading_does_not_depend_on_how_reads_are_chopped(stream, packets, chunk):
    reader = StreamReader(Pipe(stream, chunk))
    assert list(reader) == packets
    assert reader.bytes_read == len(stream)
    assert reader.index() is None


def test_a_frame_comes_out_of_a_pipe_before_the_next_one_goes_in(header, packets):
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as target:
        writer = StreamWriter(target, header)
        writer.write(packets[0])
        frames = iter(StreamReader(source))
        for number, packet in enumerate(packets[1:]):
            assert next(frames) == packets[number]
            writer.write(packet)
        assert next(frames) == packets[-1]
        writer.close()
        target.close()
        assert next(frames, None) is None


def test_index_lists_the_key_frames(stream, packets):
    end = StreamReader(io.BytesIO(stream)).index()
    assert end is not None
    assert end.frames == FRAMES
    assert [number for number, _ in end.key_frames] == [
        number for number, packet in enumerate(packets) if packet.key
    ]


def test_index_leaves_the_position_alone(stream, packets):
    reader = StreamReader(io.BytesIO(stream))
    frames = iter(reader)
    next(frames)
    reader.index()
    assert list(frames) == packets[1:]


@pytest.mark.parametrize("behind", [0, 11], ids=["at the start", "behind other bytes"])
@pytest.mark.parametrize("frame", range(FRAMES + 2))
def test_seeking_gives_what_decoding_from_the_start_gives(stream, frame, behind):
    def opened() -> StreamReader:
        file = io.BytesIO(bytes(behind) + stream)
        file.seek(behind)
        return StreamReader(file)

    whole = [(number, decoded.md5()) for number, decoded in decode_frames(opened())]
    part = [
        (number, decoded.md5()) for number, decoded in decode_frames(opened(), frames=(frame, None))
    ]
    assert part == whole[frame:]
    reader = opened()
    reader.seek(frame)
    assert reader.frames_read == min(frame, FRAMES - 1) // KEYINT * KEYINT
    list(reader)
    assert reader.bytes_read == len(stream)


def test_a_pipe_is_decoded_from_its_start(stream):
    frames = [number for number, _ in decode_frames(StreamReader(Pipe(stream, 50)), frames=(4, 6))]
    assert frames == [4, 5]


def test_every_truncation_is_told(stream):
    for length in range(len(stream)):
        with pytest.raises(TruncatedBitstreamError):
            list(StreamReader(io.BytesIO(stream[:length])))


def test_index_of_a_truncated_file_is_an_error_of_ours(stream):
    start = StreamReader(io.BytesIO(stream)).header_bytes
    for length in range(start, len(stream)):
        with pytest.raises(BitstreamError):
            StreamReader(io.BytesIO(stream[:length])).index()


def test_bytes_behind_the_end_are_refused(stream):
    with pytest.raises(CorruptBitstreamError, match="behind the end packet"):
        list(StreamReader(io.BytesIO(stream + b"x")))
    with pytest.raises(CorruptBitstreamError, match="behind the end packet"):
        list(StreamReader(Pipe(stream + b"x", 1)))


def test_a_packet_left_out_is_noticed(header, packets):
    file = io.BytesIO()
    writer = StreamWriter(file, header)
    writer.write(packets[0])
    writer.frames += 1
    writer.close()
    with pytest.raises(CorruptBitstreamError, match="2 frames announced, 1 found"):
        list(StreamReader(io.BytesIO(file.getvalue())))


def test_damage_is_located(stream):
    damaged = bytearray(stream)
    damaged[StreamReader(io.BytesIO(stream)).header_bytes + 12] ^= 1
    reader = StreamReader(io.BytesIO(bytes(damaged)))
    with pytest.raises(CorruptBitstreamError, match="damaged"):
        Decoder(reader.header).decode(next(iter(reader)))
    with pytest.raises(CorruptBitstreamError, match=f"packet {KEYINT}: running CRC-32"):
        list(StreamReader(io.BytesIO(bytes(damaged))))


def test_damage_before_where_reading_began_is_not_looked_for(stream):
    damaged = bytearray(stream)
    damaged[StreamReader(io.BytesIO(stream)).header_bytes + 12] ^= 1
    reader = StreamReader(io.BytesIO(bytes(damaged)))
    reader.seek(KEYINT)
    assert len(list(reader)) == FRAMES - KEYINT


@pytest.mark.parametrize("frame", [0, 2, 4])
def test_without_an_index_decoding_starts_at_the_first_frame(stream, packets, frame):
    lost = len(EndPacket(FRAMES, ((0, 0),)).to_bytes()) // 2
    for cut in (stream[:-lost], stream[:-1] + bytes([stream[-1] ^ 1])):
        frames = decode_frames(StreamReader(io.BytesIO(cut)), frames=(frame, None))
        found = []
        with pytest.raises(BitstreamError):  # noqa: PT012
            for number, _ in frames:
                found.append(number)
        assert found == list(range(frame, FRAMES))
        whole = decode_frames(StreamReader(io.BytesIO(cut)), frames=(frame, FRAMES))
        assert [number for number, _ in whole] == found


def test_a_stream_that_grows_gives_what_is_there(tmp_path, header, packets):
    path = tmp_path / "growing"
    with path.open("wb") as target:
        writer = StreamWriter(target, header)
        writer.write(packets[0])
        with path.open("rb") as source:
            frames = iter(StreamReader(source))
            assert next(frames) == packets[0]
            writer.write(packets[1])
            assert next(frames) == packets[1]
            with pytest.raises(TruncatedBitstreamError, match="did not finish"):
                next(frames)
