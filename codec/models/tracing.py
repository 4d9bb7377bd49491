"""A model -> its graph, by `torch.fx`, with shapes and without side effects.

Both halves of a model are cut from this graph, so it must do what the model does: models that draw
random numbers, change their own state or overwrite what somebody still reads are refused; other
in-place operations become ordinary ones.  Models with data-dependent control flow cannot be traced.
"""

from __future__ import annotations

import copy
import operator
import re
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from codec.errors import ModelError
from codec.models.boundary import as_model_error, first_line, quiet

__all__ = [
    "TracedModel",
    "UntraceableError",
    "ancestors",
    "image_inputs",
    "is_tensors",
    "trace",
    "unwrapped",
    "unwrapped_name",
]

_IN_PLACE: Final = re.compile(r"[a-z0-9_]*[a-z0-9]_")


class _Proxy(fx.Proxy):
    """Notes `a += b`, of which fx makes an addition: other names of `a` keep the old value then."""

    def __iadd__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.iadd, "add", other)

    def __isub__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.isub, "sub", other)

    def __imul__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.imul, "mul", other)

    def __itruediv__(self, other: object) -> fx.Proxy:
        return self._augmented(operator.itruediv, "truediv", other)

    def _augmented(self, target: Callable[..., Any], name: str, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", target, (self, other), {}, name=name)


_AUGMENTED: Final = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _NoChance(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operations that draw random numbers, which no two runs would agree on."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's signature
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise ModelError(
                f"the model draws random numbers when it runs ({func}), so that every call gives "
                "another output; a functional dropout needs training=self.training"
            )
        return func(*args, **(kwargs or {}))


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every node's value by name."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's signature
        self.values[n.name] = value = super().run_node(n)
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - likewise
        value = super().get_attr(target, args, kwargs)
        return value.to("meta") if isinstance(value, torch.Tensor) else value


class UntraceableError(ModelError):
    """A network that torch.fx cannot follow, or not in two halves; torch.export may."""


class TracedModel:
    """A graph with one image as its input, and the value of every node in it at one input size.

    `values` are those of a batch of two, `other_values` of a batch of three: they tell what depends
    on the batch (a size) from what does not (a constant).  Values have a shape and a type, and no
    elements.  `input_free` are the nodes that are computed from weights and constants alone.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        values: dict[str, Any],
        other_values: Callable[[], dict[str, Any]],
    ) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        self.inputs = image_inputs(module)
        self.output = self.nodes[-1]
        self.values, self._other_values = values, other_values
        self.input_free: set[fx.Node] = set()
        for node in self.nodes:
            if node.op != "placeholder" and all(
                source in self.input_free for source in node.all_input_nodes
            ):
                self.input_free.add(node)

    @cached_property
    def other_values(self) -> dict[str, Any]:
        """Values at a batch of three; most cuts need none of them."""
        return self._other_values()


def image_inputs(module: fx.GraphModule) -> list[fx.Node]:
    """Return the one input of a graph.

    Raises:
        ModelError: it has another number of them.
    """
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise UntraceableError(f"{type(module).__name__} takes {len(inputs)} inputs, not one image")
    return inputs


def trace(model: nn.Module, input_size: tuple[int, int]) -> TracedModel:
    """Trace a network by torch.fx.

    Raises:
        ModelError: it cannot be traced, does not run at this size, or is one whose halves could not
            equal it.
    """
    kind = type(model).__name__
    with (
        quiet(),
        as_model_error(
            f"{kind} cannot be traced by torch.fx",
        ),
    ):
        states = _states(model)
        tracer = _Tracer()
        kept = _kept_by(model)
        try:
            with _NoChance():  # type: ignore[no-untyped-call]
                graph = tracer.trace(model)
        except ModelError:
            raise
        except Exception as error:  # the network's own code, which meets a proxy
            raise UntraceableError(
                f"{kind} cannot be traced by torch.fx: {first_line(error)}"
            ) from error
        finally:
            for values, before in kept:
                values.clear()
                values.update(before)
        module = fx.GraphModule(tracer.root, graph, kind)
    for path, state in _states(model).items():
        if states.get(path, state) != state:
            raise ModelError(
                f"{kind} changes its {path} when it runs, which its halves would not do "
                "alike; a model that is cut must not change"
            )
    written = _make_functional(module)
    image_inputs(module)
    values = _values_at(module, 2, input_size)
    _refuse_hidden_writes(module, values, written)
    return TracedModel(module, values, lambda: _values_at(module, 3, input_size))


def _values_at(module: fx.GraphModule, batch: int, input_size: tuple[int, int]) -> dict[str, Any]:
    """Run the graph on meta tensors: shapes without arithmetic or a copy of the weights."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), requires_grad=False
        )
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    height, width = input_size
    with (
        quiet(),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.device("meta"),  # for what the model makes on its way
        _NoChance(),  # type: ignore[no-untyped-call]
        as_model_error(
            f"the model does not run on {width}x{height} input, float32 RGB",
            "; give frames of a size that it takes (where it has one, without --native)",
        ),
    ):
        recorder = _Recorder(copy.deepcopy(module, memo))
        recorder.run(torch.empty(batch, 3, height, width, dtype=torch.float32, device="meta"))
    return recorder.values


def _refuse_hidden_writes(
    module: fx.GraphModule, values: dict[str, Any], written: dict[fx.Node, fx.Node]
) -> None:
    """Refuse in-place operations that reach further than `_make_functional` can follow.

    Args:
        module: the graph.
        values: of its nodes.
        written: in-place node -> what it overwrites.
    """
    nodes = list(module.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    places = defaultdict(set)
    for node in nodes:
        value = values[node.name]
        if isinstance(value, torch.Tensor):
            places[_storage(value)].add(node)
    for node, overwritten in written.items():
        value = values[overwritten.name]
        if not isinstance(value, torch.Tensor):
            continue
        # `_make_functional` has seen to the readers of the name itself, but for `a += b`
        followed = set() if node.target in _AUGMENTED.values() else {overwritten}
        for other in places[_storage(value)] - followed:
            if order[other] < order[node] and any(order[u] > order[node] for u in other.users):
                raise ModelError(
                    f"{node.name} writes into memory that {other.name} shares and that is read "
                    "later; write the model without in-place operations there"
                )


def _make_functional(traced: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Replace in-place operations, by which the cloud would write into its caller's tensors.

    Whoever used the overwritten value after the write uses its result instead.  Modules are shared
    with the caller's model, so a changed one is a copy of its own.  (`a += b` is another matter:
    it becomes the addition that it is, which `_refuse_hidden_writes` looks at.)

    Returns:
        Nodes that were in-place, and what they overwrote.
    """
    written = {}
    nodes = list(traced.graph.nodes)
    order = {node: index for index, node in enumerate(nodes)}
    for node in nodes:
        if node.op == "call_function" and node.target in _AUGMENTED:
            written[node] = node.all_input_nodes[0]
            node.target = _AUGMENTED[node.target]
            continue
        if node.kwargs.get("out") is not None:
            raise ModelError(f"{node.name} writes its result with out=, which tracing leaves out")
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            if not getattr(module, "inplace", False):
                continue
            own = copy.copy(module)
            own.inplace = False  # type: ignore[assignment]
            node.target = f"functional_{node.name}"
            traced.add_submodule(node.target, own)
        elif node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        elif node.op == "call_method" and _IN_PLACE.fullmatch(str(node.target)):
            node.target = str(node.target)[:-1]
        elif node.op == "call_function" and _IN_PLACE.fullmatch(_name_of(node.target)):
            name = _name_of(node.target)
            found = getattr(functional, name[:-1], getattr(torch, name[:-1], None))
            if found is None:
                raise ModelError(f"{node.name} calls {name}, which overwrites what it is given")
            node.target = found
        else:
            continue
        overwritten = node.all_input_nodes[0]
        written[node] = overwritten
        for user in list(overwritten.users):
            if order[user] > order[node]:
                user.replace_input_with(overwritten, node)
    traced.recompile()
    return written


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside what DataParallel and torch.compile put around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def unwrapped_name(path: str) -> str:
    """Give the name that a module or parameter has without such wrappers, wherever they sit."""
    return ".".join(
        part
        for place, part in enumerate(path.split("."))
        if part != "_orig_mod" and (place, part) != (0, "module")
    )


def _states(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and version of every parameter and buffer: they tell whether it was written to."""
    return {
        path: (id(tensor), 0 if tensor.is_inference() else tensor._version)
        for path, tensor in (*model.named_parameters(), *model.named_buffers())
    }


def _kept_by(model: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Return what modules keep for later, as LeViT its biases, and a copy: they would keep what
    only a trace knows.
    """
    return [
        (value, dict(value))
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, dict) and not name.startswith("_")
    ]


def _name_of(target: object) -> str:
    return str(getattr(target, "__name__", ""))


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def is_tensors(value: object) -> bool:
    """Whether a value is a tensor or a tuple of tensors (what `chunk` returns; attention, whose
    weights nobody asked for, gives None in their place).
    """
    if isinstance(value, (tuple, list)):
        tensors = [item for item in value if item is not None]
        return bool(tensors) and all(isinstance(item, torch.Tensor) for item in tensors)
    return isinstance(value, torch.Tensor)


def ancestors(node: fx.Node) -> set[fx.Node]:
    """Collect the node and everything that it is computed from."""
    found = {node}
    waiting = [node]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found
