"""Where a model of the list can usefully be cut."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import fx, nn

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models import DEFAULT_MODEL
from codec.models.cut import cut_behind, find_node
from codec.models.geometry import Geometry, geometries_of
from codec.models.preprocessing import default_preprocessing
from codec.models.sources import build, own_defaults
from codec.models.tracing import TracedModel

__all__ = ["BUNDLED_SPLITS", "SplitPoint", "describe_splits"]

BUNDLED_SPLITS: Final = ("blocks.2", "blocks.4", "blocks.7", "blocks.10", "blocks.14")
"""Of the default model: those with a shipped profile."""

SplitPoint = tuple[str, tuple[TensorSpec, ...]]
"""The name of a split, and the tensors that cross it."""


def describe_splits(name: str, input_size: tuple[int, int] | None = None) -> list[SplitPoint]:
    """List the useful splits in order, each with its tensors; downloads and computes nothing.

    The bundled ones of the default model; else every residual sum; else, where a model has none,
    every block of its architecture (DenseNet's layers, blocks and transitions) and every pool; else
    every convolution (the one of a vision transformer).
    Shapes are those at `input_size`, height and width; default: the model's own.
    """
    if input_size is None:
        input_size = (default_preprocessing(name, native=False).crop,) * 2
    with own_defaults():
        try:
            with torch.device("meta"):
                model = build(name).eval()
        except NotImplementedError:
            # RegNet computes its widths with tensors, which must hold values.
            model = build(name).eval()
    traced = TracedModel(model, input_size)
    geometries = geometries_of(traced)
    if name == DEFAULT_MODEL:
        return [(split, cut_behind(traced, geometries, split).tensors) for split in BUNDLED_SPLITS]
    sums = [node.name for node in traced.nodes if re.fullmatch(r"add(_\d+)?", node.name)]
    layers = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    for candidates in (sums, _blocks(model), layers):
        found = _usable(traced, geometries, candidates)
        if found:
            break
    return found


def _blocks(model: nn.Module) -> list[str]:
    """Paths of the architecture's own modules, outermost or in plain containers, and of pools."""
    modules = dict(model.named_modules())
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

    def is_block(path: str) -> bool:
        module = modules[path]
        if isinstance(module, nn.MaxPool2d):
            return True
        parents = path.split(".")[:-1]
        return type(module).__module__.startswith("torchvision.models.") and all(
            isinstance(modules[".".join(parents[: depth + 1])], containers)
            for depth in range(len(parents))
        )

    return [path for path in modules if path and is_block(path)]


def _usable(
    traced: TracedModel, geometries: Mapping[fx.Node, Geometry], candidates: Iterable[str]
) -> list[SplitPoint]:
    """Keep what can be coded, in the order of the graph; of several at one place the first."""
    order = {node: index for index, node in enumerate(traced.nodes)}
    found: dict[int, SplitPoint] = {}
    for split in candidates:
        try:
            place = order[find_node(traced, split)]
            tensors = cut_behind(traced, geometries, split).tensors
        except ModelError:
            continue
        found.setdefault(place, (split, tensors))
    return [found[place] for place in sorted(found)]
