"""Frames as the weights expect them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torchvision

from codec.errors import ModelError
from codec.format.header import Interpolation, Preprocessing, Resize
from codec.models.preprocessing import default_preprocessing, normalise, read_preprocessing


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


def test_channels_in_the_order_of_the_network():
    rgb = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    means = Preprocessing(0, 0, 1, (1000, 2000, 3000), (1000,) * 3, bgr=True)
    found = normalise(rgb, means)
    assert found[0, :, 0, 0].tolist() == [2 - 1, 1 - 2, 0 - 3]


NANODET = """
resize = "stretch"
size = [416, 416]
interpolation = "bilinear"
channels = "BGR"
mean = [103.53, 116.28, 123.675]
scale = [57.375, 57.12, 58.395]
"""


def test_preprocessing_of_a_file(tmp_path):
    path = tmp_path / "nanodet.toml"
    path.write_text(NANODET)
    found = read_preprocessing(path)
    assert found == Preprocessing(
        0,
        0,
        1,
        (103_530, 116_280, 123_675),
        (57_375, 57_120, 58_395),
        Resize.STRETCH,
        (416, 416),
        interpolation=Interpolation.BILINEAR,
        bgr=True,
    )
    assert found.input_size == (416, 416)
    path.write_text(
        'resize = "short side"\nsize = 256\ncrop = 224\n'
        "mean = [127, 127, 127]\nscale = [128, 128, 128]\n"
    )
    small = default_preprocessing("efficientnet_lite0", native=False)
    assert read_preprocessing(path) == dataclasses.replace(small, pad_multiple=1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("416]", "416", "is no TOML"),
        ('"stretch"', '"squash"', 'resize is "squash"; expected one of none, short side'),
        ("[416, 416]", "416", "size is 416; expected 2 integers"),
        ("[416, 416]", "[0, 416]", "expected 2 integers from 1 to 65536"),
        ("BGR", "GBR", 'channels is "GBR"; expected one of RGB, BGR'),
        ("scale =", "std =", "key 'scale' is missing; expected 3 numbers"),
        ("57.375", "0", "expected 3 numbers from 0.001"),
        ("\nsize", "\ncrop = -1\nsize", "crop is -1; expected an integer from 0 to 65536"),
        ("\nsize", "\nfill = [0, 0, 0]\nsize", "unknown key 'fill'; expected only resize, size"),
        ("[416, 416]", "[416.5, 416]", "expected 2 integers"),
        ("57.375", "true", "expected 3 numbers from 0.001"),
        ("bilinear", "lanczos", 'interpolation is "lanczos"'),
        ("[416, 416]", "[true, 416]", "expected 2 integers from 1"),
        ("\nsize", "\npad_multiple = 0\nsize", "pad_multiple is 0; expected 1 or more"),
        ("\nsize", "\ncrop = 417\nsize", "crop is 417; expected at most the short side of size"),
        (
            '"stretch"\nsize = [416, 416]',
            '"short side"\nsize = 224\ncrop = 256',
            "crop is 256; expected at most the short side of size, 224",
        ),
    ],
)
def test_files_that_say_nothing_clear(tmp_path, old, new, message):
    path = tmp_path / "wrong.toml"
    path.write_text(NANODET.replace(old, new, 1))
    with pytest.raises(ModelError, match=message) as raised:
        read_preprocessing(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        read_preprocessing(tmp_path / "none.toml")
