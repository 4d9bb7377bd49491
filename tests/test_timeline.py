"""Time goes on, whatever clocks in files do."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from videos import CASES, moving, needs_h264, numbers, packets_of, ramp, read, write_video

from codec.files.timeline import Timeline
from codec.format.constants import MAX_PTS

pytestmark = pytest.mark.video


def placed(pts: list[int | None], *, longest: int = 1000) -> list[int]:
    timeline = Timeline(10, longest)
    return [timeline.place(each) for each in pts]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)))
@example([None, None, MAX_PTS + 1, -MAX_PTS, MAX_PTS])
def test_time_increases_strictly_whatever_the_file_says(pts: list[int | None]) -> None:
    assert all(a < b for a, b in pairwise(placed(pts)))


@pytest.mark.parametrize(
    ("pts", "expected"),
    [
        ([0, 10, 20, 50, 60], [0, 10, 20, 50, 60]),  # a gap is a gap
        ([0, 10, 10, 20], [0, 10, 11, 20]),  # a duplicate moves nothing else
        ([5, 15, None, 35], [5, 15, 25, 35]),
        ([0, 10, 20, 0, 10, 20], [0, 10, 20, 30, 40, 50]),  # the same recording again
        ([500, 510, 0, 10, 30], [500, 510, 520, 530, 550]),  # the clock was set back
        ([50, 40, 30, 20], [50, 60, 70, 80]),  # time runs backwards
        ([0, 10, 5000, 5010], [0, 10, 20, 30]),  # a leap of the clock
        ([0, 10, 40, 30, 20, 50], [0, 10, 40, 41, 42, 50]),  # out of order, as AVI has it
        ([2**63 - 1, 10, 20], [0, 10, 20]),  # no stream can hold that
    ],
)
def test_places_in_time(pts: list[int | None], expected: list[int]) -> None:
    assert placed(pts) == expected


def test_one_recording_behind_another_goes_on_one_frame_later() -> None:
    frames = read(CASES / "concat_two_recordings.ts")
    assert len(frames) == 120
    assert set(np.diff([frame.pts for frame in frames])) == {3600}


CONTAINERS = [
    ("mpeg2video", "yuv420p", "ts"),
    ("mpeg2video", "yuv420p", "mpg"),
    ("mpeg4", "yuv420p", "avi"),
    ("mjpeg", "yuvj420p", "mjpeg"),
    ("gif", "rgb8", "gif"),
    ("ffv1", "yuv420p", "mkv"),
    pytest.param("libx264", "yuv420p", "mkv", marks=needs_h264),
    pytest.param("libx264", "yuv420p", "ts", marks=needs_h264),
    pytest.param("libx264", "yuv420p", "h264", marks=needs_h264),
]


@pytest.mark.parametrize(("codec", "pixel_format", "suffix"), CONTAINERS)
def test_files_joined_end_to_end(
    tmp_path: Path, codec: str, pixel_format: str, suffix: str
) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_video(path, moving(20, (1, 1)), codec=codec, pixel_format=pixel_format)
    once = read(path)
    path.write_bytes(path.read_bytes() * 2)
    twice = read(path)
    assert len(twice) == 2 * len(once) == 40
    assert len(set(np.diff([frame.pts for frame in twice]))) == 1


def test_timestamps_that_stand_still_are_repaired_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    write_video(path, ramp(6), codec="mjpeg", pixel_format="yuvj420p")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
        places = [data.index(bytes(packet)) for packet in packets_of(path)]
    assert stamps == [0, 40, 80, 120, 160, 200]
    for place, stamp in zip(places[2:5], [40, 20, 41], strict=True):
        # A SimpleBlock: track number, 16-bit timestamp within the cluster, flags, payload.
        data[place - 3 : place - 1] = stamp.to_bytes(2, "big")
    frames = read(io.BytesIO(bytes(data)))
    assert numbers(frames) == list(range(6))
    assert [frame.pts for frame in frames] == [0, 40, 41, 42, 43, 200]
