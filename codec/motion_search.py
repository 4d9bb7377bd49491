"""Where motion vectors come from: search on luma, or the vectors of the input bitstream.  Encoder
only, float.

Search: sums of squared differences over overlapped windows around each node of the field,
exhaustive on a quarter-size picture, refined on the full one down to quarter pixels; then every
node takes the candidate (its own, its neighbours', zero, the one it had in the frame before) that
minimises J = D + lambda R, R being the bits that the vector costs against the median that the
syntax predicts it from.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

from codec.bitstream import MAX_VECTOR, SequenceHeader

__all__ = ["MotionSearch", "field_of_blocks", "luma"]

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""
COARSE = 4
"""Scale of the exhaustive search."""
KEPT = 3
"""Coarse candidates kept per node."""
SAMPLE_STEP = 2
"""Windows are sampled at every second pixel of the full picture, in both directions."""
REFINEMENTS = (2.0, 1.0, 0.5, 0.25)
"""Step sizes of the refinement, pixels."""
SWEEPS = 3
LAMBDA_SCALE = 0.03
"""Price of a bit in mean squared luma error at qp 0; it doubles every three qp, as squared steps
do."""


def luma(rgb: NDArray[np.uint8]) -> Tensor:
    """Return the (H, W) float32 luma of an (H, W, 3) picture."""
    return torch.from_numpy(rgb).to(torch.float32) @ torch.tensor(LUMA_WEIGHTS)


class MotionSearch:
    """Estimates the motion field between consecutive pictures.

    Args:
        header: frame size and grid.
        qp: sets the price of a vector: the coarser the quantiser, the less a small gain in matching
            is worth.
        search_range: pixels, in each direction.
    """

    def __init__(self, header: SequenceHeader, *, qp: int, search_range: int = 16) -> None:
        self._grid = header.grid
        self._rows, self._columns = header.field_shape
        self._range = search_range
        self._lambda = LAMBDA_SCALE * 2.0 ** (qp / 3)
        centre_y = torch.arange(self._rows) * header.grid + (header.grid - 1) / 2
        centre_x = torch.arange(self._columns) * header.grid + (header.grid - 1) / 2
        self._centres = torch.cartesian_prod(centre_y, centre_x).reshape(-1, 2)
        half = max(header.grid, 16) * 0.75
        reach = torch.arange(-half + SAMPLE_STEP / 2, half, SAMPLE_STEP)
        offsets = torch.cartesian_prod(reach, reach).reshape(-1, 2)
        limits = torch.tensor([header.input_height - 1.0, header.input_width - 1.0])
        self._points = torch.minimum((self._centres[:, None] + offsets).clamp_(min=0), limits)
        self._size = limits
        self._picture: Tensor | None = None
        self._field = np.zeros((self._rows, self._columns, 2), np.int32)

    def estimate(self, picture: Tensor) -> NDArray[np.int32] | None:
        """Return the field from the picture of the last call to this one; None at the first call.

        Args:
            picture: (H, W) float32 luma, 0…255.

        Returns:
            (rows, columns, 2) int32, (y, x) in quarter pixels.
        """
        reference, self._picture = self._picture, picture
        if reference is None:
            return None
        if torch.equal(reference, picture):
            self._field = np.zeros_like(self._field)
            return self._field
        current = self._sample(picture, self._points)
        previous = torch.from_numpy(self._field.reshape(-1, 1, 2)) / 4
        candidates = torch.cat(
            [self._coarse(reference, picture), previous, torch.zeros_like(previous)], 1
        )
        costs = self._match(reference, current, candidates)
        best = candidates.gather(1, costs.argmin(1)[:, None, None].expand(-1, 1, 2))
        cost = costs.min(1).values[:, None]
        for step in REFINEMENTS:
            around = torch.cartesian_prod(
                torch.tensor([-step, 0.0, step]), torch.tensor([-step, 0.0, step])
            )
            around = around[around.abs().sum(1) > 0]
            nearby = best + around
            costs = torch.cat([cost, self._match(reference, current, nearby)], 1)
            candidates = torch.cat([best, nearby], 1)
            best = candidates.gather(1, costs.argmin(1)[:, None, None].expand(-1, 1, 2))
            cost = costs.min(1).values[:, None]
        self._field = self._choose(reference, current, (best[:, 0] * 4).round().int())
        return self._field

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
        shifted = pad(behind, (reach, reach, reach, reach), mode="replicate")
        windows = shifted[0, 0].unfold(0, height, 1).unfold(1, width, 1)
        span = 2 * reach + 1
        difference = (windows.reshape(span * span, 1, height, width) - small).square_()
        # window sums by pooling: a window of 1.5 grid cells around each node
        cell = max(self._grid // COARSE, 2)
        margin = cell // 4
        below, right = self._rows * cell - height, self._columns * cell - width
        difference = pad(
            difference,
            (margin, margin + max(right, 0), margin, margin + max(below, 0)),
            mode="replicate",
        )
        sums = avg_pool2d(difference, cell + 2 * margin, stride=cell)[
            :, 0, : self._rows, : self._columns
        ]
        order = sums.reshape(span * span, -1).topk(KEPT, dim=0, largest=False).indices.t()
        return (
            torch.stack([order // span - reach, order % span - reach], -1).to(torch.float32)
            * COARSE
        )

    def _sample(self, picture: Tensor, points: Tensor) -> Tensor:
        """Sample a picture at (..., 2) points, (y, x) in pixels, bilinearly, edges repeated."""
        scaled = (points / self._size.clamp(min=1) * 2 - 1).flip(-1)
        flat = scaled.reshape(1, 1, -1, 2)
        values = grid_sample(picture[None, None], flat, padding_mode="border", align_corners=True)
        return values.reshape(points.shape[:-1])

    def _match(self, reference: Tensor, current: Tensor, candidates: Tensor) -> Tensor:
        """Return the (nodes, candidates) mean squared differences."""
        points = self._points[:, None] + candidates[:, :, None]
        return (self._sample(reference, points) - current[:, None]).square_().mean(-1)

    def _choose(self, reference: Tensor, current: Tensor, own: Tensor) -> NDArray[np.int32]:
        """Choose among candidates with the price of the vector: raster sweeps, each node given its
        neighbours.

        Between sweeps, the candidates are what the neighbours have chosen, and the median that the
        syntax predicts.
        """
        shape = (self._rows, self._columns, 2)
        before = torch.from_numpy(self._field)
        common = own.median(0).values.expand(shape)
        field = own.reshape(shape)
        candidates = [field, before, torch.zeros_like(field), common]
        options: list[list[list[list[int]]]] = [
            [[] for _ in range(shape[1])] for _ in range(shape[0])
        ]
        costs: list[list[list[float]]] = [[[] for _ in range(shape[1])] for _ in range(shape[0])]
        for _ in range(SWEEPS):
            left, right, above, below = _neighbours(field)
            candidates += [left, right, above, below]
            candidates.append(torch.stack([left, above, before]).median(0).values)
            stacked = torch.stack(candidates, 2).clamp(-MAX_VECTOR, MAX_VECTOR)
            matched = self._match(
                reference, current, stacked.reshape(-1, len(candidates), 2).to(torch.float32) / 4
            )
            for row, more in zip(options, stacked.tolist(), strict=True):
                for node, vectors in zip(row, more, strict=True):
                    node.extend(vectors)
            matched_rows: list[list[list[float]]] = matched.reshape(*shape[:2], -1).tolist()
            for cost_row, found in zip(costs, matched_rows, strict=True):
                for cost_node, values in zip(cost_row, found, strict=True):
                    cost_node.extend(values)
            chosen = field.tolist()
            previous = self._field.tolist()
            for i in range(shape[0]):
                for j in range(shape[1]):
                    chosen[i][j] = self._best(i, j, options[i][j], costs[i][j], chosen, previous)
            field = torch.tensor(chosen, dtype=torch.int32)
            candidates = []
        return field.numpy()

    def _best(
        self,
        i: int,
        j: int,
        options: list[list[int]],
        costs: list[float],
        chosen: list[list[list[int]]],
        previous: list[list[list[int]]],
    ) -> list[int]:
        colocated = previous[i][j]
        left = chosen[i][j - 1] if j else colocated
        above = chosen[i - 1][j] if i else colocated
        median = [sorted((left[axis], above[axis], colocated[axis]))[1] for axis in (0, 1)]
        # the nodes to the right and below are predicted from this one: agreeing with them saves
        # bits there
        after = [chosen[i][j + 1]] if j + 1 < len(chosen[0]) else []
        after += [chosen[i + 1][j]] if i + 1 < len(chosen) else []

        def total(index: int) -> float:
            y, x = options[index]
            bits: float = _vector_bits(y - median[0]) + _vector_bits(x - median[1])
            bits += (
                sum(_vector_bits(y - other[0]) + _vector_bits(x - other[1]) for other in after) / 2
            )
            return float(costs[index] + self._lambda * bits)

        return options[min(range(len(options)), key=total)]


def _neighbours(field: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the vectors to the left, to the right, above and below each node; at the edges, its
    own.
    """
    padded = torch.cat([field[:1], field, field[-1:]])
    above, below = padded[:-2], padded[2:]
    padded = torch.cat([field[:, :1], field, field[:, -1:]], 1)
    return padded[:, :-2], padded[:, 2:], above, below


def _vector_bits(difference: int) -> float:
    """Return about what a component costs."""
    return 0.2 if difference == 0 else 2.0 + 2.0 * abs(difference).bit_length()


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
    vectors = np.round(np.stack([block[:, 5], block[:, 4]], 1) * 4)
    vectors[~covered] = 0
    return np.clip(vectors, -MAX_VECTOR, MAX_VECTOR).astype(np.int32).reshape(rows, columns, 2)
