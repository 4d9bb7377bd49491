"""Small synthetic videos, and what is read from them, for the tests of files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec import codecs_available
from numpy.typing import NDArray

from codec.errors import VideoError
from codec.files.video import Frame, VideoReader
from codec.format.header import Preprocessing

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


def packets_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def moving(count: int, step: tuple[int, int], height: int = 144, width: int = 192) -> list[Any]:
    """A window that glides over a texture; what it shows moves by `-step` each frame."""
    ground = texture(height + 128, width + 128)
    places = [(64 + step[0] * t, 64 + step[1] * t) for t in range(count)]
    return [ground[y : y + height, x : x + width] for y, x in places]


def refused(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert message.count(str(path)) == 1
    return message


CASES = Path(__file__).with_name("cases")


def shape(pictures: int = 40) -> dict[str, Any]:
    return {"pictures": moving(pictures, (1, 1))}
