"""Video files -> the frames that the edge sub-model sees; the only importer of `av` (PyAV, FFmpeg).

A `VideoReader` gives every frame once, in presentation order, with strictly increasing timestamps:
decoded, resized, turned upright, then cropped or padded as `Preprocessing` says.  On request it
adds the motion vectors that the input codec carries.  It holds one frame, whatever the length of
the video, besides those inside the decoder.

    decoded --resize (swscale, bicubic)--> RGB24 --display matrix--> upright --crop or pad--> rgb

The resized short side is `short_side`; the other side is `other * short_side / short`, rounded,
halves up.  Colour follows the file's tags; where they are silent, libswscale's defaults hold
(BT.601, limited range, grey in full range).

What it does not do: deinterlacing, tone mapping of HDR, correction of the sample aspect ratio
(pixels are taken as square), seeking (a range of frames is found by decoding from the start, the
only way to count them in any container), or normalisation to the sub-model's samples.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

import av
import av.error
import numpy as np
from av.codec.context import CodecContext, Flags2
from av.container import InputContainer
from av.sidedata.motionvectors import MotionVectors
from av.sidedata.sidedata import SideData
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from codec.bitstream import Preprocessing
from codec.errors import VideoError

__all__ = ["Frame", "VideoReader"]

DEFAULT_FRAME_RATE = Fraction(25)
MAX_SIDE = 16384  # of a resized frame: a strip of 1 x 10000 pixels must not become a gigabyte

# Without the last three, swscale trades rounding and chroma for speed, and differs between CPUs.
SCALER = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)

# AVColorSpace tags for which swscale has no matrix, and the nearest that it has: a reserved value
# says nothing (so BT.601, as without a tag), BT.2020 constant luminance is close to the usual kind.
COLORSPACE_STAND_INS = {3: Colorspace.ITU601, 10: Colorspace.BT2020}

# swscale takes grey as full range whatever its tag says; this is what it does to luma elsewhere.
LIMITED_TO_FULL = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, ready for normalisation.

    `rgb` has shape (height, width, 3).  `pts` counts in the reader's `time_base`.  `motion` is None
    unless asked for, else one row x, y, w, h, dx, dy per block of the input codec, in pixels of
    `rgb`, where pixel centres are integers: the centre and size of a block, and a displacement such
    that the block was predicted from (x + dx, y + dy) in an earlier frame.  FFmpeg does not tell
    which earlier frame.  Without vectors it has shape (0, 6).
    """

    rgb: NDArray[np.uint8]
    pts: int
    motion: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight symmetries of a rectangle: transpose first, then mirror."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def from_display_matrix(cls, matrix: NDArray[np.int32]) -> Orientation:
        """Reads FFmpeg's 3 x 3 display matrix, row vectors: (p, q) goes to (a p + c q, b p + d q).

        Angles between the quarter turns go to the nearest one.
        """
        (a, b, _), (c, d, _), _ = matrix.tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transpose=True, flip_x=c < 0, flip_y=b < 0)
        return cls(flip_x=a < 0, flip_y=d < 0)

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turns the pixels upright."""
        if self.transpose:
            rgb = rgb.transpose(1, 0, 2)
        return rgb[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The way of a pixel from the decoded frame to the delivered one; sizes are (width, height)."""

    resized: tuple[int, int]
    orientation: Orientation
    crop: tuple[int, int]  # left, top; zero when padding
    delivered: tuple[int, int]

    @classmethod
    def plan(
        cls,
        source: tuple[int, int],
        orientation: Orientation,
        preprocessing: Preprocessing,
        name: str,
    ) -> Geometry:
        """Derives all sizes from those of the first frame; `name` is for the error messages."""
        short = min(source)
        goal = preprocessing.short_side or short
        resized = (
            (2 * source[0] * goal + short) // (2 * short),
            (2 * source[1] * goal + short) // (2 * short),
        )
        if max(resized) > MAX_SIDE:
            raise VideoError(
                f"{name}: frames of {source[0]}x{source[1]} would be resized to "
                f"{resized[0]}x{resized[1]}; the longest side supported is {MAX_SIDE}"
            )
        width, height = resized[::-1] if orientation.transpose else resized
        size = preprocessing.crop
        if not size:
            multiple = preprocessing.pad_multiple
            padded = (-(-width // multiple) * multiple, -(-height // multiple) * multiple)
            return cls(resized, orientation, (0, 0), padded)
        if size > min(width, height):
            raise VideoError(
                f"{name}: a crop of {size}x{size} does not fit into frames of {width}x{height}; "
                f"resize them to a short side of at least {size}"
            )
        return cls(resized, orientation, ((width - size) // 2, (height - size) // 2), (size, size))

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resized frame -> delivered frame, a contiguous copy."""
        left, top = self.crop
        width, height = self.delivered
        rgb = self.orientation.apply(rgb)[top : top + height, left : left + width]
        missing = ((0, height - rgb.shape[0]), (0, width - rgb.shape[1]), (0, 0))
        return np.ascontiguousarray(np.pad(rgb, missing, mode="edge"))

    def map_motion(self, vectors: NDArray[np.void], source: tuple[int, int]) -> NDArray[np.float32]:
        """AVMotionVector records of a decoded frame of size `source` -> rows of `Frame.motion`."""
        past = vectors[vectors["source"] < 0]
        scale = np.array(self.resized) / source
        # FFmpeg counts from the corner of the frame, so pixel centres lie at halves there.
        centre = np.stack([past["dst_x"], past["dst_y"]], axis=1) * scale - 0.5
        size = np.stack([past["w"], past["h"]], axis=1) * scale
        steps_per_pixel = np.maximum(past["motion_scale"], 1)[:, None]
        shift = np.stack([past["motion_x"], past["motion_y"]], axis=1) / steps_per_pixel * scale

        upright = self.resized
        if self.orientation.transpose:
            centre, size, shift = centre[:, ::-1].copy(), size[:, ::-1], shift[:, ::-1].copy()
            upright = upright[::-1]
        for axis, flipped in enumerate((self.orientation.flip_x, self.orientation.flip_y)):
            if flipped:
                centre[:, axis] = upright[axis] - 1 - centre[:, axis]
                shift[:, axis] *= -1
        centre -= self.crop
        visible = (centre + size / 2 > -0.5) & (centre - size / 2 < np.array(self.delivered) - 0.5)
        rows = np.concatenate([centre, size, shift], axis=1)[visible.all(axis=1)]
        return rows.astype(np.float32)


class VideoReader:
    """Iterates once over the frames of a video; a context manager.

    The file is opened, and its first frame decoded, on construction: what is wrong with it shows at
    once, and sizes are known before the first frame is asked for.  Frames whose size changes on the
    way are resized to the size of the first.

    Errors of the decoder before the first frame are passed over (recordings often start inside a
    GOP); later ones end the iteration with a `VideoError` that names the frame.  Damage that the
    decoder conceals goes unnoticed, and a file that ends early between two packets simply ends.

    `frame_rate` is the average that the container states, else FFmpeg's guess, else 25; where it
    varies, `Frame.pts` is exact.  `source_width` and `source_height` are those of the decoded
    frames, before the display matrix; `width` and `height` those of the frames delivered.
    `frame_count_hint` counts the range asked for, by the header or the duration, so it may be
    wrong.  `has_motion` tells whether any frame so far had vectors: FFmpeg exports them for H.264
    and the MPEG-4 family, hardly for others.

    Example:
        with VideoReader("clip.mp4", preprocessing, frames=(0, 64)) as video:
            for frame in video:
                ...
    """

    time_base: Fraction
    frame_rate: Fraction
    width: int
    height: int
    source_width: int
    source_height: int
    frame_count_hint: int | None
    codec_name: str
    has_motion: bool

    def __init__(
        self,
        source: str | Path | BinaryIO,
        preprocessing: Preprocessing,
        *,
        frames: tuple[int, int | None] | None = None,
        export_motion: bool = False,
        threads: bool = True,
    ) -> None:
        """Opens a video.

        Args:
            source: A file name, "-" for standard input, or a binary file object.  The latter two
                stay open and need not be seekable where the container format allows that.
            preprocessing: What happens to each frame.
            frames: Half-open range (start, stop) in presentation order; stop = None means up to the
                end, and so does a stop behind it.  A start behind the end is a `VideoError` when it
                shows.
            export_motion: Ask the decoder for motion vectors.
            threads: Let the decoder use all cores; the frames of an undamaged file are the same.
        """
        _check_preprocessing(preprocessing)
        self._start, self._stop = frames or (0, None)
        if self._start < 0 or (self._stop is not None and self._stop < self._start):
            raise ValueError(f"frames must be a range 0 <= start <= stop, not {frames}")
        self._name = _describe(source)
        self._export_motion = export_motion
        self._reformatter = VideoReformatter()
        self._iterated = False
        self.has_motion = False

        self._remedy = _remedy(source)
        self._container = _open(source, self._name)
        try:
            self._stream = _video_stream(self._container, self._name)
            context = self._stream.codec_context
            context.thread_type = "AUTO" if threads else "NONE"
            context.thread_count = 0 if threads else 1
            if export_motion:
                context.flags2 |= Flags2.export_mvs
            self.codec_name = context.codec.canonical_name
            self.frame_rate = _frame_rate(self._stream)
            self.time_base = self._stream.time_base or 1 / self.frame_rate
            self.frame_count_hint = self._count_hint()

            self._decoded = self._decode()
            first = self._decode_first()
            self._first: VideoFrame | None = first
            self.source_width, self.source_height = first.width, first.height
            self._geometry = Geometry.plan(
                (first.width, first.height), _orientation(first), preprocessing, self._name
            )
            self.width, self.height = self._geometry.delivered
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        """Returns the reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the video."""
        self.close()

    def close(self) -> None:
        """Releases decoder and file; the reader cannot be iterated afterwards."""
        self._iterated = True
        self._first = None
        self._decoded.close()
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames of the range; raises `ValueError` the second time."""
        return (self.deliver(decoded, pts) for decoded, pts in self.decoded())

    def decoded(self) -> Iterator[tuple[VideoFrame, int]]:
        """Yields the frames of the range as they were decoded, with their pts; in place of
        iterating.
        """
        if self._iterated:
            raise ValueError(f"{self._name}: a VideoReader gives its frames once; open another one")
        self._iterated = True
        return self._range()

    def _range(self) -> Iterator[tuple[VideoFrame, int]]:
        try:
            index = -1
            # islice does not touch the frame behind the range, which may be damaged.
            for index, (decoded, pts) in enumerate(islice(self._timed(), self._stop)):
                if index >= self._start:
                    yield decoded, pts
            if index < self._start != self._stop:
                raise VideoError(
                    f"{self._name}: has only {index + 1} frames, so there is no frame {self._start}"
                )
        finally:
            self.close()

    def _timed(self) -> Iterator[tuple[VideoFrame, int]]:
        """Frames with strictly increasing timestamps.

        A missing timestamp is the last one plus a frame's duration; one that does not increase
        becomes the last plus 1.
        """
        duration = max(1, round(1 / (self.frame_rate * self.time_base)))
        previous = None
        for decoded in self._all_decoded():
            pts = decoded.pts
            if pts is None:
                pts = 0 if previous is None else previous + duration
            if previous is not None:
                pts = max(pts, previous + 1)
            previous = pts
            yield decoded, pts

    def _all_decoded(self) -> Iterator[VideoFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
            del first
        yield from self._decoded

    def _decode_first(self) -> VideoFrame:
        first = next(self._decoded, None)
        if first is None:
            raise VideoError(
                f"{self._name}: its video stream has no frame that can be decoded{self._remedy}"
            )
        return first

    def _decode(self) -> Generator[VideoFrame, None, None]:
        """Decoder output as it comes, flushed at the end.

        With threads, errors in the last few packets surface while flushing, and PyAV drops them
        there (and the frames behind them) if it has any frame to return.  They are found by
        accounting: a stream whose packets all gave a frame, except for the last ones, is damaged at
        its end.  Packets that give none by design (hidden frames, second fields) are overtaken by
        later frames; in such a stream the test would prove nothing, and is dropped.
        """
        index = 0
        waiting: set[int] = set()
        every_packet_gives_a_frame = True
        try:
            for packet in self._container.demux(self._stream):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    waiting.add(packet.pts)
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError:
                    if index:
                        raise
                    continue
                for frame in frames:
                    index += 1
                    if frame.pts is not None:
                        waiting.discard(frame.pts)
                        overtaken = {pts for pts in waiting if pts < frame.pts}
                        if overtaken:
                            every_packet_gives_a_frame = False
                            waiting -= overtaken
                    yield frame
        except av.error.FFmpegError as error:
            raise VideoError(
                f"{self._name}: cannot be decoded at frame {index} ({_reason(error)})"
                f"{'' if index else self._remedy}"
            ) from error
        if index and waiting and every_packet_gives_a_frame:
            raise VideoError(
                f"{self._name}: cannot be decoded at frame {index} "
                "(its last packets are damaged or cut short)"
            )

    def deliver(self, decoded: VideoFrame, pts: int) -> Frame:
        """Turns a decoded frame into what the sub-model sees: one of this video, or one of its
        size that went through another codec.
        """
        width, height = self._geometry.resized
        colorspace = COLORSPACE_STAND_INS.get(decoded.colorspace)
        try:
            resized = self._reformatter.reformat(
                decoded,
                width=width,
                height=height,
                format="rgb24",
                src_colorspace=colorspace,
                dst_colorspace=colorspace,
                interpolation=SCALER,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{self._name}: libswscale cannot convert {decoded.format.name} with colour space "
                f"{decoded.colorspace} to RGB ({_reason(error)})"
            ) from error
        rgb = self._geometry.apply(resized.to_ndarray().astype(np.uint8, copy=False))
        grey = decoded.format.name.startswith(("gray", "ya"))
        if grey and decoded.color_range == ColorRange.MPEG:
            rgb = LIMITED_TO_FULL[rgb]
        return Frame(rgb, pts, self._motion(decoded) if self._export_motion else None)

    def _motion(self, decoded: VideoFrame) -> NDArray[np.float32]:
        vectors = decoded.side_data.get("MOTION_VECTORS")
        if not isinstance(vectors, MotionVectors):
            return np.empty((0, 6), np.float32)
        motion = self._geometry.map_motion(vectors.to_ndarray(), (decoded.width, decoded.height))
        self.has_motion = self.has_motion or len(motion) > 0
        return motion

    def _count_hint(self) -> int | None:
        count = self._stream.frames
        if not count and self._stream.duration:
            count = round(self._stream.duration * self.time_base * self.frame_rate)
        elif not count and self._container.duration:
            count = round(Fraction(self._container.duration, av.time_base) * self.frame_rate)
        if not count or count < 0:
            return None
        stop = count if self._stop is None else min(count, self._stop)
        return max(0, stop - self._start)


def _check_preprocessing(preprocessing: Preprocessing) -> None:
    short_side, crop, multiple = (
        preprocessing.short_side,
        preprocessing.crop,
        preprocessing.pad_multiple,
    )
    if min(short_side, crop) < 0 or (not crop and multiple < 1) or 0 < short_side < crop:
        raise ValueError(
            "preprocessing needs short_side >= crop >= 0 or short_side = 0, "
            "and pad_multiple >= 1 without a crop, "
            f"not short_side={short_side}, crop={crop}, pad_multiple={multiple}"
        )


def _describe(source: str | Path | BinaryIO) -> str:
    if isinstance(source, str | Path):
        return "standard input" if str(source) == "-" else str(source)
    return str(getattr(source, "name", "video"))


def _remedy(source: str | Path | BinaryIO) -> str:
    """What to do about a video that cannot be read from its beginning."""
    if isinstance(source, str | Path):
        seekable = str(source) != "-" or sys.stdin.buffer.seekable()
    else:
        seekable = source.seekable()
    return "" if seekable else "; from a pipe, an MP4 needs its index in front (+faststart)"


def _open(source: str | Path | BinaryIO, name: str) -> InputContainer:
    """Opens a container; every failure is a `VideoError` of one line."""
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
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{name}: not a video that FFmpeg can read ({_reason(error)}){_remedy(source)}"
        ) from error
    if container.format.name == "tty":  # FFmpeg shows text files as a terminal would
        container.close()
        raise VideoError(f"{name}: is a text file, not a video")
    return container


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """The stream that FFmpeg thinks best, cover pictures excepted."""
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams at all"
        raise VideoError(f"{name}: has no video stream (found: {kinds})")
    # PyAV's annotations leave out that a codec without decoder has no context.
    if cast("CodecContext | None", stream.codec_context) is None:
        raise VideoError(f"{name}: this build of FFmpeg has no decoder for its video stream")
    return stream


def _frame_rate(stream: VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return rate
    return DEFAULT_FRAME_RATE


def _orientation(frame: VideoFrame) -> Orientation:
    matrix = cast("SideData | None", frame.side_data.get("DISPLAYMATRIX"))
    if matrix is None:
        return Orientation()
    return Orientation.from_display_matrix(np.frombuffer(bytes(matrix), np.int32).reshape(3, 3))


def _reason(error: BaseException) -> str:
    """What FFmpeg says, without the file name that PyAV appends to it."""
    return getattr(error, "strerror", None) or str(error)
