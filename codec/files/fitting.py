"""Decoded frames fitted to the model: resized, turned upright, then cropped or padded.

    decoded ─resize─► RGB24 ─orientation─► upright ─crop or pad─► delivered

By short side, that is `short_side` of the `Preprocessing`; the other side is `other * short_side /
short`, rounded, halves up, and never under 1.  Else the frame is stretched to its `size`, or fitted
into it.  Motion vectors of the input codec take the same way, and what a network finds takes it
back (`Fit.geometry`).  Sizes, pixels and vectors only: resizing itself is libswscale's, in
`files.colour`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from codec.errors import VideoError
from codec.format.header import Preprocessing, Resize
from codec.tasks.task import Geometry

__all__ = ["Fit", "Orientation", "check_preprocessing"]

MAX_SIDE: Final = 16384
"""Of a resized frame: a strip of 1 x 10000 pixels must not become a gigabyte."""


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
class Fit:
    """The way of a pixel from the decoded frame to the delivered one; sizes are (width, height)."""

    resized: tuple[int, int]
    orientation: Orientation
    crop: tuple[int, int]  # left, top; below zero in a letterbox
    delivered: tuple[int, int]
    fill: tuple[int, int, int] | None = None  # of a letterbox

    @classmethod
    def plan(
        cls,
        source: tuple[int, int],
        orientation: Orientation,
        preprocessing: Preprocessing,
        name: str,
    ) -> Fit:
        """Derives all sizes from those of the first frame; `name` is for the error messages."""
        resized = _resized(source, orientation, preprocessing)
        if max(resized) > MAX_SIDE:
            raise VideoError(
                f"{name}: frames of {source[0]}x{source[1]} would be resized to "
                f"{resized[0]}x{resized[1]}; the longest side supported is {MAX_SIDE}"
            )
        width, height = resized[::-1] if orientation.transpose else resized
        fill = None
        left = top = 0
        if preprocessing.resize is Resize.LETTERBOX:
            whole_height, whole_width = preprocessing.size
            left, top = (whole_width - width) // 2, (whole_height - height) // 2
            width, height, fill = whole_width, whole_height, preprocessing.fill
        size = preprocessing.crop
        if not size:
            multiple = preprocessing.pad_multiple
            padded = (-(-width // multiple) * multiple, -(-height // multiple) * multiple)
            if max(padded) > MAX_SIDE:
                raise VideoError(
                    f"{name}: frames of {width}x{height} would be padded to "
                    f"{padded[0]}x{padded[1]}; the longest side supported is {MAX_SIDE}"
                )
            return cls(resized, orientation, (-left, -top), padded, fill)
        if size > min(width, height):
            raise VideoError(
                f"{name}: a crop of {size}x{size} does not fit into frames of {width}x{height}; "
                f"resize them to a short side of at least {size}"
            )
        corner = ((width - size) // 2 - left, (height - size) // 2 - top)
        return cls(resized, orientation, corner, (size, size), fill)

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resized frame -> delivered frame, a contiguous copy."""
        left, top = self.crop
        width, height = self.delivered
        rgb = self.orientation.apply(rgb)
        if self.fill is not None:
            return self._letterboxed(rgb)
        rgb = rgb[top : top + height, left : left + width]
        missing = ((0, height - rgb.shape[0]), (0, width - rgb.shape[1]), (0, 0))
        return np.ascontiguousarray(np.pad(rgb, missing, mode="edge"))

    def geometry(self, source: tuple[int, int]) -> Geometry:
        """Return where the pixels of an upright frame lie in the delivered one.

        Args:
            source: (width, height) of the decoded frame, before it is turned upright.
        """
        width, height = source[::-1] if self.orientation.transpose else source
        shown = self.resized[::-1] if self.orientation.transpose else self.resized
        left, top = self.crop
        return Geometry(
            *self.delivered,
            width,
            height,
            scale_x=shown[0] / width,
            scale_y=shown[1] / height,
            left=-left,
            top=-top,
        )

    def _letterboxed(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        (left, top), (width, height) = self.crop, self.delivered
        canvas = np.empty((height, width, 3), np.uint8)
        canvas[...] = np.array(self.fill, np.uint8)
        shown = rgb[max(top, 0) : top + height, max(left, 0) : left + width]
        y, x = max(-top, 0), max(-left, 0)
        canvas[y : y + shown.shape[0], x : x + shown.shape[1]] = shown
        return canvas

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


def _resized(
    source: tuple[int, int], orientation: Orientation, preprocessing: Preprocessing
) -> tuple[int, int]:
    """Return the size that a decoded frame is resized to, before it is turned upright."""
    width, height = source
    if preprocessing.resize is Resize.SHORT_SIDE:
        short = min(source)
        goal = preprocessing.short_side or short
    else:
        high, wide = preprocessing.size
        if orientation.transpose:
            high, wide = wide, high
        if preprocessing.resize is Resize.STRETCH:
            return wide, high
        # the side that fits exactly, and what is left to the other by the ratio
        short, goal = (width, wide) if wide * height <= high * width else (height, high)
    sides = ((2 * side * goal + short) // (2 * short) for side in source)
    return max(next(sides), 1), max(next(sides), 1)


def check_preprocessing(preprocessing: Preprocessing) -> None:
    """Refuse what no frame could be fitted by."""
    short_side, crop, multiple = (
        preprocessing.short_side,
        preprocessing.crop,
        preprocessing.pad_multiple,
    )
    to_size = preprocessing.resize is not Resize.SHORT_SIDE
    if to_size:
        short_side = min(preprocessing.size)
    if min(short_side, crop) < 0 or (not crop and multiple < 1) or 0 < short_side < crop:
        raise ValueError(
            "preprocessing needs short_side >= crop >= 0 or short_side = 0, "
            "and pad_multiple >= 1 without a crop, "
            f"not short_side={short_side}, crop={crop}, pad_multiple={multiple}"
        )
