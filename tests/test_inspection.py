"""What is in a stream, as values: their shape, and what becomes of a stream with a fault."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from codec.errors import CorruptBitstreamError, TruncatedBitstreamError, UnsupportedBitstreamError
from codec.files.streams import StreamReader
from codec.format.constants import HASH_BYTES
from codec.format.header import Interpolation, Preprocessing, Resize, SequenceHeader
from codec.format.profile import profile_of
from codec.inspection import StreamContents, described, inspected

STREAMS = sorted((Path(__file__).resolve().parent.parent / "bitstreams" / "valid").glob("*.lmc"))
STREAM = next(path for path in STREAMS if path.stem.startswith("multi_tensor_a_"))


def contents(stream: bytes) -> StreamContents:
    return inspected(StreamReader(io.BytesIO(stream)))


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_sizes_add_up_and_only_what_has_bits_is_listed(path):
    stream = path.read_bytes()
    found = contents(stream)
    assert found.fault is None
    assert found.bytes == len(stream)
    sizes = sum(frame.bytes for frame in found.frames)
    assert found.bytes_header + sizes + found.bytes_end == found.bytes
    names = {spec.name for spec in StreamReader(io.BytesIO(stream)).header.tensors}
    for number, frame in enumerate(found.frames):
        assert frame.frame == number
        assert set(frame.bits) <= {
            "motion",
            "modes",
            "offsets",
            *(f"levels of {name}" for name in names),
        }
        assert all(frame.bits.values())
        assert list(frame.blocks) == ["skip", "inter", "intra"]
        if frame.type == "key":
            assert {"motion", "modes"}.isdisjoint(frame.bits)
            assert frame.blocks["skip"] == frame.blocks["inter"] == 0
        elif frame.type == "repeat":
            assert frame.bytes == frame.bytes_framing == (1 if frame.slots is None else 2)
        else:
            assert ("modes" in frame.bits) == (frame.type == "inter")


def test_a_frame_of_skipped_blocks_lists_no_levels():
    frames = [frame for path in STREAMS for frame in contents(path.read_bytes()).frames]
    skipped = [frame for frame in frames if not frame.blocks["inter"] + frame.blocks["intra"]]
    assert skipped
    assert all(set(frame.bits) <= {"motion", "modes"} for frame in skipped)


def test_a_fault_is_kept_with_the_frames_before_it():
    stream = STREAM.read_bytes()
    whole = contents(stream)
    cut = contents(stream[: -whole.bytes_end - 1])
    assert isinstance(cut.fault, TruncatedBitstreamError)
    assert cut.frames == whole.frames[:-1]
    assert cut.bytes == whole.bytes - whole.bytes_end - whole.frames[-1].bytes
    assert cut.bytes_end == 0


@pytest.mark.parametrize(
    ("profile", "error"), [(None, UnsupportedBitstreamError), (b"broken", CorruptBitstreamError)]
)
def test_a_profile_that_nobody_has_is_an_error_not_a_fault(profile, error):
    header, start = SequenceHeader.from_bytes(STREAM.read_bytes())
    bad = replace(header, profile=profile, profile_hash=bytes(HASH_BYTES))
    with pytest.raises(error):
        contents(bad.to_bytes() + STREAM.read_bytes()[start:])


def test_a_header_in_words():
    header, _ = SequenceHeader.from_bytes(STREAM.read_bytes())
    words = described(header, profile_of(header))
    assert words["input"] == f"{header.input_width}x{header.input_height}"
    assert str(words["tensors"]).count("; ") == len(header.tensors) - 1
    assert words["task"] == "(that of the model's name, or none)"


def test_a_header_tells_preprocessing_and_task():
    header, _ = SequenceHeader.from_bytes(STREAM.read_bytes())
    profile = profile_of(header)
    assert described(replace(header, preprocessing=None), profile)["preprocessing"] == "(none said)"
    mean, scale = (103_530, 116_280, 123_675), (57_375, 57_120, 58_395)
    bilinear = Interpolation.BILINEAR
    letterbox = Preprocessing(
        0, 0, 32, mean, scale, Resize.LETTERBOX, (416, 640), (0, 0, 0), bilinear, bgr=True
    )
    words = described(replace(header, preprocessing=letterbox, task='{"task":"anything"}'), profile)
    assert words["preprocessing"] == (
        "letterbox of 640x416, bilinear, padded to multiples of 32, BGR, "
        "mean 103.53 116.28 123.675, scale 57.375 57.12 58.395"
    )
    assert words["task"] == '{"task":"anything"}'
    whole = replace(letterbox, resize=Resize.SHORT_SIDE, size=(0, 0), crop=224)
    assert str(
        described(replace(header, preprocessing=whole), profile)["preprocessing"]
    ).startswith("own size, bilinear, crop 224, BGR")
