"""Networks by name, with weights of every origin."""

from __future__ import annotations

import urllib.error

import numpy as np
import pytest
import torch
from networks import images

from codec.errors import ModelError
from codec.models.preprocessing import default_preprocessing, normalise
from codec.models.sources import labels, list_models, load_model
from codec.models.split_points import describe_splits
from codec.models.submodels import split_model
from codec.models.weights import weights_hash


def test_models():
    names = list_models()
    assert names[0] == "efficientnet_lite0"
    assert {"resnet34", "densenet121"} <= set(names)


def test_random_weights_follow_the_seed():
    first, again, other = (weights_hash(load_model("resnet18", f"random:{k}")) for k in (1, 1, 2))
    assert first == again != other


def test_loaded_model_is_frozen(efficientnet):
    assert not efficientnet.training
    assert not any(parameter.requires_grad for parameter in efficientnet.parameters())


def test_published_densenet_keys(tmp_path, densenet):
    """Torchvision's files say norm.1 where its model says norm1, and lack the batch counters."""
    saved = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): tensor
        for key, tensor in densenet.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save(saved, tmp_path / "old.pth")
    assert weights_hash(load_model("densenet121", str(tmp_path / "old.pth"))) == weights_hash(
        densenet
    )


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet43", "default", "unknown model 'resnet43'; nearest: .*library"),
        ("r3d_18", "random:0", "one of torchvision's video networks"),
        ("raft_small", "random:0", "one of torchvision's optical_flow networks"),
        ("quantized_resnet18", "random:0", "one of torchvision's quantization networks"),
        ("folder/resnet50-0676ba61.pth", "default", "name of a file.*--model NAME --weights FILE"),
        ("absent.pt2", "default", "there is no such file"),
        ("absent.pt2", "random:0", "holds its weights"),
        ("resnet34", "random:", "not an integer"),
        ("resnet34", "random:-1", "not an integer"),
        ("resnet34", "absent.pth", "no such file"),
        ("resnet34", "latest", r"expected default, random:SEED or a \.safetensors"),
    ],
)
def test_unusable_names(name, weights, message):
    with pytest.raises(ModelError, match=message):
        load_model(name, weights)


def test_download_that_fails(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(ModelError, match=r"no network.*--weights FILE.*random:SEED") as caught:
        load_model("resnet18")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_vision_transformers_are_built_for_the_size_of_their_weights(tmp_path):
    model = load_model("vit_b_16", "random:0")
    state = model.state_dict()
    state["encoder.pos_embedding"] = torch.zeros(1, 24 * 24 + 1, 768)
    path = tmp_path / "vit_b_16_swag-9ac1b537.pth"  # of the name that torchvision publishes
    torch.save(state, path)
    assert default_preprocessing("vit_b_16", native=False, weights=str(path)).crop == 384
    assert load_model("vit_b_16", str(path)).image_size == 384


def test_defaults_of_torch_change_no_model():
    expected = weights_hash(load_model("squeezenet1_1", "random:4"))
    rgb = np.zeros((4, 4, 3), np.uint8)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            model = load_model("squeezenet1_1", "random:4")
            assert weights_hash(model) == expected
            halves = split_model(model, "features.6", (64, 64))
            image = normalise(rgb, default_preprocessing("resnet34", native=False))
            assert describe_splits("squeezenet1_1", (64, 64))
    finally:
        torch.set_default_dtype(torch.float32)
    assert (image.device.type, image.dtype) == ("cpu", torch.float32)
    x = images(1, 64, 64)
    assert torch.equal(halves.cloud(halves.edge(x)), model(x))
    with torch.inference_mode():
        model = load_model("squeezenet1_1", "random:4")
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_labels():
    assert labels("efficientnet_lite0", 1000)[1] == "goldfish"
    assert labels("densenet121", 1000) == labels("efficientnet_lite0", 1000)
    assert labels("resnet34", 3) == ["class 0", "class 1", "class 2"]
