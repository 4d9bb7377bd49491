"""A network that no tracer follows -> the graph of what it does with an image of one size.

It is run once, and of its operations those are noted down that work on elements of the image.
Numbers that it makes of sizes, in Python or as tensors, are constants in the graph; of a network
that asks for elements themselves, to decide by them, there is none.
"""

from __future__ import annotations

import operator
import re
from typing import Any, Final

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

from codec.errors import ModelError

__all__ = ["recorded"]

_READS: Final = frozenset(
    {"item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__"}
    | {"nonzero", "argwhere", "unique", "masked_select", "nms", "__array__", "equal", "allclose"}
)
"""Functions by which a network gets at elements, or whose shapes depend on them."""
_IN_PLACE: Final = re.compile(
    r"(?!__).*[a-z0-9]_|__setitem__|__i(add|sub|mul|truediv|floordiv|and|or|xor)__"
)


def recorded(model: nn.Module, images: torch.Tensor) -> fx.GraphModule:
    """Record what a network does with images like these, whose values do not matter.

    Raises:
        ModelError: it decides by elements of the image, or overwrites them.
    """
    recorder = _Recorder(model, images)
    with torch.no_grad(), recorder:
        result = model(images)
    return recorder.finished(result)


class _Recorder(TorchFunctionMode):
    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        super().__init__()
        self._kind, self._graph = type(model).__name__, fx.Graph()
        self._nodes: dict[int, fx.Node] = {}
        self._kept: list[torch.Tensor] = []  # else another tensor could have the place of one
        self._constants: dict[int, tuple[fx.Node, torch.Tensor]] = {}
        self._note(images, self._graph.placeholder("images"))

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - likewise
        kwargs = kwargs or {}
        given = [value for value in tree_flatten((args, kwargs))[0] if id(value) in self._nodes]
        name = str(getattr(func, "__name__", func))
        if given and name in _READS:
            raise ModelError(f"{name} reads elements of {self._nodes[id(given[0])].name}")
        overwrites = _IN_PLACE.fullmatch(name) or kwargs.get("inplace") or "out" in kwargs
        if given and overwrites:
            raise ModelError(f"{name} overwrites {self._nodes[id(given[0])].name}")
        result = func(*args, **kwargs)
        several = isinstance(result, (tuple, list)) and not isinstance(result, torch.Size)
        results = result if several else [result]
        if not given or not any(isinstance(value, torch.Tensor) for value in results):
            return result
        target = getattr(operator, name, func) if name.startswith("__") else func
        if target is operator.getitem and isinstance(args[1], list):
            args = args[0], tuple(args[1])  # as torch took it, of which it warns
        node = self._graph.call_function(target, *map_aggregate((args, kwargs), self._noted))
        if not several:
            self._note(result, node)
            return result
        node.meta["val"] = tuple(_shape_of(value) for value in results)
        for place, value in enumerate(results):
            if isinstance(value, torch.Tensor):
                self._note(value, self._graph.call_function(operator.getitem, (node, place)))
        return result

    def finished(self, result: Any) -> fx.GraphModule:  # noqa: ANN401 - the network's
        """Return the graph, with what the network returned."""
        self._graph.output(map_aggregate(result, self._noted))
        self._graph.eliminate_dead_code()
        root = nn.Module()
        for node, tensor in self._constants.values():
            root.register_buffer(str(node.target), tensor.detach())
        return fx.GraphModule(root, self._graph, self._kind)

    def _note(self, tensor: torch.Tensor, node: fx.Node) -> None:
        node.meta["val"] = _shape_of(tensor)
        self._nodes[id(tensor)] = node
        self._kept.append(tensor)

    def _noted(self, value: Any) -> Any:  # noqa: ANN401 - whatever functions take
        """Return a tensor's node, which is a constant if it does not come of the image."""
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in self._nodes:
            return self._nodes[id(value)]
        if not (value.ndim or value.is_floating_point()):
            return value.item()  # of a slice, say, or an axis
        if id(value) not in self._constants:
            node = self._graph.get_attr(f"constant_{len(self._constants)}")
            node.meta["val"] = _shape_of(value)
            self._constants[id(value)] = node, value
        return self._constants[id(value)][0]


def _shape_of(value: object) -> object:
    return value.detach().to("meta") if isinstance(value, torch.Tensor) else value
