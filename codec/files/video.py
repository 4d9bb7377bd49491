"""Video files -> the frames that the edge sub-model sees, by PyAV (FFmpeg).

A `VideoReader` gives every frame once, in presentation order, with strictly increasing timestamps:
decoded, resized, turned upright, then cropped or padded as `Preprocessing` says.  On request it
adds the motion vectors that the input codec carries.  It holds one frame, whatever the length of
the video, besides those inside the decoder.

    containers   opened, the video stream found
    decoding     packets -> decoded frames, under the policy of `damage`
    timeline     their timestamps, strictly increasing
    side_data    their orientation, and the vectors of the input codec
    colour       resized, RGB24 (libswscale)
    fitting      turned upright, cropped or padded

What it does not do: deinterlacing, tone mapping of HDR, correction of the sample aspect ratio
(pixels are taken as square), seeking (a range of frames is found by decoding from the start, the
only way to count them in any container), or normalisation to the sub-model's samples.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from types import TracebackType
from typing import Final, Self, cast

import av
import numpy as np
from av.codec.context import Flags2
from av.format import Flags as FormatFlags
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from codec.errors import VideoError
from codec.files.boundary import as_video_error
from codec.files.colour import RgbConverter
from codec.files.containers import (
    Source,
    frame_rate,
    name_of,
    open_container,
    pipe_remedy,
    video_stream,
)
from codec.files.damage import DAMAGE_POLICIES, Damage, DamagePolicy
from codec.files.decoding import Decoding, configure
from codec.files.fitting import Fit, check_preprocessing
from codec.files.side_data import SideData
from codec.files.timeline import Timeline
from codec.format.constants import MAX_PTS
from codec.format.header import Preprocessing
from codec.tasks.task import Geometry

__all__ = ["Frame", "VideoReader"]

DISCONTINUITY: Final = Fraction(10)
"""Seconds that time may leap forward in a container whose clock can jump, before the leap is taken
for a new recording: FFmpeg's own threshold (`-dts_delta_threshold`)."""


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


class VideoReader:
    """Iterates once over the frames of a video; a context manager.

    The file is opened, and its first frame decoded, on construction: what is wrong with it shows at
    once, and sizes are known before the first frame is asked for.  Frames whose size changes on the
    way are resized to the size of the first.

    Timestamps increase strictly.  Where those of the file do not: a missing one is the last plus a
    frame's duration, one not behind the last is the last plus 1.  But one that lies before the
    whole recording so far, or more than 16 frames back, begins a new recording behind the old (a
    clock that was set, files joined end to end), which goes on a frame's duration after the last.
    So does a leap of more than ten seconds where the container's clock may jump (MPEG transport and
    program streams).

    `damage` says what was lost so far; with `damaged="stop"` that is at most what lies in front of
    the first frame.  A file that ends early between two packets simply ends.

    `frame_rate` is the average that the container states, else FFmpeg's guess, else 25; where it
    varies, `Frame.pts` is exact.  `source_width` and `source_height` are those of the decoded
    frames, before the display matrix; `width` and `height` those of the frames delivered;
    `geometry` says where pixels of the former, turned upright, lie in the latter.
    `frame_count_hint` counts the range asked for, by the header or the duration, so it may be
    wrong.  `has_motion` tells whether any frame so far had vectors: FFmpeg exports them for H.264
    and the MPEG-4 family, hardly for others.

    Example:
        >>> preprocessing = codec.default_preprocessing("efficientnet_lite0", native=False)
        >>> with codec.VideoReader("clip.mp4", preprocessing, frames=(0, 4)) as video:
        ...     frames = [frame.rgb for frame in video]
        >>> len(frames), frames[0].shape
        (4, (224, 224, 3))
    """

    time_base: Fraction
    frame_rate: Fraction
    width: int
    height: int
    source_width: int
    source_height: int
    geometry: Geometry
    frame_count_hint: int | None
    codec_name: str
    has_motion: bool
    damage: Damage

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        *,
        frames: tuple[int, int | None] | None = None,
        export_motion: bool = False,
        damaged: DamagePolicy = "stop",
        live: bool = False,
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
            damaged: Behind the first frame, "stop" ends the iteration at the first damage with a
                `VideoError` that names the frame; "skip" leaves damaged frames out, and all that
                depend on them, and goes on at the next key frame; "conceal" gives whatever a
                tolerant decoder makes of damage, and counts only what gave no frame at all.
            live: The name may be a URL or a device too.
        """
        check_preprocessing(preprocessing)
        if damaged not in DAMAGE_POLICIES:
            raise ValueError(f"damaged is {damaged!r}, expected {' or '.join(DAMAGE_POLICIES)}")
        self._start, self._stop = frames or (0, None)
        if self._start < 0 or (self._stop is not None and self._stop < self._start):
            raise ValueError(f"frames must be a range 0 <= start <= stop, not {frames}")
        self._name = name_of(source)
        self._export_motion = export_motion
        self._converter = RgbConverter(self._name, preprocessing.interpolation)
        self._whole = RgbConverter(self._name)
        self._iterated = False
        self._side_data = SideData()
        self.has_motion = False
        self.damage = Damage()

        remedy = pipe_remedy(source)
        self._container = open_container(source, self._name, live=live)
        try:
            with as_video_error(f"{self._name}: cannot be read"):
                self._stream = video_stream(self._container, self._name)
                context = self._stream.codec_context
                configure(context, damaged)
                if export_motion:
                    context.flags2 |= Flags2.export_mvs
                self.codec_name = context.codec.canonical_name
                self.frame_rate = frame_rate(self._stream)
                self.time_base = self._stream.time_base or 1 / self.frame_rate
                self.frame_count_hint = self._count_hint()

            longest = self._longest_leap()
            decoding = Decoding(self._container, self._stream, self._name, damaged, self.damage)
            self._timed = self._in_time(decoding.frames(), longest)
            self._first = next(self._timed, None)
            if self._first is None:
                raise VideoError(  # noqa: TRY301 - the container is closed on the way out
                    f"{self._name}: its video stream has no frame that can be decoded"
                    f"{decoding.excuse}{remedy}"
                )
            first, _ = self._first
            self.source_width, self.source_height = first.width, first.height
            with as_video_error(f"{self._name}: cannot be read"):
                orientation = self._side_data.orientation(first)
            self._fit = Fit.plan(
                (first.width, first.height), orientation, preprocessing, self._name
            )
            self.width, self.height = self._fit.delivered
            self.geometry = self._fit.geometry((first.width, first.height))
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
        self._timed.close()
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
            for index, (decoded, pts) in enumerate(islice(self._all(), self._stop)):
                if index >= self._start:
                    yield decoded, pts
            if index < self._start != self._stop:
                raise VideoError(
                    f"{self._name}: has only {index + 1} frames, so there is no frame {self._start}"
                )
        finally:
            self.close()

    def _all(self) -> Iterator[tuple[VideoFrame, int]]:
        first, self._first = self._first, None
        if first is not None:
            yield first
            del first
        yield from self._timed

    def _longest_leap(self) -> int:
        """Ticks that time may leap forward before the leap is taken for a new recording."""
        jumps = bool(self._container.format.flags & cast("int", FormatFlags.ts_discont.value))
        return round(DISCONTINUITY / self.time_base) if jumps else 2 * MAX_PTS

    def _in_time(
        self, frames: Iterator[tuple[VideoFrame, int]], longest: int
    ) -> Generator[tuple[VideoFrame, int], None, None]:
        """Give frames their timestamps, and count what is missing in front of them."""
        duration = max(1, round(1 / (self.frame_rate * self.time_base)))
        timeline = Timeline(duration, longest)
        for decoded, dropped in frames:
            before = timeline.last
            pts = timeline.place(decoded.pts, missed=dropped)
            if dropped:
                absent = 0 if before is None else round((pts - before) / duration) - 1
                self.damage.places += 1
                self.damage.frames += max(dropped, absent)
            yield decoded, pts

    def deliver(self, decoded: VideoFrame, pts: int) -> Frame:
        """Turns a decoded frame into what the sub-model sees: one of this video, or one of its
        size that went through another codec.
        """
        rgb = self._fit.apply(self._converter.convert(decoded, self._fit.resized))
        return Frame(rgb, pts, self._motion(decoded) if self._export_motion else None)

    def picture(self, decoded: VideoFrame) -> NDArray[np.uint8]:
        """Turns a decoded frame into a whole, upright one of the size that `geometry` states."""
        size = self.source_width, self.source_height
        return np.ascontiguousarray(self._fit.orientation.apply(self._whole.convert(decoded, size)))

    def _motion(self, decoded: VideoFrame) -> NDArray[np.float32]:
        with as_video_error(f"{self._name}: motion vectors cannot be read"):
            vectors = self._side_data.motion(decoded)
        if vectors is None:
            return np.empty((0, 6), np.float32)
        motion = self._fit.map_motion(vectors, (decoded.width, decoded.height))
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
