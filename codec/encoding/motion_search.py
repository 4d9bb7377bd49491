"""Where motion vectors come from: search on luma, or the vectors of the input bitstream.

Search: squared differences over overlapped windows around each node of the field, exhaustive on a
quarter-size picture, refined on the full one to whole pixels; a parabola through the errors around
the best one tells the fraction.  Then every node takes the candidate (its own, its neighbours',
zero, the one it had in the frame before) that minimises J = D + R in bits: R is what the vector
costs against the median that the syntax predicts it from, D what the residual costs, which goes
with the logarithm of the matching error as long as that is above the quantisation noise.  The
precision of a field, quarter to whole pixels, is chosen by J.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from codec.encoding.arithmetic import as_written
from codec.encoding.config import DEFAULT_SEARCH_RANGE, EncoderConfig
from codec.format.constants import MAX_VECTOR, VECTOR_UNITS
from codec.format.header import SequenceHeader
from codec.normative.stripes import STRIPE, stripes

__all__ = [
    "MotionSearch",
    "Seen",
    "field_of_blocks",
    "luma",
    "median",
    "search_by",
    "vector_bits",
    "with_neighbours",
]

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""
LARGEST = 2.0**20
"""Of a value: far beyond luma, and its square is far from overflowing."""
COARSE = 4
"""Scale of the exhaustive search."""
KEPT = 3
"""Coarse candidates kept per node."""
SAMPLE_STEP = 4
"""Windows are sampled at every fourth pixel of the full picture, in both directions."""
FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
"""Where and in what the search computes: never what torch's defaults happen to be."""
SIDES = VECTOR_UNITS * np.array([(-1, 0), (1, 0), (0, -1), (0, 1)], np.int32)
AROUND = np.concatenate([SIDES, VECTOR_UNITS * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])])
REFINEMENTS = (2, 1)
"""Step sizes of the refinement, pixels."""
AT_A_TIME = 1 << 16
"""Samples matched at a time: what they take stays in the cache."""
SWEEPS = 2
MATCH_BITS = 5.0
"""Bits of residual that halving the matching error of one node saves, about."""
ERROR_FLOOR = 0.02
"""Matching error below which nothing is saved, squared luma steps at qp 0; it doubles every three
qp, as the quantisation noise does."""
COARSEST = 2
"""Fields in units of up to 2^2 quarter pixels, whole ones."""
PRECISION_PERIOD = 8
"""Frames between choices of the precision."""


@as_written()
def luma(rgb: NDArray[np.uint8]) -> Tensor:
    """Return the (H, W) float32 luma of an (H, W, 3) picture.

    Raises:
        TypeError, ValueError: something else.
    """
    if not isinstance(rgb, np.ndarray):
        raise TypeError(f"the picture is a {type(rgb).__name__}, expected a NumPy array (H, W, 3)")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"picture of shape {rgb.shape}, expected one picture (H, W, 3), RGB")
    # a copy in the order of torch, which takes neither negative strides nor foreign bytes
    return torch.from_numpy(rgb.astype(np.float32, order="C")) @ torch.tensor(LUMA_WEIGHTS, **FLOAT)


@dataclass(frozen=True, slots=True)
class _Picture:
    """Luma (H, W), and the same at a quarter of the size."""

    full: Tensor
    small: Tensor

    @classmethod
    def of(cls, full: Tensor) -> _Picture:
        small = avg_pool2d(full[None, None], COARSE, ceil_mode=True, count_include_pad=False)
        return cls(full, small)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a search remembers of a picture, for the next one to be predicted from."""

    picture: _Picture
    field: NDArray[np.int32]
    coded: bool
    """Whether the field was, so that vectors are predicted from it."""


class MotionSearch:
    """Estimates the motion field between consecutive pictures, or from any that was `seen`.

    Args:
        header: frame size and grid.
        qp: sets the price of a vector: the coarser the quantiser, the less a small gain in matching
            is worth.
        search_range: pixels, in each direction.
        finest: units of 2^finest quarter pixels, 0 … 2.
    """

    def __init__(
        self,
        header: SequenceHeader,
        *,
        qp: int,
        search_range: int = DEFAULT_SEARCH_RANGE,
        finest: int = 0,
    ) -> None:
        self._size = (header.input_height, header.input_width)
        self._rows, self._columns = header.field_shape
        self._range = search_range
        self._floor = ERROR_FLOOR * 2.0 ** (qp / 3)
        half = max(header.grid, 16) * 0.75
        reach = np.arange(-half + SAMPLE_STEP / 2, half, SAMPLE_STEP)
        centres = [
            np.arange(nodes) * header.grid + (header.grid - 1) / 2 for nodes in header.field_shape
        ]
        ys, xs = (
            np.rint(centre[:, None] + reach).astype(np.int64).clip(0, size - 1)
            for centre, size in zip(centres, self._size, strict=True)
        )
        means = [
            _window_means(centre, header.grid, -(-size // COARSE))
            for centre, size in zip(centres, self._size, strict=True)
        ]
        self._windows = _Windows(ys, xs, self._size)
        self._window_rows, self._window_columns = means[0], means[1].t().contiguous()
        self._picture: _Picture | None = None
        self._field = np.zeros((self._rows, self._columns, 2), np.int32)
        self._coded = True
        self._finest = finest
        self._shifts = range(finest, COARSEST + 1)
        self._shift, self._number = finest, 0

    def forget(self) -> None:
        """Take note that the last field was not coded, so that nothing is predicted from it."""
        self._coded = False

    @property
    def seen(self) -> Seen | None:
        """The picture of the last call to `estimate`; None before the first."""
        if self._picture is None:
            return None
        return Seen(self._picture, self._field, self._coded)

    def go_on_from(self, seen: Seen | None) -> None:
        """Have the next field lead to a picture seen before; None: to none."""
        if seen is None:
            self._picture, self._field, self._coded = None, np.zeros_like(self._field), True
        else:
            self._picture, self._field, self._coded = seen.picture, seen.field, seen.coded

    @as_written()
    def estimate(self, picture: Tensor) -> NDArray[np.int32] | None:
        """Return the field from the picture of the last call to this one; None at the first call.

        Args:
            picture: (H, W) luma of the header's input size, 0…255.

        Returns:
            (rows, columns, 2) int32, (y, x) in quarter pixels.

        Raises:
            ValueError: another shape, or values that are not finite or no luma.
        """
        current = _Picture.of(self._checked(picture))
        reference, self._picture = self._picture, current
        if reference is None:
            return None
        if torch.equal(reference.full, current.full):
            self._field = np.zeros_like(self._field)
            return self._field
        pair = _Pair(self._windows, reference.full.numpy(), current.full.numpy())
        previous = self._field.reshape(-1, 1, 2)
        coarse = self._coarse(reference.small, current.small)
        candidates = [coarse, previous, np.zeros_like(previous)]
        best, cost = pair.best(np.concatenate(candidates, 1))
        for step in REFINEMENTS:
            best, cost = pair.best(best[:, None] + step * AROUND, best, cost)
        if self._finest < COARSEST:
            best = self._between(pair, best, cost)
        own = best.clip(-MAX_VECTOR, MAX_VECTOR).astype(np.int32)
        shifts = (self._shift,) if self._number % PRECISION_PERIOD else self._shifts
        choices = [(*self._choose(pair, own, shift), shift) for shift in shifts]
        self._field, _, self._shift = min(choices, key=lambda choice: choice[1])
        self._number += 1
        self._coded = True
        return self._field

    def _checked(self, picture: Tensor) -> Tensor:
        if not isinstance(picture, Tensor):
            raise TypeError(
                f"picture is a {type(picture).__name__}, expected a torch tensor: `luma` makes one "
                "of an (H, W, 3) picture"
            )
        if tuple(picture.shape) != self._size:
            raise ValueError(
                f"picture of shape {tuple(picture.shape)}, expected (H, W) luma {self._size}, the "
                "header's input size; take off the batch and colour dimensions"
            )
        picture = picture.detach().to("cpu", torch.float32)
        least, most = (float(value) for value in picture.aminmax())
        if not math.isfinite(most - least):
            raise ValueError("the picture holds values that are not finite, expected 0 … 255")
        if max(-least, most) > LARGEST:
            raise ValueError(
                f"the picture holds values from {least:g} to {most:g}, expected luma from 0 to 255"
            )
        return picture.contiguous()

    def _coarse(self, behind: Tensor, small: Tensor) -> NDArray[np.int32]:
        """Return the (nodes, KEPT, 2) best vectors of an exhaustive search at a quarter of the
        size.
        """
        height, width = small.shape[-2:]
        reach = -(-self._range // COARSE)
        span = 2 * reach + 1
        shifted = pad(behind, (reach, reach, reach, reach), mode="replicate")[0, 0]
        displaced = shifted.unfold(0, height, 1).unfold(1, width, 1)
        errors = []
        for row in displaced:  # of displacements: what they take stays in the cache
            difference = torch.empty((span, height, width), **FLOAT)
            torch.sub(row, small[0], out=difference).square_()
            strips = difference.reshape(-1, width) @ self._window_columns
            errors.append(self._window_rows @ strips.reshape(span, height, self._columns))
        sums = torch.cat(errors).reshape(span * span, -1)
        order = sums.topk(min(KEPT, span * span), dim=0, largest=False).indices.t().numpy()
        vectors = np.stack([order // span - reach, order % span - reach], -1)
        return (vectors * COARSE * VECTOR_UNITS).astype(np.int32)

    def _between(
        self, pair: _Pair, best: NDArray[np.int32], cost: NDArray[np.float32]
    ) -> NDArray[np.int32]:
        """Move whole vectors to where parabolas through the errors beside them have their least,
        and by one unit more where that is better.
        """
        sides = pair.errors(best[:, None] + SIDES).reshape(-1, 2, 2)  # (node, axis, side)
        before, after = sides[..., 0], sides[..., 1]
        bend = np.maximum(before + after - 2 * cost[:, None], 1e-6)
        way = np.clip((before - after) / (2 * bend), -0.5, 0.5)
        unit = 1 << self._finest
        fraction = (np.rint(way * VECTOR_UNITS / unit) * unit).astype(np.int32)
        best, cost = pair.best((best + fraction)[:, None], best, cost)
        return pair.best(best[:, None] + SIDES // VECTOR_UNITS * unit, best, cost)[0]

    def _choose(
        self, pair: _Pair, own: NDArray[np.int32], shift: int
    ) -> tuple[NDArray[np.int32], float]:
        """Choose among candidates with the price of the vector, every node given its neighbours.

        Sweeps alternate between the two colours of a chessboard.  Between sweeps, the candidates
        are what the neighbours have chosen, and the median that the syntax predicts.

        Returns:
            The field, its vectors multiples of 2^shift, and its cost in bits.
        """
        shape = (self._rows, self._columns, 2)
        half = (1 << shift) >> 1
        # what the syntax predicts from: nothing, if the last field was not coded
        before = (self._field * self._coded + half) >> shift
        field, left, above, right, below = with_neighbours(
            (own.reshape(shape) + half) >> shift, before
        )
        common = np.broadcast_to(np.median(field.reshape(-1, 2), 0).astype(np.int32), shape)
        candidates = [field, (self._field + half) >> shift, np.zeros(shape, np.int32), common]
        options = np.zeros((*shape[:2], 0, 2), np.int32)
        costs = np.zeros((*shape[:2], 0), np.float32)
        white = (np.indices(shape[:2]).sum(0) % 2 == 0)[:, :, None]
        rows, columns = np.indices(shape[:2])
        total = 0.0
        for _ in range(SWEEPS):
            around = [left, above, right, below, median(left, above, before)]
            fresh = np.stack([*candidates, *around], 2)
            fresh = np.clip(fresh, -(MAX_VECTOR >> shift), MAX_VECTOR >> shift)
            count = fresh.shape[2]
            error = pair.errors(fresh.reshape(-1, count, 2) << shift, often_alike=True)
            saved = MATCH_BITS * np.log2(error + np.float32(self._floor))
            options = np.concatenate([options, fresh], 2)
            costs = np.concatenate([costs, saved.reshape(*shape[:2], count)], 2)
            for colour in (white, ~white):
                # the nodes to the right and below are predicted from this one: agreeing with them
                # saves bits there
                references = np.stack([median(left, above, before), right, below])
                bits, of_right, of_below = vector_bits(options - references[:, :, :, None])
                own_costs = costs + bits
                shared = own_costs.copy()
                shared[:, :-1] += of_right[:, :-1] / 2
                shared[:-1] += of_below[:-1] / 2
                best = shared.argmin(2)
                np.copyto(field, options[rows, columns, best], where=colour)
                total = float(own_costs[rows, columns, best].sum())
            candidates = []
        return field << shift, total


def search_by(
    header: SequenceHeader,
    config: EncoderConfig,
    *,
    qp: int | None = None,
    search_range: int = DEFAULT_SEARCH_RANGE,
) -> MotionSearch | None:
    """Return the search that a configuration asks for, None where it asks for none.

    Args:
        header: as of `MotionSearch`.
        config: its decisions say how fine.
        qp: in place of the configuration's.
        search_range: as of `MotionSearch`.
    """
    finest = config.decided_by().finest
    if finest is None:
        return None
    qp = config.qp if qp is None else qp
    return MotionSearch(header, qp=qp, search_range=search_range, finest=finest)


class _Windows:
    """The windows of the nodes, inside a picture, and where their samples are in one that goes on
    as its edges are by `margin` more pixels, so that those of a displaced window are in it too.

    Args:
        ys: (rows, S) of the picture, of the nodes in one column of the field.
        xs: (columns, S) likewise.
        size: height and width of the picture.
    """

    def __init__(self, ys: NDArray[np.int64], xs: NDArray[np.int64], size: tuple[int, int]) -> None:
        ys, xs = ys.repeat(len(xs), 0), np.tile(xs, (len(ys), 1))
        self._of_picture = ys[:, :, None], xs[:, None]
        height, width = size
        self.margin = 1 + max(int((each[:, -1] - each[:, 0]).max()) for each in (ys, xs))
        self.width = width + 2 * self.margin
        places = (ys[:, :, None] + self.margin) * self.width + (xs[:, None] + self.margin)
        self.places = places.reshape(len(ys), -1)
        """(nodes, samples) in a picture with its margin, flat."""
        # a window that is moved farther than this sees nothing but an edge anyway
        self.least = VECTOR_UNITS * -np.stack([ys[:, -1], xs[:, -1]], 1)
        self.most = VECTOR_UNITS * np.stack([height - 1 - ys[:, 0], width - 1 - xs[:, 0]], 1)
        """(nodes, 2), quarter pixels."""

    def of(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the samples of a picture, (nodes, samples)."""
        return picture[self._of_picture].reshape(self.places.shape)


class _Pair:
    """A picture and the one that it is predicted from: how well vectors match."""

    def __init__(
        self, windows: _Windows, reference: NDArray[np.float32], picture: NDArray[np.float32]
    ) -> None:
        self._windows = windows
        self._current = windows.of(picture)
        # the reference with its margin, moved by each fraction of a pixel to the left
        whole = _framed(reference, windows.margin)
        planes = np.empty((VECTOR_UNITS, *whole.shape), np.float32)
        planes[0] = whole
        planes[1:, :, -1] = whole[:, -1]
        step = (whole[:, 1:] - whole[:, :-1]) / VECTOR_UNITS
        for number in range(1, VECTOR_UNITS):
            np.add(planes[number - 1, :, :-1], step, out=planes[number, :, :-1])
        self._plane, self._planes = whole.size, planes.ravel()
        self._below = self._planes[windows.width :]

    def best(
        self,
        candidates: NDArray[np.int32],
        vectors: NDArray[np.int32] | None = None,
        errors: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return for every node the best of (nodes, K, 2) candidates, and its error; or the vectors
        that it has, (nodes, 2), with errors, if none is better.
        """
        found = self.errors(candidates)
        if vectors is not None and errors is not None:
            candidates = np.concatenate([vectors[:, None], candidates], 1)
            found = np.concatenate([errors[:, None], found], 1)
        nodes, chosen = np.arange(len(found)), found.argmin(1)
        return candidates[nodes, chosen], found[nodes, chosen]

    def errors(
        self, vectors: NDArray[np.int32], *, often_alike: bool = False
    ) -> NDArray[np.float32]:
        """Return the mean squared differences of (nodes, K, 2) vectors, quarter pixels.

        Args:
            vectors: of each node.
            often_alike: many of a node are the same; then look for what differs first.
        """
        nodes, count = vectors.shape[:2]
        node, each = np.repeat(np.arange(nodes), count), vectors.reshape(-1, 2)
        if not often_alike:
            return self._errors(node, each).reshape(nodes, count)
        least = each.min(0).astype(np.int64)
        spans = each.max(0) - least + 1
        y, x = (each - least).T
        _, first, same = np.unique(
            (node * spans[0] + y) * spans[1] + x, return_index=True, return_inverse=True
        )
        return self._errors(node[first], each[first])[same].reshape(nodes, count)

    def _errors(self, node: NDArray[np.intp], vectors: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return what (N, 2) vectors of (N,) nodes come to, (N,)."""
        windows = self._windows
        inside = np.maximum(vectors, windows.least.take(node, 0))
        y, x = np.minimum(inside, windows.most.take(node, 0)).T
        moved = y // VECTOR_UNITS * windows.width + x // VECTOR_UNITS
        moved += x % VECTOR_UNITS * self._plane
        fraction = (y % VECTOR_UNITS / np.float32(VECTOR_UNITS)).astype(np.float32)
        samples = windows.places.shape[1]
        found = np.empty(len(node), np.float32)
        for begin, end in stripes(len(node), len(node) * samples * STRIPE // AT_A_TIME):
            these = slice(begin, end)
            places = windows.places.take(node[these], 0)
            places += moved[these, None]
            difference = self._planes.take(places)
            if fraction[these].any():
                below = self._below.take(places)
                below -= difference
                below *= fraction[these, None]
                difference += below
            difference -= self._current.take(node[these], 0)
            found[these] = np.einsum("ns,ns->n", difference, difference)
        return np.asarray(found / samples)


def _framed(values: NDArray[Any], margin: int) -> NDArray[Any]:
    """Return (H, W, ...) values that go on as their edges are, by `margin` on every side."""
    height, width = values.shape[:2]
    made = np.empty((height + 2 * margin, width + 2 * margin, *values.shape[2:]), values.dtype)
    middle = made[margin:-margin]
    middle[:, margin:-margin] = values
    middle[:, :margin], middle[:, -margin:] = values[:, :1], values[:, -1:]
    made[:margin], made[-margin:] = middle[0], middle[-1]
    return made


def _window_means(centres: NDArray[np.floating], grid: int, size: int) -> Tensor:
    """Return (nodes, size) weights that take the mean of a quarter-size picture over 1.5 cells
    around each node.
    """
    centres, half = centres / COARSE, 0.75 * grid / COARSE
    first = np.floor(centres - half).clip(0, size - 1)[:, None]
    last = np.maximum(np.ceil(centres + half).clip(max=size)[:, None], first + 1)
    places = np.arange(size)
    inside = ((places >= first) & (places < last)) / (last - first)
    return torch.from_numpy(inside).to(**FLOAT)


def with_neighbours(
    field: NDArray[np.int32], before: NDArray[np.int32]
) -> tuple[NDArray[np.int32], ...]:
    """Return a field, and the vectors left of, above, right of and below each node, outside those
    that it had before.

    They are views of one array: where the field that is returned changes, they do.
    """
    framed = _framed(before, 1)
    framed[1:-1, 1:-1] = field
    return (
        framed[1:-1, 1:-1],
        framed[1:-1, :-2],
        framed[:-2, 1:-1],
        framed[1:-1, 2:],
        framed[2:, 1:-1],
    )


def median(a: NDArray[np.int32], b: NDArray[np.int32], c: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the middle one of three, element by element."""
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


VECTOR_BITS = np.array(
    [0.2, *(2.0 + 2.0 * size.bit_length() for size in range(1, 2 * MAX_VECTOR + 1))], np.float32
)
"""About what a component costs, by the magnitude of its difference to the prediction."""


def vector_bits(difference: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return about what vectors cost: (..., 2) -> (...)."""
    bits = VECTOR_BITS.take(np.abs(difference))
    return np.asarray(bits[..., 0] + bits[..., 1])


def field_of_blocks(blocks: NDArray[np.float32], header: SequenceHeader) -> NDArray[np.int32]:
    """Turn the block vectors of an input bitstream into a field: each node takes the vector of the
    block it lies in.

    Args:
        blocks: (M, 6) x, y (centre), w, h, dx, dy in input pixels, content at (x, y) came from (x +
            dx, y + dy).
        header: frame size and grid.

    Returns:
        (rows, columns, 2) int32, (y, x) in quarter pixels; nodes that no block covers take zero.
    """
    rows, columns = header.field_shape
    field = np.zeros((rows, columns, 2), np.int32)
    if not len(blocks):
        return field
    centre = (header.grid - 1) / 2
    y = np.repeat(np.arange(rows) * header.grid + centre, columns)[:, None]
    x = np.tile(np.arange(columns) * header.grid + centre, rows)[:, None]
    inside = (np.abs(x - blocks[:, 0]) * 2 <= blocks[:, 2]) & (
        np.abs(y - blocks[:, 1]) * 2 <= blocks[:, 3]
    )
    covered = inside.any(1)
    block = blocks[inside.argmax(1)]
    vectors = np.round(np.stack([block[:, 5], block[:, 4]], 1) * VECTOR_UNITS)
    vectors[~covered] = 0
    return np.clip(vectors, -MAX_VECTOR, MAX_VECTOR).astype(np.int32).reshape(rows, columns, 2)
