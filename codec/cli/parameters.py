"""Parameters that several commands share, and what their words stand for."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from codec.encoding.rate_control import TARGET_RANGES
from codec.models import DEFAULT_MODEL
from codec.pipeline.options import DEFAULT_SPLIT

__all__ = [
    "DEVICE",
    "FORCE",
    "MODEL",
    "SPLIT",
    "WEIGHTS",
    "FrameRange",
    "Target",
    "split_or_default",
    "usable_device",
    "weight_file",
]


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
    """`WIDTHxHEIGHT`, in pixels."""

    name = "size"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        """Return (height, width)."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is not WIDTHxHEIGHT, as 416x256", param, ctx)
        return int(found[2]), int(found[1])


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
WEIGHTS = click.option(
    "--weights",
    default="default",
    show_default=True,
    help="default, FILE (safetensors, pth) or random:SEED.",
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
