"""Split models: the halves equal the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import Small, check_halves, images
from torch import nn
from torchvision import models as classifiers

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models import DEFAULT_MODEL
from codec.models.preprocessing import default_preprocessing
from codec.models.sources import build, load_model
from codec.models.split_points import BUNDLED_SPLITS
from codec.models.submodels import split_model


@pytest.mark.parametrize("split", BUNDLED_SPLITS)
def test_efficientnet_halves(efficientnet, split):
    (spec,) = check_halves(efficientnet, split, images(1, 224, 224))
    assert spec.name == split


def test_efficientnet_native_size(efficientnet):
    (spec,) = check_halves(efficientnet, "blocks.4", images(2, 96, 160))
    assert (spec.height, spec.width) == (12, 20)


@pytest.mark.parametrize("split", ["add_3", "layer1.0.relu", "maxpool", "layer2.0.bn1"])
def test_resnet_halves(resnet, split):
    check_halves(resnet, split, images(3, 64, 96))


def test_resnet_names_are_those_of_the_paper(resnet):
    halves = split_model(resnet, "add_3", (224, 224), "resnet34")
    assert halves.tensors == (TensorSpec("add_3", 128, 28, 28, 8, 8, 0, 0),)
    assert (halves.name, halves.split, halves.input_size) == ("resnet34", "add_3", (224, 224))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "tensors"),
    [
        ("features.denseblock2.denselayer3", 4),
        ("features_denseblock2_denselayer3_conv2", 4),
        ("features.denseblock1", 1),
        ("features.transition1", 1),
    ],
)
def test_densenet_halves(densenet, split, tensors):
    specs = check_halves(densenet, split, images(2, 64, 96))
    assert len(specs) == tensors
    assert len({spec.name for spec in specs}) == tensors
    assert specs[-1].name == split


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("shufflenet_v2_x0_5", "stage2.1"),  # a tuple of halves inside, shapes computed on the way
        ("shufflenet_v2_x0_5", "chunk"),
        ("squeezenet1_1", "features.6"),
        ("mobilenet_v3_small", "add_1"),  # squeeze-and-excitation
        ("convnext_tiny", "add_4"),  # channels last in between
        ("googlenet", "inception3b"),
    ],
)
def test_other_architectures(name, split):
    check_halves(load_model(name, "random:0"), split, images(2, 96, 96))


def test_gradients_reach_the_features(efficientnet):
    halves = split_model(efficientnet, "blocks.10", (64, 64))
    (features,) = halves.edge(images(1, 64, 64))
    features.requires_grad_()
    halves.cloud((features,)).square().sum().backward()
    assert features.grad.abs().sum() > 0


def test_cloud_wants_every_tensor(densenet):
    halves = split_model(densenet, "features.denseblock1.denselayer2", (64, 64))
    with pytest.raises(ValueError, match="expected 3 tensors, found 1"):
        halves.cloud((torch.zeros(1, 64, 16, 16),))


@pytest.mark.parametrize("part", ["", "1"])
def test_training_mode_is_refused(part):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Conv2d(4, 4, 3)).eval()
    model.get_submodule(part).train()
    name = part or "the model"
    with pytest.raises(ModelError, match=rf"^{name} \(.*\) is in training mode.*\.eval\(\)"):
        split_model(model, "0", (8, 8))


def test_hooks_of_the_model_itself_are_refused():
    model = Small()
    model.conv.register_forward_hook(lambda _module, _inputs, output: output * 2)
    check_halves(model, "conv", images(2, 8, 8))
    model.register_forward_hook(lambda _module, _inputs, output: output * 2)
    with pytest.raises(ModelError, match="forward hooks of its own"):
        split_model(model, "conv", (8, 8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_than_float32_are_refused(dtype):
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ModelError, match=rf"conv\.weight is {name}.*\.float\(\)"):
        split_model(Small().to(dtype), "conv", (8, 8))


def test_tensors_that_do_not_fit_are_model_errors():
    halves = split_model(Small(), "conv", (8, 8))
    for wrong in (
        torch.zeros(1, 3, 8, 8, dtype=torch.int32),
        torch.zeros(3, 8, 8),
        torch.zeros(1, 1, 8, 8),
    ):
        with pytest.raises(ModelError, match=r"edge does not run on (int|float)32 \(.* on cpu: "):
            halves.edge(wrong)
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    with pytest.raises(ModelError, match=r"cloud does not run on float32 \(1, 4, 5, 5\) on cpu: "):
        split_model(linear, "0", (8, 8)).cloud([torch.zeros(1, 4, 5, 5)])


@pytest.mark.parametrize(
    ("model", "split", "size", "message"),
    [
        (Small(), "conv", (8,), "expected height and width"),
        (Small(), "conv", (8.5, 8), "expected height and width"),
        (Small(), 3, (8, 8), "expected the name"),
        (lambda x: x, "conv", (8, 8), r"expected a torch\.nn\.Module"),
        (nn.Conv2d(1, 4, 3).eval(), "conv", (8, 8), "does not run on 8x8 input, float32 RGB"),
    ],
)
def test_arguments_that_are_none(model, split, size, message):
    with pytest.raises(ModelError, match=message):
        split_model(model, split, size)


# The smallest of each architecture; the others differ from it in numbers only.
FAMILIES = {
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_lite0",
    "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2",
    "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnext50_32x4d",
    "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in FAMILIES else pytest.mark.fuzz)
        for name in [DEFAULT_MODEL, *classifiers.list_models(module=classifiers)]
    ],
)
def test_any_cut_of_any_network_works_or_is_a_model_error(name):
    """First, last and some other nodes and modules, at the network's own size and at a tiny one."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model, device = build(name).eval(), "meta"
        except NotImplementedError:
            model, device = build(name).eval(), "cpu"
    nodes = [node.name for node in torch.fx.symbolic_trace(model).graph.nodes]
    modules = [path for path, _ in model.named_modules()]
    chance = np.random.default_rng(0)
    picked = [nodes[0], nodes[1], nodes[-1], modules[-1]]
    picked += [str(chance.choice(names)) for names in (nodes, modules) for _ in range(2)]
    layers = [path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    picked.append(layers[0])
    own = default_preprocessing(name, native=False).crop
    worked = 0
    for size in ((own, own), (32, 48)):
        for split in picked:
            try:
                halves = split_model(model, split, size, name)
                with torch.no_grad():
                    features = halves.edge(torch.zeros(1, 3, *size, device=device))
                    halves.cloud(features)
            except ModelError:
                continue
            shapes = [(1, *spec.shape) for spec in halves.tensors]
            assert [tuple(tensor.shape) for tensor in features] == shapes
            worked += 1
    assert worked
