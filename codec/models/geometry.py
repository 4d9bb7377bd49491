"""Where the samples of a tensor lie in the frame: stride n^k and offset, derived from the graph.

They follow from the strides, kernels and paddings on the way.  Tensors without a place in the frame
(behind global pooling, in windowed attention, behind an operation without a rule) have none.

Motion of v input pixels is motion of v / n^k in the tensor: Ulhaq and Bajić 2021,
arXiv:2102.04018, equation (12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from torch import fx, nn
from torch.nn import functional

from codec.models.tracing import TracedModel, is_tensors

__all__ = ["Axis", "Geometry", "geometries_of"]

# Operations that leave every sample where it is, by the name of the function, method or (in lower
# case) module.
# fmt: off
_POINTWISE: Final = frozenset({
    "add", "sub", "mul", "div", "truediv", "pow", "neg", "abs", "exp", "sqrt", "rsqrt", "clamp",
    "clip", "sigmoid", "tanh", "relu", "relu6", "leaky_relu", "leakyrelu", "elu", "selu", "celu",
    "silu", "gelu", "mish", "hardswish", "hardsigmoid", "hardtanh", "softplus", "prelu",
    "logsigmoid", "dropout", "dropout2d", "alphadropout", "feature_dropout", "stochastic_depth",
    "batch_norm", "batchnorm2d", "group_norm", "groupnorm", "local_response_norm",
    "localresponsenorm", "identity", "contiguous", "clone", "detach", "float", "to", "maximum",
    "minimum", "cat", "concat", "concatenate", "chunk", "split", "getitem", "unsqueeze",
    "squeeze",
})
# fmt: on
# Operations that mix along the last axis only, harmless while that axis is the channels
# (ConvNeXt's NHWC stretches).
_LAST_AXIS: Final = frozenset({"layer_norm", "layernorm", "linear", "rms_norm", "rmsnorm"})
_PADS: Final = frozenset(
    {"pad", "zeropad2d", "constantpad2d", "reflectionpad2d", "replicationpad2d", "circularpad2d"}
)
_POOLS: Final = frozenset({"max_pool2d", "maxpool2d", "avg_pool2d", "avgpool2d"})


def geometries_of(traced: TracedModel) -> dict[fx.Node, Geometry]:
    """Derive the geometry of every node whose samples have a place in the frame."""
    derivation = _Derivation(traced)
    for node in traced.nodes:
        geometry = derivation.derive(node)
        if geometry is not None:
            derivation.geometries[node] = geometry
    return derivation.geometries


@dataclass(frozen=True, slots=True)
class Axis:
    """Sample j is centred on input pixel j * stride + offset2 / 2 and sees `field` of them."""

    stride: int = 1
    offset2: int = 0
    field: int = 1

    def windowed(self, kernel: int, stride: int, pad: int, dilation: int) -> Axis:
        """Behind a convolution or pool."""
        span = (kernel - 1) * dilation
        return Axis(
            self.stride * stride,
            self.offset2 + self.stride * (span - 2 * pad),
            self.field + self.stride * span,
        )

    def padded(self, before: int) -> Axis:
        """Behind a padding by `before` samples at the low end."""
        return replace(self, offset2=self.offset2 - 2 * self.stride * before)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Both axes, and which dimensions of the tensor they are, counted from the end."""

    y: Axis
    x: Axis
    dims: tuple[int, int] = (-2, -1)

    def windowed(self, kernel: object, stride: object, pad: object, dilation: object) -> Geometry:
        """Behind a convolution or pool, whose arguments are one number or one per axis."""
        kernels, strides, dilations = _pair(kernel), _pair(stride), _pair(dilation)
        if isinstance(pad, str):
            pads = (0, 0)
            if pad == "same":  # the smaller half of an odd total comes first
                pads = (dilations[0] * (kernels[0] - 1) // 2, dilations[1] * (kernels[1] - 1) // 2)
        else:
            pads = _pair(pad)
        return Geometry(
            self.y.windowed(kernels[0], strides[0], pads[0], dilations[0]),
            self.x.windowed(kernels[1], strides[1], pads[1], dilations[1]),
        )

    def extent(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """Height and width of a tensor of this geometry and `shape`; None if it has none."""
        if len(shape) < -min(self.dims):
            return None
        return shape[self.dims[0]], shape[self.dims[1]]


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    items = cast("Sequence[int]", value)
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _merged(geometries: Iterable[Geometry]) -> Geometry | None:
    """Where the samples of a sum or concatenation lie: None if the branches disagree in stride.

    Where branches of one stride differ in offset, the one with the largest receptive field
    decides, per axis: it is the branch that looks at its surroundings, and most of what moves in
    the tensor comes from it.
    """
    first, *others = geometries
    y, x = first.y, first.x
    for other in others:
        if (other.y.stride, other.x.stride, other.dims) != (y.stride, x.stride, first.dims):
            return None
        y = max(y, other.y, key=lambda axis: axis.field)
        x = max(x, other.x, key=lambda axis: axis.field)
    return Geometry(y, x, first.dims)


@dataclass(frozen=True, slots=True)
class _Operation:
    """A node, the name of what it does, the module if it calls one, and those of the nodes that it
    reads whose samples have a place.
    """

    node: fx.Node
    name: str
    module: nn.Module | None
    sources: list[fx.Node]


class _Derivation:
    """The geometries of a graph's nodes, derived one after the other; a rule per kind of operation.

    A rule returns None where samples are mixed in a way that leaves them no place.
    """

    def __init__(self, traced: TracedModel) -> None:
        self._module, self._values = traced.module, traced.values
        self.geometries: dict[fx.Node, Geometry] = {}

    def derive(self, node: fx.Node) -> Geometry | None:
        """Return where the samples of a node's value lie, or None if that cannot be told."""
        value = self._values[node.name]
        if not is_tensors(value):
            return None
        if node.op == "placeholder":
            return Geometry(Axis(), Axis())
        sources = [source for source in node.all_input_nodes if source in self.geometries]
        if not sources or node.op == "output":
            return None
        module = self._module.get_submodule(str(node.target)) if node.op == "call_module" else None
        operation = _Operation(node, _name(node, module), module, sources)
        rule = _RULES.get(operation.name)
        found = None if rule is None else rule(self, operation)
        if found is None:
            return None
        outputs = value if isinstance(value, (tuple, list)) else (value,)
        return found if all(found.extent(output.shape) is not None for output in outputs) else None

    def _argument(self, node: fx.Node, position: int, name: str, default: object) -> object:
        """An operation's argument, with what the graph computes (a weight, a padding) by value."""
        given: Any = (
            node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
        )
        return fx.node.map_arg(given, lambda source: self._values[source.name])

    def behind_window(self, operation: _Operation) -> Geometry | None:
        """Of a convolution or pool."""
        node, module, name = operation.node, operation.module, operation.name
        geometry = self.geometries[operation.sources[0]]
        if geometry.dims != (-2, -1):
            return None
        if module is not None:
            layer = cast("Any", module)
            return geometry.windowed(
                layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1)
            )
        if name == "conv2d":
            weight = cast("torch.Tensor", self._argument(node, 1, "weight", None))
            kernel: object = weight.shape[-2:]
            stride, pad, dilation = (
                self._argument(node, position, key, default)
                for position, key, default in (
                    (3, "stride", 1),
                    (4, "padding", 0),
                    (5, "dilation", 1),
                )
            )
        else:
            kernel = self._argument(node, 1, "kernel_size", None)
            stride = self._argument(node, 2, "stride", None) or kernel
            pad = self._argument(node, 3, "padding", 0)
            dilation = self._argument(node, 4, "dilation", 1) if name == "max_pool2d" else 1
        return geometry.windowed(kernel, stride, pad, dilation)

    def behind_pad(self, operation: _Operation) -> Geometry | None:
        """Of a padding, whose rows and columns in front move everything."""
        geometry = self.geometries[operation.sources[0]]
        padding = cast(
            "Sequence[int]",
            operation.module.padding
            if operation.module is not None
            else self._argument(operation.node, 1, "pad", ()),
        )
        if len(padding) % 2 or len(padding) > 4 or geometry.dims != (-2, -1):
            return None
        left, top = padding[0], padding[2] if len(padding) == 4 else 0
        return replace(geometry, y=geometry.y.padded(top), x=geometry.x.padded(left))

    def permuted(self, operation: _Operation) -> Geometry | None:
        """Of an exchange of dimensions."""
        node, module, name = operation.node, operation.module, operation.name
        geometry = self.geometries[operation.sources[0]]
        rank = self._values[node.name].ndim
        if name == "transpose":
            order = list(range(rank))
            first, second = (
                cast("int", self._argument(node, *where, 0)) for where in ((1, "dim0"), (2, "dim1"))
            )
            order[first], order[second] = order[second], order[first]
        elif module is not None:
            order = list(cast("Any", module).dims)
        else:
            given = node.args[1:] if len(node.args) > 2 else self._argument(node, 1, "dims", ())
            order = list(cast("Sequence[int]", given))
        order = [dim % rank for dim in order]
        y, x = (order.index(dim % rank) - rank for dim in geometry.dims)
        return replace(geometry, dims=(y, x))

    def reshaped(self, operation: _Operation) -> Geometry | None:
        """Of a view: rows stay rows while the trailing dimensions stay (ShuffleNet regroups its
        channels this way).
        """
        source = operation.sources[0]
        geometry = self.geometries[source]
        before, after = self._values[source.name].shape, self._values[operation.node.name].shape
        return geometry if geometry.dims == (-2, -1) and before[-2:] == after[-2:] else None

    def behind_last_axis(self, operation: _Operation) -> Geometry | None:
        """Of what mixes along the last axis."""
        geometry = self.geometries[operation.sources[0]]
        return geometry if -1 not in geometry.dims else None

    def behind_pointwise(self, operation: _Operation) -> Geometry | None:
        """Of what leaves every sample where it is, and may join several."""
        node, sources = operation.node, operation.sources
        found = _merged(self.geometries[source] for source in sources)
        if found is None:
            return None
        value = self._values[node.name]
        outputs = value if isinstance(value, (tuple, list)) else (value,)
        size = found.extent(outputs[0].shape)
        if any(found.extent(output.shape) != size for output in outputs):
            return None
        for source in node.all_input_nodes:
            operand = self._values[source.name]
            for tensor in operand if isinstance(operand, (tuple, list)) else (operand,):
                if not isinstance(tensor, torch.Tensor):
                    continue
                extent = found.extent(tensor.shape)
                if source in self.geometries:
                    if extent != size:
                        return None
                elif extent not in {None, (1, 1)}:
                    # Without a place in the frame only a factor or bias per channel may join
                    # (squeeze-and-excitation).
                    return None
        return found


_Rule = Callable[[_Derivation, _Operation], Geometry | None]
_RULES: Final[dict[str, _Rule]] = {
    **dict.fromkeys(_POINTWISE, _Derivation.behind_pointwise),
    **dict.fromkeys(_LAST_AXIS, _Derivation.behind_last_axis),
    **dict.fromkeys(("view", "reshape"), _Derivation.reshaped),
    **dict.fromkeys(("permute", "transpose"), _Derivation.permuted),
    **dict.fromkeys(_PADS, _Derivation.behind_pad),
    **dict.fromkeys(("conv2d", *_POOLS), _Derivation.behind_window),
}
"""Names of functions, methods or (in lower case) modules -> their rule."""


def _name(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__.lower()
    if node.op == "call_method":
        return str(node.target)
    if node.target is functional.max_pool2d:  # a dispatcher without a name of its own
        return "max_pool2d"
    return str(getattr(node.target, "__name__", "")).strip("_")
