"""Frames of small synthetic videos: order, timestamps, places, colours, vectors, and refusals."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.codec import codecs_available
from numpy.typing import NDArray

from codec.errors import VideoError
from codec.files.damage import Damage
from codec.files.fitting import Orientation
from codec.files.video import Frame, VideoReader
from codec.format.header import Preprocessing

pytestmark = pytest.mark.video

CLIP = Path(__file__).parents[1] / "bitstreams" / "clip" / "big_buck_bunny_64.mp4"
NATIVE = Preprocessing(0, 0, 1, (127_000,) * 3, (128_000,) * 3)
DEFAULT = Preprocessing(256, 224, 1, (127_000,) * 3, (128_000,) * 3)

needs_h264 = pytest.mark.skipif("libx264" not in codecs_available, reason="no libx264 in PyAV")


def preprocessing(short_side: int = 0, crop: int = 0, pad_multiple: int = 1) -> Preprocessing:
    return Preprocessing(
        short_side, crop, pad_multiple, NATIVE.mean_thousandths, NATIVE.scale_thousandths
    )


def write_video(
    path: Path | io.BytesIO,
    pictures: Iterable[NDArray[np.uint8]],
    *,
    codec: str = "ffv1",
    pixel_format: str = "bgr0",
    pts: Sequence[int] | None = None,
    rate: int = 25,
    time_base: Fraction | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    options: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    container: str | None = None,
    movflags: str | None = "+faststart",
) -> None:
    """Encodes RGB pictures; each keyword is one thing that a test varies."""
    muxer_options = {"movflags": movflags} if movflags and str(path).endswith("mp4") else {}
    with av.open(path, "w", format=container, options=muxer_options) as output:
        stream = None
        for index, picture in enumerate(pictures):
            if stream is None:
                stream = output.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixel_format
                stream.codec_context.time_base = time_base or Fraction(1, rate)
                for name, value in (tags or {}).items():
                    setattr(stream.codec_context, name, value)
                if rotation:
                    degrees, hflip, vflip = rotation
                    stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts = pts[index] if pts else index
            frame.time_base = stream.codec_context.time_base
            for packet in stream.encode(frame):
                output.mux(packet)
        assert stream is not None
        for packet in stream.encode():
            output.mux(packet)


def flat(level: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def ramp(count: int, **size: int) -> list[NDArray[np.uint8]]:
    """Frames that show their own number as brightness."""
    return [flat(16 + 4 * number, **size) for number in range(count)]


def numbers(frames: Iterable[Frame]) -> list[int]:
    return [round((float(frame.rgb.mean()) - 16) / 4) for frame in frames]


def quadrants(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Red and green above, blue and white below."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2, 0] = 255
    picture[: height // 2, width // 2 :, 1] = 255
    picture[height // 2 :, : width // 2, 2] = 255
    picture[height // 2 :, width // 2 :] = 255
    return picture


def corners(rgb: NDArray[np.uint8]) -> str:
    """The colours around the quarter points, in reading order."""
    height, width = rgb.shape[:2]
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W", (0, 0, 0): "K"}
    points = [(y, x) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return "".join(names[tuple(int(v > 127) for v in rgb[point])] for point in points)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def texture(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth random blobs, which a motion search can lock on to."""
    coarse = av.VideoFrame.from_ndarray(noise(height // 8, width // 8), "rgb24")
    return coarse.reformat(width=width, height=height, interpolation="BICUBIC").to_ndarray()


def read(source: Any, how: Preprocessing = NATIVE, **options: Any) -> list[Frame]:
    with VideoReader(source, how, **options) as video:
        return list(video)


def assert_same(left: list[Frame], right: list[Frame]) -> None:
    assert [frame.pts for frame in left] == [frame.pts for frame in right]
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        if a.motion is not None or b.motion is not None:
            np.testing.assert_array_equal(a.motion, b.motion)


class Pipe(io.RawIOBase):
    """Bytes that can be read once, as from a pipe."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, target: Any) -> int:
        return self.buffer.readinto(target)


# Order, timestamps, ranges


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


def test_timestamps_that_stand_still_are_repaired_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    write_video(path, ramp(6), codec="mjpeg", pixel_format="yuvj420p")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
        places = [data.index(bytes(packet)) for packet in _packets(path)]
    assert stamps == [0, 40, 80, 120, 160, 200]
    for place, stamp in zip(places[2:5], [40, 20, 41], strict=True):
        # A SimpleBlock: track number, 16-bit timestamp within the cluster, flags, payload.
        data[place - 3 : place - 1] = stamp.to_bytes(2, "big")
    frames = read(io.BytesIO(bytes(data)))
    assert numbers(frames) == list(range(6))
    assert [frame.pts for frame in frames] == [0, 40, 41, 42, 43, 200]


def _packets(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


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


# Geometry and colour


def test_attributes(tmp_path: Path) -> None:
    path = tmp_path / "attributes.mkv"
    write_video(path, ramp(10, width=128, height=72), rate=10)
    with VideoReader(path, preprocessing(36)) as video:
        assert (video.source_width, video.source_height) == (128, 72)
        assert (video.width, video.height) == (64, 36)
        assert (video.time_base, video.frame_rate) == (Fraction(1, 1000), 10)
        assert (video.codec_name, video.frame_count_hint) == ("ffv1", 10)
        assert next(iter(video)).rgb.shape == (36, 64, 3)


@pytest.mark.parametrize("size", [(48, 64), (37, 53), (53, 37), (1, 1), (17, 90)])
def test_pixels_pass_unchanged_when_nothing_is_resized(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pictures = [noise(*size, seed) for seed in range(3)]
    path = tmp_path / "exact.mkv"
    write_video(path, pictures)
    for frame, picture in zip(read(path), pictures, strict=True):
        np.testing.assert_array_equal(frame.rgb, picture)
        assert frame.rgb.flags.c_contiguous
        assert frame.rgb.flags.writeable


@pytest.mark.parametrize("size", [(41, 64), (40, 55), (31, 31)])
def test_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "crop.mkv"
    picture = noise(*size)
    write_video(path, [picture])
    (frame,) = read(path, preprocessing(crop=30))
    top, left = (size[0] - 30) // 2, (size[1] - 30) // 2
    np.testing.assert_array_equal(frame.rgb, picture[top : top + 30, left : left + 30])


def test_padding_repeats_the_last_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "pad.mkv"
    picture = noise(33, 47)
    write_video(path, [picture])
    (frame,) = read(path, preprocessing(pad_multiple=16))
    assert frame.rgb.shape == (48, 48, 3)
    np.testing.assert_array_equal(frame.rgb[:33, :47], picture)
    np.testing.assert_array_equal(frame.rgb[33:, :47], np.repeat(picture[-1:], 15, axis=0))
    np.testing.assert_array_equal(frame.rgb[:33, 47], picture[:, -1])


@pytest.mark.parametrize(
    ("source", "resized"),
    [
        ((640, 272), (602, 256)),
        ((640, 360), (455, 256)),
        ((3, 2), (384, 256)),
        ((9, 16), (256, 455)),
    ],
)
def test_size_when_resized(
    tmp_path: Path, source: tuple[int, int], resized: tuple[int, int]
) -> None:
    path = tmp_path / "size.mkv"
    write_video(path, [flat(90, *source)])
    with VideoReader(path, preprocessing(256)) as video:
        assert (video.width, video.height) == resized
        (frame,) = video
    assert frame.rgb.shape == (*resized[::-1], 3)
    assert (frame.rgb == 90).all()


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


@pytest.mark.parametrize(
    ("suffix", "rotation", "expected", "size"),
    [
        ("mp4", (0, False, False), "RGBW", (64, 96)),
        ("mp4", (90, False, False), "GWRB", (96, 64)),
        ("mp4", (180, False, False), "WBGR", (64, 96)),
        ("mp4", (270, False, False), "BRWG", (96, 64)),
        ("mp4", (0, True, False), "GRWB", (64, 96)),
        ("mp4", (0, False, True), "BWRG", (64, 96)),
        ("mkv", (90, False, False), "GWRB", (96, 64)),
    ],
)
def test_the_display_matrix_turns_frames_upright(
    tmp_path: Path,
    suffix: str,
    rotation: tuple[float, bool, bool],
    expected: str,
    size: tuple[int, int],
) -> None:
    path = tmp_path / f"rotated.{suffix}"
    write_video(path, [quadrants()] * 3, codec="mpeg4", pixel_format="yuv420p", rotation=rotation)
    with VideoReader(path, NATIVE) as video:
        assert (video.height, video.width) == size
        assert (video.source_height, video.source_width) == (64, 96)
        for frame in video:
            assert frame.rgb.shape[:2] == size
            assert corners(frame.rgb) == expected


@pytest.mark.parametrize("quarter_turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation_agrees_with_numpy(quarter_turns: int, mirrored: bool) -> None:
    """The matrix maps (x, y) to (x, y) M; numpy turns counterclockwise."""
    turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), quarter_turns)
    mirror = np.diag([-1 if mirrored else 1, 1])
    matrix = np.zeros((3, 3), np.int32)
    matrix[:2, :2] = (turn @ mirror) * 65536
    picture = noise(4, 7)
    expected = np.rot90(picture, quarter_turns)
    expected = expected[:, ::-1] if mirrored else expected
    orientation = Orientation.from_display_matrix(matrix)
    np.testing.assert_array_equal(orientation.apply(picture), expected)


def test_a_crop_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.mkv"
    write_video(path, [flat(9, 64, 48)])
    with pytest.raises(VideoError, match=r"crop of 224x224 does not fit into frames of 64x48"):
        VideoReader(path, preprocessing(crop=224))
    write_video(path, [flat(9, 1000, 2)])
    with pytest.raises(VideoError, match=r"would be resized to 128000x256"):
        VideoReader(path, DEFAULT)


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


# Motion


def moving(count: int, step: tuple[int, int], height: int = 144, width: int = 192) -> list[Any]:
    """A window that glides over a texture; what it shows moves by `-step` each frame."""
    ground = texture(height + 128, width + 128)
    places = [(64 + step[0] * t, 64 + step[1] * t) for t in range(count)]
    return [ground[y : y + height, x : x + width] for y, x in places]


@needs_h264
@pytest.mark.parametrize(
    ("how", "rotation", "expected"),
    [
        (NATIVE, None, (6, -4)),
        (preprocessing(72), None, (3, -2)),
        (preprocessing(288, 224), None, (12, -8)),
        (NATIVE, (90, False, False), (-4, -6)),
        (NATIVE, (180, False, False), (-6, 4)),
        (NATIVE, (270, False, False), (4, 6)),
        (NATIVE, (0, True, False), (-6, -4)),
    ],
)
def test_motion_points_to_where_blocks_came_from(
    tmp_path: Path,
    how: Preprocessing,
    rotation: tuple[float, bool, bool] | None,
    expected: tuple[int, int],
) -> None:
    path = tmp_path / "moving.mp4"
    write_video(
        path,
        moving(5, (-4, 6)),
        codec="libx264",
        pixel_format="yuv420p",
        options={"bf": "0", "refs": "1", "qp": "14"},
        rotation=rotation,
    )
    with VideoReader(path, how, export_motion=True) as video:
        assert not video.has_motion
        frames = list(video)
        assert video.has_motion
    assert frames[0].motion is not None
    assert frames[0].motion.shape == (0, 6)
    height, width = frames[0].rgb.shape[:2]
    for earlier, frame in pairwise(frames[1:]):
        motion = frame.motion
        assert motion is not None
        assert motion.dtype == np.float32
        x, y, w, h, dx, dy = motion.T
        assert ((x + w / 2 > -0.5) & (x - w / 2 < width - 0.5)).all()
        assert ((y + h / 2 > -0.5) & (y - h / 2 < height - 0.5)).all()
        inner = (abs(x - width / 2) < width / 3) & (abs(y - height / 2) < height / 3)
        assert inner.any()
        np.testing.assert_allclose(np.median(motion[inner, 4:], axis=0), expected, atol=0.3)
        # The sense of the displacement, from the pixels themselves.
        errors = []
        for sign in (1, -1):
            rows = (y[inner] + sign * dy[inner]).round().astype(int)
            columns = (x[inner] + sign * dx[inner]).round().astype(int)
            there = earlier.rgb[rows.clip(0, height - 1), columns.clip(0, width - 1)]
            here = frame.rgb[y[inner].round().astype(int), x[inner].round().astype(int)]
            errors.append(np.abs(there.astype(int) - here).mean())
        assert errors[0] < errors[1] / 2


def test_mpeg4_vectors_cover_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "moving.avi"
    write_video(
        path, moving(6, (3, -5)), codec="mpeg4", pixel_format="yuv420p", options={"b": "4000000"}
    )
    frames = read(path, export_motion=True)
    for frame in frames[1:]:
        assert frame.motion is not None
        area = (frame.motion[:, 2] * frame.motion[:, 3]).sum()
        assert area > 0.7 * 144 * 192
        np.testing.assert_allclose(np.median(frame.motion[:, 4:], axis=0), [-5, 3], atol=0.5)


def test_motion_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    write_video(path, ramp(3))
    assert all(frame.motion is None for frame in read(path))
    with VideoReader(path, NATIVE, export_motion=True) as video:
        shapes = [frame.motion.shape for frame in video if frame.motion is not None]
        assert shapes == [(0, 6)] * 3
        assert not video.has_motion


# Sources and refusals


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


def test_a_pipe_with_its_index_at_the_end_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    pictures = [noise(240, 320, seed) for seed in range(4)]  # more than FFmpeg's read buffer
    write_video(path, pictures, codec="mpeg4", pixel_format="yuv420p", movflags=None)
    with pytest.raises(VideoError, match="faststart"):
        read(io.BufferedReader(Pipe(path.read_bytes())))


def _refused(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert message.count(str(path)) == 1
    return message


def test_what_is_not_a_video_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in _refused(tmp_path / "missing.mp4")
    assert "is a directory" in _refused(tmp_path)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert "is empty" in _refused(empty)
    for name in ("notes.txt", "notes.mp4", "notes"):
        text = tmp_path / name
        text.write_text("This is not a video, it is prose.\n" * 100)
        assert "not a video" in _refused(text)
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(np.random.default_rng(1).bytes(50_000))
    _refused(garbage)
    for data in (b"", b"x", b"prose " * 999):
        with pytest.raises(VideoError):
            read(io.BytesIO(data))
    assert capfd.readouterr() == ("", "")


def test_audio_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.rate = 8000
        output.mux([*stream.encode(frame), *stream.encode()])
    assert "no video stream (found: audio)" in _refused(path)


def test_a_video_stream_without_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hollow.mkv"
    write_video(path, ramp(3))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(bytes(_packets(path)[0])) - 20])
    _refused(path)


@needs_h264
def test_a_truncated_file_gives_what_is_there_and_then_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.mp4"
    write_video(
        path,
        moving(40, (1, 1)),
        codec="libx264",
        pixel_format="yuv420p",
        options={"bf": "2", "qp": "20"},
    )
    data = path.read_bytes()
    whole = read(path)
    assert len(whole) == 40
    path.write_bytes(data[: len(data) * 2 // 3])
    frames = []
    with (
        pytest.raises(VideoError, match=r"cannot be decoded at frame \d+ \("),
        VideoReader(path, NATIVE) as video,
    ):
        frames.extend(video)
    assert 15 < len(frames) < 30
    assert_same(frames, whole[: len(frames)])
    # What lies before the damage can be asked for without hearing of it.
    assert_same(read(path, frames=(0, 10)), whole[:10])
    path.write_bytes(data[:100])
    _refused(path)
    assert capfd.readouterr() == ("", "")


def test_damage_in_the_middle_names_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mov"
    write_video(
        path, [noise(48, 64, seed) for seed in range(12)], codec="png", pixel_format="rgb24"
    )
    data = bytearray(path.read_bytes())
    place = data.index(bytes(_packets(path)[6]))
    data[place : place + 64] = bytes(64)
    path.write_bytes(bytes(data))
    frames = []
    with (
        pytest.raises(VideoError, match="cannot be decoded at frame 6 "),
        VideoReader(path, NATIVE) as video,
    ):
        frames.extend(video)
    assert len(frames) == 6


# Real clips


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
