"""Samples lie where gradients say they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import Lopsided, Merging, check_halves, images
from torch import nn

from codec.models.sources import load_model
from codec.models.split_points import BUNDLED_SPLITS
from codec.models.submodels import split_model


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_every_tensor_of_a_dense_block_looks_where_derived():
    model = averaging(load_model("densenet121", "random:3"))
    for number in range(3):
        split = "features.denseblock2.denselayer2"
        _, miss = centroid(model, split, (160, 192), number=number)
        assert np.abs(miss).max() < 0.15


def look_exactly(model, split, size, stride):
    """All weights are 1: the gradient is symmetric around the centre, and the centroid exact."""
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False).fill_(1)
    halves = split_model(model, split, size)
    (spec,) = halves.tensors
    assert (spec.stride_y, spec.stride_x) == stride
    row, column = spec.height // 2, spec.width // 2
    x = torch.ones(1, 3, *size, requires_grad=True)
    halves.edge(x)[0][0, :, row, column].sum().backward()
    weight = x.grad.double().sum((0, 1))
    return [
        (profile * torch.arange(len(profile))).sum() / profile.sum()
        - (sample * stride + offset2 / 2)
        for profile, sample, stride, offset2 in [
            (weight.sum(1), row, spec.stride_y, spec.offset_y2),
            (weight.sum(0), column, spec.stride_x, spec.offset_x2),
        ]
    ]


def test_asymmetric_windows_exactly():
    model = Lopsided().eval()
    assert look_exactly(model, "permute_1", (64, 80), (4, 4)) == pytest.approx([0, 0], abs=1e-6)
    check_halves(model, "permute_1", images(2, 64, 80))


@pytest.mark.parametrize(
    ("operation", "stride", "near"),
    [
        (nn.ConvTranspose2d(4, 4, (4, 6), (2, 4), (1, 0), bias=False), (4, 2), 4),
        (nn.ConvTranspose2d(4, 4, 3, 1, 2, dilation=2, bias=False), (8, 8), 0),
        (nn.Upsample(scale_factor=2), (4, 4), 4),
        (nn.Upsample(scale_factor=(1, 4), mode="bilinear"), (8, 2), 4),
        (nn.Upsample(size=(4, 2)), (16, 32), 0),
        (nn.Upsample(size=(4, 4), mode="bilinear"), (16, 16), 0),
        (nn.AdaptiveAvgPool2d((4, 2)), (16, 32), 0),
        (nn.PixelShuffle(2), (4, 4), 4),
        (nn.PixelUnshuffle(2), (16, 16), 0),
        (lambda x: x[:, 1:, 3:, ::2], (8, 16), 0),
        (lambda x: x[..., 1:-1], (8, 8), 0),
        (lambda x: x.narrow(-1, 2, 4), (8, 8), 0),
        (lambda x: x[:, :2] * x.mean(1, keepdim=True), (8, 8), 0),
    ],
    ids=[f"{number}" for number in range(13)],
)
def test_what_moves_samples(operation, stride, near):
    """`near`: a sample within a copied block is at its middle, not where its copies look."""

    class Moving(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 8, 8, bias=False)
            self.operation = operation if isinstance(operation, nn.Module) else None

        def forward(self, x):
            return (self.operation or operation)(self.conv(x)) + 1

    halves = Moving().eval()
    misses = look_exactly(halves, "add", (64, 64), stride)
    assert max(map(abs, misses)) <= near


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


def test_of_unequal_offsets_the_widest_branch_decides():
    class Two(Merging):
        def forward(self, x):
            return torch.relu(self.narrow(x) + self.wide(x)).mean((2, 3))

    (spec,) = split_model(Two().eval(), "add", (32, 32)).tensors
    assert (spec.stride_y, spec.offset_y2, spec.offset_x2) == (2, 1, 1)


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
