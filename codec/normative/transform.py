"""The transform: B x B integer DCT over space, synthesis matrices over channels.  FORMAT.md 6.4.

    coefficients (frequency, component, block)               1/64 of the profile's unit
        │  per band: channels = matrix · components          int16 matrix, shift
        ▼
    spectrum     (frequency, channel, block)                 latent units · 2^4
        │  rows, then columns: integer DCT basis             2^13 · orthonormal
        ▼
    residual     (block, channel, B, B)                      latent units

Its float counterpart for encoders is `encoding.forward_transform`.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from codec.format.profile import TensorProfile
from codec.normative.exact import exact_matmul, round_shift

__all__ = [
    "BASIS_BITS",
    "SPECTRUM_BITS",
    "BandGroup",
    "InverseTransform",
    "band_groups",
    "dct_basis",
    "join_blocks",
    "split_blocks",
]

BASIS_BITS = 13
SPECTRUM_BITS = 4
SPECTRUM_LIMIT = 1 << 26
# fmt: off
COSINES: tuple[tuple[int, ...], ...] = (
    (8192, 11585),
    (5793, 8192, 5793),
    (4730, 6689, 5793, 3344),
    (4096, 5793, 5352, 4096, 2217),
    (3664, 5181, 4927, 4192, 3045, 1601),
    (3344, 4730, 4568, 4096, 3344, 2365, 1224),
    (3096, 4379, 4269, 3945, 3423, 2730, 1900, 974),
    (2896, 4096, 4017, 3784, 3406, 2896, 2276, 1567, 799),
    (2731, 3862, 3803, 3629, 3344, 2958, 2482, 1931, 1321, 671),
    (2591, 3664, 3618, 3484, 3264, 2964, 2591, 2153, 1663, 1132, 573),
    (2470, 3493, 3458, 3352, 3177, 2939, 2640, 2287, 1889, 1451, 984, 497),
    (2365, 3344, 3316, 3230, 3090, 2896, 2653, 2365, 2036, 1672, 1280, 866, 437),
    (2272, 3213, 3190, 3120, 3004, 2845, 2644, 2405, 2131, 1825, 1493, 1139, 769, 387),
    (2189, 3096, 3077, 3019, 2923, 2790, 2622, 2421, 2189, 1931, 1647, 1343, 1023, 689, 347),
    (2115, 2991, 2975, 2926, 2845, 2733, 2591, 2420, 2223, 2002, 1758, 1496, 1217, 924, 622, 313),
    (2048, 2896, 2882, 2841, 2772, 2676, 2554, 2408, 2239, 2048,
     1837, 1609, 1365, 1108, 841, 565, 284),
)
# fmt: on
"""COSINES[B - 1] = round(2^13 / sqrt(B)), then round(2^13 · sqrt(2/B) · cos(pi·k / 2B)) for k = 0 …
B - 1."""


def dct_basis(size: int) -> NDArray[np.int64]:
    """Return the (size, size) int64 orthonormal DCT-II basis times 2^13: row = frequency, column =
    position.

    Entry (u, x) is 2^13 · sqrt(2/B) · cos(pi · u(2x + 1) / 2B), folded into the first quarter of
    the cosine; row 0 is constant.
    """
    flat, *cosines = COSINES[size - 1]
    basis = np.full((size, size), flat, np.int64)
    for u in range(1, size):
        for x in range(size):
            k = u * (2 * x + 1) % (4 * size)
            k = min(k, 4 * size - k)  # cos(2 pi - a) = cos(a)
            if k == size:
                basis[u, x] = 0
            else:  # cos(pi - a) = -cos(a)
                basis[u, x] = cosines[k] if k < size else -cosines[2 * size - k]
    return basis


def split_blocks(tensor: Tensor, size: int) -> Tensor:
    """Cut (C, H, W) into (rows · columns, C, size, size), the last row and column repeated beyond
    the edges.
    """
    channels, height, width = tensor.shape
    rows, columns = -(-height // size), -(-width // size)
    below, right = rows * size - height, columns * size - width
    if below or right:
        tensor = pad(tensor[None], (0, right, 0, below), mode="replicate")[0]
    blocks = tensor.reshape(channels, rows, size, columns, size).permute(1, 3, 0, 2, 4)
    # a copy even where the shape would allow a view: the loop writes into blocks
    copied = blocks.clone(memory_format=torch.contiguous_format)
    return copied.reshape(rows * columns, channels, size, size)


def join_blocks(blocks: Tensor, height: int, width: int) -> Tensor:
    """Put (rows · columns, C, size, size) together into (C, H, W), cutting off what lies beyond."""
    _, channels, size, _ = blocks.shape
    rows, columns = -(-height // size), -(-width // size)
    tensor = blocks.reshape(rows, columns, channels, size, size).permute(2, 0, 3, 1, 4)
    return tensor.reshape(channels, rows * size, columns * size)[:, :height, :width]


class BandGroup:
    """Bands that span equally many frequencies and code about as many components, so that their
    matrices multiply in one call.
    """

    def __init__(self, profile: TensorProfile, numbers: Sequence[int], *, dense: bool) -> None:
        members = [np.flatnonzero(profile.band_of == number) for number in numbers]
        self.dense = dense
        self.shape = (len(numbers), len(members[0]))
        self.frequencies = np.concatenate(members)
        self.bands = [profile.bands[number] for number in numbers]
        self.columns = int(profile.ranks[self.frequencies].max())

    def stacked(self, matrices: Sequence[NDArray[Any]], axis: int) -> NDArray[np.float64]:
        """Stack matrices, their axis of components cut or filled with zeros to `columns`."""
        shape = list(matrices[0].shape)
        shape[axis] = self.columns
        stack = np.zeros((len(matrices), *shape))
        for out, matrix in zip(stack, matrices, strict=True):
            part = matrix.swapaxes(0, axis)[: self.columns]
            out.swapaxes(0, axis)[: len(part)] = part
        return stack


def band_groups(profile: TensorProfile) -> list[BandGroup]:
    """Group the bands; those of which nothing is coded are left out."""
    numbers: dict[tuple[bool, int, int], list[int]] = defaultdict(list)
    for number, band in enumerate(profile.bands):
        ranks = profile.ranks[profile.band_of == number]
        # in octaves, so that a small matrix is never filled up to the size of a large one
        octave = int(ranks.max(initial=0)).bit_length()
        if octave:
            numbers[band.matrix.ndim == 2, len(ranks), octave].append(number)
    return [BandGroup(profile, members, dense=key[0]) for key, members in numbers.items()]


class InverseTransform:
    """Coefficients -> residual, for one tensor."""

    def __init__(self, profile: TensorProfile, device: torch.device | str = "cpu") -> None:
        self._size = profile.block_size
        self._channels = profile.channels
        self._basis = (
            torch.from_numpy(dct_basis(self._size)).to(device, torch.float64).t().contiguous()
        )
        self._groups = []
        for group in band_groups(profile):
            matrices = group.stacked([band.matrix for band in group.bands], -1)
            shifts = np.array([band.shift for band in group.bands])
            self._groups.append(
                (
                    group,
                    torch.from_numpy(group.frequencies).to(device),
                    torch.from_numpy(matrices).to(device),
                    torch.from_numpy(0.5**shifts).to(device),
                    torch.from_numpy(np.where(shifts > 0, 0.5, 0.0)).to(device),
                )
            )

    def __call__(self, coefficients: Tensor) -> Tensor:
        """Transform blocks.

        Args:
            coefficients: (B · B, R, N) float64 integers, magnitude at most 2^24; zero beyond the
                rank of a frequency.

        Returns:
            (N, C, B, B) float64 integers, latent units.  Bounds: synthesis 2^24 · 2^15 · 2^13 =
            2^52, clipped to 2^26; rows 2^26 · 2^13 · 2^4 = 2^43, shifted to 2^30; columns 2^47.
        """
        size, blocks, channels = self._size, coefficients.shape[2], self._channels
        spectrum = coefficients.new_zeros((size * size, channels, blocks))
        for group, frequencies, matrices, scale, half in self._groups:
            bands, count = group.shape
            columns = group.columns
            taken = coefficients[frequencies, :columns].reshape(bands, count, columns, blocks)
            if group.dense:
                mixed = exact_matmul(
                    matrices, taken.transpose(1, 2).reshape(bands, columns, count * blocks)
                )
                mixed = mixed.reshape(bands, channels, count, blocks).transpose(1, 2)
            else:
                mixed = matrices[:, None, :, None] * taken
            # round_shift, with a shift for each band
            shape = (bands, 1, 1, 1)
            rounded = mixed.mul_(scale.reshape(shape)).add_(half.reshape(shape)).floor_()
            rounded = rounded.clamp_(-SPECTRUM_LIMIT, SPECTRUM_LIMIT)
            spectrum[frequencies, : rounded.shape[2]] = rounded.flatten(0, 1)
        rows = exact_matmul(self._basis, spectrum.reshape(size, size, channels * blocks))
        rows = round_shift(rows, BASIS_BITS)
        residual = exact_matmul(self._basis, rows.reshape(size, size * channels * blocks))
        residual = round_shift(residual, BASIS_BITS + SPECTRUM_BITS)
        return residual.reshape(size, size, channels, blocks).permute(3, 2, 0, 1)
