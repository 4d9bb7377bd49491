"""What a codec takes at a stated loss of the task: few evaluations, and between them interpolated.

parameter (qp, crf) ─► measure ─► losses and bytes of every frame          `Point`
│ until two points lie around the loss, or none is finer or coarser; then closer, a few times
▼
log bytes over log loss between these two, for all frames or any resampling of them  `Curve`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.files.video_coders import KEYINT

__all__ = ["KEYINT", "Curve", "Point", "search"]

Floats = NDArray[np.float64]

REFINEMENTS = 3
"""Points measured between two that lie around the loss, at most."""
CLOSE = 3
"""Steps of the parameter between two points that are close enough to interpolate."""
SLOPE = math.log(4) / 6
"""Of the logarithm of the loss over the parameter: six steps double the error, its square is the
loss."""
LEAST, LARGEST = 2, 12
"""Steps of the parameter that the search moves by."""
TINY = 1e-12
"""In place of no loss, where logarithms are taken."""
OUTSIDE = 1.0
"""How far beyond its two points a resampling is extrapolated, in their distance."""


@dataclass(frozen=True, slots=True)
class Point:
    """A clip coded with one parameter: loss and bytes of every frame, and figures of the task."""

    parameter: int
    losses: tuple[float, ...]
    frame_bytes: tuple[int, ...]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Return the mean over the frames."""
        return sum(self.losses) / len(self.losses)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Point:
        """Read what `dataclasses.asdict` made, after it has been JSON."""
        return cls(
            found["parameter"],
            tuple(found["losses"]),
            tuple(found["frame_bytes"]),
            found["figures"],
        )


def search(measure: Callable[[int], Point], target: float, *, start: int, most: int) -> list[Point]:
    """Measure points until two lie around a loss, and a few between them; return them from the
    finest to the coarsest.

    Where no two lie around it, the finest or the coarsest possible point is among them.

    Args:
        measure: codes the clip with a parameter, the larger the coarser.
        target: mean loss of a frame.
        start: parameter to begin with.
        most: the largest one.
    """
    found: dict[int, Point] = {}
    parameter, step, refinements = start, 0, REFINEMENTS
    while parameter not in found:
        found[parameter] = measure(parameter)
        low, high = _next_to(found, target)
        if low is not None and high is not None:
            if high - low <= CLOSE or not refinements:
                break
            refinements -= 1
            share = _share(found[low].loss, found[high].loss, target)
            parameter = min(max(round(low + share * (high - low)), low + 1), high - 1)
        else:
            # a slope told by so little may be far too steep: an estimate that fell short is
            # followed by twice the step, so that the end is come to
            step = min(max(_distance_to(found, parameter, target) + 1, 2 * step, LEAST), LARGEST)
            parameter = max(parameter - step, 0) if low is None else min(parameter + step, most)
    return [found[key] for key in sorted(found)]


def _next_to(found: Mapping[int, Point], target: float) -> tuple[int | None, int | None]:
    """Return the coarsest parameter that loses no more than the target, and the next one, which
    loses more; None where it has not been measured.  Losses need not rise.
    """
    low = max((key for key, point in found.items() if point.loss <= target), default=None)
    high = min((key for key in found if low is not None and key > low), default=None)
    return low, high


def _distance_to(found: Mapping[int, Point], parameter: int, target: float) -> int:
    """Estimate how many steps the target is away."""
    return round(abs(_distance(found[parameter].loss, target)) / _slope(found))


def _slope(found: Mapping[int, Point]) -> float:
    """Return how the logarithm of the loss rises, by the first and the last point, or as usual."""
    first, last = min(found), max(found)
    if first == last:
        return SLOPE
    rise = _distance(found[first].loss, found[last].loss)
    return min(max(rise / (last - first), SLOPE / 4), 2 * SLOPE)


def _share(low: float, high: float, target: float) -> float:
    """Say where a loss lies between two, in logarithms."""
    whole = _distance(low, high)
    return _distance(low, target) / whole if whole > 0 else 0.5


def _distance(low: float, high: float) -> float:
    """Return by how much the logarithm of a loss rises from one to another."""
    return math.log(max(high, TINY) / max(low, TINY))


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one clip.

    Args:
        points: from the finest to the coarsest.
        target: mean loss of a frame that is asked for.
    """

    points: Sequence[Point]
    target: float

    @property
    def around(self) -> tuple[Point, Point]:
        """Return the points next to the target, finer and coarser; one twice where it lies
        outside of all.
        """
        finer = [each for each in self.points if each.loss <= self.target]
        if not finer:
            return self.points[0], self.points[0]
        low = max(finer, key=lambda each: each.parameter)
        above = [each for each in self.points if each.parameter > low.parameter]
        return low, above[0] if above else low

    @property
    def reached(self) -> bool:
        """Tell whether some point loses no more than is asked for; if not, the finest possible one
        is among them.
        """
        return any(each.loss <= self.target for each in self.points)

    @property
    def exceeded(self) -> bool:
        """Tell whether even the coarsest possible point loses no more: its bytes are more than are
        needed.
        """
        return self.points[-1].loss <= self.target

    @property
    def nearest(self) -> Point:
        """Return the point whose loss is nearest to the target, by ratio."""
        return min(
            self.around,
            key=lambda each: abs(_distance(each.loss, self.target)),
        )

    def bytes_per_frame(self, weights: Floats) -> Floats:
        """Interpolate at the target what a frame takes, key frames by their share of `KEYINT`.

        Args:
            weights: (R, F), how often each frame counts, for R resamplings; of key frames the bytes
                of the first stay as they are.
        """
        low, high = self.around
        first, second = (_steady(each, weights) for each in (low, high))
        if low is high:
            return first
        share = self._shares(weights)
        return np.asarray(np.exp((1 - share) * np.log(first) + share * np.log(second)))

    def plain_bytes_per_frame(self) -> float:
        """Interpolate with every frame counting once."""
        return float(self.bytes_per_frame(np.ones((1, len(self.points[0].losses))))[0])

    def _shares(self, weights: Floats) -> Floats:
        """Say where the target lies between the two points next to it, for every resampling."""
        low, high = self.around
        if low is high:
            return np.zeros(len(weights))
        normal = weights / weights.sum(1, keepdims=True)
        fine, coarse = (
            np.maximum(normal @ np.array(each.losses, np.float64), TINY) for each in (low, high)
        )
        distance = np.log(coarse / fine)
        # a resampling may turn the two around: then it knows nothing of the way between them
        known = distance > 0.05 * abs(_distance(low.loss, high.loss))
        share = np.log(max(self.target, TINY) / fine) / np.where(known, distance, 1.0)
        return np.asarray(np.where(known, np.clip(share, -OUTSIDE, 1 + OUTSIDE), 0.5))


def _steady(point: Point, weights: Floats) -> Floats:
    """Return bytes per frame where one in `KEYINT` is a key frame like the first: few frames are
    measured, of which it is one of fewer.
    """
    sizes = np.array(point.frame_bytes, np.float64)
    inter = np.arange(len(sizes)) % KEYINT != 0
    key, rest = sizes[0], sizes[inter]
    if not len(rest):
        return np.full(len(weights), key)
    counted = weights[:, inter]
    total = counted.sum(1)
    mean = np.where(total > 0, counted @ rest / np.maximum(total, 1), rest.mean())
    return np.asarray((key + (KEYINT - 1) * mean) / KEYINT)
