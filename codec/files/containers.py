"""Container files: opened, their video stream found; or refused, with what to do about it."""

from __future__ import annotations

import os
import re
import struct
import sys
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final, cast

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from codec.errors import VideoError
from codec.files.boundary import reason

__all__ = [
    "Source",
    "frame_rate",
    "is_live",
    "name_of",
    "open_container",
    "pipe_remedy",
    "video_stream",
]

Source = str | Path | BinaryIO
"""A file name, "-" for standard input, or a binary file object."""

DEFAULT_FRAME_RATE: Final = Fraction(25)
MOST_BOXES: Final = 1000
URL: Final = re.compile("[a-z][a-z0-9+.-]+://", re.IGNORECASE)
SECRET: Final = re.compile("(?<=://)[^/]*@")
"""A name and a password, which are nobody's business in a message."""
PATIENCE: Final = (10.0, 10.0)
"""Seconds that a camera may take to open, and to send something."""


def name_of(source: Source) -> str:
    """Name a source in messages."""
    if isinstance(source, str | Path):
        return "standard input" if str(source) == "-" else SECRET.sub("", str(source))
    return str(getattr(source, "name", "video"))


def is_live(source: Source) -> bool:
    """Tell whether frames come when they come: from a URL, a device or a pipe."""
    if not isinstance(source, str | Path):
        return not source.seekable()
    if str(source) == "-":
        return True
    return bool(URL.match(str(source))) or Path(source).is_char_device()


def pipe_remedy(source: Source) -> str:
    """What to do about a video that cannot be read from its beginning."""
    if isinstance(source, str | Path):
        seekable = str(source) != "-" or sys.stdin.buffer.seekable()
    else:
        seekable = source.seekable()
    return "" if seekable else "; from a pipe, an MP4 needs its index in front (+faststart)"


def open_container(source: Source, name: str, *, live: bool = False) -> InputContainer:
    """Opens a container, with `live` a URL or a device too; every failure is a `VideoError` of one
    line.
    """
    if live and isinstance(source, str | Path) and str(source) != "-" and is_live(source):
        return _open_live(str(source), name)
    file: str | BinaryIO
    if not isinstance(source, str | Path):
        file = source
    elif str(source) == "-":
        file = sys.stdin.buffer
    else:
        path = Path(source)
        if not path.exists():
            raise VideoError(f"{name}: no such file")
        if path.is_dir():
            raise VideoError(f"{name}: is a directory, not a video")
        if path.is_file() and not path.stat().st_size:
            raise VideoError(f"{name}: the file is empty")
        file = f"file:{path}"  # the explicit protocol keeps "a:b.mp4" a file name
    try:
        # Tags in other encodings than UTF-8 are no reason to refuse a video.
        container = av.open(file, "r", metadata_errors="replace")
    except Exception as error:  # whatever PyAV makes of a damaged beginning
        if _lacks_index(source):
            raise VideoError(
                f"{name}: an MP4 without its index (moov), which recorders write last: the "
                "recording was cut off or is not finished; finish it, or have a repair tool "
                "rebuild the index from another recording of the same camera"
            ) from error
        raise VideoError(
            f"{name}: not a video that FFmpeg can read ({reason(error)}){pipe_remedy(source)}"
        ) from error
    if container.format.name == "tty":  # FFmpeg shows text files as a terminal would
        container.close()
        raise VideoError(f"{name}: is a text file, not a video")
    return container


def _open_live(source: str, name: str) -> InputContainer:
    options = {}
    if source.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # half of a picture is of no use to a network
    try:
        return av.open(
            source,
            "r",
            format=None if URL.match(source) else "v4l2",
            options=options,
            metadata_errors="replace",
            timeout=PATIENCE,
        )
    except Exception as error:  # whatever PyAV makes of it
        raise VideoError(f"{name}: cannot be opened ({reason(error)})") from error


def _lacks_index(source: Source) -> bool:
    """Tell whether a file consists of MP4 boxes, none of which is an index."""
    try:
        with (
            Path(source).open("rb") if isinstance(source, str | Path) else nullcontext(source)
        ) as file:
            position, end = 0, file.seek(0, os.SEEK_END)
            kinds: list[bytes] = []
            while position + 8 <= end and len(kinds) < MOST_BOXES:
                file.seek(position)
                size, kind = struct.unpack(">I4s", file.read(8))
                kinds.append(kind)
                if size == 1:
                    size = int.from_bytes(file.read(8), "big")
                if size < 8:
                    break
                position += size
    except Exception:  # whatever a file object of a caller's makes of it
        return False
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The stream that FFmpeg thinks best, cover pictures excepted."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams at all"
        raise VideoError(f"{name}: has no video stream (found: {kinds})")
    # PyAV's annotations leave out that a codec without decoder has no context.
    if cast("CodecContext | None", stream.codec_context) is None:
        raise VideoError(f"{name}: this build of FFmpeg has no decoder for its video stream")
    return stream


def frame_rate(stream: VideoStream) -> Fraction:
    """Return the average that the container states, else FFmpeg's guess, else 25."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return rate
    return DEFAULT_FRAME_RATE
