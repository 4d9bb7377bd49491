"""RGB frames <-> pictures of a video codec: exact, with one rounding, and none on the way back.

swscale's own conversion has a bias of rounding, which costs a network some of its certainty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from torch.nn import functional

from codec.errors import VideoError
from codec.files.video_coders import VideoCoder, code_video

__all__ = [
    "CHROMA_MIDDLE",
    "CodedFrames",
    "code_frames",
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


@dataclass(frozen=True, slots=True)
class CodedFrames:
    """RGB frames after a video codec: `images` are (N, H, W, 3), 0 to 255 and not rounded; seconds
    are of all frames, of coding alone.
    """

    images: NDArray[np.float32]
    frame_bytes: tuple[int, ...]
    encode_seconds: float
    decode_seconds: float


def code_frames(
    rgb: NDArray[np.uint8],
    coder: VideoCoder,
    crf: float,
    pixel_format: str,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> CodedFrames:
    """Encode frames (N, H, W, 3) in a pixel format, and decode them again.

    Raises:
        VideoError: this FFmpeg has no such codec, or it does not take frames of that size.
    """
    height, width = rgb.shape[1:3]
    if pixel_format.startswith("yuv420p") and (height % 2 or width % 2):
        raise VideoError(f"{pixel_format} takes even sides, found frames of {width}x{height}")
    pictures = [
        VideoFrame.from_ndarray(picture, format=pixel_format)
        for picture in to_pictures(rgb, pixel_format)
    ]
    coded = code_video(pictures, coder, crf, pixel_format, clock=clock)
    images = from_pictures(
        [frame.to_ndarray(format=pixel_format) for frame in coded.frames], pixel_format
    )
    return CodedFrames(images, coded.frame_bytes, coded.seconds["encode"], coded.seconds["decode"])
