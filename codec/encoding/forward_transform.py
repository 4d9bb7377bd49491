"""The forward transform: the float counterpart of `normative.transform`, band by band."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from codec.format.profile import Band, TensorProfile
from codec.normative.transform import (
    BASIS_BITS,
    SPECTRUM_BITS,
    band_groups,
    dct_basis,
    split_blocks,
)

__all__ = ["ForwardTransform", "gradient_blocks"]


class ForwardTransform:
    """Residual -> coefficients, for one tensor.

    `adjoint`: the transpose of the inverse transform in its place, gradients by residual ->
    gradients by coefficient.
    """

    def __init__(
        self,
        profile: TensorProfile,
        device: torch.device | str = "cpu",
        *,
        adjoint: bool = False,
    ) -> None:
        self._size = profile.block_size
        self._components = profile.components
        basis = dct_basis(self._size) * 0.5**BASIS_BITS
        # two-dimensional basis: one matrix product for all channels and blocks
        self._basis = torch.from_numpy(np.kron(basis, basis)).to(device, torch.float32)
        self._groups = []
        for group in band_groups(profile):
            inverse = _transposed if adjoint else _analysis
            analysis = group.stacked([inverse(band) for band in group.bands], 0)
            self._groups.append(
                (
                    group,
                    torch.from_numpy(group.frequencies).to(device),
                    torch.from_numpy(analysis).to(device, torch.float32),
                )
            )

    def __call__(self, residual: Tensor) -> Tensor:
        """Transform blocks.

        Args:
            residual: (N, C, B, B) float32, latent units.

        Returns:
            (B · B, R, N) float32 in 1/64 of the profile's coefficient unit.
        """
        blocks, channels = residual.shape[:2]
        flat = residual.reshape(blocks * channels, self._size * self._size)
        spectrum = (self._basis @ flat.t()).reshape(-1, blocks, channels).transpose(1, 2)
        coefficients = residual.new_zeros((self._size * self._size, self._components, blocks))
        for group, frequencies, analysis in self._groups:
            bands, count = group.shape
            taken = spectrum[frequencies].reshape(bands, count, channels, blocks)
            if group.dense:
                found = analysis @ taken.transpose(1, 2).reshape(bands, channels, count * blocks)
                found = found.reshape(bands, group.columns, count, blocks).transpose(1, 2)
            else:
                found = analysis[:, None, :, None] * taken[:, :, : group.columns]
            coefficients[frequencies, : group.columns] = found.flatten(0, 1)
        return coefficients


def gradient_blocks(gradient: Tensor, size: int) -> Tensor:
    """Split a (C, H, W) gradient into whole blocks, for the adjoint: nothing depends on what lies
    beyond the tensor.
    """
    height, width = gradient.shape[-2:]
    return split_blocks(pad(gradient, (0, -width % size, 0, -height % size)), size)


def _analysis(band: Band) -> NDArray[np.float64]:
    """Return the (R, C) or (C,) inverse of a synthesis matrix, in 1/64 of the coefficient unit."""
    synthesis = band.matrix.astype(np.float64) * 0.5 ** (band.shift + SPECTRUM_BITS)
    if synthesis.ndim == 1:
        return np.divide(1.0, synthesis, out=np.zeros_like(synthesis), where=synthesis != 0)
    return np.asarray(np.linalg.pinv(synthesis), np.float64)


def _transposed(band: Band) -> NDArray[np.float64]:
    """Return the (R, C) or (C,) transpose of a synthesis matrix."""
    return np.asarray(band.matrix.T * 0.5 ** (band.shift + SPECTRUM_BITS))
