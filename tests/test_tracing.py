"""Graphs that do what the model does, or a refusal."""

from __future__ import annotations

import pytest
import torch
from networks import Lopsided, Small, check_halves, images
from torch import nn
from torch.nn import functional

from codec.errors import ModelError
from codec.models.submodels import split_model
from codec.models.tracing import trace


class Overwriting(nn.Module):
    """Uses a value before and after it is overwritten."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        a = self.first(x)
        b = self.second(a)
        c = self.relu(a)
        b += c
        return functional.relu(b, inplace=True) + a


@pytest.mark.parametrize("split", ["first", "second", "relu", "add"])
def test_in_place_operations(split):
    torch.manual_seed(0)
    model = Overwriting().eval().requires_grad_(requires_grad=False)
    check_halves(model, split, images(2, 8, 8))
    assert model.relu.inplace


def in_view(_, y):
    y[:, :2].add_(1)
    return y


def augmented_view(_, y):
    part = y[:, :2]
    part += 1
    return y


def counting(model, y):
    model.calls += 1
    return y * model.calls


def with_out(_, y):
    torch.add(y, 1, out=y)
    return y


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (lambda _, y: functional.dropout(y, 0.5), r"draws random numbers .*dropout needs"),
        (lambda _, y: y + torch.rand_like(y), "draws random numbers"),
        (lambda _, y: y + torch.randn(1, 4, 1, 1), "draws random numbers"),
        (in_view, "writes into memory that conv shares"),
        (augmented_view, "writes into memory that conv shares"),
        (counting, "changes its calls when it runs"),
        (with_out, "out="),
    ],
)
def test_models_that_the_halves_would_not_equal(extra, message):
    with pytest.raises(ModelError, match=message) as caught:
        split_model(Small(extra=extra), "conv", (8, 8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [
        lambda _, y: functional.dropout(y, 0.5, training=False),
        lambda _, y: functional.relu_(y.flatten(2))[..., None],
        lambda _, y: y + torch.arange(y.shape[1]).view(1, -1, 1, 1),
        lambda _, y: y.add_(1).mul_(2),
        lambda _, y: torch.clamp_(functional.leaky_relu_(y), max=1),
    ],
)
def test_models_that_only_look_like_it(extra):
    check_halves(Small(extra=extra), "conv", images(2, 8, 8))


class Keeping(nn.Module):
    """Works something out once for every device."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.bias = nn.Parameter(torch.ones(8))
        self.kept = {}

    def forward(self, x):
        key = str(x.device)
        if key not in self.kept:
            self.kept[key] = self.bias[::2].view(1, 4, 1, 1)
        return self.conv(x) + self.kept[key]


def test_what_a_module_keeps_is_not_of_a_trace():
    model = Keeping().eval()
    x = torch.zeros(1, 3, 8, 8)
    trace(model, (8, 8))
    assert not model.kept
    whole = model(x)
    assert torch.equal(trace(model, (8, 8)).module(x), whole)


def test_untraceable_model():
    class Deciding(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"Deciding cannot be traced by torch\.fx") as caught:
        split_model(Deciding().eval(), "neg", (32, 32))
    assert "\n" not in str(caught.value)


def test_wrong_size():
    with pytest.raises(ModelError, match="does not run on 4x2 input"):
        split_model(Lopsided().eval(), "permute_1", (2, 4))
