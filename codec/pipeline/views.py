"""Photographs and videos -> pairs of pictures with the motion between them, to calibrate on.

    photograph ─resize─► a little larger than frames are ─► random views, each with a second one
                                                            a little further on ─► cropped, padded
    video ─► pairs of consecutive frames, spread over it

Pictures are resized, cropped, letterboxed and padded as `Preprocessing` says, by the code that does
it to the frames of a video.  Whatever is drawn comes from the generators that are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from codec.encoding.motion_search import MotionSearch, luma
from codec.files.fitting import Fit, Orientation
from codec.files.video import VideoReader
from codec.format.constants import VECTOR_UNITS
from codec.format.header import Preprocessing, Resize, SequenceHeader

__all__ = ["Pair", "Photograph", "pairs_of_frames", "read_photograph", "views_of"]

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]
"""Two pictures (H, W, 3), and the motion field from the second to the first."""

OVERSCAN: Final = 256 / 224
"""Least sides of the picture from which views are cut, in sides of a view."""
ZOOM: Final = (0.8, 1.14)
"""Pixels of the photograph per pixel of a view."""
MOTION: Final = (0.3, 12.0)
"""Spread of the displacement between two views, pixels; log-uniform."""
LARGEST_MOTION: Final = 20
ZOOM_MOTION: Final = 0.01
NOISE: Final = (0.5, 3.0)
"""Standard deviation of camera noise, grey levels, before it is smoothed."""
FRAME_STEP: Final = 8
"""Frames between pairs in a video that does not say how long it is."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture (H, W, 3) from which views are cut, and how these are made frames."""

    picture: NDArray[np.uint8]
    fit: Fit


def read_photograph(
    source: Path, preprocessing: Preprocessing, size: tuple[int, int]
) -> Photograph | None:
    """Read a photograph to cut views out of; None for a video.

    A view shows as much of the picture as a frame would: what a crop leaves of it, at another
    place.  Frames of whole pictures have sizes of their own; their views have that of the model.

    Args:
        source: a photograph, or a video.
        preprocessing: what makes frames of it.
        size: height and width of the model's input.
    """
    as_it_is = replace(
        preprocessing, resize=Resize.SHORT_SIDE, size=(0, 0), short_side=0, crop=0, pad_multiple=1
    )
    with VideoReader(source, as_it_is) as reader:
        if len(list(islice(reader, 2))) > 1:
            return None
        sides = reader.width, reader.height
    fit = Fit.plan(sides, Orientation(), preprocessing, str(source))
    (width, height), (left, top) = fit.resized, fit.crop
    if fit.delivered == size[::-1]:
        corner = max(-left, 0), max(-top, 0)
        shown = (
            min(fit.delivered[0] - corner[0], width - max(left, 0)),
            min(fit.delivered[1] - corner[1], height - max(top, 0)),
        )
        fit = Fit(shown, Orientation(), (-corner[0], -corner[1]), fit.delivered, fit.fill)
    else:
        fit = Fit(size[::-1], Orientation(), (0, 0), size[::-1])
    larger = max(1.0, OVERSCAN * fit.resized[0] / width, OVERSCAN * fit.resized[1] / height)
    large = replace(
        as_it_is, resize=Resize.STRETCH, size=(round(height * larger), round(width * larger))
    )
    with VideoReader(source, large) as reader:
        return Photograph(next(iter(reader)).rgb, fit)


def views_of(
    photograph: Photograph,
    header: SequenceHeader,
    count: int,
    random: np.random.Generator,
    generator: torch.Generator,
) -> Iterator[Pair]:
    """Cut views out of a photograph, each with one that lies a little further on.

    Args:
        photograph: of `read_photograph`.
        header: states the size of a frame and the grid of vectors.
        count: how many pairs.
        random: of places and motion.
        generator: of noise, on the CPU.
    """
    picture, fit = photograph.picture, photograph.fit
    whole = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]
    rows, columns = picture.shape[:2]
    width, height = fit.resized
    size = height, width
    for _ in range(count):
        source = whole.flip(-1) if random.random() < 0.5 else whole
        zoom = math.exp(random.uniform(*np.log(ZOOM)))
        zoom = min(zoom, (rows - 2) / (height + 2), (columns - 2) / (width + 2))
        edge_y, edge_x = zoom * height / 2 + 1, zoom * width / 2 + 1
        y, x = random.uniform(edge_y, rows - edge_y), random.uniform(edge_x, columns - edge_x)
        spread = math.exp(random.uniform(*np.log(MOTION)))
        dy, dx = np.clip(random.normal(0, spread, 2), -LARGEST_MOTION, LARGEST_MOTION)
        zoomed = zoom * math.exp(random.normal(0, ZOOM_MOTION))
        noise = random.uniform(*NOISE)
        before = _view(source, size, y, x, zoom)
        after = _view(source, size, y + dy * zoom, x + dx * zoom, zoomed)
        vectors = _field(header, fit, round(VECTOR_UNITS * dy), round(VECTOR_UNITS * dx))
        yield (
            fit.apply(_noisy(before, noise, generator)),
            fit.apply(_noisy(after, noise, generator)),
            vectors,
        )


def _field(header: SequenceHeader, fit: Fit, dy: int, dx: int) -> NDArray[np.int32]:
    """Return the field of one motion, which the bars of a letterbox take no part in."""
    if fit.fill is None:
        return np.broadcast_to(np.array([dy, dx], np.int32), (*header.field_shape, 2)).copy()
    inside = []
    for count, start, length in zip(
        header.field_shape, fit.crop[::-1], fit.resized[::-1], strict=True
    ):
        node = (np.arange(count) + 0.5) * header.grid + start
        inside.append((node >= 0) & (node < length))
    vectors = np.zeros((*header.field_shape, 2), np.int32)
    vectors[inside[0][:, None] & inside[1]] = dy, dx
    return vectors


def _view(picture: Tensor, size: tuple[int, int], y: float, x: float, zoom: float) -> Tensor:
    height, width = size
    rows, columns = picture.shape[2:]
    ys = ((_places(height) - (height - 1) / 2) * zoom + y) * (2 / (rows - 1)) - 1
    xs = ((_places(width) - (width - 1) / 2) * zoom + x) * (2 / (columns - 1)) - 1
    grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)[None]
    return grid_sample(
        picture, grid.float(), mode="bicubic", padding_mode="reflection", align_corners=True
    )


def pairs_of_frames(
    source: Path, preprocessing: Preprocessing, header: SequenceHeader, count: int, qp: int
) -> Iterator[Pair]:
    """Read pairs of consecutive frames of a video, spread over it, with the motion that a search at
    `qp` finds between them.
    """
    size = header.input_height, header.input_width
    with VideoReader(source, preprocessing) as reader:
        hint = reader.frame_count_hint
        step = FRAME_STEP if hint is None else max(hint // count, 2)
        before: NDArray[np.uint8] | None = None
        found = 0
        for number, frame in enumerate(reader):
            if before is not None and number % step == 1:
                search = MotionSearch(header, qp=qp)
                if before.shape[:2] == size == frame.rgb.shape[:2]:
                    search.estimate(luma(before))
                    vectors = search.estimate(luma(frame.rgb))
                else:
                    vectors = None  # refused by whoever takes the pair
                if vectors is None:
                    vectors = np.zeros((*header.field_shape, 2), np.int32)
                yield before, frame.rgb, vectors
                found += 1
                if found == count:
                    return
            before = frame.rgb


def _places(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device="cpu")


def _noisy(view: Tensor, deviation: float, generator: torch.Generator) -> NDArray[np.uint8]:
    """Add what a camera adds, smoothed as demosaicing does; return (H, W, 3)."""
    white = torch.randn(view.shape, generator=generator, dtype=torch.float32, device="cpu")
    noise = avg_pool2d(white, 3, 1, 1) * (2 * deviation)
    pixels: NDArray[np.uint8] = (
        (view + noise).round().clamp(0, 255)[0].permute(1, 2, 0).to(torch.uint8).numpy()
    )
    return pixels
