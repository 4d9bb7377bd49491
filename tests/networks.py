"""Small networks, and the check of a cut, for the tests of models."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_flatten

from codec.format.header import TensorSpec
from codec.models.submodels import split_model


def images(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def assert_same(found: object, expected: object) -> None:
    """Equal bit for bit, in whatever containers; an ordered dict comes out of a graph as a dict."""
    ours, spec = tree_flatten(dict(found) if isinstance(found, dict) else found)
    theirs, expected_spec = tree_flatten(dict(expected) if isinstance(expected, dict) else expected)
    assert spec == expected_spec
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def check_halves(model: nn.Module, split: str, x: torch.Tensor) -> tuple[TensorSpec, ...]:
    """edge + cloud == whole, bit for bit; the tensors are as described and the cloud keeps them."""
    halves = split_model(model, split, (x.shape[2], x.shape[3]))
    features = halves.edge(x)
    before = [tensor.clone() for tensor in features]
    assert_same(halves.cloud(features), model(x))
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(features, before, strict=True))
    for tensor, spec in zip(features, halves.tensors, strict=True):
        assert tensor.shape == (x.shape[0], spec.channels, spec.height, spec.width)
        assert tensor.dtype == torch.float32
    return halves.tensors


class Lopsided(nn.Module):
    """Differs in y and x in everything that has a kernel, a stride, a padding or a dilation."""

    def __init__(self):
        super().__init__()
        self.pad = nn.ZeroPad2d((3, 0, 1, 2))
        self.conv = nn.Conv2d(3, 4, (3, 5), (2, 1), (0, 1), (1, 2), bias=False)
        self.pool = nn.AvgPool2d((2, 3), (1, 2), (0, 1))
        self.weight = nn.Parameter(torch.ones(4, 4, 2, 3))
        self.same = nn.Conv2d(4, 4, (4, 2), padding="same", bias=False)

    def forward(self, x):
        x = self.pool(self.conv(self.pad(x)))
        x = functional.conv2d(x, self.weight, stride=(1, 2), padding=(1, 0))
        x = functional.pad(x, [1, 0, 0, 2])
        x = functional.avg_pool2d(x, (3, 2), stride=(2, 1), padding=(1, 0))
        x = self.same(x).permute(0, 2, 3, 1)
        x = torch.relu(x) * 2
        return x.permute(0, 3, 1, 2).mean((2, 3))


class Merging(nn.Module):
    def __init__(self):
        super().__init__()
        self.narrow = nn.Conv2d(3, 4, 1, stride=2)
        self.wide = nn.Conv2d(3, 4, 4, stride=2, padding=1)
        self.coarse = nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, x):
        merged = self.narrow(x) + self.wide(x)
        blown_up = functional.interpolate(self.coarse(x), scale_factor=2.0)
        return torch.cat([merged.relu(), blown_up], 1).mean((2, 3)) + 1


class Small(nn.Module):
    """A convolution, whatever a test puts behind it, and a pooling."""

    def __init__(self, *, extra=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.extra = extra
        self.register_buffer("calls", torch.zeros(1))
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, x):
        y = self.conv(x)
        if self.extra is not None:
            y = self.extra(self, y)
        return y.mean((2, 3))


class Pyramid(nn.Module):
    """Two levels, joined from the coarse to the fine one, and a head on each."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.lateral = nn.Conv2d(4, 6, 1)
        self.head = nn.Conv2d(6, 5, 3, padding=1)
        self.eval().requires_grad_(requires_grad=False)

    def forward(self, x):
        fine = self.fine(x).relu()
        coarse = self.coarse(fine).relu()
        up = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        merged = self.lateral(fine) + up
        return self.head(merged), self.head(coarse)


class BrightMap(nn.Module):
    """Two levels of features, and a map of what is bright; some of the features lead nowhere.  The
    more the `gain`, the fewer places there are that are neither.
    """

    def __init__(self, gain: float = 4) -> None:
        super().__init__()
        self.gain = gain
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.side = nn.Conv2d(6, 8, 1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        near = torch.relu(self.first(images))
        far = torch.relu(self.second(near))
        joined = self.side(near) + functional.interpolate(far, scale_factor=2.0)
        return torch.sigmoid(self.gain * self.head(joined))
