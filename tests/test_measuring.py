"""Geometry measured by gradients, derived and given."""

from __future__ import annotations

import pytest
import torch
from networks import images
from torch import nn

from codec.errors import ModelError
from codec.models.measuring import measured_geometry
from codec.models.submodels import SplitModel, split_model


class Rolled(nn.Module):
    """An operation without a rule between two convolutions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x):
        y = torch.roll(self.first(x).relu(), (2, -4), (2, 3))
        return self.second(y).mean((2, 3))


@pytest.fixture
def rolled():
    torch.manual_seed(0)
    return Rolled().eval().requires_grad_(requires_grad=False)


def test_measured_where_no_rule_is_known(rolled):
    (spec,) = split_model(rolled, "second", (64, 96)).tensors
    assert (spec.stride_y, spec.stride_x) == (4, 4)
    assert spec.offset_y2 / 2 == pytest.approx(-4, abs=1)
    assert spec.offset_x2 / 2 == pytest.approx(8, abs=1)


def test_given_geometry_comes_first(rolled):
    (spec,) = split_model(rolled, "second", (64, 96), geometry={"second": (4, 4, -8, 16)}).tensors
    assert (spec.stride_y, spec.offset_y2, spec.offset_x2) == (4, -8, 16)
    with pytest.raises(ModelError, match="geometry of 'first', which does not cross"):
        split_model(rolled, "second", (64, 96), geometry={"first": (2, 2, 0, 0)})


def test_mixed_samples_have_no_place():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 2, 2)
            self.mix = nn.Linear(256, 256)

        def forward(self, x):
            y = self.conv(x).flatten(2)
            return self.mix(y).unflatten(2, (16, 16)) + 1

    model = Mixed().eval()
    with pytest.raises(ModelError, match=r"no place in the frame.*measured.*geometry=") as caught:
        split_model(model, "unflatten", (32, 32))
    assert "\n" not in str(caught.value)


def test_measured_as_derived():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 4, 2), nn.AdaptiveAvgPool2d(1)
    ).requires_grad_(requires_grad=False)
    halves = split_model(model.eval(), "2", (96, 64))
    (spec,) = halves.tensors
    found = measured_geometry(lambda x: halves.edge(x)[0], (2, 3, 96, 64), spec.shape[1:])
    for axis, stride, offset2 in [
        (found.y, spec.stride_y, spec.offset_y2),
        (found.x, spec.stride_x, spec.offset_x2),
    ]:
        assert axis.stride == stride
        assert axis.offset2 == pytest.approx(offset2, abs=2)


def test_any_two_callables(rolled):
    halves = split_model(rolled, "second", (64, 96))
    (spec,) = halves.tensors
    pair = SplitModel.of(
        lambda x: halves.edge(x)[0], lambda y: y.mean((2, 3)), [spec], (64, 96), "mine"
    )
    x = images(2, 64, 96)
    assert torch.equal(pair.cloud(pair.edge(x)), rolled(x))
    with pytest.raises(ModelError, match=r"the edge gives float32 \(2, 8, 8, 8\) on cpu, expected"):
        pair.edge(images(2, 32, 32))
    with pytest.raises(ValueError, match="found none"):
        SplitModel.of(halves.edge, halves.cloud, [], (64, 96))
