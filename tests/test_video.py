"""Frames of small synthetic videos: order, timestamps, ranges, and refusals."""

from __future__ import annotations

import io
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.codec import codecs_available
from videos import (
    DEFAULT,
    NATIVE,
    Pipe,
    assert_same,
    corners,
    moving,
    needs_h264,
    numbers,
    preprocessing,
    quadrants,
    ramp,
    read,
    write_video,
)

from codec.errors import VideoError
from codec.files.damage import Damage
from codec.files.video import VideoReader

pytestmark = pytest.mark.video

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"


@needs_h264
def test_b_frames_come_in_presentation_order(tmp_path: Path) -> None:
    path = tmp_path / "b.mp4"
    write_video(
        path, ramp(50), codec="libx264", pixel_format="yuv420p", options={"bf": "3", "qp": "10"}
    )
    with av.open(str(path)) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert pts != sorted(pts), "the test needs B-frames"

    frames = read(path)
    assert numbers(frames) == list(range(50))
    assert [frame.pts for frame in frames] == sorted(pts)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [
        ("mpeg4", "yuv420p", "avi"),
        ("mpeg4", "yuv420p", "mp4"),
        ("mpeg2video", "yuv420p", "ts"),
        ("mjpeg", "yuvj420p", "mkv"),
        ("ffv1", "gray", "mkv"),
        ("ffv1", "gray10le", "mkv"),
        ("ffv1", "yuv420p10le", "mkv"),
        ("ffv1", "yuv422p", "nut"),
        ("ffv1", "bgr0", "mkv"),
        pytest.param("libx264", "yuv420p", "mp4", marks=needs_h264),
        pytest.param("libx264", "yuv420p10le", "mkv", marks=needs_h264),
    ],
)
def test_codecs_formats_containers(
    tmp_path: Path, codec: str, pixel_format: str, suffix: str
) -> None:
    path = tmp_path / f"clip.{suffix}"
    options = {"bf": "2", "g": "12"} if codec in {"mpeg4", "mpeg2video", "libx264"} else {}
    if codec.startswith("mpeg"):
        options |= {"qmin": "1", "qmax": "1"}  # brightness has to survive
    write_video(path, ramp(30), codec=codec, pixel_format=pixel_format, options=options)
    frames = read(path, DEFAULT)
    assert numbers(frames) == list(range(30))
    assert all(frame.rgb.shape == (224, 224, 3) for frame in frames)
    assert (np.diff([frame.pts for frame in frames]) > 0).all()
    assert_same(frames, read(path, DEFAULT, damaged="skip"))


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libvpx", "webm", {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "300000"}),
        ("libvpx-vp9", "webm", {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "300000"}),
        ("libx265", "mp4", {"x265-params": "bframes=4:b-pyramid=1:log-level=none"}),
        ("libsvtav1", "mkv", {"preset": "12"}),
    ],
)
def test_hidden_and_reordered_frames_are_no_damage(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str]
) -> None:
    if codec not in codecs_available:
        pytest.skip(f"no {codec} in PyAV")
    path = tmp_path / f"clip.{suffix}"
    pictures = moving(48, (1, -1))
    write_video(path, pictures, codec=codec, pixel_format="yuv420p", options=options)
    frames = read(path)
    assert len(frames) == 48
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.rgb.astype(int) - picture).mean() < 12
    assert_same(frames, read(path, damaged="skip"))


def test_variable_frame_rate_keeps_its_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "vfr.mkv"
    pts = [0, 40, 47, 200, 201, 1000, 1033, 5000]
    write_video(path, ramp(8), pts=pts, time_base=Fraction(1, 1000))
    with VideoReader(path, NATIVE) as video:
        frames = list(video)
        assert video.time_base == Fraction(1, 1000)
        assert video.frame_rate > 0
    assert [frame.pts for frame in frames] == pts
    assert numbers(frames) == list(range(8))


@needs_h264
def test_an_elementary_stream_gets_timestamps(tmp_path: Path) -> None:
    path = tmp_path / "raw.h264"
    write_video(
        path,
        ramp(30),
        codec="libx264",
        pixel_format="yuv420p",
        options={"bf": "3"},
        container="h264",
    )
    with VideoReader(path, NATIVE) as video:
        frames = list(video)
        step = 1 / (video.frame_rate * video.time_base)
    assert numbers(frames) == list(range(30))
    assert set(np.diff([frame.pts for frame in frames])) == {step}


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (None, range(20)),
        ((0, 5), range(5)),
        ((7, 11), range(7, 11)),
        ((18, None), range(18, 20)),
        ((15, 99), range(15, 20)),
        ((4, 4), range(0)),
        ((0, 0), range(0)),
    ],
)
def test_a_range_of_frames(
    tmp_path: Path, frames: tuple[int, int | None] | None, expected: range
) -> None:
    path = tmp_path / "range.mkv"
    write_video(path, ramp(20))
    with VideoReader(path, NATIVE, frames=frames) as video:
        assert video.frame_count_hint == len(expected)
        got = list(video)
    assert numbers(got) == list(expected)
    assert [frame.pts for frame in got] == [40 * number for number in expected]


def test_a_range_behind_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.mkv"
    write_video(path, ramp(5))
    with pytest.raises(VideoError, match=r"only 5 frames, so there is no frame 5$"):
        read(path, frames=(5, 9))


def test_wrong_arguments(tmp_path: Path) -> None:
    path = tmp_path / "arguments.mkv"
    write_video(path, ramp(2))
    for frames in [(-1, 5), (5, 4)]:
        with pytest.raises(ValueError, match="range"):
            VideoReader(path, NATIVE, frames=frames)
    for how in [preprocessing(128, 224), preprocessing(-1), preprocessing(pad_multiple=0)]:
        with pytest.raises(ValueError, match="preprocessing needs"):
            VideoReader(path, how)


def test_frames_are_given_once(tmp_path: Path) -> None:
    path = tmp_path / "once.mkv"
    write_video(path, ramp(3))
    with VideoReader(path, NATIVE) as video:
        assert len(list(video)) == 3
        with pytest.raises(ValueError, match="once"):
            iter(video)
    video = VideoReader(path, NATIVE)
    video.close()
    video.close()
    with pytest.raises(ValueError, match="once"):
        iter(video)


def test_attributes(tmp_path: Path) -> None:
    path = tmp_path / "attributes.mkv"
    write_video(path, ramp(10, width=128, height=72), rate=10)
    with VideoReader(path, preprocessing(36)) as video:
        assert (video.source_width, video.source_height) == (128, 72)
        assert (video.width, video.height) == (64, 36)
        assert (video.time_base, video.frame_rate) == (Fraction(1, 1000), 10)
        assert (video.codec_name, video.frame_count_hint) == ("ffv1", 10)
        assert next(iter(video)).rgb.shape == (36, 64, 3)


def test_frames_that_change_size_are_brought_to_the_first(tmp_path: Path) -> None:
    path = tmp_path / "sizes.mjpeg"
    data = b""
    for size in [(96, 64), (48, 32), (192, 128)]:
        part = io.BytesIO()
        write_video(
            part, [quadrants(*size)] * 2, codec="mjpeg", pixel_format="yuvj444p", container="mjpeg"
        )
        data += part.getvalue()
    path.write_bytes(data)
    frames = read(path)
    assert len(frames) == 6
    assert all(frame.rgb.shape == (64, 96, 3) for frame in frames)
    assert {corners(frame.rgb) for frame in frames} == {"RGBW"}


@needs_h264
def test_interlaced_frames_pass_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "interlaced.mp4"
    write_video(
        path,
        ramp(12, width=64, height=64),
        codec="libx264",
        pixel_format="yuv420p",
        options={"flags": "+ildct+ilme", "x264-params": "tff=1", "bf": "2"},
    )
    assert numbers(read(path, DEFAULT)) == list(range(12))


def test_file_objects_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a:b 100%.mkv"
    write_video(path, ramp(6))
    expected = read(path)
    assert numbers(expected) == list(range(6))
    assert_same(read(str(path)), expected)
    with path.open("rb") as file:
        assert_same(read(file), expected)
        assert not file.closed
    assert_same(read(io.BufferedReader(Pipe(path.read_bytes()))), expected)
    stdin = SimpleNamespace(buffer=io.BufferedReader(Pipe(path.read_bytes())))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert_same(read("-"), expected)


def test_the_shipped_clip() -> None:
    assert CLIP.stat().st_size < 400_000
    with VideoReader(CLIP, DEFAULT, export_motion=True) as video:
        assert (video.source_width, video.source_height) == (640, 360)
        assert (video.frame_rate, video.frame_count_hint) == (25, 64)
        frames = list(video)
        assert video.has_motion
    assert len(frames) == 64
    assert len(set(np.diff([frame.pts for frame in frames]))) == 1


def test_real_clips_are_what_a_tolerant_decoder_with_threads_makes_of_them(data_dir: Path) -> None:
    clips = sorted((data_dir / "videos").glob("*.m*"))
    assert clips
    for clip in clips:
        with (
            av.open(str(clip)) as container,
            VideoReader(clip, NATIVE, frames=(0, 48), export_motion=True) as video,
        ):
            stream = container.streams.best("video")
            stream.thread_type = "AUTO"
            frames = list(video)
            assert video.damage == Damage()
            decoded = list(islice(container.decode(stream), 48))
            assert [frame.pts for frame in frames] == [frame.pts for frame in decoded]
            for ours, theirs in zip(frames, decoded, strict=True):
                np.testing.assert_array_equal(ours.rgb, video.deliver(theirs, 0).rgb)


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="expected stop or skip or conceal"):
        VideoReader("clip.mp4", NATIVE, damaged="ignore")  # type: ignore[arg-type]
