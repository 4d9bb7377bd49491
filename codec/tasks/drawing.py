"""Results drawn on frames, to be looked at.  Needs Pillow."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from codec.errors import TaskError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    from codec.tasks.found import Instances

__all__ = ["DECODED", "UNCODED", "blend", "colour_of", "draw_instances", "text_on"]

Colour = tuple[int, int, int]

DECODED: Final[Colour] = (40, 220, 60)
UNCODED: Final[Colour] = (255, 150, 30)
"""Colours of two results on one frame."""
POINT_THRESHOLD: Final = 0.2
_OPACITY: Final = 0.45
_HUE_STEP: Final = 0.618034
"""The golden section: neighbours in number are far apart in colour."""


def colour_of(number: int) -> Colour:
    """Return a colour for a class."""
    red, green, blue = colorsys.hsv_to_rgb(number * _HUE_STEP % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def blend(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour) -> NDArray[np.uint8]:
    """Colour the pixels of a mask; both of one size."""
    if mask.shape != rgb.shape[:2]:
        raise ValueError(f"a mask of {mask.shape} does not fit a frame of {rgb.shape[:2]}")
    result = rgb.astype(np.float32)
    result[mask] += _OPACITY * (np.array(colour, np.float32) - result[mask])
    return np.asarray(np.round(result), np.uint8)


def text_on(rgb: NDArray[np.uint8], text: str, line: int, colour: Colour) -> NDArray[np.uint8]:
    """Write a line of text into the upper left corner."""
    picture, canvas, font, size = _canvas(rgb)
    place = (4, 4 + line * (size + 6))
    canvas.rectangle(canvas.textbbox(place, text, font=font), fill=(0, 0, 0))
    canvas.text(place, text, fill=colour, font=font)
    return np.array(picture)


def draw_instances(
    found: Instances,
    rgb: NDArray[np.uint8],
    names: Mapping[int, str],
    skeleton: Sequence[tuple[int, int]],
    colour: Colour | None,
) -> NDArray[np.uint8]:
    """Draw masks, boxes with label and score, and key points with the lines between them."""
    colours = [colour or colour_of(int(label)) for label in found.labels]
    if found.masks is not None:
        for mask, each in zip(found.masks, colours, strict=True):
            rgb = blend(rgb, mask, each)
    picture, canvas, font, size = _canvas(rgb)
    # the uncoded network's lines show around those of the decoded one, its labels below the boxes
    below = colour == UNCODED
    width = max(1, size // 7) + 2 * below
    for number, each in enumerate(colours):
        left, top, right, bottom = (float(value) for value in found.boxes[number])
        canvas.rectangle((left, top, max(left, right), max(top, bottom)), outline=each, width=width)
        label = int(found.labels[number])
        text = f"{names.get(label, f'class {label}')} {found.scores[number]:.2f}"
        place = (left + width, max(0.0, top - size - 3))
        if below:
            place = (left + width, min(bottom, rgb.shape[0] - size - 3.0))
        canvas.rectangle(canvas.textbbox(place, text, font=font), fill=(0, 0, 0))
        canvas.text(place, text, fill=each, font=font)
        if found.points is None:
            continue
        points = found.points[number]
        for first, second in skeleton:
            if min(points[first, 2], points[second, 2]) >= POINT_THRESHOLD:
                ends = (*points[first, :2], *points[second, :2])
                canvas.line(tuple(float(v) for v in ends), fill=each, width=width)
        for x, y, score in points.tolist():
            if score >= POINT_THRESHOLD:
                reach = width + 1
                canvas.ellipse((x - reach, y - reach, x + reach, y + reach), fill=each)
    return np.array(picture)


def _canvas(
    rgb: NDArray[np.uint8],
) -> tuple[Image.Image, ImageDraw.ImageDraw, ImageFont.ImageFont | ImageFont.FreeTypeFont, int]:
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TaskError("drawing needs Pillow; pip install 'latent-motion-codec[tasks]'") from error
    picture = Image.fromarray(rgb)
    size = max(10, rgb.shape[0] // 32)
    return picture, ImageDraw.Draw(picture), ImageFont.load_default(size), size
