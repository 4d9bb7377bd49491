"""Photographs and frames of clips, as the experiments move them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from codec.files.video import VideoReader
from codec.format.header import Preprocessing
from codec.models.preprocessing import default_preprocessing
from tools.motion_study.settings import SIZE, Settings
from tools.motion_study.warps import (
    Picture,
)

__all__ = ["frames_of", "pictures_of"]

SHORT_SIDE = 256
"""Pictures are brought to this, and frames cut from their middle, as is usual."""
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def frames_of(clip: Path, count: int, *, crop: bool = True) -> list[NDArray[np.uint8]]:
    """Read the first frames of a clip, (H, W, 3) uint8, as the networks see them or uncropped."""
    preprocessing = default_preprocessing("resnet34", native=False)
    if not crop:
        preprocessing = Preprocessing(SHORT_SIDE, 0, 1, preprocessing.mean_thousandths,
                                      preprocessing.scale_thousandths)  # fmt: skip
    with VideoReader(clip, preprocessing, frames=(0, count)) as reader:
        return [frame.rgb for frame in reader]


def pictures_of(settings: Settings) -> list[tuple[str, Picture]]:
    """Return named pictures: photographs of the folder, or frames of the clips, spread evenly.

    Raises:
        click.ClickException: there are none.
    """
    if settings.images is None:
        found = [
            (f"{clip.name} {number}", rgb)
            for clip in settings.clips
            for number, rgb in enumerate(frames_of(clip, 64, crop=False))
        ]
        chosen = _spread(found, settings.pictures)
    else:
        paths = sorted(
            path for path in settings.images.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES
        )
        if not paths:
            raise click.ClickException(f"{settings.images}: holds no pictures")
        chosen = [(path.name, _opened(path)) for path in _spread(paths, settings.pictures)]
    return [(name, Picture(rgb, SIZE)) for name, rgb in chosen]


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    if len(items) < count:
        raise click.ClickException(f"{len(items)} pictures; --pictures asks for {count}")
    return [items[index * len(items) // count] for index in range(count)]


def _opened(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise click.ClickException(f"{path}: not a picture that can be read ({error})") from error
    scale = SHORT_SIDE / min(picture.size)
    if scale != 1:
        width, height = (max(round(side * scale), SHORT_SIDE) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)
