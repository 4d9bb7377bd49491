"""Feature tensors -> a few small grey pictures, for people to see that something moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["thumbnails"]


def thumbnails(features: Sequence[Tensor], count: int) -> list[NDArray[np.uint8]]:
    """Draw channels that are spread evenly over the tensors, the same ones for every frame.

    Args:
        features: (C, H, W) each.
        count: how many channels; all, where there are fewer.

    Returns:
        (H, W) each: a channel's least value is black, its greatest white.
    """
    channels = [(tensor, channel) for tensor in features for channel in range(len(tensor))]
    count = min(count, len(channels))
    chosen = [channels[(2 * place + 1) * len(channels) // (2 * count)] for place in range(count)]
    return [_grey(tensor[channel]) for tensor, channel in chosen]


def _grey(channel: Tensor) -> NDArray[np.uint8]:
    values = torch.nan_to_num(channel.detach().to("cpu", torch.float32), 0.0, 0.0, 0.0)
    least, greatest = values.aminmax()
    scaled = (values - least) * (255 / (greatest - least).clamp_min(1e-12))
    return scaled.round().clamp(0, 255).to(torch.uint8).numpy()
