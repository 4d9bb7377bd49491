"""The networks of the motion study: several layers computed together, with trained weights.

Weights are torchvision's, files of a folder, or the package of EfficientNet-Lite0.  Random ones
serve as a control alone, and say so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from codec.errors import ModelError
from codec.format.header import Preprocessing, TensorSpec
from codec.models import DEFAULT_MODEL
from codec.models.preprocessing import default_preprocessing, normalise
from codec.models.sources import load_model
from codec.models.split_points import describe_splits
from codec.models.submodels import SplitModel, split_model
from codec.models.weights import weights_hash
from tools.motion_study.settings import NETWORKS, SIZE, Row, Settings

__all__ = ["BATCH", "LAYERS", "MAIN_LAYER", "MAIN_LAYERS", "Network", "every_layer", "load_network"]

BATCH = 8
LAYERS = {
    "resnet34": ("conv1", "add", "add_3", "add_7", "add_12"),
    "densenet121": ("features.transition1", "features.transition2", "features.transition3"),
    "efficientnet_lite0": ("blocks.2", "blocks.4", "blocks.7", "blocks.10", "blocks.14"),
}
MAIN_LAYER = {
    "resnet34": "add_3",
    "densenet121": "features.transition1",
    "efficientnet_lite0": "blocks.4",
}
"""Those of 28x28 samples, n^k = 8."""

STAND_INS = {"da7b64b854f5f5ad", "a9a8860f65be7a70"}
"""Weights known to be distilled from another network, by `weights_hash`, whatever their file."""


class Network:
    """Several layers of one network, computed together.

    Args:
        name: as `load_model` has it.
        model: with its weights.
        layers: splits with one tensor each.
        weights: what they are, in words.
        size: of the frames.
        preprocessing: of the frames; default: what `name` asks for.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        layers: Sequence[str],
        weights: str,
        size: tuple[int, int] = SIZE,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.name, self.weights, self.size = name, weights, size
        self.title = NETWORKS.get(name, name)
        self.hash = weights_hash(model).hex()
        self.preprocessing = preprocessing or default_preprocessing(name, native=False)
        self.layers: dict[str, TensorSpec] = {}
        self.model = model
        halves = {layer: split_model(model, layer, size, name) for layer in layers}
        crossing = {}
        for layer, split in halves.items():
            if len(split.tensors) != 1:
                raise ModelError(f"{name} at {layer}: {len(split.tensors)} tensors cross, not one")
            self.layers[layer] = split.tensors[0]
            crossing[layer] = _outputs(_graph(split))[0].name
        # the halves are parts of one graph, so the longest edge holds the others
        longest = max((_graph(s) for s in halves.values()), key=lambda m: len(m.graph.nodes))
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(longest.graph, copies)
        named = {old.name: new for old, new in copies.items()}
        graph.output(tuple(named[node] for node in crossing.values()))
        self._module = fx.GraphModule(longest, graph)

    def __call__(self, rgb: NDArray[np.uint8]) -> list[Tensor]:
        """Compute the layers' tensors, (N, C, H, W) each, of (N, H, W, 3) uint8 frames."""
        parts = [
            self._module(normalise(rgb[first : first + BATCH], self.preprocessing))
            for first in range(0, len(rgb), BATCH)
        ]
        return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]

    @property
    def stamp(self) -> Row:
        """What every row of this network begins with."""
        return {"network": self.name, "weights": self.weights, "weights_hash": self.hash}

    @property
    def caption(self) -> str:
        """Name and weights, for people."""
        return f"{self.title}, {self.weights}"


def _graph(split: SplitModel) -> fx.GraphModule:
    assert isinstance(split.edge.module, fx.GraphModule)  # of a network that torch.fx traced
    return split.edge.module


def _outputs(module: fx.GraphModule) -> tuple[fx.Node, ...]:
    (last,) = (node for node in module.graph.nodes if node.op == "output")
    found: tuple[fx.Node, ...] = last.args[0]
    return found


def weights_of(name: str, folder: Path | None) -> tuple[str, str]:
    """Find weights: what `load_model` takes, and what they are called.

    Raises:
        click.ClickException: the folder has none, or several.
    """
    if name == DEFAULT_MODEL:
        return "default", "published weights"
    if folder is None:
        return "default", "torchvision"
    found = sorted(
        path for path in folder.glob(f"{name}*") if path.suffix in {".pth", ".pt", ".safetensors"}
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise click.ClickException(
            f"{folder.resolve().name}: expected one {name}*.pth, .pt or .safetensors, found {names}"
        )
    (path,) = found
    return str(path), _described_file(path)


def _described_file(path: Path) -> str:
    """Tell what a file of weights is: torchvision's own carry the start of their SHA-256."""
    named = re.search(r"-([0-9a-f]{8})$", path.stem)
    if named and hashlib.sha256(path.read_bytes()).hexdigest().startswith(named[1]):
        return "torchvision"
    return "distilled stand-in" if "distilled" in path.name else f"local file {path.name}"


@lru_cache(maxsize=3)
def _model(name: str, weights: str) -> nn.Module:
    """Load a model once for several experiments, which do not change it."""
    return load_model(name, weights)


def load_network(
    name: str, settings: Settings, layers: Sequence[str] | None = None, *, control: bool = False
) -> Network:
    """Load a network with trained weights, or, as a control, with random ones.

    Raises:
        click.ClickException: weights cannot be had; it says what to do.
    """
    if control:
        weights, label = f"random:{settings.seed}", "random weights (control)"
    else:
        weights, label = weights_of(name, settings.weights_dir)
    try:
        model = _model(name, weights)
    except ModelError as error:
        remedy = (
            f"give --weights-dir FOLDER with {name}*.pth"
            if weights == "default"
            else "give another --weights-dir"
        )
        reason = str(error).partition(";")[0]  # what follows are options of another command
        reason = reason.replace(weights, Path(weights).name)  # it may come to stand on the page
        raise click.ClickException(f"no weights for {name}; {remedy} ({reason})") from error
    network = Network(name, model, layers or LAYERS[name], label)
    if network.hash in STAND_INS:
        network.weights = "distilled stand-in"
    return network


MAIN_LAYERS = {
    "resnet34": ("add", "add_3", "add_7"),
    "densenet121": ("features.transition1", "features.transition2"),
    "efficientnet_lite0": ("blocks.2", "blocks.4", "blocks.7"),
}
"""Those looked into closely."""


def every_layer(name: str) -> list[str]:
    """Return all layers of a network that are one tensor, in order."""
    if name == "efficientnet_lite0":
        return [f"blocks.{number}" for number in range(16)]
    found = [split for split, tensors in describe_splits(name) if len(tensors) == 1]
    return ["conv1", *found] if name == "resnet34" else found
