"""Pictures -> an MP4 to look at: H.264 where FFmpeg has an encoder for it, else MPEG-4."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO, Final, cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

__all__ = ["PictureWriter"]

MAX_RATE: Final = 60_000
"""Largest numerator and denominator of a frame rate, which MPEG-4 has 16 bits for."""
CODECS: Final = {"libx264": {"crf": "18"}, "mpeg4": {"qscale": "3"}}


class PictureWriter:
    """Writes pictures of one size; a context manager, at whose end the video is whole.

    Args:
        file: seekable, stays open.
        size: (width, height); odd sides lose a row or column.
        rate: pictures per second.
    """

    def __init__(self, file: BinaryIO, size: tuple[int, int], rate: Fraction) -> None:
        self._container = av.open(file, "w", format="mp4")
        name = next(name for name in CODECS if name in av.codecs_available)
        stream = self._container.add_stream(
            name, rate=rate.limit_denominator(MAX_RATE), options=CODECS[name]
        )
        self._stream = cast(VideoStream, stream)
        self._stream.pix_fmt = "yuv420p"
        self._width, self._height = (side - side % 2 for side in size)
        self._stream.width, self._stream.height = self._width, self._height

    def add(self, rgb: NDArray[np.uint8]) -> None:
        """Write a (H, W, 3) picture."""
        shown = np.ascontiguousarray(rgb[: self._height, : self._width])
        frame = av.VideoFrame.from_ndarray(shown, "rgb24")
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
