"""Where in a frame errors cost the task, told from the features: the encoder's alone.

What errors cost on average the profile knows.  Where they cost in this frame, gradients of the
cloud sub-model would say; a linear map from statistics of a block and its surroundings to the
logarithm of its importance, fitted to such gradients once (`profiling.importance`), says nearly the
same, at the edge and in a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from codec.format.header import TensorSpec
from codec.format.profile import ImportanceModel, Profile

__all__ = [
    "ImportancePredictor",
    "block_statistics",
    "checked_maps",
    "checked_pixels",
    "pooled",
]


class ImportancePredictor:
    """Features -> importance of their blocks.

    Args:
        models: of the profile, one for each tensor.
        profile: whose blocks they are about.
        device: where features are.
    """

    def __init__(
        self,
        models: Sequence[ImportanceModel],
        profile: Profile,
        device: torch.device | str = "cpu",
    ) -> None:
        self._sizes = [tensor.block_size for tensor in profile.tensors]
        self._models = [
            (
                # float64, so that no weights and features that are finite give anything else
                torch.from_numpy(model.weights).to(device, torch.float64),
                torch.from_numpy(model.floor).to(device),
                model,
            )
            for model in models
        ]

    def __call__(self, features: Sequence[Tensor]) -> list[NDArray[np.float64]]:
        """Return (rows, columns) for each (C, H, W) tensor."""
        found = []
        for tensor, size, (weights, floor, model) in zip(
            features, self._sizes, self._models, strict=True
        ):
            statistics = block_statistics(tensor.float().to(weights.device), size, floor)
            logarithm = torch.tensordot(weights, statistics.double(), 1).cpu().numpy() + model.bias
            found.append(np.exp(np.clip(logarithm, *model.bounds)))
        return found


def block_statistics(tensor: Tensor, block_size: int, floor: Tensor) -> Tensor:
    """Return (6 C, rows, columns) statistics of the blocks of a (C, H, W) tensor: see `STATISTICS`.

    Args:
        tensor: float32.
        block_size: B; blocks that reach beyond the tensor go on with its edge.
        floor: (C,) deviations below which blocks count as flat.
    """
    channels, height, width = tensor.shape
    size, below, right = block_size, -height % block_size, -width % block_size
    whole = pad(tensor[None], (0, right, 0, below), mode="replicate")[0]
    rows, columns = (height + below) // size, (width + right) // size
    # (samples of a block, C, rows, columns)
    samples = whole.reshape(channels, rows, size, columns, size).permute(2, 4, 0, 1, 3)
    samples = samples.reshape(size * size, channels, rows, columns)
    # from the first sample on, so that rounding makes nothing vary that is constant; in float32 the
    # mean of squares less the square of the mean would be noise beside a large mean
    mean = samples[0] + (samples - samples[0]).mean(0)
    variance = (samples - mean).square_().mean(0)
    spread = torch.log(variance.sqrt() + floor[:, None, None])
    of_block = torch.cat([mean, spread, samples.amax(0)])
    around = pad(of_block[None], (1, 1, 1, 1), mode="replicate")[0]
    means = _of_three(_of_three(around[: 2 * channels], torch.add, -1), torch.add, -2) / 9
    maxima = _of_three(_of_three(around[2 * channels :], torch.maximum, -1), torch.maximum, -2)
    return torch.cat([of_block, means, maxima])


def _of_three(values: Tensor, of_two: Callable[[Tensor, Tensor], Tensor], axis: int) -> Tensor:
    """Combine every three that follow one another along an axis."""
    count = values.shape[axis] - 2
    first, second, third = (values.narrow(axis, n, count) for n in range(3))
    return of_two(of_two(first, second), third)


def checked_maps(
    maps: Sequence[NDArray[np.floating]], specs: Sequence[TensorSpec], profile: Profile
) -> list[NDArray[np.float64]]:
    """Return importance as its owner hands it in, if it is (rows, columns) for each tensor.

    Raises:
        TypeError: no list of maps.
        ValueError: another number of them, other shapes or types, or numbers that are not positive.
    """
    shapes = [
        tensor.blocks(spec.height, spec.width)
        for spec, tensor in zip(specs, profile.tensors, strict=True)
    ]
    if not isinstance(maps, list | tuple):
        raise TypeError(
            f"importance is a {type(maps).__name__}, expected a list of {len(specs)}, an array of "
            "rows and columns of blocks for each tensor; put one array in a list (codec.Writer and "
            "codec.encode take a map of the input's pixels)"
        )
    if len(maps) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(
            f"importance of {len(maps)} tensors, expected {len(specs)}, one array for each of "
            f"{names}"
        )
    return [
        _checked_map(given, spec, shape, tensor.block_size)
        for given, spec, shape, tensor in zip(maps, specs, shapes, profile.tensors, strict=True)
    ]


def checked_pixels(pixels: object, height: int, width: int) -> NDArray[np.float64]:
    """Return importance by pixels of the input, if it is (height, width).

    Raises:
        TypeError: several things in place of one map.
        ValueError: another shape or type, or numbers that are not positive.
    """
    if isinstance(pixels, dict | str):
        raise TypeError(
            f"importance is a {type(pixels).__name__}, expected an array of shape "
            f"{(height, width)}, the input's pixels"
        )
    weights = _real_array(pixels, "importance")
    if weights.shape != (height, width):
        raise ValueError(
            f"importance of shape {weights.shape}, expected {(height, width)}: the pixels of the "
            "input that features are made from; resize the map with the frames"
        )
    return weights


def pooled(
    pixels: NDArray[np.float64], specs: Sequence[TensorSpec], profile: Profile
) -> list[NDArray[np.float64]]:
    """Return the mean importance of the pixels that each block stands for, (rows, columns) for each
    tensor.

    A sample stands for `stride` pixels around the one that it is centred on, `offset` + `stride`
    times its number: what it sees beyond them it shares with its neighbours.

    Args:
        pixels: (H, W) of the input.
        specs: where the tensors lie.
        profile: whose blocks they are.
    """
    height, width = pixels.shape
    found = []
    for spec, tensor in zip(specs, profile.tensors, strict=True):
        size = tensor.block_size
        down = _shares(spec.height, size, spec.stride_y, spec.offset_y2, height)
        across = _shares(spec.width, size, spec.stride_x, spec.offset_x2, width)
        found.append(down @ pixels @ across.T)
    return found


def _shares(
    samples: int, block_size: int, stride: int, offset2: int, pixels: int
) -> NDArray[np.float64]:
    """Return (blocks, pixels) how much of a block each pixel is, along one axis."""
    first = np.arange(0, samples, block_size)
    last = np.minimum(first + block_size, samples)  # what lies beyond the tensor is not looked at
    # pixel n reaches from n to n + 1
    begin, end = ((offset2 + 1) / 2 + stride * (edge - 0.5) for edge in (first, last))
    # of what lies beyond the picture the nearest pixel is taken
    begin, end = np.clip(begin, 0, pixels - 1), np.clip(end, 1, pixels)
    place = np.arange(pixels)
    overlap = np.minimum(end[:, None], place + 1) - np.maximum(begin[:, None], place)
    overlap = np.maximum(overlap, 0)
    return np.asarray(overlap / overlap.sum(1, keepdims=True))


def _checked_map(
    given: NDArray[np.floating], spec: TensorSpec, shape: tuple[int, int], block_size: int
) -> NDArray[np.float64]:
    weights = _real_array(given, f"importance of {spec.name!r}")
    if weights.shape != shape:
        raise ValueError(
            f"importance of {spec.name!r} has shape {weights.shape}, expected {shape}: rows and "
            f"columns of blocks of {block_size} x {block_size} samples"
        )
    return weights


def _real_array(given: object, what: str) -> NDArray[np.float64]:
    """Return positive finite numbers as an array; `what` they are is said where they are none."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.double() if given.is_floating_point() else given  # NumPy has no bfloat16
    try:
        found = np.asarray(given)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{what} is no array: {error}") from error
    if found.dtype == bool:
        raise ValueError(
            f"{what} is a mask of bool, expected positive numbers; make it numpy.where(mask, 16, 1)"
        )
    if found.dtype.kind not in "iuf":
        raise ValueError(
            f"{what} is of {found.dtype}, expected positive numbers; make it an array of float"
        )
    wrong = found[~(np.isfinite(found) & (found > 0))]
    if wrong.size:
        raise ValueError(
            f"{what} holds {wrong[0]}, expected positive numbers; "
            "where nothing matters, 2**-16 is the least that counts"
        )
    return found.astype(np.float64)
