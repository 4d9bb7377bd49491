"""Where a model of the list, or in a file, can usefully be cut, and what that costs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, cast

import torch
from torch import fx, nn

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models import DEFAULT_MODEL
from codec.models.costs import SplitCost, costs_of, split_cost
from codec.models.cut import Cut, cut_behind, find_node
from codec.models.detectors import Detector, natural_names
from codec.models.geometry import Geometry, geometries_of
from codec.models.onnx_files import OnnxNetwork, load_onnx
from codec.models.programs import PROGRAM_FILE, Program, export, load_program
from codec.models.published import input_size_of
from codec.models.sources import build, is_file, own_defaults
from codec.models.submodels import graph_of
from codec.models.tracing import TracedModel, UntraceableError, is_tensors

__all__ = ["BUNDLED_SPLITS", "SplitPoint", "describe_costs", "describe_splits"]

BUNDLED_SPLITS: Final = ("blocks.2", "blocks.4", "blocks.7", "blocks.10", "blocks.14")
"""Of the default model: those with a shipped profile."""

SplitPoint = tuple[str, tuple[TensorSpec, ...]]
"""The name of a split, and the tensors that cross it."""

_MAX_TENSORS: Final = 5
"""Of a cut through a program that is found for the list; by name any number may be given."""


def describe_splits(name: str, input_size: tuple[int, int] | None = None) -> list[SplitPoint]:
    """List the useful splits in order, each with its tensors; downloads and computes nothing.

    The bundled ones of the default model; of a detector those with names and the stages of its
    backbone; of a network in a file, or one that torch.fx cannot trace, what crosses between two of
    its operations, where that are few tensors of different strides; else every residual sum; else,
    where a model has none, every block of its architecture (DenseNet's layers, blocks and
    transitions) and every pool; else every convolution.
    Shapes are those at `input_size`, height and width; default: the model's own.

    Raises:
        ModelError: there is no such model, or it has no input size of its own.
    """
    _, cuts = _cuts(name, input_size)
    return [(split, cut.tensors) for split, cut in cuts]


def describe_costs(
    name: str, input_size: tuple[int, int] | None = None
) -> list[tuple[str, tuple[TensorSpec, ...], SplitCost]]:
    """List what `describe_splits` does, and what both halves of each cost.

    Raises:
        ModelError: as there.
    """
    traced, cuts = _cuts(name, input_size)
    costs = costs_of(traced)
    return [(split, cut.tensors, split_cost(traced, cut, costs)) for split, cut in cuts]


def _cuts(
    name: str, input_size: tuple[int, int] | None
) -> tuple[TracedModel, list[tuple[str, Cut]]]:
    model = _without_weights(name)
    own = model.input_size if isinstance(model, Program | OnnxNetwork) else None
    size = input_size or own or input_size_of(name)
    with own_defaults():
        try:
            traced = graph_of(model, size)
        except UntraceableError as error:
            model = export(model, size, str(error))
            traced = model.traced(size)
    geometries = geometries_of(traced)
    if name == DEFAULT_MODEL:
        return traced, [(split, cut_behind(traced, geometries, split)) for split in BUNDLED_SPLITS]
    if isinstance(model, Program) or is_file(name):
        return traced, _usable(traced, geometries, _frontiers(traced, geometries))
    if isinstance(model, Detector):
        natural = natural_names(traced, model)
        stages = [f"backbone.{path}" for path in _stages(model)]
        meant = {key: names for key, names in natural.items() if key != "backbone"}
        return traced, _usable(traced, geometries, stages, meant)
    sums = [node.name for node in traced.nodes if re.fullmatch(r"add(_\d+)?", node.name)]
    layers = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    for candidates in (sums, _blocks(model), layers):
        found = _usable(traced, geometries, candidates)
        if found:
            break
    return traced, found


def _without_weights(name: str) -> nn.Module:
    """Build a model, without values where that is possible."""
    if name.endswith(PROGRAM_FILE):
        return load_program(Path(name))
    if is_file(name):
        return load_onnx(Path(name))
    with own_defaults():
        try:
            with torch.device("meta"):
                return build(name).eval()
        except NotImplementedError:
            # RegNet computes its widths with tensors, which must hold values.
            return build(name).eval()


def _stages(model: Detector) -> list[str]:
    """Paths of the stages of a detector's backbone."""
    backbone = cast("nn.Module", model.network.backbone)
    path, body = next(
        (
            (path, module)
            for path, module in backbone.named_children()
            if path in {"body", "features"}
        ),
        ("", backbone),
    )
    return [f"{path}.{child}" if path else child for child, _ in body.named_children()]


def _frontiers(traced: TracedModel, geometries: Mapping[fx.Node, Geometry]) -> Iterator[str]:
    """Walk through a graph in its order, and name what crosses at each place where that are few
    tensors with a place in the frame, and no two of one stride; of a run of places with tensors of
    the same shapes (a convolution, its bias, its activation) the last, and none of padding.
    """
    order = {node: index for index, node in enumerate(traced.nodes)}
    open_until: dict[fx.Node, int] = {}
    previous: tuple[object, str] | None = None
    for index, node in enumerate(traced.nodes):
        open_until = {source: last for source, last in open_until.items() if last > index}
        if node in traced.input_free or not is_tensors(traced.values[node.name]):
            continue
        readers = [
            order[user]
            for user in node.users
            if user is traced.output or is_tensors(traced.values[user.name])
        ]  # of its elements: of its size the cloud knows without it
        if readers:
            open_until[node] = max(readers)
        crossing = list(open_until)
        strides = [geometries[source].y.stride for source in crossing if source in geometries]
        sound = 0 < len(crossing) <= _MAX_TENSORS and len(set(strides)) == len(crossing)
        shapes = tuple(
            tuple(value.shape) if isinstance(value, torch.Tensor) else None
            for value in (traced.values[source.name] for source in crossing)
        )
        sound = sound and None not in shapes
        if previous is not None and (not sound or previous[0] != shapes):
            yield previous[1]
        sound = sound and not any(".pad." in str(source.target) for source in crossing)
        usable = sound and node.op != "placeholder" and traced.inputs[0] not in open_until
        names = "+".join(source.name for source in crossing)
        previous = (shapes, names) if usable else None


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
    traced: TracedModel,
    geometries: Mapping[fx.Node, Geometry],
    candidates: Iterable[str],
    meant: Mapping[str, str] | None = None,
) -> list[tuple[str, Cut]]:
    """Keep what can be coded, in the order of the graph; of several at one place the first.

    Args:
        traced: the graph.
        geometries: of its nodes.
        candidates: splits.
        meant: further ones that have a name of their own, which come last.
    """
    order = {node: index for index, node in enumerate(traced.nodes)}
    found: dict[int, tuple[str, Cut]] = {}
    for split in candidates:
        try:
            place = max(order[find_node(traced, name)] for name in split.split("+"))
            cut = cut_behind(traced, geometries, split)
        except ModelError:
            continue
        found.setdefault(place, (split, cut))
    named = []
    for key, split in (meant or {}).items():
        try:
            named.append((key, cut_behind(traced, geometries, split)))
        except ModelError:
            continue
    return [found[place] for place in sorted(found)] + named
