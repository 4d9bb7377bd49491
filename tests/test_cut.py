"""What can be cut and what is refused, by name and by what crosses."""

from __future__ import annotations

import pytest
import torch
from networks import Merging, Pyramid, check_halves, images
from torch import nn

from codec.errors import ModelError
from codec.models.sources import load_model
from codec.models.submodels import split_model


def test_unknown_split_names_its_neighbours(resnet, efficientnet):
    with pytest.raises(ModelError, match=r"'addd_3' names no node.*nearest: .*add_3"):
        split_model(resnet, "addd_3", (64, 64))
    with pytest.raises(ModelError, match=r"nearest: blocks\."):
        split_model(efficientnet, "blocks.99", (64, 64))


@pytest.mark.parametrize("split", ["avgpool", "flatten", "fc"])
def test_nothing_behind_pooling(resnet, split):
    with pytest.raises(ModelError, match=r"no place in the frame|float32 tensor N,C,H,W"):
        split_model(resnet, split, (64, 64))


def test_cloud_without_the_image():
    model = Merging().eval()
    with pytest.raises(ModelError, match="input image"):
        split_model(model, "add", (32, 32))


def test_a_vision_transformer_is_cut_behind_its_first_layer():
    """Its attention gives (tensor, None), which is no value to be compared with anything."""
    model = load_model("vit_b_32", "random:0")
    (spec,) = check_halves(model, "conv_proj", images(3, 224, 224))
    assert (spec.shape, spec.stride_y) == ((768, 7, 7), 32)


@pytest.mark.parametrize("split", ["lateral+coarse", "coarse+lateral", "relu+relu_1", "add+relu_1"])
def test_several_values_in_their_order(split):
    model = Pyramid()
    specs = check_halves(model, split, images(2, 16, 24))
    assert [spec.name for spec in specs] == split.split("+")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("lateral+head", "is needed behind the cut and is none of lateral, head; add it"),
        ("add+relu_1+relu", "'relu' is not needed behind the cut"),
        ("relu_1+relu_1", "names one value twice"),
        ("relu_1+nothing", "'nothing' names no node"),
        ("relu_1+", "'' names no node"),
    ],
)
def test_several_values_that_do_not_separate(split, message):
    with pytest.raises(ModelError, match=message):
        split_model(Pyramid(), split, (16, 24))


def test_items_of_a_tuple_cross_at_its_place():
    class Chunked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.other = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            first, second = self.conv(x).chunk(2, 1)
            return first.relu() + second, self.other(x)

    specs = check_halves(Chunked().eval(), "other+chunk", images(2, 8, 8))
    assert [spec.name for spec in specs] == ["other", "getitem", "getitem_1"]


def test_names_survive_wrapping():
    model = Pyramid()
    wrapped = nn.DataParallel(model)
    halves = split_model(wrapped, "module.lateral+coarse", (16, 16))
    x = images(2, 16, 16)
    for tensor, expected in zip(halves.cloud(halves.edge(x)), model(x), strict=True):
        assert torch.equal(tensor, expected)
    assert split_model(torch.compile(model), "_orig_mod.lateral+coarse", (16, 16)).tensors
