"""Parameters that several commands share, and what their words stand for."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click

from codec.encoding.rate_control import TARGET_RANGES
from codec.format.constants import MAX_EXTENT
from codec.limits import Limits
from codec.models import DEFAULT_MODEL
from codec.pipeline.options import DEFAULT_SPLIT

__all__ = [
    "DEVICE",
    "FORCE",
    "LIMITS",
    "MODEL",
    "PREPROCESSING",
    "PROFILE_APART",
    "SPLIT",
    "TASK",
    "TRUTH",
    "TRUTH_FRAMES",
    "WEIGHTS",
    "FrameRange",
    "FrameSize",
    "Target",
    "own_files",
    "split_or_default",
    "usable_device",
    "weight_file",
]


MOST_DIGITS: Final = 18
"""Of a limit: none needs more, and Python refuses to read a number of thousands."""


class FrameRange(click.ParamType):  # type: ignore[type-arg,unused-ignore] # new in click 8.3
    """`N` is the first N frames, `A:B` frames A to B - 1, `A:` all from A on."""

    name = "range"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int | None]:
        """Return (first, last + 1 or None)."""
        if isinstance(value, tuple):
            return value
        first, colon, last = str(value).partition(":")
        try:
            start = int(first or 0) if colon else 0
            stop = (int(last) if last else None) if colon else int(first)
        except ValueError:
            self.fail(f"{value!r} is not N, A:B or A:", param, ctx)
        if start < 0 or (stop is not None and stop <= start):
            self.fail(f"{value!r} holds no frame", param, ctx)
        return start, stop


class FrameSize(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """`WxH`: width and height of frames, pixels."""

    name = "size"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        """Return (width, height)."""
        if isinstance(value, tuple):
            return value
        sides = str(value).split("x")
        if len(sides) != 2 or not all(
            side.isascii() and side.isdigit() and 1 <= int(side) <= MAX_EXTENT for side in sides
        ):
            self.fail(f"{value!r} is not WxH, from 1x1 to {MAX_EXTENT}x{MAX_EXTENT}", param, ctx)
        return int(sides[0]), int(sides[1])


class Numbering(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """The number of the first frame, or `order`."""

    name = "numbering"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int | str:
        """Return the number, or the word."""
        text = str(value)
        if text == "order":
            return text
        if not (text.isascii() and text.isdigit()):
            self.fail(f"{value!r} is neither a number nor order", param, ctx)
        return int(text)


class Target(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """A number that the rate control can keep to."""

    name = "number"

    def __init__(self, target: str) -> None:
        self._target = target

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the number."""
        least, largest = TARGET_RANGES[self._target]
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not least <= number <= largest:
            self.fail(f"{value!r} is not a number from {least:g} to {largest:g}", param, ctx)
        return number


FORCE = click.option("-f", "--force", is_flag=True, help="Overwrite outputs that exist.")
DEVICE = click.option(
    "--device", default="cpu", show_default=True, help="Where tensors live: cpu, cuda, cuda:1 ..."
)


MODEL = click.option("--model", default=DEFAULT_MODEL, show_default=True, help="See `lmc models`.")
SPLIT = click.option(
    "--split",
    default=None,
    help=f"Where to cut the model; default: {DEFAULT_SPLIT} of EfficientNet-Lite0.",
)
TRUTH = click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="Annotations of the clip to compare with as well: .json of COCO, gt.txt of MOTChallenge, "
    "or label maps of a segmentation, .png or a folder of these. The figures end in _truth; those "
    "of the uncoded network in _truth_uncoded.",
)
TRUTH_FRAMES = click.option(
    "--truth-frames",
    type=Numbering(),
    metavar="N|order",
    help="Which frame of the clip an annotated image is: by the last number in its file name, of "
    "which the first frame has N, or by its place among the images.  [default: 0; of gt.txt 1]",
)
WEIGHTS = click.option(
    "--weights",
    default="default",
    show_default=True,
    help="default, FILE (safetensors, pth) or random:SEED.",
)

PREPROCESSING = click.option(
    "--preprocessing",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML: how frames become the input of a network of your own; known of those by name.",
)
TASK = click.option(
    "--task",
    help="What the outputs of a network of your own stand for: classification, detection, masks, "
    "keypoints, anything, or a TOML file, which a segmentation needs.",
)


def _limits(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> Limits:
    """Read NAME=NUMBER, several joined by commas, or the option given several times."""
    names = [field.name for field in fields(Limits)]
    values: dict[str, int] = {}
    for part in ",".join(given).split(",") if given else ():
        name, _, number = part.partition("=")
        if name not in names:
            raise click.BadParameter(f"{name!r} is none of {', '.join(names)}")
        if name in values:
            raise click.BadParameter(f"{name} is given twice")
        if not (number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS):
            raise click.BadParameter(f"{part!r} is not {name}=NUMBER, a whole number")
        values[name] = int(number)
    return Limits(**values)


LIMITS = click.option(
    "--limits",
    multiple=True,
    metavar="NAME=NUMBER,...",
    callback=_limits,
    help="What a stream may ask for at most, in place of the defaults: "
    + ", ".join(f"{field.name} {field.default}" for field in fields(Limits))
    + ". The error that one is exceeded says what to pass.",
)
PROFILE_APART = click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The profile that the stream was written with, if it travels apart from it.",
)


def split_or_default(model: str, split: str | None) -> str:
    """Return the split asked for, or that of the default model.

    Raises:
        click.UsageError: neither; ModelError: no such model.
    """
    from codec.models.preprocessing import default_preprocessing
    from codec.models.sources import is_file

    if split is not None:
        return split
    if model != DEFAULT_MODEL:
        if not is_file(model):
            default_preprocessing(
                model, native=False
            )  # a name that is none is the first to be said
        raise click.UsageError(
            f"--split is needed for {model}; `lmc models {model}` lists its split points"
        )
    return DEFAULT_SPLIT


def usable_device(name: str) -> str:
    """Return the name of a device that computes in float64; refuse another."""
    import torch

    try:
        # the codec computes in float64 and reads results back: some devices that exist do neither
        torch.zeros(1, dtype=torch.float64, device=name).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise click.BadParameter(
            f"{name!r} cannot be used here: {str(error).splitlines()[0]}", param_hint="--device"
        ) from error
    return name


def weight_file(weights: str | None) -> str | None:
    """Return --weights if it names a file."""
    named_otherwise = weights is None or weights == "default" or weights.startswith("random:")
    return None if named_otherwise else weights


def own_files(model: str, task: str | None) -> list[tuple[str, str | Path | None]]:
    """Return what --model and --task read, each with the option that it is told by."""
    from codec.models.sources import is_file
    from codec.pipeline.network_tasks import task_files

    found: list[tuple[str, str | Path | None]] = [("--model", model)] if is_file(model) else []
    return found + [("--task", path) for path in task_files(task)]
