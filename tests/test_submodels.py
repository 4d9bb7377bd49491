"""Split models: the halves equal the whole, and samples lie where gradients say they do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from codec.errors import ModelError
from codec.format.header import TensorSpec
from codec.models.submodels import (
    BUNDLED_SPLITS,
    _build,
    default_preprocessing,
    describe_splits,
    labels,
    list_models,
    list_splits,
    load_model,
    normalise,
    split_model,
    weights_hash,
)


@pytest.fixture(scope="module")
def efficientnet() -> nn.Module:
    return load_model("efficientnet_lite0")


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return load_model("resnet34", "random:1")


@pytest.fixture(scope="module")
def densenet() -> nn.Module:
    return load_model("densenet121", "random:1")


def images(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def check_halves(model: nn.Module, split: str, x: torch.Tensor) -> tuple[TensorSpec, ...]:
    """edge + cloud == whole, bit for bit; the tensors are as described and the cloud keeps them."""
    halves = split_model(model, split, (x.shape[2], x.shape[3]))
    features = halves.edge(x)
    before = [tensor.clone() for tensor in features]
    assert torch.equal(halves.cloud(features), model(x))
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(features, before, strict=True))
    for tensor, spec in zip(features, halves.tensors, strict=True):
        assert tensor.shape == (x.shape[0], spec.channels, spec.height, spec.width)
        assert tensor.dtype == torch.float32
    return halves.tensors


# --- the halves and the whole -----------------------------------------------------------------


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


# --- where samples lie ------------------------------------------------------------------------


def centroid(model, split, size, batch=2, number=-1):
    """A tensor's spec, and where the samples near its middle look, on average, by their gradients.

    The two entries of the second value are the mean differences, in y and x, between the centre of
    gradient energy and the derived centre, in strides.
    """
    halves = split_model(model, split, size)
    spec = halves.tensors[number]
    misses = []
    for seed in range(2):
        for dy, dx in [(0, 0), (-1, 1)]:
            x = images(batch, *size, seed=seed).requires_grad_()
            row, column = spec.height // 2 + dy, spec.width // 2 + dx
            halves.edge(x)[number][:, :, row, column].abs().sum().backward()
            energy = x.grad.double().square().sum((0, 1))
            y, x_ = (
                (energy.sum(1 - axis) * torch.arange(size[axis])).sum() / energy.sum()
                for axis in (0, 1)
            )
            misses.append(
                (
                    (y - row * spec.stride_y - spec.offset_y2 / 2) / spec.stride_y,
                    (x_ - column * spec.stride_x - spec.offset_x2 / 2) / spec.stride_x,
                )
            )
    return spec, np.mean(misses, axis=0)


def averaging(model):
    """The model with positive weights that sum to 1, so that every position it sees counts."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.data.abs()
            module.weight.data = weight / weight.sum((1, 2, 3), keepdim=True)
    return model


@pytest.mark.parametrize("split", BUNDLED_SPLITS[:4])
def test_trained_kernels_lean_within_their_windows(efficientnet, split):
    """The derived centre is that of the windows; training may lean on one side of them.

    EfficientNet-Lite0's static padding is lopsided (at strides, more at the bottom and the right),
    and its kernels make up for part of that: measured, they look 0.05 to 0.55 strides above and to
    the left of the centre.  The bounds record that measurement; the geometry itself is what the
    next test shows.
    """
    _, miss = centroid(efficientnet, split, (320, 352))
    assert miss.min() > -0.6
    assert miss.max() < 0.05


@pytest.mark.parametrize(
    ("name", "split", "stride", "offset2"),
    [
        ("efficientnet_lite0", "blocks.2", 4, 6),
        ("efficientnet_lite0", "blocks.4", 8, 14),
        ("efficientnet_lite0", "blocks.10", 16, 30),
        ("resnet34", "add_3", 8, 0),
        ("resnet34", "layer1.0.conv1", 4, 0),
        ("densenet121", "features.transition1", 8, 4),
        ("densenet121", "features.denseblock2.denselayer3", 8, 4),
        ("densenet121", "features.transition2", 16, 12),
    ],
)
def test_samples_look_where_derived(name, split, stride, offset2):
    model = averaging(load_model(name, "random:3"))
    spec, miss = centroid(model, split, (288, 320))
    assert (spec.stride_y, spec.stride_x) == (stride, stride)
    assert (spec.offset_y2, spec.offset_x2) == (offset2, offset2)
    assert np.abs(miss).max() < 0.15


def test_every_tensor_of_a_dense_block_looks_where_derived():
    model = averaging(load_model("densenet121", "random:3"))
    for number in range(3):
        split = "features.denseblock2.denselayer2"
        _, miss = centroid(model, split, (160, 192), number=number)
        assert np.abs(miss).max() < 0.15


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


def test_asymmetric_windows_exactly():
    # All weights are 1: the gradient is symmetric around the centre, and the centroid exact.
    model = Lopsided().eval().requires_grad_(requires_grad=False)
    for parameter in model.parameters():
        parameter.fill_(1)
    halves = split_model(model, "permute_1", (64, 80))
    (spec,) = halves.tensors
    assert (spec.stride_y, spec.stride_x) == (4, 4)
    row, column = spec.height // 2, spec.width // 2
    x = torch.ones(1, 3, 64, 80, requires_grad=True)
    halves.edge(x)[0][0, :, row, column].sum().backward()
    weight = x.grad.double().sum((0, 1))
    for axis, sample, stride, offset2 in [
        (0, row, spec.stride_y, spec.offset_y2),
        (1, column, spec.stride_x, spec.offset_x2),
    ]:
        profile = weight.sum(1 - axis)
        centre = (profile * torch.arange(len(profile))).sum() / profile.sum()
        assert centre == pytest.approx(sample * stride + offset2 / 2, abs=1e-6)
    check_halves(model, "permute_1", images(2, 64, 80))


def test_max_pools_look_where_derived():
    """The largest of equally distributed samples lies at the window's centre, on average."""
    pools = nn.Sequential(nn.MaxPool2d((3, 2), (2, 1), (1, 0)), nn.MaxPool2d(3, 2, ceil_mode=True))
    model = nn.Sequential(pools, nn.AdaptiveAvgPool2d(1)).eval()
    halves = split_model(model, "0", (24, 16))
    (spec,) = halves.tensors
    assert (spec.stride_y, spec.stride_x, spec.offset_y2, spec.offset_x2) == (4, 2, 4, 3)
    x = images(4096, 24, 16).requires_grad_()
    halves.edge(x)[0][:, :, 2, 3].sum().backward()
    weight = x.grad.double().sum((0, 1)) / x.grad.sum()
    assert (weight.sum(1) * torch.arange(24)).sum() == pytest.approx(2 * 4 + 2, abs=0.1)
    assert (weight.sum(0) * torch.arange(16)).sum() == pytest.approx(3 * 2 + 1.5, abs=0.1)


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


def test_of_unequal_offsets_the_widest_branch_decides():
    class Two(Merging):
        def forward(self, x):
            return torch.relu(self.narrow(x) + self.wide(x)).mean((2, 3))

    (spec,) = split_model(Two().eval(), "add", (32, 32)).tensors
    assert (spec.stride_y, spec.offset_y2, spec.offset_x2) == (2, 1, 1)


# --- what cannot be split ---------------------------------------------------------------------


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
        for name in list_models()
    ],
)
def test_any_cut_of_any_network_works_or_is_a_model_error(name):
    """First, last and some other nodes and modules, at the network's own size and at a tiny one."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model, device = _build(name).eval(), "meta"
        except NotImplementedError:
            model, device = _build(name).eval(), "cpu"
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


# --- lists ------------------------------------------------------------------------------------


def test_bundled_splits():
    found = [
        (split, spec.channels, spec.height, spec.width, spec.stride_y, spec.stride_x)
        for split, (spec,) in describe_splits("efficientnet_lite0")
    ]
    assert found == [
        ("blocks.2", 24, 56, 56, 4, 4),
        ("blocks.4", 40, 28, 28, 8, 8),
        ("blocks.7", 80, 14, 14, 16, 16),
        ("blocks.10", 112, 14, 14, 16, 16),
        ("blocks.14", 192, 7, 7, 32, 32),
    ]


def test_listed_splits():
    assert list_splits("resnet34") == ["add", *(f"add_{k}" for k in range(1, 16))]
    dense = list_splits("densenet121")
    assert {f"features.denseblock3.denselayer{k}" for k in range(1, 24)} <= set(dense)
    assert {"features.denseblock3", "features.transition3"} <= set(dense)
    assert list_splits("googlenet")[-1] == "inception5b"
    assert list_splits("regnet_y_400mf")[0] == "add"
    assert list_splits("vit_b_16") == ["conv_proj"]


def test_lists_leave_the_generator_alone():
    state = torch.get_rng_state()
    describe_splits("regnet_x_400mf")
    load_model("resnet18", "random:5")
    assert torch.equal(torch.get_rng_state(), state)


def test_models():
    names = list_models()
    assert names[0] == "efficientnet_lite0"
    assert {"resnet34", "densenet121"} <= set(names)


# --- weights ----------------------------------------------------------------------------------


def test_random_weights_follow_the_seed():
    first, again, other = (weights_hash(load_model("resnet18", f"random:{k}")) for k in (1, 1, 2))
    assert first == again != other


def test_loaded_model_is_frozen(efficientnet):
    assert not efficientnet.training
    assert not any(parameter.requires_grad for parameter in efficientnet.parameters())


def test_hash_depends_on_weights_not_on_order():
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[1.0, -2.0]])
    layer.bias.data = torch.tensor([0.5])
    # SHA-256 of "bias\0float32\0001\0" 0000003f "weight\0float32\0001,2\0" 0000803f 000000c0
    assert weights_hash(layer).hex() == "ab70dffb01fe726d"


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix, half):
    model = load_model("squeezenet1_1", "random:4")
    saved = {key: t.half() if half else t for key, t in model.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    torch.save(saved, path) if suffix == ".pth" else save_file(saved, path)
    loaded = load_model("squeezenet1_1", str(path))
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, saved[key].float())


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


def test_weights_that_do_not_fit(tmp_path):
    saved = load_model("squeezenet1_1", "random:4").state_dict()
    path = tmp_path / "weights.pth"
    torch.save({**saved, "extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"1 unexpected \(extra\)"):
        load_model("squeezenet1_1", str(path))
    torch.save({key: tensor for key, tensor in saved.items() if "features.0" not in key}, path)
    with pytest.raises(ModelError, match=r"2 missing \(features\.0\.weight, features\.0\.bias\)"):
        load_model("squeezenet1_1", str(path))
    torch.save({**saved, "features.0.bias": torch.zeros(5)}, path)
    with pytest.raises(ModelError, match=r"features\.0\.bias has shape \(5,\), not \(64,\)"):
        load_model("squeezenet1_1", str(path))
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="not a state dict"):
        load_model("squeezenet1_1", str(path))
    torch.save({"epoch": 3, "state_dict": saved}, path)
    with pytest.raises(ModelError, match="checkpoint with one under 'state_dict'"):
        load_model("squeezenet1_1", str(path))
    torch.save({f"module.{key}": tensor for key, tensor in saved.items()}, path)
    with pytest.raises(ModelError, match=r"begin with 'module\.'"):
        load_model("squeezenet1_1", str(path))
    first = saved["features.0.bias"]
    for dtype in (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn):
        torch.save({**saved, "features.0.bias": first.to(dtype)}, path)
        with pytest.raises(ModelError, match=rf"features\.0\.bias is {str(dtype)[6:]}, expected"):
            load_model("squeezenet1_1", str(path))
    for value in (float("nan"), float("inf")):
        torch.save({**saved, "features.0.bias": first + value}, path)
        with pytest.raises(ModelError, match=r"features\.0\.bias holds NaN or infinity"):
            load_model("squeezenet1_1", str(path))
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no weights at all")
        with pytest.raises(ModelError, match="cannot be read as a state dict"):
            load_model("squeezenet1_1", str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet43", "default", "unknown model 'resnet43'; nearest: .*library"),
        ("fasterrcnn_resnet50_fpn", "default", "one of torchvision's detection networks.*library"),
        ("fcn_resnet50", "random:0", "one of torchvision's segmentation networks"),
        ("r3d_18", "random:0", "one of torchvision's video networks"),
        ("raft_small", "random:0", "one of torchvision's optical_flow networks"),
        ("quantized_resnet18", "random:0", "one of torchvision's quantization networks"),
        ("folder/resnet50-0676ba61.pth", "default", "name of a file.*--model NAME --weights FILE"),
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


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "split"),
    [("resnet34", "add_3"), ("densenet121", "features.denseblock2.denselayer3")],
)
def test_stand_in_weights(data_dir, name, split):
    model = load_model(name, str(data_dir / "weights" / f"{name}_distilled.pth"))
    check_halves(model, split, images(1, 224, 224))
    _, miss = centroid(model, split, (192, 224), number=0)
    assert np.abs(miss).max() < 0.25


# --- frames and labels ------------------------------------------------------------------------


def test_normalise():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    rgb.flags.writeable = False
    lite = normalise(rgb, default_preprocessing("efficientnet_lite0", native=False))
    assert lite.shape == (2, 3, 5, 7)
    assert lite.dtype == torch.float32
    assert lite.is_contiguous()
    assert torch.equal(lite, (torch.tensor(rgb.copy()).permute(0, 3, 1, 2).float() - 127) / 128)
    one = normalise(rgb[1], default_preprocessing("resnet34", native=False))
    expected = (rgb[1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(one[0].permute(1, 2, 0), expected, atol=1e-5)
    with pytest.raises(ValueError, match="expected uint8"):
        normalise(rgb.astype(np.float32), default_preprocessing("resnet34", native=False))


def test_default_preprocessing():
    small, native = (default_preprocessing("efficientnet_lite0", native=n) for n in (False, True))
    assert (small.short_side, small.crop, small.pad_multiple) == (256, 224, 0)
    assert (native.short_side, native.crop, native.pad_multiple) == (0, 0, 32)
    assert native.mean_thousandths == (127_000,) * 3
    assert native.scale_thousandths == (128_000,) * 3


@pytest.mark.parametrize("name", list_models()[1:])
def test_preprocessing_is_what_the_weights_were_made_for(name):
    entries = torchvision.models.get_model_weights(name)
    named = [
        ("default", entries.DEFAULT),
        ("random:1", entries.DEFAULT),
        ("a.pth", entries.DEFAULT),
    ]
    named += [(f"folder/{entry.url.rpartition('/')[2]}", entry) for entry in entries]
    for weights, entry in named:
        transforms = entry.transforms()
        found = default_preprocessing(name, native=False, weights=weights)
        assert [found.short_side] == transforms.resize_size
        assert [found.crop] == transforms.crop_size
        assert found.crop <= found.short_side
        assert found.pad_multiple == 0
        np.testing.assert_allclose(
            found.mean_thousandths, np.array(transforms.mean) * 255e3, atol=0.5
        )
        np.testing.assert_allclose(
            found.scale_thousandths, np.array(transforms.std) * 255e3, atol=0.5
        )
        native = default_preprocessing(name, native=True, weights=weights)
        assert native == dataclasses.replace(found, short_side=0, crop=0, pad_multiple=32)


def test_preprocessing_of_unknown_models():
    with pytest.raises(ModelError, match="unknown model 'resnet43'; nearest: "):
        default_preprocessing("resnet43", native=False)


def test_splits_are_described_at_the_size_of_the_model():
    (_, (spec,)), *_ = describe_splits("efficientnet_v2_l")
    assert (spec.height, spec.stride_y) == (240, 2)


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


def test_import_needs_no_torchvision():
    code = "import codec.models.submodels, sys; sys.exit('torchvision' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")
