"""The motion field, its scaling by n^k, and motion compensation of a tensor.  FORMAT.md 6.1.

A vector v says that the content at input position x lies at x + v in the previous frame.  A tensor
downsampled by n^k moves by v / n^k in every channel (Ulhaq & Bajić 2021, arXiv:2102.04018, eq. 12).
Searching for vectors is the encoder's affair (`encoding.motion_search`).
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.format.constants import LATENT_LIMIT, VECTOR_UNITS
from codec.format.header import TensorSpec
from codec.normative.exact import round_shift
from codec.normative.stripes import stripes

__all__ = ["compensate", "interpolation_filters", "latent_displacement"]

PHASES = 64
"""Displacements in a tensor are in 1/64 sample."""
FILTER_BITS = 10
"""Interpolation weights sum to 2^10 in each direction."""


def latent_displacement(
    vectors: NDArray[np.int32], grid: int, spec: TensorSpec
) -> NDArray[np.int64]:
    """Interpolate the field at every position of a tensor and scale it by the tensor's stride.

    Node (i, j) of the field sits in the middle of its cell, at input pixel i · grid + (grid - 1) /
    2.  Positions beyond the outer nodes take the vector of the nearest one.  All in integers:
    positions in half pixels, weights of 1 / (2 · grid), one division at the end, rounded to
    nearest, halves towards plus infinity.

    Args:
        vectors: (rows, columns, 2) int32, (y, x) in quarter pixels, magnitude at most `MAX_VECTOR`.
        grid: cell size in pixels.
        spec: the tensor.

    Returns:
        (height, width, 2) int64, (y, x) in 1/64 sample of the tensor.
    """
    rows, columns = vectors.shape[:2]
    y0, y1, fy = _cell(spec.height, spec.stride_y, spec.offset_y2, grid, rows)
    x0, x1, fx = _cell(spec.width, spec.stride_x, spec.offset_x2, grid, columns)
    field = vectors.astype(np.int64)
    whole = 2 * grid
    wy, wx = fy[:, None, None], fx[None, :, None]
    upper = field[y0][:, x0] * (whole - wx) + field[y0][:, x1] * wx
    lower = field[y1][:, x0] * (whole - wx) + field[y1][:, x1] * wx
    total = upper * (whole - wy) + lower * wy  # at most 2^13 · 2^22 (grid <= 1024)
    stride = np.array([spec.stride_y, spec.stride_x], np.int64)
    denominator = VECTOR_UNITS * whole * whole * stride
    return np.floor_divide(2 * PHASES * total + denominator, 2 * denominator)


def _cell(
    count: int, stride: int, offset2: int, grid: int, nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return, per position along one axis: the node before it, the node after it, and its way
    between in 1/(2·grid).
    """
    position2 = 2 * stride * np.arange(count, dtype=np.int64) + offset2 - (grid - 1)
    node, way = position2 // (2 * grid), position2 % (2 * grid)
    way = np.where((node < 0) | (node >= nodes - 1), 0, way)
    node = np.clip(node, 0, nodes - 1)
    return node, np.minimum(node + 1, nodes - 1), way


@lru_cache(maxsize=1)
def interpolation_filters() -> NDArray[np.int64]:
    """Return the (64, 4) integer weights of the cubic convolution kernel at every phase; each row
    sums to 2^10.

    With t = phase / 64 and a = -1/2 (Keys 1981; Catmull-Rom), tap k weighs the sample at position
    floor + k - 1.  The outer taps and the third are rounded to nearest, halves towards plus
    infinity; the second takes what remains.
    """
    p = np.arange(PHASES, dtype=np.int64)
    cube = PHASES**3  # weights · 2 · 64^3 are integers
    outer_left = -(p**3) + 2 * PHASES * p**2 - PHASES**2 * p
    inner_right = -3 * p**3 + 4 * PHASES * p**2 + PHASES**2 * p
    outer_right = p**3 - PHASES * p**2
    scale = 1 << FILTER_BITS
    rounded = [(w * scale + cube) // (2 * cube) for w in (outer_left, inner_right, outer_right)]
    left, right, last = rounded
    return np.stack([left, scale - left - right - last, right, last], axis=1)


def compensate(reference: Tensor, displacement: NDArray[np.int64]) -> Tensor:
    """Predict a tensor by sampling the reference latent at displaced positions, all channels alike.

    Args:
        reference: (C, H, W) integers, magnitude at most `LATENT_LIMIT`, float32 or float64.
        displacement: (H, W, 2) from `latent_displacement`.

    Returns:
        (C, H, W) integers of that type, magnitude at most `LATENT_LIMIT`, 2^23 - 1.  Positions
        outside the tensor read its nearest edge sample.  Sums are float64: weights have magnitudes
        below 1.25 · 2^10 in sum, so partial sums stay below 2^23 · (1.25 · 2^10)^2 < 2^45.
    """
    channels, height, width = reference.shape
    if not displacement.any():
        return reference
    ys, wy = _taps(displacement[..., 0], np.arange(height)[:, None], height)
    xs, wx = _taps(displacement[..., 1], np.arange(width)[None, :], width)
    taps = ys.shape[-1]
    index = (ys[..., :, None] * width + xs[..., None, :]).reshape(height * width, taps * taps)
    weight = (wy[..., :, None] * wx[..., None, :]).reshape(height * width, taps * taps)
    flat = reference.reshape(channels, height * width)
    places = torch.from_numpy(index).to(flat.device)
    weights = torch.from_numpy(weight).to(flat.device, torch.float64)
    predicted = torch.empty_like(flat)
    for first, last in stripes(channels, flat.numel()):
        total = torch.nn.functional.embedding_bag(
            places,
            flat[first:last].t().contiguous().double(),
            per_sample_weights=weights,
            mode="sum",
        )
        rounded = round_shift(total, 2 * FILTER_BITS).clamp_(-LATENT_LIMIT, LATENT_LIMIT)
        predicted[first:last] = rounded.to(flat.dtype).t()
    return predicted.reshape(channels, height, width)


def _taps(
    displacement: NDArray[np.int64], position: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clamped sample positions and the weights of the interpolation filter, (H, W, taps)
    each.
    """
    filters = interpolation_filters()
    taps = filters.shape[1]
    whole, phase = displacement // PHASES, displacement % PHASES
    first = position + whole - (taps // 2 - 1)
    samples = np.clip(first[..., None] + np.arange(taps), 0, size - 1)
    return samples, filters[phase]
