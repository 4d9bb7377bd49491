"""Colours by tag and pixel format."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videos import DEFAULT, NATIVE, corners, quadrants, read, write_video

from codec.errors import VideoError

pytestmark = pytest.mark.video


@pytest.mark.parametrize("pixel_format", ["bgr0", "yuv420p", "yuv444p", "yuv420p10le"])
def test_colours_lie_where_they_belong(tmp_path: Path, pixel_format: str) -> None:
    path = tmp_path / "quadrants.mkv"
    write_video(path, [quadrants(97, 65)] * 2, pixel_format=pixel_format)
    for how in [NATIVE, DEFAULT]:
        rgb = read(path, how)[1].rgb
        assert corners(rgb) == "RGBW"
        height, width = rgb.shape[:2]
        red = rgb[: height // 3, : width // 3].reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(red, [255, 0, 0], atol=3)


@pytest.mark.parametrize(("tag", "luma"), [(1, 63), (5, 81), (6, 81), (3, 81), (2, 81)])
def test_the_matrix_follows_the_tag(tmp_path: Path, tag: int, luma: int) -> None:
    """Pure red in BT.709 (tag 1) and in BT.601 (the others, 3 being reserved, 2 unspecified)."""
    levels = (luma, 102, 240) if tag == 1 else (luma, 90, 240)
    frame = av.VideoFrame(32, 32, "yuv444p")
    for plane, level in zip(frame.planes, levels, strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    frame.pts = 0
    path = tmp_path / "red.mkv"
    _write_frame(path, frame, "ffv1", colorspace=tag)
    (read_back,) = read(path)
    np.testing.assert_allclose(read_back.rgb[16, 16], [255, 0, 0], atol=2)


def _write_frame(path: Path, frame: av.VideoFrame, codec: str, **tags: int) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height = frame.width, frame.height
        stream.pix_fmt = frame.format.name
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        frame.time_base = Fraction(1, 25)
        output.mux([*stream.encode(frame), *stream.encode()])


@pytest.mark.parametrize(("tag", "white"), [(0, 235), (1, 255), (2, 235)])
def test_grey_in_limited_range_is_expanded(tmp_path: Path, tag: int, white: int) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((32, 32), 235, np.uint8), "gray")
    frame.pts = 0
    path = tmp_path / "grey.mkv"
    _write_frame(path, frame, "ffv1", color_range=tag)
    (read_back,) = read(path)
    assert (read_back.rgb == white).all()


def test_an_unknown_matrix_is_refused(tmp_path: Path) -> None:
    frame = av.VideoFrame(32, 32, "yuv444p")
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.pts = 0
    path = tmp_path / "ycgco.mkv"
    _write_frame(path, frame, "ffv1", colorspace=8)
    with pytest.raises(VideoError, match="cannot convert yuv444p with colour space 8"):
        read(path)
