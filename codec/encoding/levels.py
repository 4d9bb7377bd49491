"""Levels by rate and distortion: what every decision of the encoder is made with.

    J = D + price · R,   D in squared quantiser steps, R in bits

Coefficients are whitened by the profile, so that one unit of squared error costs the task the same
in all of them, and one price serves everything; where an error in a block counts w times, a bit may
cost price / w.  Which residual is coded, and with which vectors, is left to `encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial, reduce

import numpy as np
from numpy.typing import NDArray

from codec.encoding.code_lengths import symbol_bits
from codec.encoding.config import Decisions
from codec.format.constants import MAX_LEVEL, POINT_UNITS
from codec.format.tables import MAX_DIRECT_LEVEL
from codec.normative.contexts import TensorContexts
from codec.normative.stripes import stripes
from codec.normative.symbols import MODE_INTER, MODE_INTRA, MODE_SKIP, TensorSymbols

__all__ = ["LevelChoice", "TensorPlan", "estimated_cost", "level_bits", "recovered_values"]

LEAST_CODED = 0.5
"""Coefficients of smaller magnitude, in steps, are not considered for coding."""
ESCAPE_BITS = 8
"""What an escape costs beside its symbol, about."""
BITS_OF_ONE = 7.0
"""What a level of magnitude one costs at the rates that matter, about; each doubling, two more."""


@cache
def level_bits() -> NDArray[np.float32]:
    """Return (classes, 33) code lengths by magnitude; the last entry stands for escapes."""
    bits = symbol_bits()
    return np.concatenate([bits[:, MAX_DIRECT_LEVEL:-1], bits[:, -1:] + ESCAPE_BITS], 1)


def recovered_values(levels: NDArray[np.int32], points: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return what levels are decoded to, in steps; (..., 2) points of their classes."""
    magnitude = np.abs(levels)
    shift = np.where(magnitude == 1, points[..., 0], points[..., 1]) / POINT_UNITS
    return np.where(levels == 0, 0.0, np.sign(levels) * (magnitude - shift))


def estimated_cost(
    values: NDArray[np.float32], price: NDArray[np.float32] | float
) -> NDArray[np.float32]:
    """Estimate J of each block without choosing levels: (P, N) coefficients in steps, and what a
    bit may cost in each block -> (N,).
    """

    def costs(rows: slice) -> NDArray[np.float32]:
        energy = np.square(values[rows])
        coded = price * (BITS_OF_ONE + np.log2(np.maximum(energy, 1.0))) + 1 / 12
        return np.asarray(np.minimum(energy, coded))

    return _summed(values.shape, costs)


def _summed(
    shape: tuple[int, ...], rows_of: Callable[[slice], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Add up (P, N) values over P, made some rows at a time."""
    parts = [
        np.asarray(rows_of(slice(first, last)).sum(0))
        for first, last in stripes(shape[0], math.prod(shape))
    ]
    return reduce(np.add, parts)


class LevelChoice:
    """Levels of some blocks of a tensor for one residual, and per block D, R and J.

    Levels are chosen pass by pass, under the classes that coding will meet.  `energy` is the
    distortion of sending nothing.

    Args:
        contexts: in the state in which the frame will meet them.
        values: (P, N) coefficients in scan order, in steps.
        points: of the profile.
        kinds: (N,) `INTRA` or `INTER`.
        qp: of the frame.
        blocks: (N,) their numbers.
        offsets: (N,) of the blocks.
        decisions: the rounding, if levels are not chosen by J.
        price: (N,) what a bit may cost in each block.
    """

    def __init__(
        self,
        contexts: TensorContexts,
        values: NDArray[np.float32],
        points: NDArray[np.int8],
        kinds: NDArray[np.intp],
        qp: int,
        blocks: NDArray[np.intp],
        offsets: NDArray[np.int64],
        decisions: Decisions,
        price: NDArray[np.float32],
    ) -> None:
        self.values, self._points, self._price = values, points, price
        self.energy = _summed(values.shape, lambda rows: np.square(values[rows]))
        self.distortion = self.energy.copy()
        self.rate = np.zeros_like(self.energy)
        self.levels = np.zeros(values.shape, np.int32)
        self.classes = np.zeros(values.shape, np.uint8)
        # tables by class and magnitude, one row after another
        self._rates = level_bits()
        self._zero_rates = self._rates[:, 0].copy()
        self._rows = np.arange(len(self._rates)) * self._rates.shape[1]
        self._shifts = np.zeros_like(self._rates)
        self._shifts[:, 1] = points[:, 0] / POINT_UNITS
        self._shifts[:, 2:] = points[:, 1:] / POINT_UNITS
        self._blocks = np.zeros(0, np.intp)
        choose = self._choose
        if decisions.rounding is not None:
            choose = partial(self._round, decisions.rounding)

        def in_stripes(first: int, last: int, classes: NDArray[np.uint8]) -> NDArray[np.int32]:
            for begin, end in stripes(last - first, classes.size):
                choose(first + begin, first + end, classes[begin:end])
            return self.levels[first:last]

        expectation = contexts.means_of(qp, offsets, kinds)
        contexts.passes(blocks, expectation, in_stripes)
        self.cost = self.distortion + self._price * self.rate

    def _round(
        self, rounding: float, first: int, last: int, classes: NDArray[np.uint8]
    ) -> NDArray[np.int32]:
        """Quantise with a dead zone, whatever it costs."""
        values, levels = self.values[first:last], self.levels[first:last]
        self.classes[first:last] = classes
        magnitude = np.minimum(np.floor(np.abs(values) + rounding), MAX_LEVEL).astype(np.int32)
        levels[:] = np.where(values < 0, -magnitude, magnitude)
        recovered = recovered_values(magnitude, self._points[classes])
        self.distortion += (np.square(np.abs(values) - recovered) - np.square(values)).sum(0)
        self.rate += level_bits()[classes, np.minimum(magnitude, MAX_DIRECT_LEVEL + 1)].sum(0)
        return levels

    def _choose(self, first: int, last: int, classes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Choose 0, the nearest level or the one below it, whichever has the least J."""
        # flat all through: a pass may be small, and then each call costs more than its arithmetic
        levels = self.levels[first:last]
        self.classes[first:last] = classes
        class_of = classes.ravel()
        rate = self._zero_rates.take(class_of)
        values = self.values[first:last].ravel()
        place = np.flatnonzero(np.abs(values) > LEAST_CODED)
        if len(place):
            block = self._block_of(len(classes)).take(place)
            price, row = self._price.take(block), self._rows.take(class_of.take(place))
            value = values.take(place)
            magnitude = np.abs(value)
            nearest = np.maximum(np.minimum(np.floor(magnitude + 0.5), MAX_LEVEL), 1)
            energy, below = np.square(magnitude), np.maximum(nearest - 1, 1)
            cost = energy + price * rate.take(place)
            # a product with what is better in place of `np.where`, which waits for every branch
            level = np.zeros_like(magnitude)
            for candidate in (below, nearest):
                size = self._place(row, candidate)
                error = np.square(magnitude - candidate + self._shifts.take(size))
                new_cost = error + price * self._rates.take(size)
                level += (candidate - level) * (new_cost < cost)
                cost = np.minimum(cost, new_cost)
            levels.ravel()[place] = np.copysign(level, value)
            rate[place] = level_rate = self._rates.take(self._place(row, level))
            saved = cost - price * level_rate - energy
            self.distortion += np.bincount(block, saved, len(self.rate))
        self.rate += np.ones(len(classes), np.float32) @ rate.reshape(classes.shape)
        return levels

    @staticmethod
    def _place(row: NDArray[np.intp], magnitude: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return where magnitudes are in the tables."""
        column: NDArray[np.intp] = np.minimum(magnitude, MAX_DIRECT_LEVEL + 1).astype(np.intp)
        return row + column

    def _block_of(self, positions: int) -> NDArray[np.intp]:
        """Return which block each value of so many positions is of."""
        count = positions * len(self.rate)
        if len(self._blocks) < count:
            self._blocks = np.tile(np.arange(len(self.rate)), positions)
        return self._blocks[:count]


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """What the encoder means to code of a tensor: (N,) modes, and (P, N) values in steps, levels
    and classes of all blocks, skipped ones too; their (N,) offsets, and how many times a squared
    step of each counts.
    """

    modes: NDArray[np.uint8]
    values: NDArray[np.float32]
    levels: NDArray[np.int32]
    classes: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    weights: NDArray[np.float32]

    def symbols(self) -> TensorSymbols:
        """Keep the levels of the blocks that are not skipped."""
        chosen = self.modes != MODE_SKIP
        coded = self.levels if chosen.all() else np.ascontiguousarray(self.levels[:, chosen])
        return TensorSymbols(self.modes, coded, np.zeros(coded.shape, np.uint8), self.offsets)

    def with_intra(
        self, blocks: NDArray[np.intp], choice: LevelChoice, columns: NDArray[np.intp]
    ) -> TensorPlan:
        """Code some blocks intra, as chosen in some columns of a choice."""
        if not len(blocks):
            return self
        modes, values = self.modes.copy(), self.values.copy()
        levels, classes = self.levels.copy(), self.classes.copy()
        modes[blocks] = MODE_INTRA
        values[:, blocks] = choice.values[:, columns]
        levels[:, blocks] = choice.levels[:, columns]
        classes[:, blocks] = choice.classes[:, columns]
        return TensorPlan(modes, values, levels, classes, self.offsets, self.weights)

    def with_levels(self, levels: NDArray[np.int32]) -> TensorPlan:
        """Replace the levels; blocks become inter or skipped as they have some or none."""
        filled = levels.any(0)
        modes = self.modes.copy()
        modes[(modes == MODE_SKIP) & filled] = MODE_INTER
        modes[(modes == MODE_INTER) & ~filled] = MODE_SKIP
        return replace(self, modes=modes, levels=levels)

    def distortion(self, points: NDArray[np.int8]) -> float:
        """Return the squared error in squared steps, each block's by its weight."""
        recovered = recovered_values(self.levels, points[self.classes])
        return float(np.square(self.values - recovered).sum(0) @ self.weights)

    def bits(self) -> float:
        """Return about how many bits the levels of the coded blocks take."""

        def lengths(rows: slice) -> NDArray[np.float32]:
            magnitude = np.minimum(np.abs(self.levels[rows]), MAX_DIRECT_LEVEL + 1)
            return np.asarray(level_bits()[self.classes[rows], magnitude])

        each = _summed(self.levels.shape, lengths)
        return float(each[self.modes != MODE_SKIP].sum())

    def zero_bits(self) -> NDArray[np.float32]:
        """Return per block what coding nothing but zeros takes."""
        return np.asarray(level_bits()[:, 0][self.classes].sum(0))
