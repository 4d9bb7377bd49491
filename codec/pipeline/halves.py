"""A network in two halves, to be called in a notebook: `codec.split`.

    edge, cloud = codec.split("resnet34", at="add_3")
    codec.encode(edge(frames), "clip.lmc", split=edge, motion=frames)
    logits = cloud(codec.open("clip.lmc")[:].features)

Both take and give features as a `Batch` holds them: one tensor, or a dict of tensors by name where
several cross the split.  The halves themselves are made in `codec.models`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from codec.errors import ModelError
from codec.models.submodels import (
    DEFAULT_MODEL,
    SplitModel,
    default_preprocessing,
    load_model,
    normalise,
    split_model,
    weights_hash,
)

if TYPE_CHECKING:
    from codec.format.header import Preprocessing, TensorSpec

__all__ = ["Cloud", "Edge", "split"]

EDGE_BATCH = 16
"""Images that the edge computes at a time, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a split comes from, as a stream's header names it; all empty for a network of your own.

    `preprocessing` turns a decoded frame into the network's input.
    """

    split: SplitModel
    weights: str
    weights_hash: bytes
    preprocessing: Preprocessing | None
    device: torch.device

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """Name, shape, stride and offset of what crosses the split."""
        return self.split.tensors
