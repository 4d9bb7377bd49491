"""What a model's weights were made for, as whoever published them says it, in plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from codec.errors import ModelError
from codec.models import DEFAULT_MODEL
from codec.models.detectors import Detector
from codec.models.onnx_files import load_onnx
from codec.models.programs import PROGRAM_FILE, load_program
from codec.models.sources import build, is_file, own_defaults, published_entry
from codec.models.timm_models import TIMM, timm_input

__all__ = ["PublishedInput", "input_size_of", "preprocessing_of"]


@dataclass(frozen=True, slots=True)
class PublishedInput:
    """Input of a network: (sample - mean) / scale of RGB samples of 0 to 255.

    `size` is height and width of what it takes; `short_side` that of the frame before a crop to
    it, 0 where the frame is stretched to `size`.  A detector without a size of its own takes any:
    `size` is a square of its short side then, and `max_side` bounds the long one (0: no bound).
    """

    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    size: tuple[int, int]
    short_side: int
    interpolation: str
    max_side: int = 0


def preprocessing_of(name: str, weights: str = "default") -> PublishedInput | None:
    """Return what a named model's weights expect, None where nobody says it: of files.

    Args:
        name: as of `load_model`.
        weights: likewise; a file that has the name of a published one is taken for it.

    Raises:
        ModelError: there is no such model.
    """
    if is_file(name):
        return None
    if name == DEFAULT_MODEL:
        return PublishedInput((127.0,) * 3, (128.0,) * 3, (224, 224), 256, "bicubic")
    if name.startswith(TIMM):
        config = timm_input(name)
        _, height, width = config["input_size"]
        share = float(config["crop_pct"])
        squash = config.get("crop_mode") == "squash"
        return PublishedInput(
            _bytes(config["mean"]),
            _bytes(config["std"]),
            (height, width),
            0 if squash else int(min(height, width) / share),
            str(config["interpolation"]),
        )
    transforms = published_entry(name, weights).transforms()
    if hasattr(transforms, "crop_size"):
        side, crop = transforms.resize_size[0], transforms.crop_size[0]
        size = (crop, crop)
    elif hasattr(transforms, "resize_size"):
        side = transforms.resize_size[0]
        size = (side, side)
    else:
        return _of_detector(name)
    return PublishedInput(
        _bytes(transforms.mean),
        _bytes(transforms.std),
        size,
        side,
        str(transforms.interpolation.value),
    )


def _of_detector(name: str) -> PublishedInput:
    with own_defaults(), torch.device("meta"):
        detector = cast("Detector", build(name))
    transform = cast("Any", detector.network.transform)
    mean, scale = _bytes(transform.image_mean), _bytes(transform.image_std)
    if transform.fixed_size:
        width, height = transform.fixed_size
        return PublishedInput(mean, scale, (height, width), 0, "bilinear")
    side = int(transform.min_size[-1])
    return PublishedInput(mean, scale, (side, side), side, "bilinear", int(transform.max_size))


def input_size_of(name: str) -> tuple[int, int]:
    """Return height and width of a model's own input.

    Raises:
        ModelError: it has none, and takes any.
    """
    published = preprocessing_of(name)
    if published is not None:
        return published.size
    load = load_program if name.endswith(PROGRAM_FILE) else load_onnx
    size = load(Path(name)).input_size
    if size is None:
        raise ModelError(
            f"{Path(name).name} has no input size of its own; give one, as 416x256 "
            "with lmc models --size"
        )
    return size


def _bytes(shares: Sequence[float]) -> tuple[float, float, float]:
    """Bring what is said of samples of 0 to 1 to the 255 steps of a byte."""
    red, green, blue = (255 * float(share) for share in shares)
    return red, green, blue
