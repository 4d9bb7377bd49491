"""The reference buffer and the normative loop: symbols in, latents out.  FORMAT.md 6.

    reference ──► compensate with v / n^k ──► prediction ──┐
                                                           ▼  per block: inter and skip
    levels ─► dequantise ─► inverse transform ─► residual ─+─► clip ─► latent ─► reference
                                                           ▲  intra: the mean of each channel
                                                 mean ─────┘

Encoder and decoder both run this very code, so that the two cannot drift apart.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.format.constants import LATENT_LIMIT
from codec.format.header import TensorSpec
from codec.format.profile import Profile, TensorProfile
from codec.format.slots import Slots
from codec.normative.motion import compensate, latent_displacement
from codec.normative.quantization import dequantise, step_sizes
from codec.normative.stripes import stripes
from codec.normative.symbols import (
    MODE_INTRA,
    MODE_SKIP,
    FrameSymbols,
    TensorSymbols,
    block_qps,
)
from codec.normative.transform import InverseTransform, join_blocks, split_blocks

__all__ = ["Reconstructor", "bytes_of", "features_of", "integers_of", "md5_of"]

RESIDUAL_LIMIT = 1 << 24
"""What is more takes any prediction, up to 2^23 - 1, beyond the limit of a latent."""


class Reconstructor:
    """The loop for all tensors of a stream, on one device.

    Invariants:
      * latents are float32 integers up to `LATENT_LIMIT`, 2^23 - 1, which float32 holds exactly:
        what both sides predict from;
      * `predict` then `reconstruct`, once a frame, in this order.
    """

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        profile: Profile,
        grid: int,
        device: torch.device | str = "cpu",
        references: int = 1,
    ) -> None:
        self._specs = tuple(specs)
        self._grid = grid
        self._loops = [
            _TensorLoop(spec, tensor, device)
            for spec, tensor in zip(self._specs, profile.tensors, strict=True)
        ]
        self._means: list[Tensor] = [
            loop.mean.expand(spec.shape) for loop, spec in zip(self._loops, specs, strict=True)
        ]
        self._kept = Slots[list[Tensor]](references)

    def predict(self, vectors: NDArray[np.int32] | None, slot: int = 0) -> list[Tensor]:
        """Return the inter prediction of every tensor, (C, H, W) float32 integers, from what is
        kept in a slot; no vectors: no motion.  From an empty slot, the means.
        """
        kept = self._kept[slot]
        latents = self._means if kept is None else kept
        if vectors is None:
            return latents
        return [
            compensate(latent, latent_displacement(vectors, self._grid, spec))
            for latent, spec in zip(latents, self._specs, strict=True)
        ]

    def reconstruct(self, predictions: Sequence[Tensor], frame: FrameSymbols) -> list[Tensor]:
        """Return the latents of a frame and keep them as a reference."""
        latents = self.trial(predictions, frame)
        self._kept.keep(latents, frame.slots, key=frame.key)
        return latents

    def trial(self, predictions: Sequence[Tensor], frame: FrameSymbols) -> list[Tensor]:
        """Return the latents of a frame without keeping them."""
        return [
            loop.reconstruct(prediction, symbols, frame.qp)
            for loop, prediction, symbols in zip(
                self._loops, predictions, frame.tensors, strict=True
            )
        ]


class _TensorLoop:
    def __init__(
        self, spec: TensorSpec, profile: TensorProfile, device: torch.device | str
    ) -> None:
        self._height, self._width = spec.height, spec.width
        self._profile = profile
        self._device = device
        self._inverse = InverseTransform(profile, device)
        self.mean = torch.from_numpy(profile.mean.astype(np.float32)).to(device)[:, None, None]
        self._position = profile.scan.position
        self._points = profile.points.astype(np.int64).ravel()
        self._stripes = stripes(profile.blocks(spec.height, spec.width)[0], spec.elements)

    def reconstruct(self, prediction: Tensor, symbols: TensorSymbols, qp: int) -> Tensor:
        coded = np.flatnonzero(symbols.modes != MODE_SKIP)
        if not len(coded):
            return prediction
        steps = step_sizes(block_qps(qp, symbols.offsets[coded]))
        latent = prediction.clone(memory_format=torch.contiguous_format)
        size = self._profile.block_size
        _, columns = self._profile.blocks(self._height, self._width)
        for first, last in self._stripes:  # rows of blocks
            top, bottom = first * size, min(last * size, self._height)
            begin, end = np.searchsorted(coded, (first * columns, last * columns))
            if begin == end:
                continue
            blocks = split_blocks(prediction[:, top:bottom], size)
            chosen = coded[begin:end]
            intra = chosen[symbols.modes[chosen] == MODE_INTRA] - first * columns
            if len(intra):
                blocks[torch.from_numpy(intra).to(self._device)] = self.mean
            place = torch.from_numpy(chosen - first * columns).to(self._device)
            residual = self._inverse(self._coefficients(symbols, slice(begin, end), steps))
            # with a residual of up to 2^24, float32 holds every sum that is not clipped anyway
            residual = residual.clamp_(-RESIDUAL_LIMIT, RESIDUAL_LIMIT).float()
            if len(chosen) == len(blocks):
                blocks.add_(residual).clamp_(-LATENT_LIMIT, LATENT_LIMIT)
            else:
                blocks[place] = blocks[place].add_(residual).clamp_(-LATENT_LIMIT, LATENT_LIMIT)
            latent[:, top:bottom] = join_blocks(blocks, bottom - top, self._width)
        return latent

    def _coefficients(
        self, symbols: TensorSymbols, blocks: slice, steps: NDArray[np.int64]
    ) -> Tensor:
        """Dequantise some of the coded blocks and bring them from scan order into (frequency,
        component, block).
        """
        profile = self._profile
        levels, classes = symbols.levels[:, blocks].ravel(), symbols.classes[:, blocks].ravel()
        count = len(steps[blocks])
        place = np.flatnonzero(levels)  # most levels are zero
        row = place // count
        column = place - row * count
        found = levels.take(place).astype(np.int64)
        point = self._points.take(2 * classes.take(place).astype(np.intp) + (np.abs(found) > 1))
        coefficients = np.zeros((profile.block_size**2 * profile.components, count))
        coefficients[self._position.take(row), column] = dequantise(
            found, point, steps[blocks].take(column)
        )
        shape = (profile.block_size**2, profile.components, count)
        return torch.from_numpy(coefficients.reshape(shape)).to(self._device)


def features_of(latents: Sequence[Tensor], profile: Profile) -> list[Tensor]:
    """Return float32 features, (C, H, W): latents times 2^-fraction_bits, exactly."""
    return [
        latent.to(torch.float32) * 0.5**tensor.fraction_bits
        for latent, tensor in zip(latents, profile.tensors, strict=True)
    ]


def integers_of(latent: Tensor) -> NDArray[np.int32]:
    """Return a latent as int32, C order: what checks and MD5s are taken of, in little-endian
    bytes.
    """
    return np.ascontiguousarray(latent.to(torch.int32).cpu().numpy(), "<i4")


def bytes_of(latents: Sequence[Tensor]) -> Iterator[memoryview]:
    """Yield the bytes of the latents of a frame, tensor by tensor: FORMAT.md 6.6."""
    for latent in latents:
        yield integers_of(latent).data


def md5_of(latents: Sequence[Tensor]) -> str:
    """Return the MD5 of latents, int32 little-endian, C order, tensors in stream order."""
    digest = hashlib.md5(usedforsecurity=False)
    for content in bytes_of(latents):
        digest.update(content)
    return digest.hexdigest()
