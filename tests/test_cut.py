"""What can be cut and what is refused, by name and by what crosses."""

from __future__ import annotations

import pytest
from networks import Merging, check_halves, images

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
    with pytest.raises(ModelError, match="no place in the frame"):
        split_model(model, "cat", (32, 32))


def test_a_vision_transformer_is_cut_behind_its_first_layer():
    """Its attention gives (tensor, None), which is no value to be compared with anything."""
    model = load_model("vit_b_32", "random:0")
    (spec,) = check_halves(model, "conv_proj", images(3, 224, 224))
    assert (spec.shape, spec.stride_y) == ((768, 7, 7), 32)
