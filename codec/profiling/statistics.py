"""Sums over images of second-order statistics of features, per frequency of the block DCT.

    G   sensitivity: what an error costs the task, from random probes of the cloud
    C   covariance of features, and of motion-compensated residuals

over channels; frequencies share matrices in *bands*, so that a profile fits its budget.

Photographs differ, and few of them say little of how channels go together.  Sums over n inputs with
the terms s_k are shrunk towards their diagonals by the share

    n / (n - 1) · Σ_ij ( Σ_k s_k,ij^2 - (Σ_k s_k,ij)^2 / n )  /  Σ_ij ( Σ_k s_k,ij )^2 ,  i ≠ j,

at most 1, which is what variance there is in what is off the diagonal, and leaves the least squared
error on average.

Source: J. Schäfer and K. Strimmer, "A shrinkage approach to large-scale covariance matrix
estimation", Stat. Appl. Genet. Mol. Biol. 4 (2005) 32, after O. Ledoit and M. Wolf (2003).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.arithmetic import as_written
from codec.format.header import TensorSpec
from codec.normative.transform import BASIS_BITS, dct_basis, split_blocks
from codec.profiling.fixed_point import block_size_for

__all__ = ["BUDGET", "FEW", "TensorStatistics", "bands_for", "bytes_of", "shares_of"]

BUDGET: Final = 1_500_000
"""Size that a tensor's part of a profile may have unless another is asked for, bytes; decoders take
up to `Limits.profile_bytes`, 64 MiB, of the whole.  Enough for a matrix for every frequency of 4 x
4 blocks of 128 channels, 11 of 256 channels, one of 860."""
FEW: Final = 10
"""Blocks per channel below which a covariance is not taken for what it says: with fewer blocks than
channels there are directions that it has never seen."""
SQUARES: Final = ("sensitivity", "intra", "inter")
SUMS: Final = (*SQUARES, "mean", "direct", "counts", "spread", "inputs")


def bytes_of(spec: TensorSpec, matrices: int) -> int:
    """Return about how large a tensor's part of a profile is."""
    frequencies = block_size_for(spec) ** 2
    rest = 4 * spec.channels + 6 * frequencies + 256  # means, ranks, frequency scales, points
    return rest + matrices * (2 * spec.channels * spec.channels + 2 * spec.channels + 4)


def shares_of(specs: Sequence[TensorSpec], budget: int | None) -> list[int]:
    """Return how much of a profile's budget each tensor may take; None: `BUDGET` each.

    All alike, but what one has no use for is left to the others.  Where the largest would not get
    a single matrix, it gets none, and the others share alike.
    """
    if budget is None:
        return [BUDGET] * len(specs)
    whole = [bytes_of(spec, block_size_for(spec) ** 2) for spec in specs]
    shares = [0] * len(specs)
    sharing = sorted(range(len(specs)), key=lambda number: specs[number].channels)
    while sharing:
        left = budget
        in_order = sorted(sharing, key=lambda number: whole[number])
        for behind, number in enumerate(in_order):
            shares[number] = min(whole[number], left // (len(in_order) - behind))
            left -= shares[number]
        if all(shares[number] >= bytes_of(specs[number], 1) for number in sharing):
            break
        shares[sharing.pop()] = 0
    return shares


def bands_for(block_size: int, channels: int, budget: int) -> tuple[NDArray[np.uint8], bool]:
    """Choose which frequencies share a matrix so that a tensor's profile fits in `budget` bytes.

    One matrix each where that fits.  Else (u, v) and (v, u) share theirs, from the highest u + v
    down; and if that is not enough, neighbours in the order of u + v are merged, where few
    frequencies and high ones come together first.

    Returns:
        (B · B,) uint8, the band of each frequency u · B + v; and whether bands are dense. They are
        diagonal, one for each frequency, where no matrix fits: on a detector's pyramid, one matrix
        for all frequencies took a third less rate than none, four half.
    """
    frequencies = block_size**2
    rest = 4 * channels + 6 * frequencies + 256  # see `bytes_of`
    most = (budget - rest) // (2 * channels * channels + 2 * channels + 4)
    if most < 1:
        return np.arange(frequencies, dtype=np.uint8), False
    groups = [[(u, v)] for u in range(block_size) for v in range(block_size)]
    order = sorted(range(frequencies), key=lambda f: (-sum(groups[f][0]), groups[f][0]))
    for number in order:
        if sum(bool(group) for group in groups) <= most:
            break
        for u, v in list(groups[number]):
            if u < v:
                groups[number] += groups[v * block_size + u]
                groups[v * block_size + u] = []
    groups = sorted((g for g in groups if g), key=lambda g: (sum(g[0]), abs(g[0][0] - g[0][1])))
    while len(groups) > most:

        def loss(number: int) -> float:
            merged = groups[number] + groups[number + 1]
            return sum((1 + u + v) ** -2 for u, v in merged)

        chosen = min(range(len(groups) - 1), key=loss)
        groups[chosen : chosen + 2] = [groups[chosen] + groups[chosen + 1]]
    band_of = np.zeros(frequencies, np.uint8)
    groups.sort(key=lambda g: min(u * block_size + v for u, v in g))
    for number, group in enumerate(groups):
        for u, v in group:
            band_of[u * block_size + v] = number
    return band_of, True


class TensorStatistics:
    """Sums over images for one tensor, float64; all of it in `sums`, for checkpoints.

    `sums` holds sensitivity, intra and inter: (F, C, C), or (F, C) where the profile will be
    diagonal; mean and direct: (C,), sums over blocks of the features' mean and of the constant
    frequency; counts: (4,), views, blocks of features, blocks of residuals, largest magnitude;
    spread: (3, F), over inputs, of the squares of what each adds off the diagonals of the first
    three; inputs: (1,), how many these are.
    """

    def __init__(self, spec: TensorSpec, budget: int, device: torch.device | str = "cpu") -> None:
        self.spec = spec
        self.block_size = block_size_for(spec)
        self.band_of, self.dense = bands_for(self.block_size, spec.channels, budget)
        channels = (spec.channels, spec.channels) if self.dense else (spec.channels,)
        square = (self.block_size**2, *channels)
        vector = (spec.channels,)
        spread = (len(SQUARES), self.block_size**2)
        shapes = (square, square, square, vector, vector, (4,), spread, (1,))
        self.sums = {
            name: torch.zeros(shape, dtype=torch.float64, device=device)
            for name, shape in zip(SUMS, shapes, strict=True)
        }
        basis = dct_basis(self.block_size) * 0.5**BASIS_BITS
        self._basis = torch.from_numpy(np.kron(basis, basis)).to(device, torch.float32)

    @property
    def blocks(self) -> int:
        """How many blocks were counted, of features or of residuals, whichever are fewer."""
        return int(self.sums["counts"][1:3].min())

    @property
    def few(self) -> bool:
        """Whether these are too few for the covariances to be relied on."""
        return self.blocks < FEW * self.spec.channels

    def mark(self) -> list[Tensor]:
        """Return what `end_input` needs to know of the sums before an input."""
        return [self.sums[name].clone() for name in SQUARES] if self.dense else []

    def end_input(self, mark: Sequence[Tensor]) -> None:
        """Count what was added since the mark as one input."""
        self.sums["inputs"] += 1
        for number, before in enumerate(mark):
            added = self.sums[SQUARES[number]] - before
            self.sums["spread"][number] += _off_diagonal(added)

    def shrinkage(self) -> NDArray[np.float64]:
        """Return (3, F): how far the first three sums are to be shrunk towards their diagonals."""
        inputs = float(self.sums["inputs"])
        spread = self.sums["spread"].cpu().numpy()
        shares = np.zeros_like(spread)
        if not self.dense or inputs < 2:
            return shares
        for number, name in enumerate(SQUARES):
            total = np.maximum(_off_diagonal(self.sums[name]).cpu().numpy(), 1e-300)
            variance = (spread[number] - total / inputs) * inputs / (inputs - 1)
            shares[number] = np.clip(variance / total, 0, 1)
        if spread.shape[1] > 1:  # the mean, which is in the sum of the constant one, hides there
            shares[1, 0] = shares[1, 1]
        return shares

    @as_written()
    def spectrum(self, tensors: Tensor) -> Tensor:
        """Transform (N, C, H, W) features to (F, C, blocks)."""
        blocks = torch.cat([split_blocks(tensor, self.block_size) for tensor in tensors])
        count, channels = blocks.shape[:2]
        flat = blocks.reshape(count * channels, -1)
        return (self._basis @ flat.t()).reshape(-1, count, channels).transpose(1, 2)

    def outer(self, spectrum: Tensor) -> Tensor:
        """Sum the outer products of (F, C, N) vectors over channels, or only their squares."""
        spectrum = spectrum.double()
        return spectrum @ spectrum.transpose(1, 2) if self.dense else spectrum.square().sum(2)

    def add_features(self, tensor: Tensor) -> None:
        """Count (C, H, W) features."""
        spectrum = self.spectrum(tensor[None])
        blocks = spectrum.shape[2]
        self.sums["intra"] += self.outer(spectrum)
        self.sums["mean"] += tensor.double().mean((1, 2)) * blocks
        self.sums["direct"] += spectrum[0].double().sum(1)
        counts = self.sums["counts"]
        counts[1] += blocks
        counts[3] = torch.maximum(counts[3], tensor.abs().max().double())

    def add_residual(self, tensor: Tensor) -> None:
        """Count a (C, H, W) motion-compensated residual."""
        spectrum = self.spectrum(tensor[None])
        self.sums["inter"] += self.outer(spectrum)
        self.sums["counts"][2] += spectrum.shape[2]

    @staticmethod
    def add_gradients(statistics: Sequence[TensorStatistics], gradients: Sequence[Tensor]) -> None:
        """Count the (N, C, H, W) gradients of one view, for all tensors at once.

        Each view counts alike: divided by the trace over everything, so that images of which the
        model is unsure do not decide alone.
        """
        found = [
            each.outer(each.spectrum(gradient))
            for each, gradient in zip(statistics, gradients, strict=True)
        ]
        total = sum(float(_traces(matrices).sum()) for matrices in found)
        for each, matrices in zip(statistics, found, strict=True):
            if total > 0 and math.isfinite(total):
                each.sums["sensitivity"] += matrices / total
            each.sums["counts"][0] += 1


def _off_diagonal(matrices: Tensor) -> Tensor:
    return matrices.square().sum((1, 2)) - matrices.diagonal(dim1=1, dim2=2).square().sum(1)


def _traces(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1) if matrices.ndim == 3 else matrices.sum(1)
