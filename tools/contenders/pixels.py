"""Anchors on the pixels: remote inference, at the size that the model sees and at the clip's own.

At the size that the model sees, converting to YCbCr is exact arithmetic with one rounding, and back
again has none; at the clip's own size, 4:2:0 takes the planes of the source as they are, and what
comes back is resized exactly as the source is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch.nn import functional

from codec.files.colour import COLORSPACE_STAND_INS, SCALER
from codec.files.video import VideoReader
from tools.contenders.scene import Coded, Scene
from tools.contenders.video import AnchorUnavailableError, VideoCoder, code_video, parameters_of

__all__ = [
    "CHROMA_MIDDLE",
    "Pixels",
    "Source",
    "double",
    "from_pictures",
    "halve",
    "rgb_to_ycbcr",
    "to_pictures",
    "ycbcr_to_rgb",
]

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
            parameters=parameters_of(self.coder, point, taken),
        )


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
                **parameters_of(self.coder, point, taken),
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
