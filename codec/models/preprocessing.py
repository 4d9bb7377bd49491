"""Frames -> model input: what a model's weights were made for, as data, and its arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from codec.descriptions import Fields, read_toml
from codec.errors import ModelError
from codec.format.constants import MAX_EXTENT
from codec.format.header import Interpolation, Preprocessing, Resize
from codec.models.published import preprocessing_of
from codec.models.sources import classifiers

__all__ = ["default_preprocessing", "normalise", "normalise_float", "read_preprocessing"]

RESIZES: Final = {
    "none": Resize.SHORT_SIDE,
    "short side": Resize.SHORT_SIDE,
    "stretch": Resize.STRETCH,
    "letterbox": Resize.LETTERBOX,
}
_LARGEST: Final = 65535
"""Of means and scales."""


def default_preprocessing(name: str, native: bool, weights: str = "default") -> Preprocessing:
    """Return what the model's weights were made for, as it is published with them.

    Size, mean and deviation are those of the weights' own transform.  The interpolation of
    classifiers is not: that is bilinear or bicubic with antialiasing, as the weights say, where
    frames are resized here bicubically by swscale.

    Args:
        name: of `list_models`.
        native: leave frames at their own size, padded to a multiple of 32.
        weights: as of `load_model`.  A file that has the name of one that torchvision publishes for
            this model is taken for it; for any other, and for random weights, the model's default
            weights decide.

    Raises:
        ModelError: the name is unknown, or its frames are prepared in another way.
    """
    published = preprocessing_of(name, weights)
    if published is None:
        raise ModelError(
            f"{name}: how frames become its input is not known; say it in a TOML file, "
            "--preprocessing FILE, or preprocessing=FILE of codec.split"
        )
    mean, scale = (
        [round(1000 * value) for value in values] for values in (published.mean, published.scale)
    )
    classifier = name in classifiers()
    height, width = published.size
    crop = height if published.short_side and height == width else 0
    stretched = not native and not crop
    names = {each.name.lower(): each for each in Interpolation}
    return Preprocessing(
        short_side=published.short_side if crop and not native else 0,
        crop=0 if native else crop,
        pad_multiple=32 if native else int(not classifier),
        mean_thousandths=(mean[0], mean[1], mean[2]),
        scale_thousandths=(scale[0], scale[1], scale[2]),
        resize=Resize.STRETCH if stretched else Resize.SHORT_SIDE,
        size=(height, width) if stretched else (0, 0),
        interpolation=Interpolation.BICUBIC
        if classifier
        else names.get(published.interpolation, Interpolation.BICUBIC),
    )


def read_preprocessing(path: Path) -> Preprocessing:
    """Read how frames become the input of a network of one's own, from a TOML file.

    Keys: `resize` ("none", "short side", "stretch", "letterbox"), `size` (the short side, or
    [height, width]), `crop` (a square), `pad_multiple` (of a whole frame; default 1),
    `interpolation` ("bicubic", "bilinear", "area", "nearest"; default bicubic), `fill` ([R, G, B]
    of a letterbox; default black), `channels` ("RGB", "BGR"; default RGB), `mean` and `scale`
    (three numbers in the order of `channels`, sample = (value - mean) / scale of values 0 … 255).

    Raises:
        ModelError: it cannot be read, is no TOML, or does not say what it should.
    """
    fields = Fields(str(path), read_toml(path, ModelError), ModelError)
    resize = fields.choice("resize", list(RESIZES))
    short_side, size, fill = 0, [0, 0], [0, 0, 0]
    if resize == "short side":
        short_side = fields.count("size", high=MAX_EXTENT)
    elif resize != "none":
        size = fields.counts("size", 2, low=1, high=MAX_EXTENT)
    if resize == "letterbox":
        fill = fields.counts("fill", 3, fill, low=0, high=255)
    crop, multiple = (
        fields.count(key, default, low=0, high=MAX_EXTENT)
        for key, default in (("crop", 0), ("pad_multiple", 1))
    )
    if not (crop or multiple):
        fields.refuse("pad_multiple is 0; expected 1 or more where nothing is cropped")
    shortest = short_side or min(size)
    if shortest and crop > shortest:
        fields.refuse(f"crop is {crop}; expected at most the short side of size, {shortest}")
    names = [each.name.lower() for each in Interpolation]
    interpolation = fields.choice("interpolation", names, "bicubic")
    channels = fields.choice("channels", ("RGB", "BGR"), "RGB")
    mean, scale = (
        [round(1000 * each) for each in fields.numbers(key, 3, low=low, high=_LARGEST)]
        for key, low in (("mean", 0), ("scale", 0.001))
    )
    fields.end()
    return Preprocessing(
        short_side=short_side,
        crop=crop,
        pad_multiple=multiple,
        mean_thousandths=(mean[0], mean[1], mean[2]),
        scale_thousandths=(scale[0], scale[1], scale[2]),
        resize=RESIZES[resize],
        size=(size[0], size[1]),
        fill=(fill[0], fill[1], fill[2]),
        interpolation=Interpolation[interpolation.upper()],
        bgr=channels == "BGR",
    )


def normalise(rgb: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Turn one frame (H, W, 3) or several (N, H, W, 3) into float32 model input (N, 3, H, W)."""
    if rgb.dtype != np.uint8 or rgb.ndim not in {3, 4} or rgb.shape[-1] != 3:
        raise ValueError(f"expected uint8 (H, W, 3) or (N, H, W, 3), found {rgb.dtype} {rgb.shape}")
    mean = np.array(preprocessing.mean_thousandths, np.float32) / np.float32(1000)
    scale = np.array(preprocessing.scale_thousandths, np.float32) / np.float32(1000)
    ordered = rgb[..., ::-1] if preprocessing.bgr else rgb
    samples = (ordered.astype(np.float32) - mean) / scale
    frames = samples.reshape(-1, *samples.shape[-3:])
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))


def normalise_float(rgb: npt.NDArray[np.float32], preprocessing: Preprocessing) -> torch.Tensor:
    """Turn float frames (N, H, W, 3) into model input, as `normalise` does with integers."""
    mean = np.array(preprocessing.mean_thousandths, np.float32) / np.float32(1000)
    scale = np.array(preprocessing.scale_thousandths, np.float32) / np.float32(1000)
    samples = ((rgb[..., ::-1] if preprocessing.bgr else rgb) - mean) / scale
    return torch.from_numpy(np.ascontiguousarray(samples.transpose(0, 3, 1, 2)))
