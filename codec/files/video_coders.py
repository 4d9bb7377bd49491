"""Video codecs as what features are compared with: pictures in, bytes and pictures out.

Rate is that of the bare elementary stream: neither container nor the encoders' banners (SEI) nor
AV1's temporal delimiters count, parameter sets count once.  x265 runs without wavefronts, which
cost bits.
"""

import importlib.metadata
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import av
import av.error
from av.codec.context import CodecContext, Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from codec.errors import VideoError

__all__ = [
    "KEYINT",
    "LOW_DELAY",
    "SVT_PLAIN",
    "X264_PLAIN",
    "X265_PLAIN",
    "VideoCoder",
    "code_video",
    "encode_video",
    "parameters_of",
    "svt_av1",
    "x264",
    "x265",
]


FRAME_RATE = Fraction(25)  # what the encoders are told; only their reading of crf depends on it
KEYINT = 64  # frames from key frame to key frame, that rates are stated for

# One thread; without wavefronts, whose entry points and restarted contexts cost bits; without the
# SEI that carries the encoder's settings (some 2.3 kB).
X265_COMMON = f"keyint={KEYINT}:info=0:pools=none:frame-threads=1:no-wpp=1:log-level=none"
X264_COMMON = f"keyint={KEYINT}:threads=1"
SVT_COMMON = f"keyint={KEYINT}:lp=1"
LOW_DELAY = "bframes=0"
# What serves the eye, and SAO, which was tuned for pixels.
X265_PLAIN = "psy-rd=0:psy-rdoq=0:aq-mode=0:no-sao=1"
X264_PLAIN = "psy=0:aq-mode=0"
# Filters that smooth what the model looks at: without them KL was 17 to 48 % less on a moving clip.
SVT_PLAIN = "enable-tf=0:enable-cdef=0:enable-restoration=0"

TEMPORAL_DELIMITER = b"\x12\x00"  # an AV1 OBU that containers leave out
X264_BANNER = re.compile(
    rb"\0?\0\0\x01\x06\x05.{18,20}x264 - core.*?(?=\0?\0\0\x01)", re.DOTALL
)  # the SEI in front of the first picture: some 700 bytes of settings


@dataclass(frozen=True, slots=True)
class VideoCoder:
    """An encoder of FFmpeg's, its preset and parameters, and the decoder of its streams."""

    encoder: str
    decoder: str
    preset: str
    option: str
    parameters: str

    def settings(self, crf: float) -> dict[str, str]:
        """Return the options of the encoder."""
        return {"preset": self.preset, "crf": f"{crf:g}", self.option: self.parameters}


def x265(parameters: str = "") -> VideoCoder:
    """Give x265, preset medium."""
    joined = ":".join(filter(None, (X265_COMMON, parameters)))
    return VideoCoder("libx265", "hevc", "medium", "x265-params", joined)


def x264(parameters: str = "", encoder: str = "libx264") -> VideoCoder:
    """Give x264, preset medium; RGB is the business of an encoder of its own."""
    joined = ":".join(filter(None, (X264_COMMON, parameters)))
    return VideoCoder(encoder, "h264", "medium", "x264-params", joined)


def svt_av1(parameters: str = "") -> VideoCoder:
    """Give SVT-AV1, preset 6."""
    joined = ":".join(filter(None, (SVT_COMMON, parameters)))
    return VideoCoder("libsvtav1", "libdav1d", "6", "svtav1-params", joined)


@dataclass(frozen=True, slots=True)
class CodedVideo:
    """Pictures as decoded, in order, and what each took."""

    frames: list[VideoFrame]
    frame_bytes: tuple[int, ...]  # what belongs to the stream as a whole counts with the first
    seconds: dict[str, float]


def encode_video(
    pictures: Sequence[VideoFrame], coder: VideoCoder, crf: float, pixel_format: str
) -> list[tuple[int, bytes]]:
    """Encode pictures; return packets in decoding order, each with the number of its picture.

    The arguments are those of `code_video`.  What belongs to the stream as a whole is in front of
    the first packet.

    Raises:
        VideoError: this FFmpeg has no such encoder, or it does not take pictures of
            that size.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only, else it greets on stderr
    encoder = _context(coder.encoder, "w")
    encoder.width, encoder.height = pictures[0].width, pictures[0].height
    encoder.pix_fmt = pixel_format
    encoder.time_base, encoder.framerate = 1 / FRAME_RATE, FRAME_RATE
    encoder.flags |= Flags.global_header  # the parameter sets once, not before every key frame
    encoder.options = coder.settings(crf)
    packets: list[tuple[int, bytes]] = []

    def collect(found: Sequence["av.Packet[Any]"]) -> None:
        for packet in found:
            assert packet.pts is not None  # noqa: S101 - every picture has one
            packets.append((packet.pts, bytes(packet)))

    try:
        with _usual_scheduling():
            encoder.open()
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, encoder.time_base
            picture.pict_type = 0  # the source's own choice of key frames is not binding
            collect(encoder.encode(picture))
        collect(encoder.encode(None))
    except av.error.FFmpegError as error:
        size = f"{encoder.width}x{encoder.height}"
        raise VideoError(
            f"{coder.encoder} does not take pictures of {size} in {pixel_format}: {error.strerror}"
        ) from error
    packets = [(pts, _bare(packet, coder)) for pts, packet in packets]
    if coder.decoder != "libdav1d":  # AV1's header is in its key frames too
        packets[0] = (packets[0][0], bytes(encoder.extradata or b"") + packets[0][1])
    return packets


def code_video(
    pictures: Sequence[VideoFrame],
    coder: VideoCoder,
    crf: float,
    pixel_format: str,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> CodedVideo:
    """Encode pictures and decode them again.

    Args:
        pictures: all of one size.
        coder: by what.
        crf: its quality, 0 the finest.
        pixel_format: FFmpeg's name of what the encoder takes.
        clock: what seconds are told by.

    Raises:
        VideoError: this FFmpeg has no such encoder or decoder, or it does not take
            pictures of that size.
        ValueError: other pictures came out than went in.
    """
    start = clock()
    packets = encode_video(pictures, coder, crf, pixel_format)
    seconds_encode = clock() - start

    decoder = _context(coder.decoder, "r")
    start = clock()
    frames = [frame for _, packet in packets for frame in decoder.decode(av.Packet(packet))]
    frames += decoder.decode(None)
    seconds_decode = clock() - start
    if len(frames) != len(pictures):
        raise ValueError(
            f"{len(pictures)} pictures went into {coder.encoder}, {len(frames)} came out"
        )
    sizes = [0] * len(pictures)
    for pts, packet in packets:
        sizes[pts] += len(packet)
    return CodedVideo(
        frames,
        tuple(sizes),
        {"encode": seconds_encode, "decode": seconds_decode},
    )


def _context(codec: str, mode: str) -> VideoCodecContext:
    try:
        context = CodecContext.create(codec, mode)  # type: ignore[call-overload]
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"this build of FFmpeg has no {codec}") from error
    assert isinstance(context, VideoCodecContext)  # noqa: S101 - what video codecs are
    context.thread_count, context.thread_type = 1, "NONE"
    return context


@contextmanager
def _usual_scheduling() -> Iterator[None]:
    """Keep the scheduling of this thread.

    Opened by root, SVT-AV1 makes it one of real time, and so all that it starts from then on: they
    take the machine from everything else, and its own work is timed as nobody else's.
    """
    if not hasattr(os, "sched_getscheduler"):  # Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def _bare(packet: bytes, coder: VideoCoder) -> bytes:
    """Leave out what no decoder needs: AV1's temporal delimiter, the banner of x264."""
    if coder.decoder == "libdav1d":
        return packet.removeprefix(TEMPORAL_DELIMITER)
    banner = X264_BANNER.match(packet) if coder.decoder == "h264" else None
    return packet[banner.end() :] if banner else packet


def parameters_of(coder: VideoCoder, crf: float, pixel_format: str) -> dict[str, str | int | float]:
    """Say how pictures were coded, so that another person can do it again."""
    return {
        "encoder": coder.encoder,
        "library": _library(coder.encoder),
        "pixel_format": pixel_format,
        **coder.settings(crf),
    }


@cache
def _library(encoder: str) -> str:
    """Name the library of an encoder with its version, by the file that came with PyAV.

    libx265-f5385bb8.so.216, libSvtAv1Enc-9393c086.so.4.1.0: FFmpeg itself does not tell.
    """
    name = {"libx264rgb": "libx264", "libsvtav1": "libSvtAv1Enc"}.get(encoder, encoder)
    for path in importlib.metadata.files("av") or ():
        if match := re.fullmatch(rf"{name}\b.*\.so\.([\d.]+)", path.name):
            return f"{name} {match.group(1)}, FFmpeg {av.ffmpeg_version_info}"
    return f"{name}, FFmpeg {av.ffmpeg_version_info}"
