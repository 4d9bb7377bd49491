"""Frames -> model input: what a model's weights were made for, as data, and its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from codec.errors import ModelError
from codec.format.header import Preprocessing
from codec.models import DEFAULT_MODEL
from codec.models.sources import published_entry

__all__ = ["default_preprocessing", "normalise"]


def default_preprocessing(name: str, native: bool, weights: str = "default") -> Preprocessing:
    """Return what the model's weights were made for, as torchvision publishes it with them.

    Size, mean and deviation are those of the weights' own transform.  Its interpolation is not:
    that is bilinear or bicubic with antialiasing, as the weights say, where frames are resized here
    bicubically by swscale.

    Args:
        name: of `list_models`.
        native: leave frames at their own size, padded to a multiple of 32.
        weights: as of `load_model`.  A file that has the name of one that torchvision publishes for
            this model is taken for it; for any other, and for random weights, the model's default
            weights decide.

    Raises:
        ModelError: the name is unknown, or its frames are prepared in another way.
    """
    if name == DEFAULT_MODEL:
        short_side, crop, mean, scale = 256, 224, (127_000,) * 3, (128_000,) * 3
    else:
        transforms = published_entry(name, weights).transforms()
        if not hasattr(transforms, "crop_size"):
            raise ModelError(
                f"{name} takes frames otherwise than by short side and crop, all that there is "
                "here; code its tensors by the library"
            )
        short_side, crop = transforms.resize_size[0], transforms.crop_size[0]
        mean, scale = (_thousandths(share) for share in (transforms.mean, transforms.std))
    if native:
        short_side, crop = 0, 0
    return Preprocessing(short_side, crop, 32 if native else 0, mean, scale)


def normalise(rgb: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Turn one frame (H, W, 3) or several (N, H, W, 3) into float32 model input (N, 3, H, W)."""
    if rgb.dtype != np.uint8 or rgb.ndim not in {3, 4} or rgb.shape[-1] != 3:
        raise ValueError(f"expected uint8 (H, W, 3) or (N, H, W, 3), found {rgb.dtype} {rgb.shape}")
    mean = np.array(preprocessing.mean_thousandths, np.float32) / np.float32(1000)
    scale = np.array(preprocessing.scale_thousandths, np.float32) / np.float32(1000)
    samples = (rgb.astype(np.float32) - mean) / scale
    frames = samples.reshape(-1, *samples.shape[-3:])
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))


def _thousandths(shares: Sequence[float]) -> tuple[int, int, int]:
    """Bring what is said of samples of 0 to 1 to thousandths of the 255 steps of a byte."""
    red, green, blue = (round(255_000 * share) for share in shares)
    return red, green, blue
