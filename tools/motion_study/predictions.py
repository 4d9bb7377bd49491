"""Tensors of moved pictures predicted by (12), which several experiments build on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from codec.format.header import SequenceHeader, TensorSpec
from codec.profiling.simple import simple_header
from tools.motion_study.networks import BATCH, Network
from tools.motion_study.warps import (
    Affine,
    Picture,
    Prediction,
    prediction,
)

__all__ = [
    "MEASURES",
    "VECTOR_GRID",
    "frame_header",
    "predictions",
    "random_affine",
    "steps_between",
    "still_tensors",
]

VECTOR_GRID = 16
"""Pixels between the vectors that tensors are predicted with."""


MEASURES = ("nrmse", "inner", "still", "relative", "positions")


def predictions(
    network: Network,
    pictures: Sequence[Picture],
    references: Sequence[Tensor],
    cases: Sequence[tuple[int, Affine]],
) -> list[list[Prediction]]:
    """Predict the tensors of moved frames.

    Args:
        network: its layers.
        pictures: those that `cases` count.
        references: of all pictures at rest, what the network returns.
        cases: (picture, motion).

    Returns:
        For each case, a prediction for each layer.
    """
    found = []
    for first in range(0, len(cases), BATCH):
        batch = cases[first : first + BATCH]
        tensors = network(np.stack([pictures[number].frame(affine) for number, affine in batch]))
        found += [
            [
                prediction(before[number], after[place], affine, spec, network.size)
                for before, after, spec in zip(
                    references, tensors, network.layers.values(), strict=True
                )
            ]
            for place, (number, affine) in enumerate(batch)
        ]
    return found


def still_tensors(network: Network, pictures: Sequence[Picture]) -> list[Tensor]:
    """Compute the tensors of all pictures at rest."""
    return network(np.stack([picture.still for picture in pictures]))


def steps_between(low: float, high: float, step: float) -> list[float]:
    """List the values from low to high, both included."""
    count = round((high - low) / step)
    return [round(low + step * number, 6) for number in range(count + 1)]


def random_affine(generator: np.random.Generator) -> Affine:
    """Draw the seven parameters of Fig. 6, uniform and independent."""
    x, y = generator.uniform(-32, 32, 2)
    scale_x, scale_y = generator.uniform(0.95, 1.05, 2)
    shear_x, shear_y = generator.uniform(-5, 5, 2)
    rotation = generator.uniform(-10, 10)
    return Affine(*map(float, (x, y, scale_x, scale_y, shear_x, shear_y, rotation)))


def frame_header(size: tuple[int, int], grid: int) -> SequenceHeader:
    """Return a header for `MotionSearch` on frames of a size, with a grid of that many pixels."""
    spec = TensorSpec("frame", 1, 7, 7, 32, 32)
    return replace(simple_header([spec], [[torch.ones(1, 7, 7)]], *size), grid=grid)
