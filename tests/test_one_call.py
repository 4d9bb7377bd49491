"""Halves of networks in one call: the same bits, and where that cannot be, the module itself."""

from __future__ import annotations

import time
import warnings

import pytest
import torch
from torch import nn

from codec.models.networks import open_network
from codec.models.one_call import SLOW, in_one_call
from codec.models.submodels import split_model


@pytest.mark.parametrize(
    ("model", "split"),
    [("efficientnet_lite0", "blocks.4"), ("mobilenet_v2", "features.7"), ("resnet18", "layer2")],
)
def test_what_is_computed_is_the_same_at_every_call(model, split):
    size = (64, 96)
    edge = split_model(open_network(model, "random:0").module, split, size).edge.module
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        made = in_one_call(edge, torch.rand(1, 3, *size))
        assert made is not edge
        for seed in range(5):  # it is made faster by the first runs
            images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
            assert all(map(torch.equal, made(images), edge(images)))
        for batch in (2, 1):  # another shape than it was made for
            images = torch.rand(batch, 3, *size)
            assert all(map(torch.equal, made(images), edge(images)))


class Deciding(nn.Module):
    """Decides by what it sees, which a recording would not."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 2 if images.mean() > 0.25 else images


class Refusing(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not this one")
        return images


class Lazy(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(1.5 * SLOW)
        return images


@pytest.mark.parametrize("kind", [Deciding, Refusing, Lazy])
def test_what_cannot_be_recorded_or_is_slow_stays_as_it_is(kind):
    module = kind()
    assert in_one_call(module, torch.rand(1, 3, 8, 8)) is module
