"""Frames as the weights expect them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torchvision

from codec.errors import ModelError
from codec.models.preprocessing import default_preprocessing, normalise


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


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
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
