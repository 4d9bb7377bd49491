"""What the codec has to beat: video codecs on pixels and on feature tiles, NNCodec, plain files.

Every anchor sees the very frames and tensors that the codec sees, in this process, and is judged
by the same scene:

    pixels-*      frames that the model sees --YCbCr or GBR--> x265, x264, SVT-AV1 --> whole model
    source-*      frames of the clip, at their own size --> the same --> resized --> whole model
    tiles         channels side by side in one 10-bit grey picture --> x265 --> features --> cloud
    nncodec       features --NNCodec, frame by frame--> features --> cloud
    lossless      features at 2 to 8 bits, uniformly --> zlib or xz: for orientation
    uncompressed  features as float32: for orientation

Where a choice is open, it goes the anchor's way, but for one: tiles are coded with low delay, as
ours is, and pixels with B-frames.  Rate is that of the bare elementary stream:
neither container nor the encoders' banners (SEI) nor AV1's temporal delimiters count, parameter
sets count once.  x265 runs without wavefronts, which cost bits.  At the size that the model sees,
converting to YCbCr is exact arithmetic with one rounding, and back again has none; at the clip's
own size, 4:2:0 takes the planes of the source as they are, and what comes back is resized exactly
as the source is.  Variants of an anchor are one anchor, the best of them at each rate.

Points run from coarse to fine: crf of the video codecs, qp of NNCodec (a step of 2^(qp / 4) at its
default density), bits of the lossless ones.

NNCodec is the package `nncodec` (ISO/IEC 15938-17), which the project does not depend on: it pins
old versions of what the codec uses, and works without those pins:

    pip install --no-deps nncodec opencv-python-headless && pip install h5py pandas scikit-learn
"""

import importlib.metadata
import lzma
import math
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from typing import Any

import av
import av.error
import numpy as np
import torch
from av.codec.context import CodecContext, Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch.nn import functional

from codec.files.colour import COLORSPACE_STAND_INS, SCALER
from codec.files.video import VideoReader
from tools.scene import Coded, Scene, StudyCodec

__all__ = ["ANCHORS", "AnchorUnavailableError"]


class AnchorUnavailableError(ValueError):
    """An anchor needs what this machine or this clip has not."""


# --- video codecs -----------------------------------------------------------------------------

FRAME_RATE = Fraction(25)  # what the encoders are told; only their reading of crf depends on it
KEYINT = 64

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


def code_video(
    pictures: Sequence[VideoFrame], coder: VideoCoder, crf: float, pixel_format: str
) -> CodedVideo:
    """Encode pictures and decode them again.

    Args:
        pictures: all of one size.
        coder: by what.
        crf: its quality, 0 the finest.
        pixel_format: FFmpeg's name of what the encoder takes.

    Raises:
        AnchorUnavailableError: this FFmpeg has no such encoder or decoder, or it does not take
            pictures of that size.
        ValueError: other pictures came out than went in.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only, else it greets on stderr
    encoder = _context(coder.encoder, "w")
    encoder.width, encoder.height = pictures[0].width, pictures[0].height
    encoder.pix_fmt = pixel_format
    encoder.time_base, encoder.framerate = 1 / FRAME_RATE, FRAME_RATE
    encoder.flags |= Flags.global_header  # the parameter sets once, not before every key frame
    encoder.options = coder.settings(crf)
    start = time.perf_counter()
    packets: list[tuple[int, bytes]] = []

    def collect(found: Sequence["av.Packet[Any]"]) -> None:
        for packet in found:
            assert packet.pts is not None  # every picture has one
            packets.append((packet.pts, bytes(packet)))

    try:
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, encoder.time_base
            picture.pict_type = 0  # the source's own choice of key frames is not binding
            collect(encoder.encode(picture))
        collect(encoder.encode(None))
    except av.error.FFmpegError as error:
        size = f"{encoder.width}x{encoder.height}"
        raise AnchorUnavailableError(
            f"{coder.encoder} does not take pictures of {size} in {pixel_format}: {error.strerror}"
        ) from error
    seconds_encode = time.perf_counter() - start
    packets = [(pts, _bare(packet, coder)) for pts, packet in packets]
    if coder.decoder != "libdav1d":  # AV1's header is in its key frames too
        packets[0] = (packets[0][0], bytes(encoder.extradata or b"") + packets[0][1])

    decoder = _context(coder.decoder, "r")
    start = time.perf_counter()
    frames = [frame for _, packet in packets for frame in decoder.decode(av.Packet(packet))]
    frames += decoder.decode(None)
    seconds_decode = time.perf_counter() - start
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
        raise AnchorUnavailableError(f"this build of FFmpeg has no {codec}") from error
    assert isinstance(context, VideoCodecContext)
    context.thread_count, context.thread_type = 1, "NONE"
    return context


def _bare(packet: bytes, coder: VideoCoder) -> bytes:
    """Leave out what no decoder needs: AV1's temporal delimiter, the banner of x264."""
    if coder.decoder == "libdav1d":
        return packet.removeprefix(TEMPORAL_DELIMITER)
    banner = X264_BANNER.match(packet) if coder.decoder == "h264" else None
    return packet[banner.end() :] if banner else packet


def _parameters(coder: VideoCoder, crf: float, pixel_format: str) -> dict[str, str | int | float]:
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


# --- pixels, at the size that the model sees --------------------------------------------------

# ITU-R BT.601: luma weights of red and blue.
RED, BLUE = 0.299, 0.114
CHROMA_MIDDLE = 128


def rgb_to_ycbcr(rgb: NDArray[np.number]) -> NDArray[np.float64]:
    """Convert (..., 3) RGB in 0 to 255 to full-range YCbCr of BT.601, chroma around 128; float."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = RED * red + (1 - RED - BLUE) * green + BLUE * blue
    cb = (blue - luma) / (2 * (1 - BLUE)) + CHROMA_MIDDLE
    cr = (red - luma) / (2 * (1 - RED)) + CHROMA_MIDDLE
    return np.stack([luma, cb, cr], axis=-1)


def ycbcr_to_rgb(ycbcr: NDArray[np.number]) -> NDArray[np.float64]:
    """Undo `rgb_to_ycbcr`, without clipping."""
    luma, cb, cr = np.moveaxis(ycbcr.astype(np.float64), -1, 0)
    blue = luma + (cb - CHROMA_MIDDLE) * (2 * (1 - BLUE))
    red = luma + (cr - CHROMA_MIDDLE) * (2 * (1 - RED))
    green = (luma - RED * red - BLUE * blue) / (1 - RED - BLUE)
    return np.stack([red, green, blue], axis=-1)


def halve(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average 2x2 samples: (N, H, W) of even sizes -> (N, H / 2, W / 2)."""
    frames, height, width = planes.shape
    blocks = planes.reshape(frames, height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean(axis=(2, 4)), np.float64)


def double(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate bilinearly between the centres of `halve`'s blocks, back to full size."""
    doubled = functional.interpolate(
        torch.from_numpy(planes)[:, None], scale_factor=2, mode="bilinear", align_corners=False
    )
    return np.asarray(doubled[:, 0].numpy(), np.float64)


def to_pictures(rgb: NDArray[np.uint8], pixel_format: str) -> list[NDArray[Any]]:
    """Convert frames (N, H, W, 3) to the arrays that PyAV takes for a pixel format."""
    if pixel_format == "gbrp":
        return list(rgb)
    luma, cb, cr = np.moveaxis(rgb_to_ycbcr(rgb), -1, 0)
    if pixel_format == "yuv444p":
        return list(_integers(np.stack([luma, cb, cr], axis=1), pixel_format))
    frames, _, width = luma.shape
    planes = [plane.reshape(frames, -1, width) for plane in (luma, halve(cb), halve(cr))]
    return list(_integers(np.concatenate(planes, axis=1), pixel_format))


def from_pictures(pictures: Sequence[NDArray[Any]], pixel_format: str) -> NDArray[np.float32]:
    """Convert decoded pictures to RGB (N, H, W, 3), clipped to 0 to 255 and not rounded."""
    stacked = np.stack(pictures)
    if pixel_format == "gbrp":
        return stacked.astype(np.float32)
    samples = stacked / _steps(pixel_format)
    if pixel_format == "yuv444p":
        ycbcr = np.moveaxis(samples, 1, -1)
    else:
        frames, rows, width = stacked.shape
        height = rows * 2 // 3
        luma, cb, cr = np.split(samples, (height, height * 5 // 4), axis=1)
        chroma = [plane.reshape(frames, height // 2, width // 2) for plane in (cb, cr)]
        ycbcr = np.stack([luma, *map(double, chroma)], axis=-1)
    return np.clip(ycbcr_to_rgb(ycbcr), 0, 255).astype(np.float32)


def _steps(pixel_format: str) -> int:
    """Say how many steps of a format make one of 8 bits: exactly, so that grey stays grey."""
    return 4 if pixel_format.endswith("10le") else 1


def _integers(samples: NDArray[np.float64], pixel_format: str) -> NDArray[Any]:
    steps = _steps(pixel_format)
    kind = np.uint8 if steps == 1 else np.uint16
    return np.clip(np.rint(samples * steps), 0, 256 * steps - 1).astype(kind)


def _taken(coder: VideoCoder, pixel_format: str) -> str:
    """Name the format that an encoder wants for GBR, which is packed for x264."""
    return "rgb24" if (coder.encoder, pixel_format) == ("libx264rgb", "gbrp") else pixel_format


@dataclass(frozen=True, slots=True)
class Pixels:
    """Remote inference: the frames that the model sees, as video."""

    name: str
    variant: str
    coder: VideoCoder
    pixel_format: str
    points: tuple[float, ...]
    needs_split: bool = False

    def code(self, scene: Scene, point: float) -> Coded:
        """Code the frames as video at crf `point`."""
        taken = _taken(self.coder, self.pixel_format)
        pictures = [
            VideoFrame.from_ndarray(picture, format=taken)
            for picture in to_pictures(scene.rgb, self.pixel_format)
        ]
        coded = code_video(pictures, self.coder, point, taken)
        decoded = [frame.to_ndarray(format=self.pixel_format) for frame in coded.frames]
        return Coded(
            sum(coded.frame_bytes),
            images=from_pictures(decoded, self.pixel_format),
            frame_bytes=coded.frame_bytes,
            seconds=coded.seconds,
            parameters=_parameters(self.coder, point, taken),
        )


# --- pixels, at the size of the clip ----------------------------------------------------------

PLANAR_420 = ("yuv420p", "yuvj420p")


@dataclass(frozen=True, slots=True)
class Source:
    """Remote inference from the clip as it is: its own frames as video, resized at the far end."""

    name: str
    variant: str
    coder: VideoCoder
    pixel_format: str
    points: tuple[float, ...]
    needs_split: bool = False

    def code(self, scene: Scene, point: float) -> Coded:
        """Code the frames of the clip as video at crf `point`.

        Raises:
            AnchorUnavailableError: the sides of the clip are odd.
        """
        with VideoReader(scene.path, scene.preprocessing, frames=(0, scene.frames)) as reader:
            sources = [frame for frame, _ in reader.decoded()]
            if sources[0].width % 2 or sources[0].height % 2:
                raise AnchorUnavailableError(
                    f"frames of {sources[0].width}x{sources[0].height}: the video codecs want even "
                    "sides"
                )
            taken = _taken(self.coder, self.pixel_format)
            pictures = [_converted(source, self.pixel_format, taken) for source in sources]
            coded = code_video(pictures, self.coder, point, taken)
            images = [
                reader.deliver(_tagged(frame, source, self.pixel_format), number).rgb
                for number, (frame, source) in enumerate(zip(coded.frames, sources, strict=True))
            ]
        return Coded(
            sum(coded.frame_bytes),
            images=np.stack(images).astype(np.float32),
            frame_bytes=coded.frame_bytes,
            seconds=coded.seconds,
            parameters={
                **_parameters(self.coder, point, taken),
                "width": sources[0].width,
                "height": sources[0].height,
            },
        )


def _converted(source: VideoFrame, pixel_format: str, taken: str) -> VideoFrame:
    """Bring a frame of the clip to the format that the encoder takes."""
    if pixel_format == "yuv420p" and source.format.name in PLANAR_420:
        return VideoFrame.from_ndarray(source.to_ndarray(), format=pixel_format)
    colorspace = COLORSPACE_STAND_INS.get(source.colorspace)
    converted = source.reformat(
        format=_ranged(source, pixel_format) if pixel_format != "gbrp" else "rgb24",
        src_colorspace=colorspace,
        dst_colorspace=colorspace,
        interpolation=SCALER,
    )
    # a copy without the tags, which the far end gets from the source
    return VideoFrame.from_ndarray(converted.to_ndarray(), format=taken)


def _ranged(source: VideoFrame, pixel_format: str) -> str:
    """Name the full-range twin of a YCbCr format where the source is of full range."""
    full = source.format.name.startswith("yuvj")
    return pixel_format.replace("yuv", "yuvj") if full else pixel_format


def _tagged(decoded: VideoFrame, source: VideoFrame, pixel_format: str) -> VideoFrame:
    """Give a decoded frame the format, range and colour space of its source."""
    if pixel_format == "gbrp":
        return VideoFrame.from_ndarray(decoded.to_ndarray(format="gbrp"), format="rgb24")
    frame = VideoFrame.from_ndarray(decoded.to_ndarray(), format=_ranged(source, pixel_format))
    frame.colorspace, frame.color_range = source.colorspace, source.color_range
    return frame


# --- tiles ------------------------------------------------------------------------------------

TILE_MAX = 1023  # of a 10-bit sample
RANGE_BYTES = 8  # two float32: the extremes of a tensor over the clip


def tile_layout(channels: int) -> tuple[int, int]:
    """Choose rows and columns of tiles: the factors nearest to a square.

    A number without factors nearer than 1:4 (a prime, say) leaves some tiles empty.
    """
    rows = max(n for n in range(1, math.isqrt(channels) + 1) if channels % n == 0)
    if channels // rows <= 4 * rows:
        return rows, channels // rows
    columns = math.isqrt(channels - 1) + 1
    return -(-channels // columns), columns


def tile(samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Lay the channels of each frame side by side: (N, C, H, W) -> (N, rows H, columns W)."""
    frames, channels, height, width = samples.shape
    rows, columns = tile_layout(channels)
    empty = ((0, 0), (0, rows * columns - channels), (0, 0), (0, 0))
    tiles = np.pad(samples, empty).reshape(frames, rows, columns, height, width)
    return np.ascontiguousarray(
        tiles.transpose(0, 1, 3, 2, 4).reshape(frames, rows * height, columns * width)
    )


def untile(pictures: NDArray[np.uint16], channels: int) -> NDArray[np.uint16]:
    """Undo `tile`: (N, rows H, columns W) -> (N, channels, H, W)."""
    rows, columns = tile_layout(channels)
    frames, height, width = pictures.shape
    tiles = pictures.reshape(frames, rows, height // rows, columns, width // columns)
    tiles = tiles.transpose(0, 1, 3, 2, 4).reshape(frames, rows * columns, *tiles.shape[2::2])
    return np.ascontiguousarray(tiles[:, :channels])


@dataclass(frozen=True, slots=True)
class Tiles:
    """The channels as 10-bit grey video; each tensor of a split in a stream of its own."""

    variant: str
    coder: VideoCoder
    points: tuple[float, ...]
    name: str = "tiles"
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Code the tensors at crf `point`; count their extremes as bytes."""
        sizes = np.zeros(scene.frames, np.int64)
        seconds, decoded = {"encode": 0.0, "decode": 0.0}, []
        for tensor in scene.features:
            low, high = float(tensor.min()), float(tensor.max())
            step = (high - low) / TILE_MAX
            samples = np.rint((tensor.astype(np.float64) - low) / (step or 1.0)).astype(np.uint16)
            pictures = [VideoFrame.from_ndarray(one, format="gray10le") for one in tile(samples)]
            coded = code_video(pictures, self.coder, point, "gray10le")
            received = np.stack([frame.to_ndarray() for frame in coded.frames]).astype(np.uint16)
            levels = untile(received, tensor.shape[1])
            decoded.append((levels * step + low).astype(np.float32))
            sizes += np.array(coded.frame_bytes)
            sizes[0] += RANGE_BYTES
            for stage in seconds:
                seconds[stage] += coded.seconds[stage]
        return Coded(
            int(sizes.sum()),
            features=tuple(decoded),
            frame_bytes=tuple(map(int, sizes)),
            seconds=seconds,
            parameters=_parameters(self.coder, point, "gray10le"),
        )


# --- tensors by other means -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NnCodec:
    """NNCodec, frame by frame, by its defaults.

    These include trellis-coded quantisation, which beats its scalar quantiser at every rate.
    """

    points: tuple[float, ...]
    name: str = "nncodec"
    variant: str = ""
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Code every tensor at qp `point`.

        Raises:
            AnchorUnavailableError: the package is not installed, or lacks something that it needs.
        """
        try:
            from nncodec.tensor import decode, encode  # noqa: PLC0415 - optional, slow to import
        except ImportError as error:
            raise AnchorUnavailableError(
                f"needs the package nncodec ({error}); the top of tools/anchors.py says how to "
                "install it"
            ) from error
        with tempfile.TemporaryDirectory() as folder:  # it writes every stream to a file as well
            options = {"qp": int(point), "results": folder}
            start = time.perf_counter()
            streams = [
                [encode(frame, dict(options)) for frame in tensor] for tensor in scene.features
            ]
            seconds_encode = time.perf_counter() - start
        start = time.perf_counter()
        decoded = tuple(np.stack([decode(one) for one in tensor]) for tensor in streams)
        seconds_decode = time.perf_counter() - start
        sizes = tuple(sum(map(len, frame)) for frame in zip(*streams, strict=True))
        return Coded(
            sum(sizes),
            features=decoded,
            frame_bytes=sizes,
            seconds={"encode": seconds_encode, "decode": seconds_decode},
            parameters={
                "qp": int(point),
                "library": f"nncodec {importlib.metadata.version('nncodec')}",
            },
        )


@dataclass(frozen=True, slots=True)
class Lossless:
    """Uniform levels between a tensor's extremes, a byte each, and a general compressor.

    `by_frame`: each frame is packed by itself; else the clip at once, and what a frame takes is
    unknown.
    """

    variant: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    by_frame: bool
    points: tuple[float, ...] = (2, 3, 4, 5, 6, 7, 8)
    name: str = "lossless"
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Quantise to `point` bits."""
        steps = (1 << int(point)) - 1
        sizes = np.zeros(scene.frames if self.by_frame else 1, np.int64)
        decoded = []
        seconds = {"encode": 0.0, "decode": 0.0}
        for tensor in scene.features:
            low, high = float(tensor.min()), float(tensor.max())
            step = (high - low) / steps or 1.0
            start = time.perf_counter()
            levels = np.rint((tensor.astype(np.float64) - low) / step).astype(np.uint8)
            packed = [self.pack(part.tobytes()) for part in np.split(levels, len(sizes))]
            seconds["encode"] += time.perf_counter() - start
            start = time.perf_counter()
            restored = b"".join(self.unpack(part) for part in packed)
            levels = np.frombuffer(restored, np.uint8).reshape(tensor.shape)
            decoded.append((levels * step + low).astype(np.float32))
            seconds["decode"] += time.perf_counter() - start
            sizes += [len(part) for part in packed]
            sizes[0] += RANGE_BYTES
        return Coded(
            int(sizes.sum()),
            features=tuple(decoded),
            frame_bytes=tuple(map(int, sizes)) if self.by_frame else None,
            seconds=seconds,
            parameters={"bits": int(point), "compressor": self.variant, "level": 9},
        )


@dataclass(frozen=True, slots=True)
class Uncompressed:
    """The tensors as they are."""

    name: str = "uncompressed"
    variant: str = ""
    points: tuple[float, ...] = (32,)
    needs_split: bool = True

    def code(self, scene: Scene, point: float) -> Coded:
        """Count four bytes an element."""
        per_frame = sum(tensor[0].nbytes for tensor in scene.features)
        return Coded(
            per_frame * scene.frames,
            features=scene.features,
            frame_bytes=(per_frame,) * scene.frames,
            seconds={"encode": 0.0, "decode": 0.0},
            parameters={"bits": 32},
        )


# --- by name ----------------------------------------------------------------------------------

# KL from about 2 down to 0.003, or as far as a format gets: 8 bits of 4:2:0 stop at 0.01 to 0.07.
CRF = (46.0, 40.0, 34.0, 28.0, 22.0, 16.0, 10.0)
CRF_AV1 = (63.0, 55.0, 46.0, 37.0, 28.0, 19.0, 10.0)
CRF_TILES = (42.0, 38.0, 34.0, 30.0, 26.0, 22.0, 18.0, 14.0)
CRF_SOURCE = (46.0, 40.0, 34.0, 28.0, 22.0, 16.0)
CRF_SOURCE_AV1 = (63.0, 55.0, 46.0, 37.0, 28.0, 19.0)
QP_NNCODEC = (20.0, 17.0, 14.0, 12.0, 10.0, 8.0, 5.0, 2.0)

FORMATS = ("yuv420p", "yuv444p", "gbrp")


def _video_anchors(
    kind: type[Pixels] | type[Source], prefix: str, crf: tuple[float, ...], av1: tuple[float, ...]
) -> dict[str, tuple[StudyCodec, ...]]:
    """Make the anchors of a kind; pixels, which are quick, with and without what serves the eye."""
    plain = kind is Pixels
    found: dict[str, list[StudyCodec]] = {}

    def add(coder: VideoCoder, codec: str, pixel_format: str, suffix: str = "") -> None:
        name = f"{prefix}-{codec}"
        points = av1 if codec == "svtav1" else crf
        found.setdefault(name, []).append(
            kind(name, pixel_format.removesuffix("le") + suffix, coder, pixel_format, points)
        )

    for pixel_format in FORMATS:
        rgb = "libx264rgb" if pixel_format == "gbrp" else "libx264"
        add(x265(), "x265", pixel_format)
        add(x264(encoder=rgb), "x264", pixel_format)
        if plain:
            add(x265(X265_PLAIN), "x265", pixel_format, "-plain")
            add(x264(X264_PLAIN, rgb), "x264", pixel_format, "-plain")
    add(svt_av1(), "svtav1", "yuv420p")
    if plain:
        add(svt_av1(SVT_PLAIN), "svtav1", "yuv420p", "-plain")
        add(svt_av1(SVT_PLAIN), "svtav1", "yuv420p10le", "-plain")
    return {name: tuple(codecs) for name, codecs in found.items()}


ANCHORS: dict[str, tuple[StudyCodec, ...]] = {
    "tiles": (
        Tiles("default", x265(LOW_DELAY), CRF_TILES),
        Tiles("plain", x265(f"{LOW_DELAY}:{X265_PLAIN}"), CRF_TILES),
    ),
    **_video_anchors(Pixels, "pixels", CRF, CRF_AV1),
    **_video_anchors(Source, "source", CRF_SOURCE, CRF_SOURCE_AV1),
    "nncodec": (NnCodec(QP_NNCODEC),),
    "lossless": (
        Lossless("zlib", partial(zlib.compress, level=9), zlib.decompress, by_frame=True),
        Lossless("xz", partial(lzma.compress, preset=9), lzma.decompress, by_frame=False),
    ),
    "uncompressed": (Uncompressed(),),
}
