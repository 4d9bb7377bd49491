"""Where motion vectors come from: search on luma, or the vectors of the input bitstream.

Search: squared differences over overlapped windows around each node of the field, exhaustive on a
quarter-size picture, refined on the full one down to quarter pixels.  Then every node takes the
candidate (its own, its neighbours', zero, the one it had in the frame before) that minimises
J = D + R in bits: R is what the vector costs against the median that the syntax predicts it from,
D what the residual costs, which goes with the logarithm of the matching error as long as that is
above the quantisation noise.  The precision of a field, quarter to whole pixels, is chosen by J.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

from codec.encoding.arithmetic import as_written
from codec.encoding.config import DEFAULT_SEARCH_RANGE, EncoderConfig
from codec.format.constants import MAX_VECTOR, VECTOR_UNITS
from codec.format.header import SequenceHeader

__all__ = [
    "MotionSearch",
    "Seen",
    "field_of_blocks",
    "luma",
    "median",
    "neighbours",
    "search_by",
    "vector_bits",
]

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""
COARSE = 4
"""Scale of the exhaustive search."""
KEPT = 3
"""Coarse candidates kept per node."""
SAMPLE_STEP = 3
"""Windows are sampled at every third pixel of the full picture, in both directions."""
FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
"""Where and in what the search computes: never what torch's defaults happen to be."""
AROUND = torch.tensor([[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)], **FLOAT)
REFINEMENTS = (2.0, 1.0, 0.5, 0.25)
"""Step sizes of the refinement, pixels."""
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
class Seen:
    """What a search remembers of a picture, for the next one to be predicted from."""

    picture: Tensor
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
        self._grid = header.grid
        self._size = (header.input_height, header.input_width)
        self._rows, self._columns = header.field_shape
        self._range = search_range
        self._floor = ERROR_FLOOR * 2.0 ** (qp / 3)
        centre_y, centre_x = (
            torch.arange(nodes, **FLOAT) * header.grid + (header.grid - 1) / 2
            for nodes in (self._rows, self._columns)
        )
        centres = torch.cartesian_prod(centre_y, centre_x).reshape(-1, 2)
        half = max(header.grid, 16) * 0.75
        reach = torch.arange(-half + SAMPLE_STEP / 2, half, SAMPLE_STEP, **FLOAT)
        offsets = torch.cartesian_prod(reach, reach).reshape(-1, 2)
        limits = torch.tensor([header.input_height - 1, header.input_width - 1], **FLOAT)
        points = torch.minimum((centres[:, None] + offsets).clamp_(min=0), limits)
        # `grid_sample` wants (x, y) in -1 … 1
        self._scale = 2 / limits.flip(-1).clamp(min=1)
        self._points = points.flip(-1) * self._scale - 1
        self._picture: Tensor | None = None
        self._field = np.zeros((self._rows, self._columns, 2), np.int32)
        self._coded = True
        self._steps = [step for step in REFINEMENTS if step * VECTOR_UNITS >= 1 << finest]
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
            ValueError: another shape, or values that are not finite.
        """
        picture = self._checked(picture)
        reference, self._picture = self._picture, picture
        if reference is None:
            return None
        if torch.equal(reference, picture):
            self._field = np.zeros_like(self._field)
            return self._field
        current = self._sample(picture, self._points)
        previous = torch.from_numpy(self._field.reshape(-1, 1, 2)).to(torch.float32) / VECTOR_UNITS
        candidates = torch.cat(
            [self._coarse(reference, picture), previous, torch.zeros_like(previous)], 1
        )
        cost, chosen = self._match(reference, current, candidates).min(1, keepdim=True)
        best = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
        for step in self._steps:
            nearby = best + step * AROUND
            costs = torch.cat([cost, self._match(reference, current, nearby)], 1)
            candidates = torch.cat([best, nearby], 1)
            cost, chosen = costs.min(1, keepdim=True)
            best = candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2))
        own = (best[:, 0] * VECTOR_UNITS).round().clamp(-MAX_VECTOR, MAX_VECTOR).int().numpy()
        shifts = (self._shift,) if self._number % PRECISION_PERIOD else self._shifts
        choices = [(*self._choose(reference, current, own, shift), shift) for shift in shifts]
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
        if not bool(picture.isfinite().all()):
            raise ValueError("the picture holds values that are not finite, expected 0 … 255")
        return picture

    def _coarse(self, reference: Tensor, picture: Tensor) -> Tensor:
        """Return the (nodes, KEPT, 2) best displacements of an exhaustive search at a quarter of
        the size.
        """
        small, behind = (
            avg_pool2d(p[None, None], COARSE, ceil_mode=True, count_include_pad=False)
            for p in (picture, reference)
        )
        height, width = small.shape[-2:]
        reach = -(-self._range // COARSE)
        span = 2 * reach + 1
        shifted = pad(behind, (reach, reach, reach, reach), mode="replicate")[0, 0]
        top, bottom = _window_bounds(self._rows, self._grid, height)
        left, right = _window_bounds(self._columns, self._grid, width)
        area = (bottom - top)[:, None] * (right - left)
        rows = []
        for y in range(span):  # one row of displacements at a time bounds the memory
            windows = shifted[y : y + height].unfold(1, width, 1).transpose(0, 1)
            difference = (windows - small[0]).square_().double()
            total = pad(difference.cumsum(-1).cumsum(-2), (1, 0, 1, 0))
            strips = total[:, bottom] - total[:, top]
            rows.append((strips[:, :, right] - strips[:, :, left]) / area)
        sums = torch.stack(rows).reshape(span * span, -1)
        order = sums.topk(min(KEPT, span * span), dim=0, largest=False).indices.t()
        offsets = torch.stack([order // span - reach, order % span - reach], -1)
        return offsets.to(torch.float32) * COARSE

    def _sample(self, picture: Tensor, points: Tensor) -> Tensor:
        """Sample a picture bilinearly at (..., 2) points in `grid_sample`'s coordinates."""
        values = grid_sample(
            picture[None, None],
            points.reshape(1, 1, -1, 2),
            padding_mode="border",
            align_corners=True,
        )
        return values.reshape(points.shape[:-1])

    def _match(self, reference: Tensor, current: Tensor, candidates: Tensor) -> Tensor:
        """Return the (nodes, candidates) mean squared differences; candidates in pixels, (y, x)."""
        shift = candidates.flip(-1) * self._scale
        points = self._points[:, None] + shift[:, :, None]
        return self._sample(reference, points).sub_(current[:, None]).square_().mean(-1)

    def _choose(
        self, reference: Tensor, current: Tensor, own: NDArray[np.int32], shift: int
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
        field = (own.reshape(shape) + half) >> shift
        common = np.broadcast_to(np.median(field.reshape(-1, 2), 0).astype(np.int32), shape)
        candidates = [field, (self._field + half) >> shift, np.zeros_like(field), common]
        options = np.zeros((*shape[:2], 0, 2), np.int32)
        costs = np.zeros((*shape[:2], 0), np.float32)
        white = np.indices(shape[:2]).sum(0) % 2 == 0
        total = 0.0
        for _ in range(SWEEPS):
            around = neighbours(field, before)
            fresh = np.stack([*candidates, *around, median(around[0], around[1], before)], 2)
            fresh = np.clip(fresh, -(MAX_VECTOR >> shift), MAX_VECTOR >> shift)
            count = fresh.shape[2]
            vectors = torch.from_numpy(fresh.reshape(-1, count, 2)).to(torch.float32)
            error = self._match(reference, current, vectors * (2.0**shift / VECTOR_UNITS))
            saved = (MATCH_BITS * torch.log2(error + self._floor)).numpy()
            options = np.concatenate([options, fresh], 2)
            costs = np.concatenate([costs, saved.reshape(*shape[:2], count)], 2)
            for colour in (white, ~white):
                left, above, right, below = neighbours(field, before)
                bits = vector_bits(options - median(left, above, before)[:, :, None])
                own_costs = costs + bits
                # the nodes to the right and below are predicted from this one: agreeing with them
                # saves bits there
                shared = own_costs.copy()
                shared[:, :-1] += vector_bits(options - right[:, :, None])[:, :-1] / 2
                shared[:-1] += vector_bits(options - below[:, :, None])[:-1] / 2
                best = shared.argmin(2)[:, :, None]
                chosen = np.take_along_axis(options, best[..., None], 2)[:, :, 0]
                field = np.where(colour[:, :, None], chosen, field)
                total = float(np.take_along_axis(own_costs, best, 2).sum())
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


def _window_bounds(nodes: int, grid: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the half-open bounds, in pixels of the quarter-size picture, of 1.5 cells a node."""
    centre = (torch.arange(nodes, **FLOAT) * grid + (grid - 1) / 2) / COARSE
    half = 0.75 * grid / COARSE
    first = (centre - half).floor().long().clamp(0, size - 1)
    last = (centre + half).ceil().long().clamp(max=size)
    return first, torch.maximum(last, first + 1)


def neighbours(
    field: NDArray[np.int32], before: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Return the vectors left of, above, right of and below each node; outside: the one before."""
    left, above, right, below = (before.copy() for _ in range(4))
    left[:, 1:], above[1:] = field[:, :-1], field[:-1]
    right[:, :-1], below[:-1] = field[:, 1:], field[1:]
    return left, above, right, below


def median(a: NDArray[np.int32], b: NDArray[np.int32], c: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the middle one of three, element by element."""
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


VECTOR_BITS = np.array(
    [0.2, *(2.0 + 2.0 * size.bit_length() for size in range(1, 2 * MAX_VECTOR + 1))], np.float32
)
"""About what a component costs, by the magnitude of its difference to the prediction."""


def vector_bits(difference: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return about what vectors cost: (..., 2) -> (...)."""
    return np.asarray(VECTOR_BITS[np.abs(difference)].sum(-1))


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
