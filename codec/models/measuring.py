"""Where the samples of a tensor lie in the frame, measured: where gradients fall in the image.

For tensors behind operations that `models.geometry` has no rule for.  The gradient of one sample
with respect to the image is centred on the pixel that the sample is about: its centroids at several
places in the middle of the frame give stride and offset, if they lie on a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch

from codec.errors import ModelError
from codec.models.geometry import Axis, Geometry

__all__ = ["measured_geometry"]

_IMAGES: Final = 4
_PLACES: Final = (3 / 8, 7 / 16, 1 / 2, 9 / 16, 5 / 8)
"""Of the frame's sides: near its edges they cut the gradients off."""
_STRIDE_TOLERANCE: Final = 0.15
_SCATTER: Final = 1.0
"""Bound of the mean distance from the line, in strides."""


def measured_geometry(
    edge: Callable[[torch.Tensor], torch.Tensor], images: Sequence[int], size: tuple[int, int]
) -> Geometry:
    """Measure stride and offset of a tensor.

    Args:
        edge: computes it of images.
        images: their shape, (N, 3, H, W).
        size: height and width of the tensor.

    Raises:
        ModelError: the gradients do not say where its samples lie.
    """
    places = [[int(side * place) for place in _PLACES] for side in size]
    if any(len(set(row)) < 3 for row in places):
        raise ModelError(f"{size[1]}x{size[0]} samples are too few to measure where they lie")
    centres = [_centroid(edge, images, row, column) for row, column in zip(*places, strict=True)]
    y, x = (
        _axis(indices, [centre[axis] for centre in centres], images[2 + axis] / size[axis])
        for axis, indices in enumerate(places)
    )
    return Geometry(y, x)


def _centroid(
    edge: Callable[[torch.Tensor], torch.Tensor], shape: Sequence[int], row: int, column: int
) -> tuple[float, float]:
    """Return the centre of the gradients' energy over several images of noise."""
    energy = torch.zeros(shape[2], shape[3], dtype=torch.float64)
    generator = torch.Generator().manual_seed(row + (column << 16))
    with torch.inference_mode(mode=False), torch.enable_grad():
        for _ in range(_IMAGES):
            images = torch.randn(*shape, generator=generator).requires_grad_()
            sample = edge(images)[:, :, row, column]
            signs = torch.randn(sample.shape, generator=generator)
            (gradient,) = torch.autograd.grad((sample * signs).sum(), images)
            energy += gradient.double().square().sum((0, 1))
    total = float(energy.sum())
    if not 0 < total < float("inf"):
        raise ModelError("no gradient reaches the image")
    y, x = (
        float((energy.sum(1 - axis) * torch.arange(shape[2 + axis])).sum()) / total
        for axis in (0, 1)
    )
    return y, x


def _axis(indices: Sequence[int], centres: Sequence[float], ratio: float) -> Axis:
    """Lay a line of a whole stride, that of the sizes, through the measured centres."""
    mean_index, mean_centre = sum(indices) / len(indices), sum(centres) / len(centres)
    slope = sum(
        (index - mean_index) * (centre - mean_centre)
        for index, centre in zip(indices, centres, strict=True)
    ) / sum((index - mean_index) ** 2 for index in indices)
    stride = max(round(ratio), 1)
    offset = mean_centre - stride * mean_index
    scatter = sum(
        abs(centre - stride * index - offset)
        for index, centre in zip(indices, centres, strict=True)
    ) / len(indices)
    if abs(slope / stride - 1) > _STRIDE_TOLERANCE or scatter > _SCATTER * stride:
        raise ModelError(
            f"measured by gradients, neighbours look {slope:.1f} pixels apart, where their number "
            f"says {ratio:.1f}"
        )
    return Axis(stride, round(2 * offset))
