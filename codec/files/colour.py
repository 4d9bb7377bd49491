"""Decoded frames of any pixel format -> RGB24 of the size that is asked for, by libswscale.

Colour follows the file's tags; where they are silent, libswscale's defaults hold (BT.601, limited
range, grey in full range).  No tone mapping of HDR.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from codec.errors import VideoError
from codec.files.boundary import reason
from codec.format.header import Interpolation as Resampling

__all__ = ["COLORSPACE_STAND_INS", "SCALER", "RgbConverter"]

# Without the last three, swscale trades rounding and chroma for speed, and differs between CPUs.
EXACTLY: Final = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT

SCALER: Final = Interpolation.BICUBIC | EXACTLY
"""The usual one."""
SCALERS: Final = {
    Resampling.BICUBIC: SCALER,
    Resampling.BILINEAR: Interpolation.BILINEAR | EXACTLY,
    Resampling.AREA: Interpolation.AREA | EXACTLY,
    Resampling.NEAREST: Interpolation.POINT | EXACTLY,
}

# AVColorSpace tags for which swscale has no matrix, and the nearest that it has: a reserved value
# says nothing (so BT.601, as without a tag), BT.2020 constant luminance is close to the usual kind.
COLORSPACE_STAND_INS: Final = {3: Colorspace.ITU601, 10: Colorspace.BT2020}

# swscale takes grey as full range whatever its tag says; this is what it does to luma elsewhere.
LIMITED_TO_FULL: Final = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(
    np.uint8
)


class RgbConverter:
    """Converts the frames of one video; `name` is for the error messages."""

    def __init__(self, name: str, resampling: Resampling = Resampling.BICUBIC) -> None:
        self._name = name
        self._scaler = SCALERS[resampling]
        self._reformatter = VideoReformatter()

    def convert(self, decoded: VideoFrame, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Convert a frame to (height, width, 3) RGB; `size` is (width, height)."""
        width, height = size
        colorspace = COLORSPACE_STAND_INS.get(decoded.colorspace)
        try:
            resized = self._reformatter.reformat(
                decoded,
                width=width,
                height=height,
                format="rgb24",
                src_colorspace=colorspace,
                dst_colorspace=colorspace,
                interpolation=self._scaler,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        except Exception as error:  # whatever PyAV makes of a format that it does not know
            raise VideoError(
                f"{self._name}: libswscale cannot convert {decoded.format.name} with colour space "
                f"{decoded.colorspace} to RGB ({reason(error)})"
            ) from error
        rgb: NDArray[np.uint8] = resized.to_ndarray().astype(np.uint8, copy=False)
        grey = decoded.format.name.startswith(("gray", "ya"))
        return LIMITED_TO_FULL[rgb] if grey and decoded.color_range == ColorRange.MPEG else rgb
