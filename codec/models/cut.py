"""A graph cut behind a node (`add_3`), a module (`features.transition1`) or several of them
(`add_11+add_18+add_27`): what is on which side.

The edge is what is named and what that is computed from; everything else is the cloud.  Behind one
name every tensor that the cloud takes from the edge crosses, so a cut inside a DenseNet block gives
several.  Several names are all that crosses, in their order, or the cut is refused.  Both halves
run the operations of the whole graph in its own order, hence equal it bit for bit on one machine.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import fx

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models.boundary import dtype_name, first_line
from codec.models.geometry import Geometry
from codec.models.layouts import Layout, declared_tokens, layout_of
from codec.models.tracing import (
    TracedModel,
    UntraceableError,
    ancestors,
    is_tensors,
    unwrapped_name,
)

__all__ = ["Cut", "Locate", "cloud_graph", "cut_behind", "edge_graph", "find_node"]

# Gives a node's counterpart in a new graph, or the constant in its place.
_Resolve = Callable[[fx.Node], Any]


@dataclass(frozen=True, slots=True)
class Cut:
    """The nodes of the edge, those of them that cross to the cloud, in order, how these are laid
    out, where not as (N, C, H, W), and the specs of the tensors that this makes.
    """

    edge: set[fx.Node]
    crossing: list[fx.Node]
    tensors: tuple[TensorSpec, ...]
    layouts: Mapping[fx.Node, Layout] = field(default_factory=dict)


# Gives the geometry of a node that no rule knows, or refuses it.
Locate = Callable[[TracedModel, "Cut"], Geometry]


def cut_behind(
    traced: TracedModel,
    geometries: Mapping[fx.Node, Geometry],
    split: str,
    *,
    given: Mapping[str, Geometry] | None = None,
    locate: Locate | None = None,
) -> Cut:
    """Cut a graph behind what `split` names, one value or several joined by `+`.

    Args:
        traced: the graph.
        geometries: of its nodes, as derived.
        split: the names.
        given: geometries by the names of tensors, which come before derived ones.
        locate: finds that of a tensor without one, by the cut that gives it alone.

    Raises:
        ModelError: it names nothing, what crosses there cannot be coded, or several names do not
            separate the edge from the cloud.
    """
    names = split.split("+")
    named = {find_node(traced, name): name for name in names}
    if len(named) < len(names):
        raise ModelError(f"split {split!r} names one value twice; name each once")
    edge = set[fx.Node]().union(*map(ancestors, named))
    cloud = ancestors(traced.output) - edge
    # Of a tuple that crosses (ShuffleNet's `chunk`) each item is coded: the edge takes it out.
    items = {
        node
        for node in cloud
        if node.target is operator.getitem
        and node.args[0] in edge
        and isinstance(traced.values[cast("fx.Node", node.args[0]).name], (tuple, list))
        and is_tensors(traced.values[node.name])
    }
    edge |= items
    cloud -= items
    taken = {
        source
        for node in cloud
        if node is traced.output or is_tensors(traced.values[node.name])
        for source in node.all_input_nodes
        if source in edge | set(traced.inputs)
        and source not in traced.input_free
        and is_tensors(traced.values[source.name])
    }
    if traced.inputs[0] in taken:
        raise ModelError(
            f"split {split!r}: the cloud would need the input image itself; cut behind its last use"
        )
    crossing = [node for node in traced.nodes if node in taken]
    if not crossing:
        raise ModelError(f"split {split!r}: nothing crosses it; cut in front of the model's output")
    if len(named) > 1:
        crossing = _as_named(crossing, items, named, split)
    specs: list[TensorSpec] = []
    layouts = {}
    for node in crossing:
        name = named.get(node, node.name)
        _refuse_type(traced, node, split)
        geometry = _geometry_of(
            traced, Cut(edge, [node], ()), split, geometries, (given or {}).get(name), locate
        )
        layout = layout_of(geometry, traced.values[node.name])
        if layout is None:
            raise _refused_shape(traced, node, split)
        layouts[node] = layout
        specs += _specs(traced, geometry, layout, node, split, name)
    unknown = set(given or {}) - {spec.name for spec in specs}
    if unknown:
        raise ModelError(
            f"geometry of {min(unknown)!r}, which does not cross split {split!r}: that are "
            f"{', '.join(spec.name for spec in specs)}"
        )
    return Cut(edge, crossing, tuple(specs), layouts)


def _geometry_of(
    traced: TracedModel,
    cut: Cut,
    split: str,
    geometries: Mapping[fx.Node, Geometry],
    given: Geometry | None,
    locate: Locate | None,
) -> Geometry:
    """Return where the samples of the one tensor of a cut lie: as given, derived or measured."""
    (node,) = cut.crossing
    shape = traced.values[node.name].shape
    if given is not None and len(shape) == 3:
        size = traced.values[traced.inputs[0].name].shape[-2:]
        tokens = declared_tokens(given, shape, (size[0], size[1]))
        if tokens is None:
            raise ModelError(
                f"split {split!r}: {shape[1]} tokens of {node.name} are no grid of strides "
                f"{given.y.stride} and {given.x.stride} over {size[1]}x{size[0]}; give others"
            )
        return tokens
    found = given or geometries.get(node)
    if found is not None:
        return found
    if len(shape) != 4:
        raise _refused_shape(traced, node, split)
    return _located(traced, cut, split, locate)


def _located(traced: TracedModel, cut: Cut, split: str, locate: Locate | None) -> Geometry:
    """Ask where the samples of a tensor lie that no rule has placed."""
    (node,) = cut.crossing
    why = "global pooling, attention or an unknown operation lies before it"
    if locate is not None:
        try:
            return locate(traced, cut)
        except ModelError as error:
            why += f"; {first_line(error)}; where it has one, say so by geometry="
    raise ModelError(
        f"split {split!r}: the samples of {node.name} have no place in the frame ({why})"
    )


def _as_named(
    crossing: Sequence[fx.Node], items: set[fx.Node], named: Mapping[fx.Node, str], split: str
) -> list[fx.Node]:
    """Bring what crosses into the order of its names, of a tuple all items at the place of its own.

    Raises:
        ModelError: something crosses without a name, or something named does not cross.
    """
    places = {node: place for place, node in enumerate(named)}

    def owner(node: fx.Node) -> fx.Node:
        if node in items and node not in places:
            return cast("fx.Node", node.args[0])
        return node

    names = list(named.values())
    for node in crossing:
        if owner(node) not in places:
            raise ModelError(
                f"split {split!r}: {node.name!r} is needed behind the cut and is none of "
                f"{', '.join(names)}; add it, or cut elsewhere"
            )
    used = {owner(node) for node in crossing}
    for node, name in named.items():
        if node not in used:
            raise ModelError(
                f"split {split!r}: {name!r} is not needed behind the cut, where the others "
                "suffice; leave it out"
            )
    return sorted(crossing, key=lambda node: places[owner(node)])


def find_node(traced: TracedModel, split: str) -> fx.Node:
    """Find the node that `split` names: itself, or the last one computed inside a module."""
    inside: dict[str, fx.Node] = {}
    for node in traced.nodes:
        if node.op in {"placeholder", "output"}:
            continue
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            inside[path] = node
            inside[_spelled(path)] = node
            inside[unwrapped_name(path)] = node
    names = {
        node.name: node
        for node in traced.nodes
        if node.op not in {"placeholder", "output", "get_attr"}
    }
    wanted = unwrapped_name(split)
    found = names.get(split) or inside.get(split) or inside.get(wanted)
    if found is None:
        near = difflib.get_close_matches(
            split, dict.fromkeys([*map(_spelled, inside), *names]), n=3, cutoff=0.4
        )
        hint = f"nearest: {', '.join(near)}" if near else "give a node or a module of the model"
        raise ModelError(f"split {split!r} names no node and no module of the model; {hint}")
    return found


def _spelled(path: str) -> str:
    """Give a module's public name: EfficientNet-Lite's `_blocks.4` is `blocks.4` here."""
    return path.removeprefix("_")


def _refuse_type(traced: TracedModel, node: fx.Node, split: str) -> None:
    value = traced.values[node.name]
    known = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    if not known or value.ndim not in {3, 4}:
        raise _refused_shape(traced, node, split)


def _refused_shape(traced: TracedModel, node: fx.Node, split: str) -> ModelError:
    value = traced.values[node.name]
    found = (
        f"{dtype_name(value)} of shape {tuple(value.shape)}"
        if isinstance(value, torch.Tensor)
        else "a tuple"
    )
    tokens = isinstance(value, torch.Tensor) and value.ndim == 3
    remedy = "; if these are tokens of a grid (N,T,C), say its strides by geometry="
    return ModelError(
        f"split {split!r}: {node.name} crosses it, "
        f"which is not a float32 tensor N,C,H,W but {found}{remedy if tokens else ''}"
    )


def _specs(
    traced: TracedModel, geometry: Geometry, layout: Layout, node: fx.Node, split: str, name: str
) -> list[TensorSpec]:
    channels, height, width = layout.shape(traced.values[node.name].shape)
    y, x = geometry.y, geometry.x
    if y.stride.denominator != 1 or x.stride.denominator != 1:
        raise ModelError(
            f"split {split!r}: the samples of {node.name} lie {float(y.stride):g} and "
            f"{float(x.stride):g} pixels apart, expected whole numbers"
        )
    strides = int(y.stride), int(x.stride)
    try:
        grid = TensorSpec(
            name, channels, height, width, *strides, round(y.offset2), round(x.offset2)
        )
        if not layout.front:
            return [grid]
        rows, columns = traced.values[traced.inputs[0].name].shape[-2:]
        step = max(columns // layout.front, 1)  # side by side over the frame, which they are not of
        front = TensorSpec(
            f"{name}.front", channels, 1, layout.front, rows, step, rows - 1, step - 1
        )
    except ValueError as error:
        raise ModelError(f"split {split!r}: {first_line(error)}") from error
    return [grid, front]


# --- the halves ---


def edge_graph(traced: TracedModel, cut: Cut) -> fx.GraphModule:
    """Build the graph from the image to the tensors that cross."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in traced.nodes:
        if node in cut.edge:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    crossing: list[fx.Node] = []
    for node in cut.crossing:
        layout = cut.layouts.get(node)
        crossing += [copies[node]] if layout is None else layout.split(graph, copies[node])
    graph.output(tuple(crossing))
    return fx.GraphModule(traced.module, graph, class_name="EdgeGraph")


def cloud_graph(traced: TracedModel, cut: Cut) -> fx.GraphModule:
    """Build the graph from the tensors that cross to the model's output."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    given = {}
    for node in cut.crossing:
        given[node] = [graph.placeholder(node.name)]
        if cut.layouts[node].front:
            given[node].append(graph.placeholder(f"{node.name}_front"))
    for node, tensors in given.items():
        copies[node] = cut.layouts[node].joined(graph, tensors)
    witness = copies[cut.crossing[0]]
    live = ancestors(traced.output)

    def resolve(node: fx.Node) -> Any:  # noqa: ANN401 - a node, or the constant in its place
        if node in copies:
            return copies[node]
        if node not in traced.input_free and not is_tensors(traced.values[node.name]):
            return _shape_value(traced, node, graph, witness, resolve)
        copies[node] = graph.node_copy(node, resolve)
        return copies[node]

    for node in traced.nodes[:-1]:
        computed = node in live and node not in cut.edge and node.op != "placeholder"
        if computed and is_tensors(traced.values[node.name]):
            resolve(node)
    graph.node_copy(traced.output, resolve)
    return fx.GraphModule(traced.module, graph, class_name="CloudGraph")


def _shape_value(
    traced: TracedModel, node: fx.Node, graph: fx.Graph, witness: fx.Node, resolve: _Resolve
) -> Any:  # noqa: ANN401 - a node or a constant
    """Give a number or shape to the cloud: a constant, or made from a coded batch's size."""
    two, three = traced.values[node.name], traced.other_values[node.name]
    if isinstance(two, (torch.SymInt, torch.SymFloat, torch.SymBool)):  # known when it runs
        return graph.node_copy(node, resolve)
    if isinstance(two, torch.device):  # here that of the meta tensors
        return graph.call_function(getattr, (witness, "device"))
    if two == three:
        return tuple(two) if isinstance(two, tuple) else two
    if (two, three) == (2, 3):
        return graph.call_method("size", (witness, 0))
    if isinstance(two, tuple) and (two[0], three[0]) == (2, 3) and two[1:] == three[1:]:
        return graph.call_function(_with_batch, (witness, tuple(two[1:])))
    if any(is_tensors(traced.values[source.name]) for source in node.all_input_nodes):
        raise UntraceableError(
            f"the cloud needs {node.name}, which cannot be had from the coded tensors"
        )
    return graph.node_copy(node, resolve)


def _with_batch(tensor: torch.Tensor, rest: Sequence[int]) -> torch.Size:
    return torch.Size((tensor.size(0), *rest))
