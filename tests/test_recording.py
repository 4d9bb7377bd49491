"""Networks that are recorded rather than traced."""

from __future__ import annotations

import pytest
import torch
from networks import assert_same, images
from torch import nn

from codec.errors import ModelError
from codec.models.recording import recorded


class Counting(nn.Module):
    """Works with sizes as tensors, which no tracer follows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.register_buffer("divisor", torch.tensor([1, 2, 2, 2]))

    def forward(self, x):
        y = self.conv(x).float()
        shape = torch.tensor(y.shape)
        small = (shape // self.divisor).tolist()
        first, rest = torch.split(y, shape[1] // 2, 1)
        middle = y[:, :, shape[2] // 4 : shape[2] // 4 + small[2]]
        return {"parts": [first * torch.tensor([2.0]), 1 - rest], "middle": middle + shape[1]}


def test_numbers_made_of_sizes_are_constants():
    model = Counting().eval()
    graph = recorded(model, torch.zeros(1, 3, 16, 24))
    x = images(1, 16, 24)
    with torch.no_grad():
        assert_same(graph(x), model(x))
    names = [node.name for node in graph.graph.nodes]
    weights = ["constant_0", "constant_1"]
    assert names[:5] == ["images", *weights, "conv2d", "float_1"]
    values = {node.name: node.meta.get("val") for node in graph.graph.nodes}
    assert values["conv2d"].shape == (1, 4, 8, 12)
    assert values["conv2d"].is_meta


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


class Overwriting(nn.Module):
    def forward(self, x):
        y = x * 2
        y[:, 0] = 0
        return y


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Deciding(), "__bool__ reads elements of gt"),
        (Overwriting(), "__setitem__ overwrites mul"),
        (nn.ReLU(inplace=True), "relu overwrites images"),
    ],
)
def test_refused(model, told):
    with pytest.raises(ModelError, match=told):
        recorded(model.eval(), torch.zeros(1, 3, 8, 8))
