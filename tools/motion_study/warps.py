"""Known motion, applied twice: to a picture before the edge sub-model, and by (12) to its tensor.

    picture ──► still frame ──► edge sub-model ──► reference tensor ──► compensate ──► predicted
       └──────► moved frame ──► edge sub-model ──► actual tensor                          ▲
    affine map ─────► where the content of every latent position came from, v / n^k ──────┘

The tensor is moved by the library's own `compensate`, with a displacement of its own for every
latent position, in 1/64 sample; the position of a sample in the frame is that of its `TensorSpec`.
Frames are windows into larger pictures, moved by cubic splines and rounded to 8 bits as a camera
would, so that what enters the frame is picture, and beyond the picture its mirror image.

Regions that enter the frame cannot be predicted, and are left out: positions whose source lies
outside the reference tensor.  Positions near an edge of the frame have still seen its padding;
`Prediction.inner` leaves out those, too.

Not here: which motion and which models (`tools/motion_study/experiments.py`).

Source: H. Ulhaq and I. V. Bajić, arXiv:2102.04018, equations (12) and (13), Section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from codec.format.constants import LATENT_LIMIT
from codec.format.header import TensorSpec
from codec.metrics import FeatureNrmse
from codec.normative import motion
from codec.normative.motion import FILTER_BITS, PHASES, compensate, interpolation_filters

__all__ = [
    "CODEC_FILTER",
    "FILTERS",
    "MARGIN",
    "Affine",
    "Picture",
    "Prediction",
    "displacement_of",
    "interpolation",
    "moved",
    "positions",
    "predictable",
    "prediction",
    "range_of",
]

MARGIN = 32
"""Pixels from the edges of the frame that `Prediction.inner` stays away from."""
SPLINE_ORDER = 3

Points = NDArray[np.float64]
"""(..., 2), (y, x)."""


# --- affine motion ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Affine:
    """Motion about the centre of the frame: what is at p goes to q = centre + M (p - centre) + t.

    M = rotation · shear · scale; angles in degrees, clockwise as seen on a screen; translation in
    pixels of the input.
    """

    x: float = 0.0
    y: float = 0.0
    scale_x: float = 1.0
    scale_y: float = 1.0
    shear_x: float = 0.0
    shear_y: float = 0.0
    rotation: float = 0.0

    def matrix(self) -> NDArray[np.float64]:
        """Return M, which acts on (y, x)."""
        turn = math.radians(self.rotation)
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        shear = np.array(
            [
                [1.0, math.tan(math.radians(self.shear_y))],
                [math.tan(math.radians(self.shear_x)), 1.0],
            ]
        )
        found: NDArray[np.float64] = rotation @ shear @ np.diag([self.scale_y, self.scale_x])
        return found

    def source(self, points: Points, size: tuple[int, int]) -> Points:
        """Return where the content at `points` of the moved frame was in the reference frame.

        Args:
            points: (..., 2), (y, x) in pixels, pixel centres at integers.
            size: height and width of the frame.
        """
        if self == Affine():
            return points  # to the last bit
        centre = (np.array(size, np.float64) - 1) / 2
        shift = np.array([self.y, self.x])
        if self == Affine(x=self.x, y=self.y):
            return np.asarray(points - shift)
        found: Points = centre + (points - centre - shift) @ np.linalg.inv(self.matrix()).T
        return found


# --- frames -------------------------------------------------------------------------------------


class Picture:
    """A picture at least as large as the frames that are cut from its middle.

    Args:
        rgb: (H, W, 3) uint8.
        size: height and width of the frames.

    Raises:
        ValueError: the picture is smaller than a frame.
    """

    def __init__(self, rgb: NDArray[np.uint8], size: tuple[int, int]) -> None:
        if rgb.shape[0] < size[0] or rgb.shape[1] < size[1]:
            raise ValueError(
                f"a picture of {rgb.shape[1]}x{rgb.shape[0]}, smaller than the frame of "
                f"{size[1]}x{size[0]}"
            )
        self.size = size
        self.origin = ((rgb.shape[0] - size[0]) // 2, (rgb.shape[1] - size[1]) // 2)
        self._coefficients = [
            ndimage.spline_filter(rgb[..., channel].astype(np.float64), SPLINE_ORDER, mode="mirror")
            for channel in range(3)
        ]
        y, x = self.origin
        self.still = np.ascontiguousarray(rgb[y : y + size[0], x : x + size[1]])

    def frame(self, affine: Affine) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 frame after motion."""
        return self.sampled(affine.source(_grid(self.size), self.size))

    def sampled(self, points: Points) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 samples at (H, W, 2) points, (y, x) in pixels of the frame."""
        place = np.moveaxis(points + np.array(self.origin), -1, 0)
        rgb = np.stack(
            [
                ndimage.map_coordinates(
                    plane, place, order=SPLINE_ORDER, mode="mirror", prefilter=False
                )
                for plane in self._coefficients
            ],
            -1,
        )
        return np.asarray(np.clip(np.rint(rgb), 0, 255), np.uint8)


def _grid(size: tuple[int, int]) -> Points:
    return np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).astype(np.float64)


# --- tensors ------------------------------------------------------------------------------------


def positions(spec: TensorSpec, offset: tuple[float, float] = (0.0, 0.0)) -> Points:
    """Return the (H, W, 2) positions of a tensor's samples in the frame, (y, x) in pixels.

    Args:
        spec: the tensor.
        offset: (y, x) in samples of the tensor, on top of the spec's own.
    """
    grid = _grid((spec.height, spec.width))
    stride = np.array([spec.stride_y, spec.stride_x], np.float64)
    return (grid + offset) * stride + np.array([spec.offset_y2, spec.offset_x2]) / 2


def displacement_of(
    affine: Affine, spec: TensorSpec, size: tuple[int, int], offset: tuple[float, float] = (0, 0)
) -> NDArray[np.int64]:
    """Scale the motion at every position of a tensor by its stride: equation (12).

    Returns:
        (H, W, 2) int64 for `compensate`, (y, x) in 1/64 sample, rounded halves up.
    """
    place = positions(spec, offset)
    stride = np.array([spec.stride_y, spec.stride_x], np.float64)
    vectors = (affine.source(place, size) - place) / stride
    return np.floor(vectors * PHASES + 0.5).astype(np.int64)


def predictable(displacement: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which (H, W) positions have their source inside the reference tensor."""
    height, width = displacement.shape[:2]
    place = _grid((height, width)) * PHASES + displacement
    last = np.array([height - 1, width - 1]) * PHASES
    return np.asarray(((place >= 0) & (place <= last)).all(-1))


def moved(reference: Tensor, displacement: NDArray[np.int64]) -> NDArray[np.float32]:
    """Motion-compensate a float tensor by the codec's own arithmetic, at 21 bits.

    Args:
        reference: (C, H, W) float32.
        displacement: (H, W, 2), 1/64 sample.
    """
    if not displacement.any():
        return np.asarray(reference.numpy(), np.float32)  # to the last bit, as `compensate` does
    largest = float(reference.abs().max()) or 1.0
    scale = 2.0 ** (math.floor(math.log2(LATENT_LIMIT / largest)) - 2)
    latent = torch.round(reference.double() * scale)
    found: NDArray[np.float32] = (compensate(latent, displacement) / scale).float().numpy()
    return found


def range_of(values: NDArray[np.float32]) -> float:
    """Return the dynamic range R of (13)."""
    return float(values.max()) - float(values.min())


@dataclass(frozen=True, slots=True)
class Prediction:
    """How well a tensor is predicted by (12): (13), and what to hold it against.

    `nrmse` leaves out what enters the frame; `inner` also what lies within `MARGIN` pixels of its
    edges, or came from there; `still` takes the reference where it is, at the positions of `nrmse`;
    `relative` is the error's root mean square over the tensor's standard deviation; `positions` is
    the share of positions compared.
    """

    nrmse: float
    inner: float
    still: float
    relative: float
    positions: float

    @property
    def gain(self) -> float:
        """Bits per element that motion saves against none, by rate-distortion theory (Gaussian)."""
        return math.log2(self.still / self.nrmse) if self.nrmse and self.still else 0.0


def _nrmse(
    actual: NDArray[np.float32], predicted: NDArray[np.float32], mask: NDArray[np.bool_]
) -> float:
    """Compute (13) over the positions in the mask; NaN where there is none."""
    if not mask.any():
        return math.nan
    error = FeatureNrmse(1)
    error.update(0, actual[:, mask], predicted[:, mask])
    return error.combined()


def prediction(
    reference: Tensor,
    actual: Tensor,
    affine: Affine,
    spec: TensorSpec,
    size: tuple[int, int],
    offset: tuple[float, float] = (0.0, 0.0),
) -> Prediction:
    """Predict a tensor from that of the still frame, and compare.

    Args:
        reference: (C, H, W) float32, of the still frame.
        actual: (C, H, W) float32, of the moved one.
        affine: the motion.
        spec: where the samples are.
        size: height and width of the frame.
        offset: (y, x) in samples, on top of the spec's.
    """
    displacement = displacement_of(affine, spec, size, offset)
    mask = predictable(displacement)
    predicted, truth = moved(reference, displacement), actual.numpy()
    place = positions(spec)
    low, high = np.full(2, MARGIN - 1.0), np.array(size) - MARGIN
    sources = affine.source(place, size)
    inner = mask & np.all(
        (place > low) & (place < high) & (sources > low) & (sources < high), axis=-1
    )
    nrmse = _nrmse(truth, predicted, mask)
    compared = truth[:, mask]
    spread = float(compared.std()) if compared.size else math.nan
    return Prediction(
        nrmse,
        _nrmse(truth, predicted, inner),
        _nrmse(truth, reference.numpy(), mask),
        nrmse * range_of(compared) / spread if spread else 0.0,
        float(mask.mean()),
    )


# --- interpolation filters ----------------------------------------------------------------------


def _sinc(distance: Points, lobes: int) -> Points:
    """Evaluate the Lanczos kernel."""
    kernel = np.sinc(distance) * np.sinc(distance / lobes)
    return np.where(np.abs(distance) < lobes, kernel, 0.0)


def _nearest(distance: Points) -> Points:
    return np.asarray((distance > -0.5) & (distance <= 0.5), np.float64)


def _linear(distance: Points) -> Points:
    return np.asarray(np.maximum(1 - np.abs(distance), 0.0))


def _spline_basis(distance: Points) -> Points:
    """Evaluate the cubic B-spline, which smooths: it is no interpolator without a prefilter."""
    near = np.abs(distance)
    inside = (4 - 6 * near**2 + 3 * near**3) / 6
    return np.asarray(np.where(near < 1, inside, np.maximum(2 - near, 0.0) ** 3 / 6))


def _tabulated(kernel: Callable[[Points], Points], taps: int) -> NDArray[np.int64]:
    """Tabulate a kernel at every phase as `compensate` wants it: (64, taps), rows sum to 2^10."""
    phase = np.arange(PHASES)[:, None] / PHASES
    weights = kernel(np.arange(taps)[None] - (taps // 2 - 1) - phase)
    weights = weights / weights.sum(1, keepdims=True)
    table = np.asarray(np.rint(weights * (1 << FILTER_BITS)), np.int64)
    largest = table.argmax(1)
    table[np.arange(PHASES), largest] += (1 << FILTER_BITS) - table.sum(1)
    return table


CODEC_FILTER = "cubic (the codec's)"
FILTERS: dict[str, NDArray[np.int64]] = {
    "nearest": _tabulated(_nearest, 2),
    "bilinear": _tabulated(_linear, 2),
    CODEC_FILTER: interpolation_filters(),
    "Lanczos-3, 6 taps": _tabulated(lambda d: _sinc(d, 3), 6),
    "Lanczos-4, 8 taps": _tabulated(lambda d: _sinc(d, 4), 8),
    "B-spline, unfiltered": _tabulated(_spline_basis, 4),
}
"""Tables for `interpolation`; all but the last leave samples alone at whole shifts."""


@contextmanager
def interpolation(name: str) -> Iterator[None]:
    """Let `compensate` use another of the `FILTERS`.

    Zero displacement is not filtered at all, whatever the filter: `compensate` returns early.
    """
    with patch.object(motion, "interpolation_filters", lambda: FILTERS[name]):
        yield
