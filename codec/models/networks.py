"""A network as a stream names it: by its published name, or by its file's name and content hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from codec.errors import ModelError
from codec.models.programs import content_hash, load_program
from codec.models.sources import load_model
from codec.models.weights import weights_hash, weights_in_header

__all__ = ["Network", "is_file", "open_network"]

PROGRAMS: Final = (".pt2",)


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and what a header says of it."""

    module: nn.Module
    name: str
    weights: str
    hash: bytes


def is_file(model: str) -> bool:
    """Tell whether a model is named by a file of its own, which no name of a network can be."""
    return model.endswith(PROGRAMS)


def open_network(
    model: str, weights: str = "default", *, device: str | torch.device = "cpu"
) -> Network:
    """Load a network.

    Args:
        model: a name of `list_models`, or the path of an exported program (.pt2), which brings its
            weights.
        weights: of a network by name, as of `load_model`.
        device: where it shall run.

    Raises:
        ModelError: there is none such, or it cannot be read.
    """
    if not is_file(model):
        module = load_model(model, weights, device=device)
        return Network(module, model, weights_in_header(weights), weights_hash(module))
    if weights != "default":
        raise ModelError(f"{model} brings its weights; leave out {weights!r}")
    path = Path(model)
    program = load_program(path, device=device)
    name = "".join(letter if letter.isprintable() else "?" for letter in path.name)
    return Network(program, name, "", content_hash(path))
