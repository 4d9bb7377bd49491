"""Gradients of the cloud sub-model -> a linear map from a block's statistics to its importance.

Per block, the squared gradients of random probes in the profile's coordinates say what an error of
one step costs the task there.  Their logarithm is regressed on the statistics of
`encoding.importance`, by ridge regression in closed form, from sums over inputs; every fifth input
is held out to choose the ridge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.arithmetic import as_written
from codec.encoding.forward_transform import ForwardTransform, gradient_blocks
from codec.encoding.importance import block_statistics
from codec.format.profile import MOST_LOGARITHM, STATISTICS, ImportanceModel, Profile

__all__ = ["ImportanceFit", "block_sensitivity", "obstacle"]

RIDGES: Final = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)
"""In units of the statistics' variance."""
HELD_OUT: Final = 5
FLOOR: Final = 1e-3
"""Deviations of a block, and sensitivities, below this share of the usual ones count as nothing."""
LEAST_VARIANCE: Final = 1e-8
"""Variance of a statistic, as a share of its mean square, below which it is not regressed on."""
LEAST_SPREAD: Final = 0.7
"""Standard deviation of the predicted logarithms, over all blocks, that is worth offsets: at a
classifier's cut with 0.4 the true sensitivity itself gained nothing; at detectors it is over 1."""
LEVEL_SHARE: Final = 0.8
BLOCK_SHARE: Final = 0.5
"""How much is believed of what tensors differ by, and of what blocks differ by within their tensor:
gradients speak of small errors, and the rest is prediction.  For blocks, on three clips at either
of two cuts of NanoDet, 0.5 gained 5 to 10 %, 7.7 on average; 0.8 gained 4 to 13 %, 9.5 on average,
but less than 0.5 on two of the six (-4 for -9 once).  The smaller was chosen for its even gain."""
MOST_BYTES: Final = 1 << 30
"""Of the sums of all tensors: one tensor of 1024 channels takes 0.6 GB."""


@as_written()
def block_sensitivity(profile: Profile, gradients: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """Return (rows, columns) mean squared gradients by the profile's coordinates, for each tensor.

    Args:
        profile: the coordinates.
        gradients: (count, C, H, W) for each tensor.
    """
    found = []
    for tensor, of_tensor in zip(profile.tensors, gradients, strict=True):
        size = tensor.block_size
        adjoint = ForwardTransform(tensor, of_tensor.device, adjoint=True)
        height, width = of_tensor.shape[-2:]
        total = torch.zeros(tensor.blocks(height, width), dtype=torch.float64)
        for gradient in of_tensor:
            squared = adjoint(gradient_blocks(gradient, size)).double().square().sum((0, 1))
            total += squared.cpu().reshape(total.shape)
        positions = size * size * tensor.channels
        found.append(total.numpy() * 0.25**tensor.fraction_bits / (len(of_tensor) * positions))
    return found


def obstacle(profile: Profile, inputs: int) -> str:
    """Return why importance cannot be fitted on so many inputs, "" if it can: to be asked before
    anything is allocated.
    """
    if inputs < HELD_OUT:
        return _too_few(inputs)
    size = sum(2 * 8 * (STATISTICS * tensor.channels) ** 2 for tensor in profile.tensors)
    if size > MOST_BYTES:
        return (
            f"too large: the sums of all channels would take {size / 1e9:.1f} GB, at most "
            f"{MOST_BYTES / 1e9:.1f} are taken"
        )
    return ""


def _too_few(inputs: int) -> str:
    return f"too few inputs: {inputs}, and {HELD_OUT} or more tell where errors cost"


class ImportanceFit:
    """Collects blocks of inputs: `measure` all of them, then `add` them in the same order, which
    needs what is usual for all; then `models` solves.

    Args:
        profile: whose coordinates and blocks count.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._sensitivities: list[list[NDArray[np.float64]] | None] = []
        self._variances = [np.zeros(tensor.channels) for tensor in profile.tensors]
        self._added = self._used = 0
        # of inputs that are fitted to, and of those held out
        self._sums = [
            [_Sums(STATISTICS * tensor.channels) for tensor in profile.tensors] for _ in range(2)
        ]

    def measure(self, features: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Measure an input: (C, H, W) features and (count, C, H, W) gradients for each tensor; one
        whose gradients are not finite is left out.
        """
        found = block_sensitivity(self._profile, gradients)
        finite = all(np.isfinite(each).all() for each in found)
        self._sensitivities.append(found if finite else None)
        for number, feature in enumerate(features):
            variance = feature.double().var((1, 2), correction=0)
            self._variances[number] += variance.cpu().numpy()

    @cached_property
    def _floors(self) -> list[NDArray[np.float32]]:
        """Deviations that count as none, (C,) for each tensor: a share of the usual ones."""
        floors = []
        for variances in self._variances:
            usual = np.sqrt(variances / len(self._sensitivities))
            floors.append(FLOOR * np.maximum(usual, FLOOR * usual.mean()) + 1e-12)
        return [floor.astype(np.float32) for floor in floors]

    @cached_property
    def _least(self) -> list[float]:
        """Sensitivities that count as none, of each tensor: a share of what the usual input has,
        which a few with much more to lose do not change.
        """
        means = [[each.mean() for each in one] for one in self._sensitivities if one is not None]
        telling = [of_input for of_input in means if any(of_input)]
        usual = np.median(telling, 0) if telling else np.zeros(len(self._profile.tensors))
        return [FLOOR * max(each, 1e-6 * usual.mean(), 1e-300) for each in usual.tolist()]

    def add(self, features: Sequence[Tensor]) -> None:
        """Count an input."""
        sensitivities = self._sensitivities[self._added]
        self._added += 1
        if sensitivities is None:
            return
        self._used += 1
        held_out = self._used % HELD_OUT == 0
        for tensor, feature, sensitivity, floor, least, sums in zip(
            self._profile.tensors,
            features,
            sensitivities,
            self._floors,
            self._least,
            self._sums[held_out],
            strict=True,
        ):
            floors = torch.from_numpy(floor).to(feature.device)
            statistics = block_statistics(feature.float(), tensor.block_size, floors)
            rows = statistics.flatten(1).t().double().cpu().numpy()
            sums.add(rows, np.log(sensitivity.ravel() + least))

    def models(self) -> tuple[tuple[ImportanceModel, ...] | None, str]:
        """Return a map for each tensor, or None where importance hardly differs; and in words by
        how much it does.
        """
        if self._used < HELD_OUT:
            return None, _too_few(self._used)
        fitted, held_out = self._sums
        solved = [_solved(*pair) for pair in zip(fitted, held_out, strict=True)]
        means = np.array([sums.mean_y for sums in fitted])
        counts = np.array([sums.count for sums in fitted])
        centre = float(means @ counts / counts.sum())
        variances = [
            sums.variance_of(weights) for sums, (weights, _) in zip(fitted, solved, strict=True)
        ]
        spread = (np.array(variances) + (means - centre) ** 2) @ counts / counts.sum()
        differs = f"its logarithm deviates by {math.sqrt(spread):.2f}"
        if not spread > LEAST_SPREAD**2:
            return None, f"nothing to gain: {differs}, {LEAST_SPREAD} or more is worth offsets"
        models = []
        for number, (weights, bias) in enumerate(solved):
            mean = float(means[number])
            level = LEVEL_SHARE * (mean - centre) - BLOCK_SHARE * mean
            seen = [sums[number].seen for sums in self._sums]
            bounds = (min(least for least, _ in seen), max(most for _, most in seen))
            least, most = (
                float(np.clip(BLOCK_SHARE * bound + level, -MOST_LOGARITHM, MOST_LOGARITHM))
                for bound in bounds
            )
            models.append(
                ImportanceModel(
                    (BLOCK_SHARE * weights).astype(np.float32),
                    float(BLOCK_SHARE * bias + level),
                    self._floors[number],
                    (least, most),
                )
            )
        return tuple(models), differs


class _Sums:
    """Second-order sums of statistics x and target y, around the first ones that are added: where
    something is constant, or large and nearly so, they are not differences of large numbers.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.seen = (math.inf, -math.inf)
        """The least target and the largest."""
        self._x0, self._y0 = np.zeros(size), 0.0
        self._y, self._yy = 0.0, 0.0
        self._x, self._xy = np.zeros(size), np.zeros(size)
        self._xx = np.zeros((size, size))

    def add(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        if not self.count:
            self._x0, self._y0 = x.mean(0), float(y.mean())
        self.count += len(y)
        self.seen = min(self.seen[0], float(y.min())), max(self.seen[1], float(y.max()))
        x, y = x - self._x0, y - self._y0
        self._y += float(y.sum())
        self._yy += float(y @ y)
        self._x += x.sum(0)
        self._xy += x.T @ y
        self._xx += x.T @ x

    @property
    def mean_x(self) -> NDArray[np.float64]:
        return self._x0 + self._x / self.count

    @property
    def mean_y(self) -> float:
        return self._y0 + self._y / self.count

    def covariances(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Return those of x with x and with y, and the variance of y."""
        x, y = self._x / self.count, self._y / self.count
        xx = self._xx / self.count - np.outer(x, x)
        return xx, self._xy / self.count - x * y, self._yy / self.count - y * y

    def variance_of(self, weights: NDArray[np.float64]) -> float:
        """Return the variance of w · x."""
        return max(float(weights @ self.covariances()[0] @ weights), 0.0)

    def squared_error(self, weights: NDArray[np.float64], bias: float) -> float:
        """Return the mean of (y - w · x - b)²."""
        xx, xy, yy = self.covariances()
        off = self.mean_y - float(weights @ self.mean_x) - bias
        return float(weights @ xx @ weights - 2 * (weights @ xy) + yy + off * off)


def _solved(fitted: _Sums, held_out: _Sums) -> tuple[NDArray[np.float64], float]:
    """Return the weights and bias of the ridge that errs least on what was held out."""
    mean_x, mean_y = fitted.mean_x, fitted.mean_y
    covariance, target, _ = fitted.covariances()
    variance = covariance.diagonal()
    # a statistic that hardly varies says nothing: what varies of it is the rounding of float32
    telling = np.flatnonzero(variance > LEAST_VARIANCE * (variance + mean_x * mean_x))
    deviation = np.sqrt(variance[telling])
    scaled = covariance[np.ix_(telling, telling)] / np.outer(deviation, deviation)
    target = target[telling] / deviation
    nothing = np.zeros(len(mean_x))
    best = held_out.squared_error(nothing, mean_y), nothing
    for ridge in RIDGES:
        weights = nothing.copy()
        weights[telling] = (
            np.linalg.solve(scaled + ridge * np.eye(len(telling)), target) / deviation
        )
        error = held_out.squared_error(weights, mean_y - float(weights @ mean_x))
        if error < best[0]:
            best = error, weights
    return best[1], mean_y - float(best[1] @ mean_x)
