"""Gradients of the cloud sub-model -> a linear map from a block's statistics to its importance.

Per block, the squared gradients of random probes in the profile's coordinates say what an error of
one step costs the task there.  Their logarithm is regressed on the statistics of
`encoding.importance`, by ridge regression in closed form, from sums over inputs; every fifth input
is held out to choose the ridge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.arithmetic import as_written
from codec.encoding.forward_transform import ForwardTransform, gradient_blocks
from codec.encoding.importance import block_statistics
from codec.format.profile import STATISTICS, ImportanceModel, Profile

__all__ = ["ImportanceFit", "block_sensitivity"]

RIDGES: Final = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0)
"""In units of the statistics' variance."""
HELD_OUT: Final = 5
FLOOR: Final = 1e-3
"""Deviations of a block, and sensitivities, below this share of the usual ones count as nothing."""
LEAST_SPREAD: Final = 0.7
"""Standard deviation of the predicted logarithms, over all blocks, that is worth offsets: at a
classifier's cut with 0.4 the true sensitivity itself gained nothing; at detectors it is over 1."""
LEVEL_SHARE: Final = 0.8
BLOCK_SHARE: Final = 0.5
"""How much is believed of what tensors differ by, and of what blocks differ by within their tensor:
gradients speak of small errors, and the rest is prediction.  On NanoDet, of 0.3, 0.5 and 0.8 for
blocks, 0.5 won on every clip at either of two cuts; 0.8 won more on some, and lost on others."""
MOST_CHANNELS: Final = 1024
"""Beyond, the regression would take gigabytes."""


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


class ImportanceFit:
    """Collects blocks of inputs; `models` solves for them.

    Args:
        profile: whose coordinates and blocks count.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._inputs = 0
        self._floors: list[Tensor] = []
        self._least: list[float] = []
        # of inputs that are fitted to, and of those held out
        self._sums = [
            [_Sums(STATISTICS * tensor.channels) for tensor in profile.tensors] for _ in range(2)
        ]

    @property
    def possible(self) -> bool:
        """Whether the tensors are narrow enough."""
        return max(tensor.channels for tensor in self._profile.tensors) <= MOST_CHANNELS

    def add(self, features: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Count an input: (C, H, W) features and (count, C, H, W) gradients for each tensor."""
        sensitivities = block_sensitivity(self._profile, gradients)
        if not self._inputs:
            self._floors = [FLOOR * tensor.std((1, 2)) + 1e-12 for tensor in features]
            mean = np.mean([each.mean() for each in sensitivities])
            self._least = [FLOOR * max(float(each.mean()), 1e-6 * mean) for each in sensitivities]
        held_out = self._inputs % HELD_OUT == HELD_OUT - 1
        for tensor, feature, sensitivity, floor, least, sums in zip(
            self._profile.tensors,
            features,
            sensitivities,
            self._floors,
            self._least,
            self._sums[held_out],
            strict=True,
        ):
            statistics = block_statistics(feature.float(), tensor.block_size, floor)
            rows = statistics.flatten(1).t().double().cpu().numpy()
            sums.add(rows, np.log(sensitivity.ravel() + least))
        self._inputs += 1

    def models(self) -> tuple[ImportanceModel, ...] | None:
        """Return a map for each tensor; None where importance hardly differs, or too few inputs
        were seen.
        """
        fitted, held_out = self._sums
        if self._inputs < HELD_OUT:
            return None
        solved = [_solved(*pair) for pair in zip(fitted, held_out, strict=True)]
        means = np.array([sums.y / sums.count for sums in fitted])
        counts = np.array([sums.count for sums in fitted])
        centre = float(means @ counts / counts.sum())
        variances = [
            sums.variance_of(weights) for sums, (weights, _) in zip(fitted, solved, strict=True)
        ]
        spread = (np.array(variances) + (means - centre) ** 2) @ counts / counts.sum()
        if not spread > LEAST_SPREAD**2:
            return None
        models = []
        for (weights, bias), mean, floor in zip(solved, means.tolist(), self._floors, strict=True):
            level = LEVEL_SHARE * (mean - centre) - BLOCK_SHARE * mean
            models.append(
                ImportanceModel(
                    (BLOCK_SHARE * weights).astype(np.float32),
                    float(BLOCK_SHARE * bias + level),
                    floor.float().cpu().numpy(),
                )
            )
        return tuple(models)


class _Sums:
    """Second-order sums of statistics x and target y."""

    def __init__(self, size: int) -> None:
        self.count, self.y, self.yy = 0, 0.0, 0.0
        self.x, self.xy = np.zeros(size), np.zeros(size)
        self.xx = np.zeros((size, size))

    def add(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        self.count += len(y)
        self.y += float(y.sum())
        self.yy += float(y @ y)
        self.x += x.sum(0)
        self.xy += x.T @ y
        self.xx += x.T @ x

    def variance_of(self, weights: NDArray[np.float64]) -> float:
        """Return the variance of w · x."""
        mean = float(weights @ self.x) / self.count
        return max(float(weights @ self.xx @ weights) / self.count - mean * mean, 0.0)

    def squared_error(self, weights: NDArray[np.float64], bias: float) -> float:
        """Return the sum of (y - w · x - b)²."""
        square = weights @ self.xx @ weights + 2 * bias * (weights @ self.x) + self.count * bias**2
        return float(self.yy - 2 * (weights @ self.xy + bias * self.y) + square)


def _solved(fitted: _Sums, held_out: _Sums) -> tuple[NDArray[np.float64], float]:
    """Return the weights and bias of the ridge that errs least on what was held out."""
    mean_x, mean_y = fitted.x / fitted.count, fitted.y / fitted.count
    covariance = fitted.xx / fitted.count - np.outer(mean_x, mean_x)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 1e-18))
    scaled = covariance / np.outer(deviation, deviation)
    target = (fitted.xy / fitted.count - mean_x * mean_y) / deviation
    nothing = np.zeros(len(mean_x))
    best = held_out.squared_error(nothing, mean_y), nothing
    for ridge in RIDGES:
        weights = np.linalg.solve(scaled + ridge * np.eye(len(target)), target) / deviation
        error = held_out.squared_error(weights, mean_y - float(weights @ mean_x))
        if error < best[0]:
            best = error, weights
    return best[1], mean_y - float(best[1] @ mean_x)
