"""Networks of timm, if it is installed."""

from __future__ import annotations

import sys

import pytest
from networks import check_halves, images

from codec.errors import ModelError
from codec.models.published import preprocessing_of
from codec.models.sources import load_model
from codec.models.split_points import describe_splits

pytestmark = pytest.mark.slow


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'latent-motion-codec\[timm\]'"):
        load_model("timm:resnet18", "random:0")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("resnet18", "layer2"),
        ("tf_efficientnet_lite0", "blocks.2"),
        ("vit_tiny_patch16_224", "patch_embed.proj"),
    ],
)
def test_halves(name, split):
    pytest.importorskip("timm")
    model = load_model(f"timm:{name}", "random:1")
    (spec,) = check_halves(model, split, images(2, 224, 224))
    assert spec.name == split


def test_published_input_and_lists():
    pytest.importorskip("timm")
    published = preprocessing_of("timm:tf_efficientnet_lite0")
    assert published is not None
    assert (published.size, published.short_side, published.scale) == (
        (224, 224),
        256,
        (127.5, 127.5, 127.5),
    )
    assert describe_splits("timm:resnet18")[0][0] == "add"
    with pytest.raises(ModelError, match="unknown model 'timm:resnet81'; nearest: timm:resnet"):
        load_model("timm:resnet81", "random:0")
