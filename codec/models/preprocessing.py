"""Frames -> model input: what a model's weights were made for, as data, and its arithmetic."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from codec.errors import ModelError
from codec.format.constants import MAX_EXTENT
from codec.format.header import Interpolation, Preprocessing, Resize
from codec.models.published import preprocessing_of
from codec.models.sources import classifiers

__all__ = ["default_preprocessing", "normalise", "read_preprocessing"]

RESIZES: Final = {
    "none": Resize.SHORT_SIDE,
    "short side": Resize.SHORT_SIDE,
    "stretch": Resize.STRETCH,
    "letterbox": Resize.LETTERBOX,
}


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
            "--preprocessing FILE"
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
        OSError: there is no such file.
        ModelError: it is no TOML, or does not say what it should.
    """
    try:
        with path.open("rb") as file:
            given = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not a TOML file: {error}") from error
    try:
        return _from_keys(_Keys(given))
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error


class _Keys:
    """The keys of a file, each taken once and checked."""

    def __init__(self, given: Mapping[str, object]) -> None:
        self._left = dict(given)

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        found = self._left.pop(key, default)
        if not isinstance(found, str) or found not in choices:
            raise ValueError(f"{key} is {found!r}, expected one of {', '.join(choices)}")
        return found

    def whole(self, key: str, default: int) -> int:
        found = self._left.pop(key, default)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= MAX_EXTENT:
            raise ValueError(f"{key} is {found!r}, expected a number of pixels")
        return found

    def numbers(
        self, key: str, count: int, low: float, high: float, default: object
    ) -> list[float]:
        found = self._left.pop(key, default)
        if (
            not isinstance(found, list | tuple)
            or len(found) != count
            or not all(
                isinstance(each, int | float) and not isinstance(each, bool) and low <= each <= high
                for each in found
            )
        ):
            raise ValueError(
                f"{key} is {found!r}, expected {count} numbers from {low:g} to {high:g}"
            )
        return [float(each) for each in found]

    def wholes(self, key: str, count: int, low: int, high: int, default: object) -> list[int]:
        found = self.numbers(key, count, low, high, default)
        if not all(each.is_integer() for each in found):
            raise ValueError(f"{key} is {found}, expected {count} whole numbers")
        return [int(each) for each in found]

    def end(self) -> None:
        if self._left:
            raise ValueError(f"{', '.join(self._left)}: no such key of preprocessing")


def _from_keys(keys: _Keys) -> Preprocessing:
    resize = keys.choice("resize", list(RESIZES))
    short_side, size, fill = 0, (0, 0), (0, 0, 0)
    if resize == "short side":
        short_side = keys.whole("size", 0)
        if not short_side:
            raise ValueError("size is missing, expected the length of the short side")
    elif resize != "none":
        height, width = keys.wholes("size", 2, 1, MAX_EXTENT, None)
        size = height, width
    if resize == "letterbox":
        red, green, blue = keys.wholes("fill", 3, 0, 255, (0, 0, 0))
        fill = red, green, blue
    crop, multiple = keys.whole("crop", 0), keys.whole("pad_multiple", 1)
    if not (crop or multiple):
        raise ValueError("pad_multiple is 0, expected 1 or more where nothing is cropped")
    shortest = short_side or min(size)
    if shortest and crop > shortest:
        raise ValueError(f"crop is {crop}, expected at most the short side of size, {shortest}")
    names = [each.name.lower() for each in Interpolation]
    interpolation = keys.choice("interpolation", names, "bicubic")
    channels = keys.choice("channels", ("RGB", "BGR"), "RGB")
    mean, scale = (
        [round(1000 * each) for each in keys.numbers(key, 3, low, 65535, None)]
        for key, low in (("mean", 0), ("scale", 0.001))
    )
    keys.end()
    return Preprocessing(
        short_side=short_side,
        crop=crop,
        pad_multiple=multiple,
        mean_thousandths=(mean[0], mean[1], mean[2]),
        scale_thousandths=(scale[0], scale[1], scale[2]),
        resize=RESIZES[resize],
        size=size,
        fill=fill,
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
