"""A network as a stream names it: by its published name, or by its file's name and content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from codec.models.boundary import read_file
from codec.models.sources import check_model, is_file, load_model, model_name
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
    model: str,
    weights: str = "default",
    *,
    device: str | torch.device = "cpu",
    named: str | None = None,
) -> Network:
    """Load a network.

    Args:
        model: a name of `list_models`, `timm:NAME`, or a file (.pt2, .onnx) with its weights.
        weights: of a network by name, as of `load_model`.
        device: where it shall run.
        named: the one that a stream's header names; another is refused, and not loaded.

    Raises:
        ModelError: there is none such, it is another one, or it cannot be read.
    """
    content = read_file(Path(model)) if is_file(model) else None
    name = model_name(model, content)
    if named is not None:
        check_model(named, name)
    module = load_model(model, weights, device=device, content=content)
    return Network(module, name, weights_in_header(weights), weights_hash(module))
