"""The contexts: what each symbol is coded under, and how that adapts.  FORMAT.md 7.2 to 7.8.

Reading (`syntax`) and writing (`encoding.payloads`) share the state and the order of symbols that
are kept here: a *walk* goes through the symbols of a field or a tensor, tells its visitor what each
is coded under, and goes on by what the visitor returns, which a reader has read and a writer has
written.  Vectors and levels, of which there are many, a writer need not walk through: `met` tells
at once under what known ones are coded, and comes to the same.

Invariants:
  * contexts depend only on symbols coded before, in this frame or back to the last key frame;
  * all of them are int64 with stated bounds; divisions floor;
  * the means of a tensor are updated after its last symbol, from the levels alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from codec.errors import CorruptBitstreamError
from codec.format.constants import MAX_OFFSET, MAX_VECTOR
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.profile import INTER, INTRA, Profile, TensorProfile
from codec.format.tables import BINARY_TABLES, MEAN_BITS, class_of, classify, expected_level, tables
from codec.normative.stripes import stripes
from codec.normative.symbols import MODE_INTRA, MODE_SKIP, TensorSymbols, block_qps

__all__ = [
    "MAX_PRECISION",
    "BlockMeans",
    "Flag",
    "FrameContexts",
    "TensorContexts",
    "VectorContexts",
]

PRIOR_COUNT = 8
"""Blocks' worth of trust in the initial means."""
COUNT_LIMIT = 256
"""Blocks over which means are taken."""
LEVEL_CAP = 64
"""Magnitudes count up to this in the means."""
RATIO_BITS = 8
RATIO_LOW, RATIO_HIGH = 1 << 5, 1 << 12
ACTIVITY_PRIOR = 2 << MEAN_BITS
"""Weight of the assumption that a block is as active as expected, in summed magnitudes."""
FLAG_BITS = 16
"""States of flags are probabilities in units of 2^-16."""
FLAG_RATE = 4
VALUE_RATE = 4
VECTOR_MEAN = 1 << (MEAN_BITS - 1)
VECTOR_SIZES = (1, 4, 16)
"""From where on the vectors around differ more from their medians."""
VECTOR_CONTEXTS = len(VECTOR_SIZES) + 1
VECTOR_KINDS = 3
"""A first component, and a second one behind a first that equals its median or does not."""
SKIPPED_AROUND = 3
"""Of the blocks to the left and above: none, one or both."""
GAIN_BITS = 8
MOST_GAIN = 1 << 12
"""What blocks of another qp say of a mean counts up to 16 times."""
MAX_PRECISION = 3
"""A field is coded in units of 2^0 … 2^3 quarter pixels."""

VectorVisitor = Callable[[int], int]
"""Scale class -> the difference to the prediction."""
ModeVisitor = Callable[[int, "Flag"], int]
"""(block, its skip flag) -> its mode."""
OffsetVisitor = Callable[[int, int, int], int]
"""(block, prediction, scale class) -> the difference to the prediction."""
LevelVisitor = Callable[[int, int, NDArray[np.uint8]], NDArray[np.int32]]
"""(first, last, scale classes) of a pass -> its levels, (last - first, blocks)."""


class FrameContexts:
    """The contexts of all syntax elements of a frame, as they are at a key frame of some qp:
    FORMAT.md 7.8.
    """

    def __init__(self, header: SequenceHeader, profile: Profile, qp: int) -> None:
        self.vectors = VectorContexts()
        self.tensors = [
            TensorContexts(tensor, spec, qp)
            for tensor, spec in zip(profile.tensors, header.tensors, strict=True)
        ]

    def copy(self) -> FrameContexts:
        """Return contexts that adapt apart from these."""
        made = copy(self)
        made.vectors = self.vectors.copy()
        made.tensors = [tensor.copy() for tensor in self.tensors]
        return made


class Flag:
    """An adaptive flag, P(1) moved a sixteenth of the way towards each value: FORMAT.md 7.2."""

    def __init__(self) -> None:
        self._one = 1 << (FLAG_BITS - 1)

    @property
    def index(self) -> int:
        """The table that the next value is coded under, 0 … 63."""
        return self._one * BINARY_TABLES >> FLAG_BITS

    def update(self, value: int) -> None:
        """Adapt to a value that has been coded."""
        self._one += (((value << FLAG_BITS) - value) - self._one) >> FLAG_RATE


class VectorContexts:
    """Vectors: the difference to a median of three neighbours, its class from the differences
    around it.  FORMAT.md 7.3.
    """

    def __init__(self) -> None:
        self.precision_flags = [Flag() for _ in range(MAX_PRECISION)]
        self._previous: NDArray[np.int32] | None = None
        self._means = [VECTOR_MEAN] * (VECTOR_KINDS * VECTOR_CONTEXTS)

    def copy(self) -> VectorContexts:
        """Return contexts that adapt apart from these."""
        made = copy(self)
        made.precision_flags = [copy(flag) for flag in self.precision_flags]
        made._means = list(self._means)
        return made

    def absent(self) -> None:
        """Note a frame without a field: FORMAT.md 7.3."""
        self._previous = None

    def walk(
        self, shape: tuple[int, int], precision: int, visit: VectorVisitor
    ) -> NDArray[np.int32]:
        """Go through a field of (rows, columns), coded in units of 2^precision quarter pixels, and
        return it, in quarter pixels: FORMAT.md 7.3.

        Raises:
            CorruptBitstreamError: a vector longer than any may be.
        """
        rows, columns = shape
        previous = np.zeros((*shape, 2), np.int32) if self._previous is None else self._previous
        earlier = (previous >> precision).tolist()
        field = np.zeros((*shape, 2), np.int32).tolist()
        means, limit = self._means, MAX_VECTOR >> precision
        size = [[0] * columns for _ in range(rows)]
        for i in range(rows):
            for j in range(columns):
                colocated = earlier[i][j]
                left = field[i][j - 1] if j else colocated
                above = field[i - 1][j] if i else colocated
                around = (size[i][j - 1] if j else 0) + (size[i - 1][j] if i else 0)
                context = bisect_right(VECTOR_SIZES, around)
                for axis in (0, 1):
                    median = sorted((left[axis], above[axis], colocated[axis]))[1]
                    # the second component goes by what the first one was
                    kind = 0 if axis == 0 else 2 if size[i][j] else 1
                    number = VECTOR_KINDS * context + kind
                    difference = visit(class_of(means[number]))
                    means[number] = _adapted(means[number], difference)
                    value = median + difference
                    if abs(value) > limit:
                        raise _too_long(value, limit)
                    field[i][j][axis] = value
                    size[i][j] += abs(difference)
        self._previous = np.array(field, np.int32) << precision
        return self._previous.copy()

    def met(self, vectors: NDArray[np.int32], precision: int) -> Iterator[tuple[int, int]]:
        """Yield the (difference, scale class) of each component of a known field, as `walk` comes
        to them: FORMAT.md 7.3.

        Args:
            vectors: (rows, columns, 2), multiples of 2^precision quarter pixels.
            precision: of its coding.

        Raises:
            CorruptBitstreamError: after a component that is longer than any may be.
        """
        field = vectors.astype(np.int64) >> precision
        colocated = np.zeros_like(field)
        if self._previous is not None:
            colocated = self._previous.astype(np.int64) >> precision
        left, above = colocated.copy(), colocated.copy()
        left[:, 1:], above[1:] = field[:, :-1], field[:-1]
        low, high = np.minimum(left, above), np.maximum(left, above)
        difference = field - np.maximum(low, np.minimum(high, colocated))
        size = np.abs(difference)
        around = np.zeros(field.shape[:2], np.int64)
        around[:, 1:] += size[:, :-1].sum(2)
        around[1:] += size[:-1].sum(2)
        context = np.searchsorted(VECTOR_SIZES, around, side="right")
        number = VECTOR_KINDS * np.stack([context, context], 2)
        number[..., 1] += np.where(size[..., 0], 2, 1)
        means, limit = self._means, MAX_VECTOR >> precision
        for n, value, component in zip(
            number.ravel().tolist(),
            difference.ravel().tolist(),
            field.ravel().tolist(),
            strict=True,
        ):
            yield value, class_of(means[n])
            means[n] = _adapted(means[n], value)
            if abs(component) > limit:
                raise _too_long(component, limit)
        self._previous = vectors.copy()


@dataclass(frozen=True, slots=True, eq=False)
class BlockMeans:
    """What some blocks expect: (P, Q) means, a column for each qp and kind that occurs; (Q,) the
    kinds of the columns; and (M,) which column each block expects.
    """

    means: NDArray[np.int64]
    kinds: NDArray[np.intp]
    column: NDArray[np.intp]


class TensorContexts:
    """Modes, offsets and levels of one tensor.  FORMAT.md 7.4 to 7.7.

    Within a frame: `move_to` its qp, `walk_modes` in an inter frame (else `all_intra`),
    `walk_offsets` where the frame has some, `walk_levels`.
    """

    def __init__(self, profile: TensorProfile, spec: TensorSpec, qp: int) -> None:
        rows, self._columns = profile.blocks(spec.height, spec.width)
        self.blocks = rows * self._columns
        self.intra_flag = Flag()
        self._skip_flags = [Flag() for _ in range(2 * SKIPPED_AROUND)]
        self._scan = profile.scan
        self.pass_of = _pass_of(self._scan.bounds)
        """(P,) number of the pass that each level of a block is in, of those that have some."""
        self._qp = qp
        self._means = expected_level(self._scan.scale, qp)
        self._counts = [PRIOR_COUNT, PRIOR_COUNT]
        self._modes = np.full(self.blocks, MODE_INTRA, np.uint8)
        self._key = True
        self.offsets_flag = Flag()
        self._offsets = np.zeros(self.blocks, np.int64)
        self._offset_means = [VECTOR_MEAN, VECTOR_MEAN]
        # per block, what its levels summed to in the frames before and what had been expected
        self._activity = np.zeros((2, self.blocks), np.int64)

    def copy(self) -> TensorContexts:
        """Return contexts that adapt apart from these."""
        made = copy(self)
        made.intra_flag, made.offsets_flag = copy(self.intra_flag), copy(self.offsets_flag)
        made._skip_flags = [copy(flag) for flag in self._skip_flags]
        made._means, made._activity = self._means.copy(), self._activity.copy()
        made._counts, made._offset_means = list(self._counts), list(self._offset_means)
        return made

    @property
    def positions(self) -> int:
        """How many levels a block has."""
        return len(self._scan.position)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The offsets of the blocks, (N,), as they were last said: FORMAT.md 7.5.  A copy."""
        return self._offsets.copy()

    def means_at(self, qp: int) -> NDArray[np.int64]:
        """Return the (2, P) mean magnitudes, moved to another qp: FORMAT.md 7.6."""
        if qp == self._qp:
            return self._means
        return expected_level(self._scale(self._means, self._qp), qp)

    def means_of(self, qp: int, offsets: NDArray[np.int64], kinds: NDArray[np.intp]) -> BlockMeans:
        """Return what blocks of these offsets and kinds, (M,), expect in a frame of that qp."""
        found, column = np.unique(2 * block_qps(qp, offsets) + kinds, return_inverse=True)
        means, qps, kinds = self.means_at(qp), found >> 1, found & 1
        moved = means[kinds]
        if (qps != qp).any():  # in most frames nothing moves
            scale = self._scale(means, qp)
            for n in np.flatnonzero(qps != qp).tolist():
                moved[n] = expected_level(scale[kinds[n]], int(qps[n]))
        return BlockMeans(np.ascontiguousarray(moved.T), kinds, column)

    def _scale(self, means: NDArray[np.int64], qp: int) -> NDArray[np.int64]:
        """Return the scales of which these are the expected levels at a qp: FORMAT.md 7.6.

        Under the least mean the scale cannot be told from the mean; there the profile's serves.
        """
        frozen = tables()
        least = np.searchsorted(frozen.expected, frozen.expected[0], side="right") - 1
        told = np.searchsorted(frozen.expected, means) + frozen.expected_low + qp
        untold = np.minimum(self._scan.scale, least + frozen.expected_low + qp)
        return np.where(means <= frozen.expected[0], untold, told)

    def move_to(self, qp: int) -> None:
        """Begin a frame of this qp: FORMAT.md 7.6."""
        self._means, self._qp = self.means_at(qp), qp

    def all_intra(self) -> NDArray[np.uint8]:
        """Note a key frame, and return its modes: FORMAT.md 7.5."""
        self._modes, self._key = np.full(self.blocks, MODE_INTRA, np.uint8), True
        return self._modes.copy()

    def all_skip(self) -> TensorSymbols:
        """Return the symbols of a repeated frame, of which nothing is noted: FORMAT.md 7.9."""
        none = np.zeros((self.positions, 0))
        modes = np.full(self.blocks, MODE_SKIP, np.uint8)
        return TensorSymbols(modes, none.astype(np.int32), none.astype(np.uint8), self.offsets)

    def walk_modes(self, visit: ModeVisitor) -> NDArray[np.uint8]:
        """Go through the modes of an inter frame and return them: FORMAT.md 7.5."""
        columns, before = self._columns, self._modes.tolist()
        values: list[int] = []
        for n in range(self.blocks):
            left = n % columns > 0 and values[n - 1] == MODE_SKIP
            above = n >= columns and values[n - columns] == MODE_SKIP
            context = SKIPPED_AROUND * (before[n] == MODE_SKIP) + left + above
            values.append(visit(n, self._skip_flags[context]))
        self._modes, self._key = np.array(values, np.uint8), False
        return self._modes.copy()

    def walk_offsets(self, visit: OffsetVisitor) -> None:
        """Go through the offsets of the blocks that are not skipped: FORMAT.md 7.5.

        Raises:
            CorruptBitstreamError: an offset larger than any may be.
        """
        offsets = self._offsets.tolist()
        for n in np.flatnonzero(self._modes != MODE_SKIP).tolist():
            prediction = self._neighbours(offsets, n) if self._key else offsets[n]
            mean = self._offset_means[self._key]
            difference = visit(n, prediction, class_of(mean))
            self._offset_means[self._key] = _adapted(mean, difference)
            offsets[n] = prediction + difference
            if abs(offsets[n]) > MAX_OFFSET:
                raise CorruptBitstreamError(f"offset {offsets[n]} exceeds ±{MAX_OFFSET}")
        self._offsets = np.array(offsets, np.int64)

    def _neighbours(self, offsets: list[int], n: int) -> int:
        """Predict an offset of a key frame from the blocks to the left and above: FORMAT.md 7.5."""
        columns = self._columns
        if n < columns:
            return offsets[n - 1] if n else 0
        above = offsets[n - columns]
        if n % columns == 0:
            return above
        left, corner = offsets[n - 1], offsets[n - columns - 1]
        return sorted((left, above, left + above - corner))[1]

    def walk_levels(self, modes: NDArray[np.uint8], visit: LevelVisitor) -> None:
        """Go through the levels of the blocks that are not skipped, and adapt: FORMAT.md 7.6, 7.7.

        Args:
            modes: (N,) of this frame.
            visit: is told (P', M) classes for each pass and returns (P', M) levels.
        """
        coded = np.flatnonzero(modes != MODE_SKIP)
        if not len(coded):
            return
        expectation = self._expected_of(coded, modes)
        sizes = np.zeros((self.positions, len(coded)), np.uint8)
        found, expected = self.passes(coded, expectation, visit, sizes)
        self._adapt(coded, expectation, sizes, found, expected)

    def met(self, modes: NDArray[np.uint8], levels: NDArray[np.int32]) -> NDArray[np.uint8]:
        """Return the classes that known levels are coded under, and adapt, as `walk_levels` comes
        to it: FORMAT.md 7.6, 7.7.

        Args:
            modes: (N,) of this frame.
            levels: (P, M) of the blocks that are not skipped.
        """
        classes = np.empty(levels.shape, np.uint8)
        coded = np.flatnonzero(modes != MODE_SKIP)
        if not len(coded):
            return classes
        expectation = self._expected_of(coded, modes)
        means, column = expectation.means, expectation.column
        firsts = np.flatnonzero(np.diff(self.pass_of, prepend=-1))
        rows = stripes(len(levels), levels.size)
        size = np.empty(levels.shape, np.uint8)
        for begin, end in rows:
            size[begin:end] = np.minimum(np.abs(levels[begin:end]), LEVEL_CAP)
        # what had been found, and expected, before each pass
        found = self._before(0, coded, np.add.reduceat(size, firsts, 0, np.int64) << MEAN_BITS)
        expected = self._before(1, coded, np.add.reduceat(means, firsts, 0).take(column, 1))
        ratio = _ratio(found[:-1], expected[:-1])
        for begin, end in rows:
            mean = means[begin:end].take(column, 1) * ratio.take(self.pass_of[begin:end], 0)
            classes[begin:end] = classify(mean >> RATIO_BITS)
        self._adapt(coded, expectation, size, found[-1], expected[-1])
        return classes

    def _before(
        self, kind: int, coded: NDArray[np.intp], sums: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return what the activity of blocks was before each pass and after the last, by the (L, M)
        sums of the passes.
        """
        return np.concatenate([self._activity[kind, coded][None], sums]).cumsum(0)

    def _expected_of(self, coded: NDArray[np.intp], modes: NDArray[np.uint8]) -> BlockMeans:
        kinds = np.where(modes[coded] == MODE_INTRA, INTRA, INTER)
        return self.means_of(self._qp, self._offsets[coded], kinds)

    def _adapt(
        self,
        coded: NDArray[np.intp],
        expectation: BlockMeans,
        sizes: NDArray[np.uint8],
        found: NDArray[np.int64],
        expected: NDArray[np.int64],
    ) -> None:
        """End a frame whose coded blocks have these magnitudes, and found and expected that much:
        FORMAT.md 7.6, 7.7.
        """
        self._activity[:, coded] = np.stack([found, expected]) >> 1
        totals = np.empty(expectation.means.shape, np.int64)
        for q in range(len(expectation.kinds)):
            column = (expectation.column == q).astype(np.float64)
            for begin, end in stripes(len(sizes), sizes.size):
                # below 64 · 2^32: exact, and fast for any shape
                totals[begin:end, q] = sizes[begin:end].astype(np.float64) @ column
        self._update(totals << MEAN_BITS, expectation)

    def passes(
        self,
        coded: NDArray[np.intp],
        expectation: BlockMeans,
        visit: LevelVisitor,
        sizes: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Go through the levels of some blocks pass by pass, leaving the contexts as they are: a
        block that turns out more active than expected raises its later means.

        Args:
            coded: (M,) numbers of the blocks.
            expectation: of these blocks.
            visit: as of `walk_levels`.
            sizes: (P, M), to be filled with the magnitudes as they count.

        Returns:
            found and expected of FORMAT.md 7.6 after the last pass, (M,) each.
        """
        found, expected = self._activity[:, coded]
        column = expectation.column
        for first, last in pairwise(self._scan.bounds):
            if first == last:
                continue
            means = expectation.means[first:last]
            ratio = _ratio(found, expected)
            classes = np.empty((last - first, len(column)), np.uint8)
            for begin, end in stripes(len(classes), classes.size):
                mean = means[begin:end].take(column, 1) * ratio
                classes[begin:end] = classify(mean >> RATIO_BITS)
            levels = visit(first, last, classes)
            total = np.zeros(len(column))
            for begin, end in stripes(len(classes), classes.size):
                # sums stay below 64 · 2^32: products of matrices are exact, and fast for any shape
                size = np.minimum(np.abs(levels[begin:end]), LEVEL_CAP).astype(np.float64)
                total += np.ones(len(size)) @ size
                if sizes is not None:
                    sizes[first + begin : first + end] = size
            found = found + (total.astype(np.int64) << MEAN_BITS)
            expected = expected + means.sum(0).take(column)
        return found, expected

    def _update(self, totals: NDArray[np.int64], expectation: BlockMeans) -> None:
        """Move the means towards the magnitudes of this frame's levels: FORMAT.md 7.7.

        Args:
            totals: (P, Q) sums over the blocks of each column.
            expectation: of these blocks.
        """
        counts = np.bincount(expectation.column, minlength=len(expectation.kinds))
        for kind in (INTRA, INTER):
            columns = np.flatnonzero(expectation.kinds == kind)
            blocks = int(counts[columns].sum())
            if not blocks:
                continue
            self._counts[kind] = min(self._counts[kind] + blocks, max(COUNT_LIMIT, blocks))
            mean, total = expectation.means[:, columns], totals[:, columns]
            gain = np.minimum((self._means[kind][:, None] << GAIN_BITS) // mean, MOST_GAIN)
            surprise = ((total - counts[columns] * mean) * gain >> GAIN_BITS).sum(1)
            moved = self._means[kind] + surprise // self._counts[kind]
            self._means[kind] = np.maximum(moved, 1)


@cache
def _pass_of(bounds: tuple[int, ...]) -> NDArray[np.intp]:
    counts = np.diff(bounds)
    counts = counts[counts > 0]
    return np.repeat(np.arange(len(counts)), counts)


def _ratio(found: NDArray[np.int64], expected: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how active blocks are, against what was expected: FORMAT.md 7.6."""
    ratio = ((found + ACTIVITY_PRIOR) << RATIO_BITS) // (expected + ACTIVITY_PRIOR)
    return np.asarray(np.minimum(np.maximum(ratio, RATIO_LOW), RATIO_HIGH))


def _too_long(component: int, limit: int) -> CorruptBitstreamError:
    return CorruptBitstreamError(f"motion vector component {component} exceeds ±{limit}")


def _adapted(mean: int, value: int) -> int:
    """Move the mean size of values towards that of one: FORMAT.md 7.3, 7.5."""
    target = min(abs(value), LEVEL_CAP) << MEAN_BITS
    return max(mean + ((target - mean) >> VALUE_RATE), 1)
