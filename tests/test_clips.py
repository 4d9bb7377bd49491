"""Streams as sequences: what is asked for, in any order, is what decoding everything gives."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import codec
from codec.encoding.config import EncoderConfig
from codec.errors import BitstreamError, CorruptBitstreamError, TruncatedBitstreamError
from codec.files.streams import StreamReader, StreamWriter
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.profile import Profile
from codec.normative.decoder import Decoder
from tests.strategies import (
    encode_all,
    header_of,
    plausible_profile,
    random_features,
    random_vectors,
)

FRAMES = 11
KEYINT = 4


def made(names: str, frames: int = FRAMES) -> bytes:
    """A stream with a tensor for each letter, motion in every inter frame, times in steps of 3."""
    rng = np.random.default_rng(len(names))
    specs = tuple(TensorSpec(name, 3, 5, 6, 8, 8) for name in names)
    profile = Profile(tuple(plausible_profile(rng, 3, 4) for _ in names))
    header = header_of(specs, profile, size=(40, 48))
    features = random_features(rng, header, frames)
    fields = [random_vectors(rng, header, 50) for _ in range(frames)]
    config = EncoderConfig(qp=20, keyint=KEYINT, scene_cut=False, effort=0)
    file = io.BytesIO()
    writer = StreamWriter(file, header)
    for encoded in encode_all(header, config, features, fields) if frames else ():
        writer.write(encoded.packet)
    writer.close()
    return file.getvalue()


@pytest.fixture(scope="module")
def stream() -> bytes:
    return made("t")


@pytest.fixture(scope="module")
def expected(stream) -> list:
    reader = StreamReader(io.BytesIO(stream))
    decoder = Decoder(reader.header)
    return [decoder.decode(packet) for packet in reader]


@pytest.fixture
def decodings(monkeypatch) -> list[int]:
    """The times of all frames decoded from here on."""
    found: list[int] = []
    decode = Decoder.decode

    def counting(self, packet):
        found.append(packet.pts)
        return decode(self, packet)

    monkeypatch.setattr(Decoder, "decode", counting)
    return found


class Pipe(io.RawIOBase):
    """Cannot seek."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 100))


def assert_are(batch, expected, numbers) -> None:
    assert batch.numbers.tolist() == list(numbers)
    assert len(batch) == len(numbers)
    assert batch.features.shape == (len(numbers), 3, 5, 6)
    for place, number in enumerate(numbers):
        frame = expected[number]
        assert torch.equal(batch.features[place], frame.features[0])
        assert (batch.pts[place], batch.key[place], batch.qp[place]) == (
            frame.pts,
            frame.key,
            frame.qp,
        )
        field = 0 if frame.vectors is None else frame.vectors
        np.testing.assert_array_equal(batch.motion[place] * 4, np.broadcast_to(field, (2, 2, 2)))


# --- the same frames in any order ---

bounds = st.none() | st.integers(-FRAMES - 3, FRAMES + 3)
steps = st.none() | st.integers(-4, 4).filter(bool)
asked = st.integers(-FRAMES, FRAMES - 1) | st.builds(slice, bounds, bounds, steps)


@given(st.lists(asked, max_size=5))
def test_what_is_asked_for_is_what_decoding_everything_gives(stream, expected, accesses):
    clip = codec.open(io.BytesIO(stream))
    assert len(clip) == FRAMES
    for access in accesses:
        if isinstance(access, slice):
            assert_are(clip[access], expected, range(FRAMES)[access])
        else:
            assert clip[access].md5() == expected[access].md5()
    assert [frame.md5() for frame in clip] == [frame.md5() for frame in expected]


@given(st.integers(0, FRAMES + 2), st.none() | st.integers(0, FRAMES + 2), st.integers(1, 3))
def test_a_pipe_gives_its_frames_in_order(stream, expected, start, stop, step):
    clip = codec.open(Pipe(stream))
    assert_are(clip[start:stop:step], expected, range(FRAMES)[start:stop:step])


def test_a_pipe_is_iterated_once(stream, expected):
    clip = codec.open(Pipe(stream))
    assert clip[0].md5() == clip[0].md5() == expected[0].md5()
    assert [frame.pts for frame in clip] == [frame.pts for frame in expected]
    assert repr(clip) == "<Clip of an unknown number of frames: t (3, 5, 6)>"
    with pytest.raises(ValueError, match="frame 3: the stream comes from a pipe, and is at frame"):
        clip[3]
    with pytest.raises(IndexError, match="frame 11 of a stream of 11 frames"):
        clip[FRAMES]
    assert len(clip[FRAMES:]) == 0


@pytest.mark.parametrize(
    "index", [-1, slice(-3, None), slice(None, -2), slice(None, None, -1), slice(0, 3, 0)], ids=str
)
def test_a_pipe_has_no_end_to_count_from(stream, index):
    with pytest.raises(ValueError, match="which is unknown: it comes from a pipe"):
        codec.open(Pipe(stream))[index]
    with pytest.raises(TypeError, match="number of frames of the stream is unknown"):
        len(codec.open(Pipe(stream)))


# --- no frame twice ---


def test_going_on_decodes_nothing_twice(stream, decodings):
    clip = codec.open(io.BytesIO(stream))
    for _ in clip:
        pass
    assert decodings == list(range(FRAMES))
    decodings.clear()
    clip = codec.open(io.BytesIO(stream))
    _ = clip[0:3], clip[3:6], clip[6], clip[6], clip[7:]
    assert decodings == list(range(FRAMES))


@pytest.mark.parametrize(
    ("index", "needed"), [(6, [4, 5, 6]), (-1, [8, 9, 10]), (slice(1, 10, 8), [0, 1, 8, 9])]
)
def test_leaps_start_at_the_key_frame_before(stream, decodings, index, needed):
    clip = codec.open(io.BytesIO(stream))
    _ = clip[index]
    assert decodings == needed


# --- what is in a batch ---


def test_several_tensors_are_a_dict(expected):
    clip = codec.open(io.BytesIO(made("ab")))
    batch = clip[2:5]
    assert list(batch.features) == ["a", "b"]
    for place, name in enumerate("ab"):
        frames = torch.stack([frame.features[place] for frame in list(clip)[2:5]])
        assert torch.equal(batch.features[name], frames)
        assert batch.numpy()[name].dtype == np.float32
        assert torch.equal(torch.stack([frame[name] for frame in batch]), frames)
    assert repr(batch) == (
        "<Batch of 3 frames: features a (3, 3, 5, 6), b (3, 3, 5, 6), motion (3, 2, 2, 2)>"
    )


def test_times_are_those_of_the_stream(stream, tmp_path):
    batch = codec.open(io.BytesIO(stream))[3:5]
    assert batch.times.tolist() == [3 / 25, 4 / 25]
    assert isinstance(batch.numpy(), np.ndarray)
    assert torch.equal(torch.stack(list(batch)), batch.features)
    assert codec.open(io.BytesIO(stream)).fps == 25


def test_a_stream_without_frames():
    clip = codec.open(io.BytesIO(made("t", 0)))
    assert len(clip) == 0
    assert list(clip) == []
    assert clip[:].features.shape == (0, 3, 5, 6)
    with pytest.raises(IndexError, match="frame 0 of a stream of 0 frames"):
        clip[0]


# --- what is wrong ---


@pytest.mark.parametrize("index", [FRAMES, -FRAMES - 1, 1 << 70])
def test_frames_that_are_not_there(stream, index):
    with pytest.raises(IndexError, match=f"frame {index} of a stream of {FRAMES} frames"):
        codec.open(io.BytesIO(stream))[index]


def test_an_index_is_a_number_or_a_slice(stream):
    clip = codec.open(io.BytesIO(stream))
    assert clip[np.int64(2)].pts == 2
    with pytest.raises(TypeError):
        clip["2"]


def test_a_stream_that_was_cut_gives_what_is_there(stream, expected):
    ends = StreamReader(io.BytesIO(stream))
    sizes = [ends.bytes_read for _ in ends]
    clip = codec.open(io.BytesIO(stream[: sizes[6]]))
    assert_are(clip[4:7], expected, range(4, 7))
    assert_are(clip[1:3], expected, range(1, 3))  # back, without an index
    with pytest.raises(TypeError, match=r"unknown: .*cut off"):
        len(clip)
    found = []
    with pytest.raises(TruncatedBitstreamError):
        found.extend(frame.md5() for frame in clip)
    assert found == [frame.md5() for frame in expected[:7]]
    assert clip[6].md5() == expected[6].md5()


def test_frames_around_damage(stream, expected):
    reader = StreamReader(io.BytesIO(stream))
    ends = [reader.bytes_read for _ in reader]
    damaged = bytearray(stream)
    damaged[ends[5] - 8] ^= 1
    clip = codec.open(io.BytesIO(bytes(damaged)))
    assert_are(clip[2:5], expected, range(2, 5))
    for _ in range(2):
        with pytest.raises(CorruptBitstreamError, match="frame at pts 5:"):
            clip[5]
    assert clip[4].md5() == expected[4].md5()
    with pytest.raises(CorruptBitstreamError, match="frame at pts 5:"):
        clip[6:8]
    assert_are(clip[8:], expected, range(8, FRAMES))
    pipe = codec.open(Pipe(bytes(damaged)))
    with pytest.raises(CorruptBitstreamError, match="frame at pts 5:"):
        pipe[3:]
    with pytest.raises(ValueError, match="is behind damage already"):
        pipe[8]


def test_an_index_that_announces_too_much(stream):
    reader = StreamReader(io.BytesIO(stream))
    end = reader.index()
    assert end is not None
    body = stream[: -len(end.to_bytes())]
    clip = codec.open(io.BytesIO(body + replace(end, frames=FRAMES + 1).to_bytes()))
    with pytest.raises(CorruptBitstreamError, match="12 frames"):
        clip[FRAMES]


def test_what_is_no_stream(tmp_path):
    with pytest.raises(FileNotFoundError):
        codec.open(tmp_path / "absent.lmc")
    (tmp_path / "text.lmc").write_bytes(b"no stream at all")
    with pytest.raises(BitstreamError, match="magic number"):
        codec.open(tmp_path / "text.lmc")


# --- the file ---


def test_a_path_is_closed_and_a_file_is_its_owners(stream, tmp_path):
    path = tmp_path / "a.lmc"
    path.write_bytes(stream)
    with codec.open(path) as clip:
        assert len(clip[1:3]) == 2
    with pytest.raises(ValueError, match="closed"):
        clip[5]
    file = io.BytesIO(b"before" + stream)
    file.seek(6)
    with codec.open(file) as clip:
        assert clip[-1].pts == FRAMES - 1
    assert not file.closed


def test_limits_hold(stream):
    with pytest.raises(codec.LimitExceededError):
        codec.open(io.BytesIO(stream), limits=codec.Limits(elements=10))


def test_the_header_is_there_at_once(stream):
    clip = codec.open(io.BytesIO(stream))
    assert isinstance(clip.header, SequenceHeader)
    assert clip.tensors[0].shape == (3, 5, 6)
