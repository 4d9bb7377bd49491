"""Motion searched between the tensors themselves, instead of on luma: an oracle for studies.

Search on luma finds how pictures move; this finds the field that makes the residual of the tensors
cheapest.  A camera could do it too, but it costs a hundred warps a frame, and its vectors need not
be motion.

For every frame, between the tensors as the edge sub-model gave them (so that one search serves all
qp): constant fields on a coarse lattice are tried, each node of the grid keeps the one that costs
least around it, then fields around that one with finer steps; from luma's field as well.  The
choice among a node's own vector, those of its neighbours, the luma search's and zero weighs what
vectors cost.

Cost: the residual at every position in the coordinates of the profile, in steps z of a middling
quantiser, at about 1/2 log2(1 + z^2) bits a component; windows of two cells around each node.  The
profile's matrices, one for each frequency of a block, are averaged to one for a position, so this
is a stand-in for what the encoder pays, and where luma's field is cheaper in it, that is taken.
"""

import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.motion_search import MotionSearch, luma, median, vector_bits, with_neighbours
from codec.format.constants import MAX_VECTOR, VECTOR_UNITS
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.profile import TensorProfile, profile_of
from codec.normative.motion import compensate, latent_displacement
from codec.normative.quantization import step_size
from tools.contenders.scene import Scene

__all__ = ["LatentSearch", "latent_fields"]

REACH = 16  # pixels, as the luma search
LATTICE = 4  # pixels between constant fields
UNIT_BITS = 6  # steps are in 1/64 of the coefficient unit
STEPS = (2.0, 1.0, 0.5)  # of the refinement, pixels
SWEEPS = 2
QP = 26  # of the steps, and of the luma search that this one starts from

Field = NDArray[np.int32]


@lru_cache(maxsize=1)
def _cached(scene_key: "_Key") -> tuple[tuple[Field | None, ...], float]:
    start = time.perf_counter()
    return tuple(_fields(scene_key.scene, scene_key.header)), time.perf_counter() - start


class _Key:
    """A scene and a header, equal if clip, split, length and grid are."""

    def __init__(self, scene: Scene, header: SequenceHeader) -> None:
        self.scene, self.header = scene, header
        place = (scene.path, scene.model, scene.weights, scene.preprocessing, header.split)
        self._parts = (*place, scene.frames, header.grid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(self._parts)


def latent_fields(scene: Scene, header: SequenceHeader) -> tuple[tuple[Field | None, ...], float]:
    """Return a motion field for each frame of a scene, None for the first, and the seconds that the
    search took; both are kept for the next call.

    Args:
        scene: its tensors and frames.
        header: geometry of the stream: grid and tensors.
    """
    return _cached(_Key(scene, header))


def _fields(scene: Scene, header: SequenceHeader) -> list[Field | None]:
    search = LatentSearch(header)
    on_luma = MotionSearch(header, qp=QP)
    found: list[Field | None] = []
    previous: list[Tensor] | None = None
    for number in range(scene.frames):
        current = search.latents([tensor[number] for tensor in scene.features])
        start = on_luma.estimate(luma(scene.rgb[number]))
        if previous is None or start is None:
            found.append(None)
        else:
            found.append(search.estimate(previous, current, start))
        previous = current
    return found


def _position_matrix(profile: TensorProfile) -> Tensor:
    """Average the analysis of all frequencies: (C, C), residuals of a position -> steps."""
    step = step_size(QP) / (1 << UNIT_BITS)
    total = np.zeros((profile.channels, profile.channels))
    for frequency, number in enumerate(profile.band_of):
        band = profile.bands[number]
        synthesis = band.matrix.astype(np.float64) * 0.5**band.shift
        analysis = np.diag(1 / synthesis) if synthesis.ndim == 1 else np.linalg.pinv(synthesis)
        coded = analysis[: profile.ranks[frequency]] / step
        total += coded.T @ coded / len(profile.band_of)
    values, vectors = np.linalg.eigh(total)
    return torch.from_numpy(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)


class LatentSearch:
    """Searches the field between the latents of two frames.

    Args:
        header: geometry and profile of the stream.
    """

    def __init__(self, header: SequenceHeader) -> None:
        self._header = header
        self._rows, self._columns = header.field_shape
        self._profiles = profile_of(header).tensors
        self._matrices = [_position_matrix(profile) for profile in self._profiles]
        self._windows = [self._window_of(spec) for spec in header.tensors]
        self._field = np.zeros((self._rows, self._columns, 2), np.int32)

    def latents(self, features: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        """Round features (C, H, W) to the integers that the codec predicts."""
        return [
            torch.round(torch.from_numpy(tensor).double() * 2.0**profile.fraction_bits)
            for tensor, profile in zip(features, self._profiles, strict=True)
        ]

    def _window_of(self, spec: TensorSpec) -> tuple[Tensor, Tensor]:
        """Weigh the positions that a node answers for: (rows, height) and (columns, width)."""
        grid = self._header.grid

        def weights(nodes: int, count: int, stride: int, offset2: int) -> Tensor:
            node = np.arange(nodes)[:, None] * grid + (grid - 1) / 2
            position = np.arange(count) * stride + offset2 / 2
            # positions beyond the outer nodes belong to these
            position = np.clip(position, node[0, 0], node[-1, 0])
            near = np.clip(1 - np.abs(node - position) / grid, 0, None)
            return torch.from_numpy(near / near.sum(0))

        return (
            weights(self._rows, spec.height, spec.stride_y, spec.offset_y2),
            weights(self._columns, spec.width, spec.stride_x, spec.offset_x2),
        )

    def bits(
        self, previous: Sequence[Tensor], current: Sequence[Tensor], field: Field
    ) -> NDArray[np.float64]:
        """Return about what the residual around each node costs, (rows, columns).

        Args:
            previous: latents (C, H, W) of the frame before.
            current: those of this frame.
            field: (rows, columns, 2) int32, (y, x) in quarter pixels.
        """
        total = np.zeros((self._rows, self._columns))
        for reference, actual, spec, matrix, (down, across) in zip(
            previous, current, self._header.tensors, self._matrices, self._windows, strict=True
        ):
            displacement = latent_displacement(field, self._header.grid, spec)
            residual = compensate(reference, displacement) - actual
            steps = (matrix @ residual.flatten(1)).reshape(residual.shape)
            cost = torch.log2(1 + steps.square()).sum(0) / 2
            total += (down @ cost @ across.T).numpy()
        return total

    def estimate(
        self, previous: Sequence[Tensor], current: Sequence[Tensor], start: Field
    ) -> Field:
        """Return the field from the frame before to this one.

        Args:
            previous: tensors of the frame before.
            current: tensors of this frame.
            start: the field of a search on luma.
        """
        best = start
        cost = self.bits(previous, current, best)
        steps = np.arange(-REACH, REACH + 1, LATTICE) * VECTOR_UNITS
        for y in steps.tolist():
            for x in steps.tolist():
                constant = np.broadcast_to(np.array([y, x], np.int32), start.shape)
                best, cost = self._better(previous, current, best, cost, constant)
        for step in STEPS:
            size = round(step * VECTOR_UNITS)
            for y, x in ((0, -1), (0, 1), (-1, 0), (1, 0)):
                moved = best + np.array([y * size, x * size], np.int32)
                best, cost = self._better(previous, current, best, cost, moved)
        candidates = [self._priced(previous, current, best, start), start, np.zeros_like(start)]
        self._field = min(candidates, key=lambda one: self._total(previous, current, one))
        return self._field

    def _better(
        self,
        previous: Sequence[Tensor],
        current: Sequence[Tensor],
        best: Field,
        cost: NDArray[np.float64],
        candidate: Field,
    ) -> tuple[Field, NDArray[np.float64]]:
        candidate = np.clip(candidate, -MAX_VECTOR, MAX_VECTOR).astype(np.int32)
        other = self.bits(previous, current, candidate)
        wins = other < cost
        return np.where(wins[..., None], candidate, best), np.where(wins, other, cost)

    def _costs(
        self, previous: Sequence[Tensor], current: Sequence[Tensor], field: Field
    ) -> NDArray[np.float64]:
        _, left, above, _, _ = with_neighbours(field, self._field)
        return self.bits(previous, current, field) + vector_bits(
            field - median(left, above, self._field)
        )

    def _total(self, previous: Sequence[Tensor], current: Sequence[Tensor], field: Field) -> float:
        return float(self._costs(previous, current, field).sum())

    def _priced(
        self, previous: Sequence[Tensor], current: Sequence[Tensor], own: Field, start: Field
    ) -> Field:
        """Let nodes take cheaper vectors: their neighbours', the common one, luma's, zero."""
        field = own
        white = np.indices(own.shape[:2]).sum(0) % 2 == 0
        common = np.median(own.reshape(-1, 2), axis=0).astype(np.int32)
        costs = self._costs(previous, current, field)
        for _ in range(SWEEPS):
            shifted = [
                np.roll(field, (y, x), (0, 1)) for y, x in ((0, 1), (1, 0), (0, -1), (-1, 0))
            ]
            others = [
                np.broadcast_to(common, own.shape),
                start,
                self._field,
                np.zeros_like(own),
                *shifted,
            ]
            for other in others:
                # node by node, every second one at a time, so that neighbours do not both move
                for chosen in (white, ~white):
                    trial = np.where(chosen[..., None], other, field).astype(np.int32)
                    wins = chosen & (self._costs(previous, current, trial) < costs)
                    if wins.any():
                        field = np.where(wins[..., None], trial, field).astype(np.int32)
                        costs = self._costs(previous, current, field)
        return field
