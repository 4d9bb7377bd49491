"""Channels last, tokens and class tokens: what crosses is (C, H, W), and comes back bit for bit."""

from __future__ import annotations

import pytest
import torch
from networks import assert_same, check_halves, images
from torch import nn

from codec.errors import ModelError
from codec.models.sources import load_model
from codec.models.submodels import split_model

PLACE = (8, 8, 7, 7)


class Transformer(nn.Module):
    """A vision transformer of two blocks, with a number of tokens in front."""

    def __init__(self, front=1):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.front = nn.Parameter(torch.randn(1, front, 8)) if front else None
        self.places = nn.Parameter(torch.randn(1, 12 + front, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(2))
        self.attention = nn.ModuleList(
            nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2)
        )
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.front is not None:
            x = torch.cat([self.front.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.places
        for norm, attention, block in zip(self.norms, self.attention, self.blocks, strict=True):
            y = norm(x)
            x = x + attention(y, y, y, need_weights=False)[0]
            x = x + block(x)
        return x.mean(1)


class ChannelsLast(nn.Module):
    """Blocks of Swin: channels last, neighbours merged, an attention that nothing is known of."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 2, 2)
        self.norm = nn.LayerNorm(4)
        self.merged = nn.Linear(16, 8)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        x = x + self.norm(x).roll((1, 1), (1, 2))
        x = nn.functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        x = self.merged(x)
        return (x + x.roll(1, 1)).mean((1, 2))


def placed(spec):
    return spec.stride_y, spec.stride_x, spec.offset_y2, spec.offset_x2


@pytest.mark.parametrize("front", [0, 1, 4])
@pytest.mark.parametrize("split", ["transpose", "add", "add_1", "add_4"])
def test_tokens_are_a_grid(front, split):
    torch.manual_seed(0)
    model = Transformer(front).eval()
    grid, *rest = check_halves(model, split, images(2, 24, 32))
    assert (grid.shape, placed(grid)) == ((8, 3, 4), PLACE)
    if split == "transpose":
        x = images(1, 24, 32)
        assert torch.equal(split_model(model, split, (24, 32)).edge(x)[0], model.patches(x))
    assert [(spec.name, spec.shape) for spec in rest] == (
        [(f"{grid.name}.front", (8, 1, front))] if front and split != "transpose" else []
    )


def test_tokens_of_an_exported_program(tmp_path):
    torch.manual_seed(0)
    model = Transformer().eval()
    path = tmp_path / "vit.pt2"
    torch.export.save(torch.export.export(model, (images(1, 24, 32),)), path)
    program = load_model(str(path))
    halves = split_model(program, "add_2", (24, 32))
    assert [spec.shape for spec in halves.tensors] == [(8, 3, 4), (8, 1, 1)]
    x = images(2, 24, 32)
    assert_same(halves.cloud(halves.edge(x)), program(x))


@pytest.mark.parametrize(
    ("split", "shape", "place"),
    [
        ("add", (4, 12, 16), (2, 2, 1, 1)),
        ("merged", (8, 6, 8), (4, 4, 3, 3)),
        ("add_1", (8, 6, 8), (4, 4, 3, 3)),
    ],
)
def test_channels_last(split, shape, place):
    torch.manual_seed(0)
    (spec,) = check_halves(ChannelsLast().eval(), split, images(2, 24, 32))
    assert (spec.shape, placed(spec)) == (shape, place)


class Shuffled(nn.Module):
    """Tokens that no rule follows."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)

    def forward(self, x):
        x = torch.einsum("nchw->nhwc", self.patches(x)).flatten(1, 2)
        return torch.cat([x.mean(1, keepdim=True), x], 1).relu().mean(1)


def test_tokens_may_be_declared():
    model = Shuffled().eval()
    with pytest.raises(ModelError, match=r"\(2, 13, 8\); if these are tokens of a grid") as caught:
        split_model(model, "relu", (24, 32))
    assert "\n" not in str(caught.value)
    halves = split_model(model, "relu", (24, 32), geometry={"relu": PLACE})
    assert [spec.shape for spec in halves.tensors] == [(8, 3, 4), (8, 1, 1)]
    x = images(2, 24, 32)
    assert_same(halves.cloud(halves.edge(x)), model(x))
    assert torch.equal(halves.edge(x)[0], model.patches(x).relu())
    with pytest.raises(ModelError, match="13 tokens of relu are no grid of strides 4 and 4"):
        split_model(model, "relu", (24, 32), geometry={"relu": (4, 4, 3, 3)})
