"""Video files -> the frames that the edge sub-model sees; the only importer of `av` (PyAV, FFmpeg).

A `VideoReader` gives every frame once, in presentation order, with strictly increasing timestamps:
decoded, resized, turned upright, then cropped or padded as `Preprocessing` says.  On request it
adds the motion vectors that the input codec carries.  It holds one frame, whatever the length of
the video, besides those inside the decoder.

Damage has one policy: a frame that the decoder or the container calls damaged, or that was
predicted from one, is never given.  Either reading stops there, with the number of the frame
("stop"), or it goes on at the next key frame and counts what was lost ("skip").  What is in front
of the first frame that can be decoded is passed over and counted in both: recordings often start
inside a GOP.  Who would rather see painted-over damage than none of it asks for "conceal".

    decoded --resize (swscale, bicubic)--> RGB24 --display matrix--> upright --crop or pad--> rgb

The resized short side is `short_side`; the other side is `other * short_side / short`, rounded,
halves up.  Colour follows the file's tags; where they are silent, libswscale's defaults hold
(BT.601, limited range, grey in full range).

What it does not do: deinterlacing, tone mapping of HDR, correction of the sample aspect ratio
(pixels are taken as square), seeking (a range of frames is found by decoding from the start, the
only way to count them in any container), or normalisation to the sub-model's samples.  It cannot
see damage that its codec does not detect: a few flipped bits in H.264, HEVC or VP9 decode to a
wrong picture without a complaint of any decoder, and MPEG-2 leaves out a picture without a header.
"""

from __future__ import annotations

import os
import struct
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, Self, cast, get_args

import av
import av.error
import numpy as np
from av.codec.context import CodecContext, Flags2
from av.container import InputContainer
from av.filter import Graph
from av.filter.context import FilterContext
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.sidedata.motionvectors import MotionVectors
from av.stream import Disposition
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from codec.errors import FeatureCodecError, VideoError
from codec.format.constants import MAX_PTS
from codec.format.header import Preprocessing

__all__ = ["DAMAGE_POLICIES", "Damage", "DamagePolicy", "Frame", "VideoReader"]

DamagePolicy = Literal["stop", "skip", "conceal"]
DAMAGE_POLICIES: Final[tuple[DamagePolicy, ...]] = get_args(DamagePolicy)

DEFAULT_FRAME_RATE = Fraction(25)
DISCONTINUITY = Fraction(10)
"""Seconds that time may leap forward in a container whose clock can jump, before the leap is taken
for a new recording: FFmpeg's own threshold (`-dts_delta_threshold`)."""
REORDERED_FRAMES = 16
"""How far the timestamps of one recording may be out of order, frames: where a container cannot
state times of presentation (H.264 with B-frames in AVI) they are, by the reordering at most."""
JOINT_PACKETS = 2
"""Packets ahead in which a new recording shows."""
MOST_BOXES = 1000
READ_FAILURES = 16
"""Failed reads in a row after which a damaged container counts as ended."""

# Without "explode" decoders paint over what they could not decode, and say nothing.  They look
# closest with one thread: H.264 does without error detection where slices are decoded in parallel.
# Decoders of pictures complain by themselves, and would "explode" at tags that they do not know.
ERROR_DETECTION = {"err_detect": "explode+crccheck"}
STRICT_INTRA_CODECS = {"mjpeg", "ffv1"}

# AVFrameSideDataType: what is read here, and a number that no version of FFmpeg comes near.
DISPLAY_MATRIX, MOTION_VECTORS = 6, 8
SIDE_DATA_TYPES = 64
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


@dataclass(slots=True)
class Damage:
    """What a video has lost so far.

    `places` counts damaged places, one that lies in front of the first frame included; `frames` the
    frames that are missing there, by their packets or, where those are gone too, by the time that
    passed.
    """

    places: int = 0
    frames: int = 0


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


class _Timeline:
    """Timestamps of frames -> strictly increasing ones; see `VideoReader`.

    Args:
        duration: of a frame, in ticks.
        longest: leap forward, in ticks, that is not taken for a new recording.
    """

    def __init__(self, duration: int, longest: int) -> None:
        self._duration, self._longest = duration, longest
        self._offset = 0  # of the present recording
        self._first: int | None = None  # timestamp of its first frame, in the file
        self.last: int | None = None

    def place(self, pts: int | None, missed: int = 0) -> int:
        """Return the timestamp of the next frame, behind so many that were lost to damage."""
        if pts is not None and abs(pts) > MAX_PTS:
            pts = None  # what no stream can hold is damage
        if self.last is None or self._first is None:
            self._first = pts
            self.last = pts or 0 if self.last is None else max(pts or 0, self.last + self._duration)
            return self.last
        following = self.last + (missed + 1) * self._duration
        placed = following if pts is None else pts + self._offset
        behind = self.last - placed
        if pts is not None and (
            behind > REORDERED_FRAMES * self._duration
            or (behind >= self._duration and pts <= self._first)
            or (-behind > self._longest and not missed)  # or else it is a hole
        ):
            self._first = pts
            placed = following
            self._offset = placed - pts
        self.last = max(placed, self.last + 1)
        return self.last


class _Decoding:
    """Packets -> frames in presentation order, each with the number of packets dropped before it.

        reading ──(error, corrupt packet or frame)──► drain: frames that were complete before it
           ▲                                             │ "stop": raise
           └── the next key frame ◄── drop packets ◄─────┘

    Invariants:
      * No frame is given that the decoder or the container calls damaged, or that is decoded
        between damage and the next key frame.
      * Until a frame has come out, errors are no reason to stop: that is how decoders say that a
        recording starts inside a GOP.  The same holds behind damage.
      * Nor are errors in pictures shown before the key frame that decoding started from: they lean
        on the GOP before it, which is not there (an open GOP).
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        name: str,
        policy: DamagePolicy,
        damage: Damage,
    ) -> None:
        self._container, self._stream, self._name = container, stream, name
        self._context = stream.codec_context
        self._policy, self._damage = policy, damage
        self._conceal = policy == "conceal"
        self._given = 0
        self._dropped = 0
        self._fresh = True  # no frame has come out since the start, or since the last damage
        self._wait_for_key = False
        self._key_pts: int | None = None  # of the key frame that decoding started from
        self._waiting: set[int] = set()  # pts of packets whose frames have not come out
        self.excuse = ""

    def frames(self) -> Iterator[tuple[VideoFrame, int]]:
        """Yield all frames; raise `VideoError` at the first damage if the policy is to stop."""
        for packet, flaw in self._judged():
            if packet is None:
                yield from self._broken(flaw, None, decoded=False)
            elif self._wait_for_key and not packet.is_keyframe:
                self._dropped += 1
            else:
                self._wait_for_key = False
                yield from self._decode(packet, flaw)
        for frame in self._drain():
            yield self._give(frame)
        if self._dropped and self._given:  # to the end, no frame came any more
            self._damage.places += 1
            self._damage.frames += self._dropped

    def _judged(self) -> Iterator[tuple[Packet[VideoStream] | None, str]]:
        """Yield packets, each with what is wrong with it ("" if nothing), None for what could not
        be read.

        Demuxers call a packet corrupt when pieces are missing; FFmpeg's parsers pass the mark on to
        the packet before it.  Where one recording ends and another begins the count of pieces jumps
        too: the mark means nothing when, one or two packets on, a key frame comes whose time jumps.
        """
        ahead: deque[tuple[Packet[VideoStream] | None, str]] = deque()
        packets = self._packets()
        while True:
            ahead.extend(islice(packets, JOINT_PACKETS + 1 - len(ahead)))
            if not ahead:
                return
            packet, flaw = ahead.popleft()
            if packet is not None and packet.is_corrupt and not self._joint(packet, ahead):
                flaw = "" if self._conceal else "incomplete packet"
            yield packet, flaw

    def _joint(
        self,
        packet: Packet[VideoStream],
        ahead: Iterable[tuple[Packet[VideoStream] | None, str]],
    ) -> bool:
        before = packet
        for following, _ in ahead:
            if following is None or following.dts is None or before.dts is None:
                return False
            if following.is_keyframe and following.dts <= before.dts:
                return True  # forward it may be a hole as well, which nobody must take for a joint
            before = following
        return False

    def _packets(self) -> Iterator[tuple[Packet[VideoStream] | None, str]]:
        """Yield packets, and in place of what cannot be read None and the reason."""
        failures = 0
        demuxer = self._container.demux(self._stream)
        while failures < READ_FAILURES:
            try:
                packet = next(demuxer, None)
            except IndexError:
                # a stream that a damaged table brought up midway: PyAV stumbles over it at the end
                return
            except Exception as error:  # whatever else PyAV makes of damage
                failures += 1
                yield None, _reason(error)
                demuxer = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size:  # an empty one would end decoding
                failures = 0
                yield packet, ""

    def _decode(self, packet: Packet[VideoStream], flaw: str) -> Iterator[tuple[VideoFrame, int]]:
        if packet.pts is not None:
            self._waiting.add(packet.pts)
        if flaw:
            yield from self._broken(flaw, packet.pts, decoded=False)
            return
        try:
            frames = cast("Sequence[VideoFrame]", self._context.decode(packet))
        except Exception as error:  # whatever PyAV makes of damage
            yield from self._broken(_reason(error), packet.pts, decoded=True)
            return
        if self._fresh and self._key_pts is None and packet.is_keyframe:
            self._key_pts = packet.pts
        for frame in frames:
            if self._wait_for_key:  # what came out together with a damaged frame, behind it
                self._dropped += 1
            elif frame.is_corrupt and not self._conceal:
                yield from self._broken("damaged frame", frame.pts, decoded=True)
            else:
                yield self._give(frame)

    def _give(self, frame: VideoFrame) -> tuple[VideoFrame, int]:
        dropped, self._dropped = self._dropped, 0
        self._fresh = False
        self._given += 1
        # a packet that later frames overtake gives none by design (hidden frames, second fields)
        if frame.pts is not None:
            self._waiting = {pts for pts in self._waiting if pts > frame.pts}
        return frame, dropped

    def _broken(
        self, reason: str, pts: int | None, *, decoded: bool
    ) -> Iterator[tuple[VideoFrame, int]]:
        """Give what was complete before the damage at `pts`, then stop, or wait for a key frame.

        What a decoder made of the damage, if it came that far, may be among what it holds: the
        frame of that time, or any if that is not known.
        """
        if self._fresh and None not in (pts, self._key_pts) and pts < self._key_pts:  # type: ignore[operator]
            self._dropped += 1
            return
        if self._conceal:
            self._dropped += 1
            self.excuse = f" ({reason})"
            return
        stop = self._policy == "stop"
        held = self._drain()
        if decoded:
            held = [frame for frame in held if pts is not None and frame.pts != pts]
        # the damaged frame, what PyAV forgets when it raises, and what would have come between
        missing = self._waiting - {frame.pts for frame in held if frame.pts is not None}
        for frame in held:
            if stop and missing and frame.pts is not None and frame.pts > min(missing):
                break  # it is shown behind the damage
            yield self._give(frame)
        if self._fresh:
            self.excuse = f" ({reason}); --damaged conceal takes what a lenient decoder makes of it"
        elif stop:
            raise VideoError(
                f"{self._name}: cannot be decoded at frame {self._given} ({reason}); "
                "--damaged skip goes on at the next key frame behind it, --damaged conceal takes "
                "what a lenient decoder makes of it"
            )
        self._dropped += max(len(missing), 1)
        self._waiting.clear()
        self._fresh = True
        self._wait_for_key = not self._context.codec.intra_only
        self._key_pts = None

    def _drain(self) -> list[VideoFrame]:
        """Take the frames that the decoder still holds, and make it ready to start anew."""
        try:
            held = cast("Sequence[VideoFrame]", self._context.decode(None))
        except Exception:  # damage that comes to light only here: its frame stays away
            held = ()
        self._context.flush_buffers()
        return [frame for frame in held if self._conceal or not frame.is_corrupt]


class _SafeSideData:
    """Reads side data of frames, the two kinds of it that are needed.

    PyAV's `frame.side_data` wraps everything that a frame carries: it raises for types that it has
    no name for (EXIF), and frees the metadata of a colour profile, which belongs to FFmpeg, so that
    the process crashes later.  So a filter graph first makes a reference to the frame on which
    only the needed kinds are left.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, int, str] | None = None
        self._graph: Graph | None = None

    def orientation(self, frame: VideoFrame) -> Orientation:
        """Read how the frame is to be turned."""
        matrix = cast("bytes | None", self._reduced(frame).side_data.get("DISPLAYMATRIX"))
        if matrix is None:
            return Orientation()
        return Orientation.from_display_matrix(np.frombuffer(bytes(matrix), np.int32).reshape(3, 3))

    def motion(self, frame: VideoFrame) -> NDArray[np.void] | None:
        """Read AVMotionVector records; None where there are none."""
        reduced = self._reduced(frame)
        vectors = reduced.side_data.get("MOTION_VECTORS")
        if not isinstance(vectors, MotionVectors):
            return None
        return vectors.to_ndarray().copy()

    def _reduced(self, frame: VideoFrame) -> VideoFrame:
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is None or self._shape != shape:
            self._graph, self._shape = _reducing_graph(shape), shape
        self._graph.push(frame)
        return cast("VideoFrame", self._graph.pull())


def _reducing_graph(shape: tuple[int, int, str]) -> Graph:
    graph = Graph()
    width, height, pixel_format = shape
    last: FilterContext = graph.add_buffer(
        width=width, height=height, format=VideoFormat(pixel_format), time_base=Fraction(1, 1000)
    )
    for kind in range(SIDE_DATA_TYPES):
        if kind not in {DISPLAY_MATRIX, MOTION_VECTORS}:
            step = graph.add("sidedata", f"mode=delete:type={kind}")
            last.link_to(step)
            last = step
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    return graph


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
    damage: Damage

    def __init__(
        self,
        source: str | Path | BinaryIO,
        preprocessing: Preprocessing,
        *,
        frames: tuple[int, int | None] | None = None,
        export_motion: bool = False,
        damaged: DamagePolicy = "stop",
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
        """
        _check_preprocessing(preprocessing)
        if damaged not in DAMAGE_POLICIES:
            raise ValueError(f"damaged is {damaged!r}, expected {' or '.join(DAMAGE_POLICIES)}")
        self._start, self._stop = frames or (0, None)
        if self._start < 0 or (self._stop is not None and self._stop < self._start):
            raise ValueError(f"frames must be a range 0 <= start <= stop, not {frames}")
        self._name = _describe(source)
        self._export_motion = export_motion
        self._reformatter = VideoReformatter()
        self._iterated = False
        self._side_data = _SafeSideData()
        self.has_motion = False
        self.damage = Damage()

        remedy = _remedy(source)
        self._container = _open(source, self._name)
        try:
            with _boundary(f"{self._name}: cannot be read"):
                self._stream = _video_stream(self._container, self._name)
                context = self._stream.codec_context
                context.thread_type = "NONE"
                context.thread_count = 1
                codec = context.codec
                lenient = codec.intra_only and codec.canonical_name not in STRICT_INTRA_CODECS
                if damaged != "conceal" and not lenient:
                    context.options = ERROR_DETECTION
                if export_motion:
                    context.flags2 |= Flags2.export_mvs
                self.codec_name = codec.canonical_name
                self.frame_rate = _frame_rate(self._stream)
                self.time_base = self._stream.time_base or 1 / self.frame_rate
                self.frame_count_hint = self._count_hint()

            longest = self._longest_leap()
            decoding = _Decoding(self._container, self._stream, self._name, damaged, self.damage)
            self._timed = self._in_time(decoding.frames(), longest)
            self._first = next(self._timed, None)
            if self._first is None:
                raise VideoError(  # noqa: TRY301 - the container is closed on the way out
                    f"{self._name}: its video stream has no frame that can be decoded"
                    f"{decoding.excuse}{remedy}"
                )
            first, _ = self._first
            self.source_width, self.source_height = first.width, first.height
            with _boundary(f"{self._name}: cannot be read"):
                orientation = self._side_data.orientation(first)
            self._geometry = Geometry.plan(
                (first.width, first.height), orientation, preprocessing, self._name
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
        timeline = _Timeline(duration, longest)
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
        except Exception as error:  # whatever PyAV makes of a format that it does not know
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
        with _boundary(f"{self._name}: motion vectors cannot be read"):
            vectors = self._side_data.motion(decoded)
        if vectors is None:
            return np.empty((0, 6), np.float32)
        motion = self._geometry.map_motion(vectors, (decoded.width, decoded.height))
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


def _lacks_index(source: str | Path | BinaryIO) -> bool:
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
    except Exception as error:  # whatever PyAV makes of a damaged beginning
        if _lacks_index(source):
            raise VideoError(
                f"{name}: an MP4 without its index (moov), which recorders write last: the "
                "recording was cut off or is not finished; finish it, or have a repair tool "
                "rebuild the index from another recording of the same camera"
            ) from error
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


def _reason(error: BaseException) -> str:
    """What FFmpeg says, without the file name that PyAV appends to it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def _boundary(what: str) -> Iterator[None]:
    """Turn whatever a library throws into a `VideoError`: nothing foreign reaches a user."""
    try:
        yield
    except FeatureCodecError:
        raise
    except Exception as error:
        raise VideoError(f"{what} ({_reason(error)})") from error
