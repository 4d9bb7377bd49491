"""Pictures -> an MP4 to look at: H.264 where FFmpeg has an encoder for it, else MPEG-4."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO, Final, cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from codec.errors import VideoError

__all__ = ["PictureWriter"]

TICKS: Final = 60_000
"""Of a second; MPEG-4 has 16 bits for it.  A header's own time base may be finer."""
LONGEST: Final = 24 * 60 * 60
TYPICAL_RATE: Final = 30
"""For what an encoder decides by it; timestamps say when a picture is shown."""
CODECS: Final = {"libx264": {"crf": "18"}, "mpeg4": {"qscale": "3"}}


class PictureWriter:
    """Writes pictures of one size; a context manager, at whose end the video is whole.

    Args:
        file: seekable, stays open.
        size: (width, height); odd sides lose a row or column.
        time_base: seconds that a step of the timestamps takes, as of a stream.
    """

    def __init__(self, file: BinaryIO, size: tuple[int, int], time_base: Fraction) -> None:
        self._container = av.open(file, "w", format="mp4")
        name = next(name for name in CODECS if name in av.codecs_available)
        stream = self._container.add_stream(name, rate=TYPICAL_RATE, options=CODECS[name])
        self._stream = cast(VideoStream, stream)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._ticks, self._first, self._last = time_base * TICKS, 0, -1
        self._width, self._height = (side - side % 2 for side in size)
        self._stream.width, self._stream.height = self._width, self._height

    def add(self, rgb: NDArray[np.uint8], pts: int) -> None:
        """Write a (H, W, 3) picture; the first one is shown at once.

        Raises:
            VideoError: it is longer after the first than a video to look at lasts.
        """
        if self._last < 0:
            self._first = pts
        ticks = max(round((pts - self._first) * self._ticks), self._last + 1)
        if ticks > LONGEST * TICKS:
            raise VideoError(
                f"a frame lies {ticks // TICKS} seconds after the first; drawn videos last at most "
                f"{LONGEST}, so draw a part, --frames A:B"
            )
        self._last = ticks
        shown = np.ascontiguousarray(rgb[: self._height, : self._width])
        frame = av.VideoFrame.from_ndarray(shown, "rgb24")
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
