"""How a tensor that crosses a cut is laid out: the codec takes (C, H, W), and networks have other
orders.

Channels may come last (N, H, W, C), and a grid be flattened into tokens (N, T, C), some with tokens
in front that have no place in the frame (a class token): these become a tensor of one row of their
own, which nothing moves.  What is moved is moved back bit for bit, to where it lay in memory too,
since kernels sum up in the order that they find.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from codec.models.geometry import Geometry, Tokens

__all__ = ["Layout", "declared_tokens", "layout_of"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which dimensions of a tensor are channels, rows and columns; of `tokens` both the latter are
    the same.  `memory` is the order of all dimensions in memory, the slowest first.
    """

    channels: int
    y: int
    x: int
    tokens: Tokens | None
    memory: tuple[int, ...]

    @property
    def front(self) -> int:
        """How many tokens have no place in the frame, and cross as a tensor of their own."""
        return 0 if self.tokens is None else self.tokens.first

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return (C, H, W) of a tensor of this layout."""
        if self.tokens is not None:
            return shape[self.channels], self.tokens.height, self.tokens.width
        return shape[self.channels], shape[self.y], shape[self.x]

    def split(self, graph: fx.Graph, node: fx.Node) -> list[fx.Node]:
        """Add to the edge what makes (N, C, H, W) of a tensor, and of the tokens in front."""
        if self.tokens is not None:
            rows = self.tokens.height, self.tokens.width, self.tokens.first
            parts = graph.call_function(_grid_and_front, (node, self.channels, *rows))
            return [
                graph.call_function(operator.getitem, (parts, place))
                for place in range(1 + bool(self.front))
            ]
        if (self.channels, self.y, self.x) == (-3, -2, -1):
            return [node]
        return [graph.call_function(_permuted, (node, (0, self.channels, self.y, self.x)))]

    def joined(self, graph: fx.Graph, nodes: Sequence[fx.Node]) -> fx.Node:
        """Add to the cloud what makes the network's own tensor of those of `split`."""
        if (self.channels, self.y, self.x) == (-3, -2, -1):
            return nodes[0]
        if self.tokens is not None:
            tokens = (tuple(nodes), self.channels, self.memory)
            return graph.call_function(_as_tokens, tokens)
        forward = [0, self.channels + 4, self.y + 4, self.x + 4]
        back = tuple(forward.index(dim) for dim in range(4))
        return graph.call_function(_laid, (nodes[0], back, self.memory))


def layout_of(geometry: Geometry, value: torch.Tensor) -> Layout | None:
    """Return the layout of a tensor whose samples have a place; None if the codec knows none."""
    y, x = geometry.dims
    rank = 4 if geometry.tokens is None else 3
    left = set(range(1 - rank, 0)) - {y, x}
    if value.ndim != rank or len(left) != 1 or not {y, x} <= set(range(1 - rank, 0)):
        return None
    strides = value.stride()
    memory = tuple(sorted(range(rank), key=lambda dim: -strides[dim]))
    return Layout(left.pop(), y, x, geometry.tokens, memory)


def declared_tokens(
    geometry: Geometry, shape: Sequence[int], size: tuple[int, int]
) -> Geometry | None:
    """Take tokens (N, T, C) for a grid of given strides over a frame: row by row, those that are
    more than it holds in front.  None if they are too few.
    """
    height, width = (
        -(-side // int(axis.stride))
        for side, axis in zip(size, (geometry.y, geometry.x), strict=True)
    )
    first = shape[1] - height * width
    if first < 0:
        return None
    return Geometry(geometry.y, geometry.x, (-2, -2), Tokens(height, width, first))


def _permuted(tensor: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    return tensor.permute(*order).contiguous()


def _grid_and_front(
    tensor: torch.Tensor, channels: int, height: int, width: int, first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    flat = tensor if channels == -2 else tensor.transpose(1, 2)
    grid = flat[:, :, first:].reshape(*flat.shape[:2], height, width)
    return grid.contiguous(), flat[:, :, None, :first].contiguous()


def _as_tokens(parts: Sequence[torch.Tensor], channels: int, memory: Sequence[int]) -> torch.Tensor:
    grid, *front = parts
    flat = torch.cat([*(each.flatten(2) for each in front), grid.flatten(2)], 2)
    return _laid(flat, (0, 1, 2) if channels == -2 else (0, 2, 1), memory)


def _laid(tensor: torch.Tensor, order: Sequence[int], memory: Sequence[int]) -> torch.Tensor:
    back = [memory.index(dim) for dim in range(len(memory))]
    return tensor.permute(*order).permute(*memory).contiguous().permute(*back)
