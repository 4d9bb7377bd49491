"""Where the samples of a tensor lie in the frame: stride n^k and offset, derived from the graph.

They follow from the strides, kernels, paddings and scales on the way, of operations called as torch
functions, methods and modules or as the ATen operations of an exported program.  Tensors without a
place in the frame (behind global pooling, in windowed attention, behind an operation without a
rule) have none; `models.measuring` may find what no rule here knows.  A residual sum lies where its
branch does that has a place: what attention adds to a token, it adds to that token.

Motion of v input pixels is motion of v / n^k in the tensor: Ulhaq and Bajić 2021,
arXiv:2102.04018, equation (12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, cast

import torch
from torch import fx, nn
from torch.nn import functional

from codec.models.tracing import TracedModel, is_tensors

__all__ = ["Axis", "Geometry", "Tokens", "geometries_of"]

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
    "minimum", "chunk", "split", "unsqueeze", "squeeze", "rsub",
    "clamp_min", "clamp_max", "log", "log1p", "expm1", "square", "reciprocal", "sign", "where",
    "to_copy", "alias", "lift_fresh_copy", "type_as", "split_with_sizes", "instance_norm",
    "instancenorm2d", "frozenbatchnorm2d", "softsign", "threshold", "erf",
})
# fmt: on
# Operations that mix along the last axis only, harmless while that axis is the channels
# (ConvNeXt's NHWC stretches).
_LAST_AXIS: Final = frozenset({"layer_norm", "layernorm", "linear", "rms_norm", "rmsnorm"})
_JOINTS: Final = ("cat", "concat", "concatenate")
_RESHAPES: Final = ("view", "unsafe_view", "reshape", "flatten", "unflatten")
_PADS: Final = (
    *("pad", "zeropad2d", "constantpad2d", "reflectionpad2d", "replicationpad2d", "circularpad2d"),
    *("constant_pad_nd", "reflection_pad2d", "replication_pad2d"),
)
_MAX_POOLS: Final = ("max_pool2d", "max_pool2d_with_indices", "maxpool2d")
_POOLS: Final = (*_MAX_POOLS, "avg_pool2d", "avgpool2d")
_ADAPTIVE_POOLS: Final = (
    *("adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptiveavgpool2d", "adaptivemaxpool2d"),
)
_SCALINGS: Final = (
    *("interpolate", "upsample", "upsamplingnearest2d", "upsamplingbilinear2d"),
    *("upsample_nearest2d", "upsample_nearest_exact2d"),
    *("upsample_bilinear2d", "upsample_bilinear2d_aa"),
    *("upsample_bicubic2d", "upsample_bicubic2d_aa"),
)
# Operations along given dimensions, harmless where these are not the frame's.
_REDUCTIONS: Final = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "softmax", "log_softmax", "norm"), 1),
    **dict.fromkeys(("linalg_vector_norm", "normalize"), 2),
}
"""Names -> the position of their argument `dim`."""
_BATCH_NORMS: Final = ("native_batch_norm_legit_no_training", "native_batch_norm")
"""Those that also return statistics, which have no place."""


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
    """Sample j is centred on input pixel j * stride + offset2 / 2 and sees `field` of them.

    `grain` is the stride of the sparsest samples that it was made from: more than its own behind
    an up-sampling.
    """

    stride: Fraction | int = 1
    offset2: Fraction | int = 0
    field: Fraction | int = 1
    grain: Fraction | int = 1

    def windowed(self, kernel: int, stride: int, pad: int, dilation: int) -> Axis:
        """Behind a convolution or pool."""
        span = (kernel - 1) * dilation
        return Axis(
            self.stride * stride,
            self.offset2 + self.stride * (span - 2 * pad),
            self.field + self.stride * span,
            max(self.grain, self.stride * stride),
        )

    def padded(self, before: int) -> Axis:
        """Behind a padding by `before` samples at the low end."""
        return replace(self, offset2=self.offset2 - 2 * self.stride * before)

    def transposed(self, kernel: int, stride: int, pad: int, dilation: int) -> Axis:
        """Behind a transposed convolution."""
        span = (kernel - 1) * dilation
        finer = Fraction(self.stride) / stride
        return replace(
            self,
            stride=finer,
            offset2=self.offset2 + finer * (2 * pad - span),
            field=self.field + finer * span,
        )

    def scaled(self, before: int, after: int) -> Axis:
        """Behind a resize from `before` samples to `after` that keeps the edges of the frame."""
        stride = Fraction(self.stride) * before / after
        return replace(
            self,
            stride=stride,
            offset2=self.offset2 + stride - self.stride,
            field=self.field + self.stride,
            grain=max(self.grain, stride),
        )

    def thinned(self, first: int, step: int | Fraction) -> Axis:
        """Of every `step`-th sample from `first` on."""
        moved = self.padded(-first)
        return replace(moved, stride=self.stride * step, grain=max(self.grain, self.stride * step))


@dataclass(frozen=True, slots=True)
class Tokens:
    """A grid that was flattened, row by row, into one dimension, behind `first` others that have no
    place in the frame.
    """

    height: int
    width: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Geometry:
    """Both axes, and which dimensions of the tensor they are, counted from the end; of `tokens`
    both are the same.
    """

    y: Axis
    x: Axis
    dims: tuple[int, int] = (-2, -1)
    tokens: Tokens | None = None

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
        if self.tokens is not None:
            height, width, first = self.tokens.height, self.tokens.width, self.tokens.first
            return (height, width) if shape[self.dims[0]] == first + height * width else None
        return shape[self.dims[0]], shape[self.dims[1]]


def _thinned(geometry: Geometry, dim: int, first: int, step: int) -> Geometry:
    """Of every `step`-th sample from `first` on along `dim`, counted from the end.

    Tokens may lose those in front of the grid; where more are lost their number will tell.
    """
    if geometry.tokens is not None:
        if dim != geometry.dims[0]:
            return geometry
        left = max(geometry.tokens.first - first, 0)
        return replace(geometry, tokens=replace(geometry.tokens, first=left))
    if dim == geometry.dims[0]:
        return replace(geometry, y=geometry.y.thinned(first, step))
    if dim == geometry.dims[1]:
        return replace(geometry, x=geometry.x.thinned(first, step))
    return geometry


def _folded(geometry: Geometry, before: tuple[int, ...], after: tuple[int, ...]) -> Geometry | None:
    """Of a view by which rows and columns become tokens, or tokens a grid, while all other
    dimensions stay; or are cut into blocks, which lie where their middles do.
    """
    (y, x), tokens = geometry.dims, geometry.tokens
    head, tail = before[: len(before) + y], before[len(before) + x + 1 :]
    if tokens is not None:
        unfolded = (*head, tokens.height, tokens.width, *tail)
        known = not tokens.first and after == unfolded
        return Geometry(geometry.y, geometry.x, (y - 1, y)) if known else None
    if x != y + 1:
        return None
    if after == (*head, before[y] * before[x], *tail):
        return Geometry(geometry.y, geometry.x, (x, x), Tokens(before[y], before[x]))
    cut = after[len(head) : len(after) - len(tail)]
    if len(cut) == 4 and after == (*head, *cut, *tail):
        (height, row, width, column), last = cut, -len(tail) - 1
        if (height * row, width * column) == (before[y], before[x]):
            blocks = geometry.windowed((row, column), (row, column), 0, 1)
            return replace(blocks, dims=(last - 3, last - 1))
    return None


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    items = cast("Sequence[int]", value)
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def _merged(geometries: Iterable[Geometry]) -> Geometry | None:
    """Where the samples of a sum or concatenation lie: None if the branches disagree in stride.

    Where branches of one stride differ in offset, one that comes straight from the frame decides
    before one that was up-sampled from sparser samples (in a pyramid), and of several such the one
    with the largest receptive field, per axis: it is the branch that looks at its surroundings, and
    most of what moves in the tensor comes from it.
    """

    def weight(axis: Axis) -> tuple[Fraction | int, Fraction | int]:
        return -axis.grain, axis.field

    first, *others = geometries
    y, x = first.y, first.x
    for other in others:
        if (other.y.stride, other.x.stride) != (y.stride, x.stride):
            return None
        if (other.dims, other.tokens) != (first.dims, first.tokens):
            return None
        y = max(y, other.y, key=weight)
        x = max(x, other.x, key=weight)
    return Geometry(y, x, first.dims, first.tokens)


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
        if operation.name in _BATCH_NORMS:
            outputs = outputs[:1]
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
        if name in {"conv2d", "convolution"}:
            if self._argument(node, 6, "transposed", False) is True:
                return self.behind_transposed(operation)
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
            dilation = self._argument(node, 4, "dilation", 1) if name in _MAX_POOLS else 1
        return geometry.windowed(kernel, stride, pad, dilation)

    def behind_transposed(self, operation: _Operation) -> Geometry | None:
        """Of a transposed convolution."""
        node, module, name = operation.node, operation.module, operation.name
        geometry = self.geometries[operation.sources[0]]
        if geometry.dims != (-2, -1):
            return None
        if module is not None:
            layer = cast("Any", module)
            given = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        else:
            weight = cast("torch.Tensor", self._argument(node, 1, "weight", None))
            given = (
                weight.shape[-2:],
                self._argument(node, 3, "stride", 1),
                self._argument(node, 4, "padding", 0),
                self._argument(node, 5 if name == "convolution" else 7, "dilation", 1),
            )
        kernels, strides, pads, dilations = map(_pair, given)
        return Geometry(
            geometry.y.transposed(kernels[0], strides[0], pads[0], dilations[0]),
            geometry.x.transposed(kernels[1], strides[1], pads[1], dilations[1]),
        )

    def behind_adaptive_pool(self, operation: _Operation) -> Geometry | None:
        """Of a pool to a given size, where its windows are equal; to one sample, which has no
        place, only of one.
        """
        sizes = self._extents(operation)
        if sizes is None:
            return None
        geometry, before, after = sizes
        if any(b % a or (a == 1 < b) for b, a in zip(before, after, strict=True)):
            return None
        window = tuple(b // a for b, a in zip(before, after, strict=True))
        return geometry.windowed(window, window, 0, 1)

    def behind_scaling(self, operation: _Operation) -> Geometry | None:
        """Of a resize, which keeps the frame's edges, or with `align_corners` the outer samples."""
        sizes = self._extents(operation)
        if sizes is None:
            return None
        node, module, name = operation.node, operation.module, operation.name
        mode, aligned = name, False
        if module is not None:
            mode = str(getattr(module, "mode", "nearest"))
            aligned = bool(getattr(module, "align_corners", False))
        elif name in {"interpolate", "upsample"}:
            mode = str(self._argument(node, 3, "mode", "nearest"))
            aligned = bool(self._argument(node, 4, "align_corners", False))
        elif "bilinear" in name or "bicubic" in name:
            aligned = bool(self._argument(node, 2, "align_corners", False))
        geometry, before, after = sizes

        def scaled(axis: Axis, b: int, a: int) -> Axis:
            if aligned and min(a, b) > 1:
                return axis.thinned(0, Fraction(b - 1, a - 1))
            if a < b and mode in {"nearest", "upsample_nearest2d"}:  # takes the first of each group
                return axis.thinned(0, Fraction(b, a))
            return axis.scaled(b, a)

        return Geometry(
            scaled(geometry.y, before[0], after[0]), scaled(geometry.x, before[1], after[1])
        )

    def _extents(
        self, operation: _Operation
    ) -> tuple[Geometry, tuple[int, int], tuple[int, int]] | None:
        """Geometry of the source, height and width before and behind an operation."""
        source = operation.sources[0]
        geometry = self.geometries[source]
        value = self._values[operation.node.name]
        if geometry.dims != (-2, -1) or not isinstance(value, torch.Tensor):
            return None
        before, after = self._values[source.name].shape[-2:], value.shape[-2:]
        return geometry, (before[0], before[1]), (after[0], after[1])

    def shuffled(self, operation: _Operation) -> Geometry | None:
        """Of channels that become samples (`pixel_shuffle`), or samples channels."""
        sizes = self._extents(operation)
        if sizes is None:
            return None
        geometry, before, after = sizes
        return Geometry(
            geometry.y.scaled(before[0], after[0]), geometry.x.scaled(before[1], after[1])
        )

    def taken(self, operation: _Operation) -> Geometry | None:
        """Of an item of a tuple, or a slice of a tensor."""
        node, source = operation.node, operation.sources[0]
        geometry, whole = self.geometries[source], self._values[source.name]
        index = self._argument(node, 1, "index", None)
        if isinstance(whole, (tuple, list)) or not isinstance(index, (tuple, slice)):
            return geometry
        parts = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in parts:
            place = parts.index(Ellipsis)
            given = sum(part is not None for part in parts) - 1
            parts[place : place + 1] = [slice(None)] * (whole.ndim - given)
        dim = -whole.ndim
        for part in parts:
            if isinstance(part, slice):
                first, _, step = part.indices(whole.shape[dim])
                geometry = _thinned(geometry, dim, first, step)
            elif dim > min(geometry.dims) or not (part is None or isinstance(part, int)):
                return None  # of dimensions in front of the frame's one may be taken or made
            elif part is not None and dim == min(geometry.dims):
                return None
            dim += part is not None
        return geometry

    def narrowed(self, operation: _Operation) -> Geometry | None:
        """Of a slice by ATen's `slice` or `narrow`."""
        node, source = operation.node, operation.sources[0]
        whole = self._values[source.name]
        dim = cast("int", self._argument(node, 1, "dim", 0))
        first = cast("int", self._argument(node, 2, "start", 0) or 0)
        step = cast("int", self._argument(node, 4, "step", 1)) if operation.name == "slice" else 1
        size = whole.shape[dim]
        first = min(max(first + size if first < 0 else first, 0), size)
        return _thinned(self.geometries[source], dim % whole.ndim - whole.ndim, first, step)

    def reduced(self, operation: _Operation) -> Geometry | None:
        """Of a reduction or normalisation along dimensions that are not the frame's."""
        node, source = operation.node, operation.sources[0]
        geometry, rank = self.geometries[source], self._values[source.name].ndim
        given = self._argument(node, _REDUCTIONS[operation.name], "dim", None)
        if given is None and operation.name == "normalize":
            given = 1
        if operation.module is not None:
            given = getattr(operation.module, "dim", None)
        if given is None:
            return None
        dims = [given] if isinstance(given, int) else list(cast("Sequence[int]", given))
        if geometry.dims[1] != -1 and self._values[node.name].ndim != rank:
            return None  # what is counted from the end is now another
        return None if {dim % rank - rank for dim in dims} & set(geometry.dims) else geometry

    def normalised(self, operation: _Operation) -> Geometry | None:
        """Of a batch norm that also returns its statistics."""
        return self.geometries[operation.sources[0]]

    def behind_pad(self, operation: _Operation) -> Geometry | None:
        """Of a padding, whose rows and columns in front move everything."""
        geometry = self.geometries[operation.sources[0]]
        padding = cast(
            "Sequence[int]",
            operation.module.padding
            if operation.module is not None
            else self._argument(operation.node, 1, "pad", ()),
        )
        if len(padding) % 2 or geometry.tokens is not None:
            return None
        top, left = (([*padding] + [0] * 16)[2 * (-1 - dim)] for dim in geometry.dims)
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
        """Of a view: rows stay rows while the dimensions behind them stay (ShuffleNet regroups its
        channels this way), or those before them up to the columns; and see `_folded`.
        """
        source = operation.sources[0]
        geometry = self.geometries[source]
        before, after = (tuple(self._values[n.name].shape) for n in (source, operation.node))
        (y, x), rank = geometry.dims, len(after)
        if before == after:
            return geometry
        if geometry.tokens is None and x == y + 1:
            place = len(before) + y
            if x == -1 and after[-2:] == before[-2:]:
                return geometry
            if after[: place + 2] == before[: place + 2]:
                return replace(geometry, dims=(place - rank, place + 1 - rank))
        return _folded(geometry, before, after)

    def joined(self, operation: _Operation) -> Geometry | None:
        """Of a concatenation: of channels, or of tokens with others in front."""
        node = operation.node
        geometry = self.geometries[operation.sources[0]]
        rank = self._values[node.name].ndim
        dim = cast("int", self._argument(node, 1, "dim", 0)) % rank - rank
        if geometry.tokens is None or dim != geometry.dims[0]:
            return None if dim in geometry.dims else self.behind_pointwise(operation)
        parts = cast("Sequence[fx.Node]", node.args[0] if node.args else node.kwargs["tensors"])
        if len(operation.sources) > 1 or parts[-1] is not operation.sources[0]:
            return None
        first = sum(self._values[part.name].shape[dim] for part in parts[:-1])
        tokens = replace(geometry.tokens, first=geometry.tokens.first + first)
        return replace(geometry, tokens=tokens)

    def behind_patch_merging(self, operation: _Operation) -> Geometry | None:
        """Of torchvision's Swin, which puts four neighbours into the channels of one."""
        geometry = self.geometries[operation.sources[0]]
        if geometry.dims != (-3, -2):
            return None
        return replace(geometry.windowed(2, 2, 0, 1), dims=geometry.dims)

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
                elif extent not in {None, (1, 1)} and (operation.name, extent) != ("add", size):
                    # Without a place in the frame only a factor or bias per channel may join
                    # (squeeze-and-excitation), and a branch of a residual sum (attention).
                    return None
        return found


_Rule = Callable[[_Derivation, _Operation], Geometry | None]
_RULES: Final[dict[str, _Rule]] = {
    **dict.fromkeys(_POINTWISE, _Derivation.behind_pointwise),
    **dict.fromkeys(_LAST_AXIS, _Derivation.behind_last_axis),
    **dict.fromkeys(_JOINTS, _Derivation.joined),
    **dict.fromkeys(_RESHAPES, _Derivation.reshaped),
    "patch_merging_pad": _Derivation.behind_patch_merging,
    **dict.fromkeys(("permute", "transpose"), _Derivation.permuted),
    **dict.fromkeys(_PADS, _Derivation.behind_pad),
    **dict.fromkeys(("conv2d", "convolution", *_POOLS), _Derivation.behind_window),
    **dict.fromkeys(("conv_transpose2d", "convtranspose2d"), _Derivation.behind_transposed),
    **dict.fromkeys(_ADAPTIVE_POOLS, _Derivation.behind_adaptive_pool),
    **dict.fromkeys(_SCALINGS, _Derivation.behind_scaling),
    **dict.fromkeys(
        ("pixel_shuffle", "pixelshuffle", "pixel_unshuffle", "pixelunshuffle"), _Derivation.shuffled
    ),
    "getitem": _Derivation.taken,
    **dict.fromkeys(("slice", "narrow"), _Derivation.narrowed),
    **dict.fromkeys(_REDUCTIONS, _Derivation.reduced),
    **dict.fromkeys(_BATCH_NORMS, _Derivation.normalised),
}
"""Names of functions, methods or (in lower case) modules -> their rule."""


def _name(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return type(module).__name__.lower()
    if node.op == "call_method":
        return str(node.target)
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2].strip("_")
    for pool in (functional.max_pool2d, functional.adaptive_max_pool2d):
        if node.target is pool:  # a dispatcher without a name of its own
            return "max_pool2d" if pool is functional.max_pool2d else "adaptive_max_pool2d"
    return str(getattr(node.target, "__name__", "")).strip("_")
