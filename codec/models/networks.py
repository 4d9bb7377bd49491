"""A network as a stream names it: by its published name, or by its file's name and content."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from codec.models.sources import load_model, model_name
from codec.models.weights import weights_hash, weights_in_header

__all__ = ["Network", "open_network"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and what a header says of it."""

    module: nn.Module
    name: str
    weights: str
    hash: bytes


def open_network(
    model: str, weights: str = "default", *, device: str | torch.device = "cpu"
) -> Network:
    """Load a network.

    Args:
        model: a name of `list_models`, `timm:NAME`, or a file (.pt2, .onnx) with its weights.
        weights: of a network by name, as of `load_model`.
        device: where it shall run.

    Raises:
        ModelError: there is none such, or it cannot be read.
    """
    module = load_model(model, weights, device=device)
    return Network(module, model_name(model), weights_in_header(weights), weights_hash(module))
