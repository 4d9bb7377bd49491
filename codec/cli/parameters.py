"""Parameters that several commands share, and what their words stand for."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import click

from codec.encoding.config import DEFAULT_EFFORT, DEFAULT_QUALITY, MAX_EFFORT, QUALITIES
from codec.encoding.rate_control import TARGET_RANGES
from codec.format.constants import MAX_EXTENT, MAX_QP
from codec.limits import Limits
from codec.models import DEFAULT_MODEL
from codec.pipeline.options import DEFAULT_SPLIT

__all__ = [
    "DEVICE",
    "EFFORT",
    "FORCE",
    "LIMITS",
    "MAX_LATENCY",
    "MODEL",
    "NATIVE",
    "PREPROCESSING",
    "PROFILE",
    "PROFILE_APART",
    "QP",
    "QUALITY",
    "SPLIT",
    "TASK",
    "TOKEN",
    "TRUTH",
    "TRUTH_FRAMES",
    "WEIGHTS",
    "Address",
    "Duration",
    "Fingerprint",
    "FiniteRange",
    "FrameRange",
    "FrameSize",
    "Target",
    "own_files",
    "split_or_default",
    "token_of",
    "usable_device",
    "weight_file",
]


LEAST_LATENCY, MOST_LATENCY = 1e-3, 60.0
"""Seconds."""
FINGERPRINT_DIGITS: Final = 64
MOST_TOKEN_BYTES: Final = 128
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


class Address(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """`HOST:PORT`, of IPv6 `[HOST]:PORT`; where there is a usual host, `PORT` too."""

    name = "address"

    def __init__(self, host: str | None = None) -> None:
        self._host = host

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, int]:
        """Return host and port."""
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        host = host or self._host or ""
        if not (port.isascii() and port.isdigit() and int(port[:6]) < 1 << 16 and host):
            self.fail(
                f"{value!r} is not {'HOST:PORT' if self._host is None else 'PORT or HOST:PORT'}",
                param,
                ctx,
            )
        return host.removeprefix("[").removesuffix("]"), int(port)


class Fingerprint(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """SHA-256 in hexadecimal digits, with colons between them or not."""

    name = "fingerprint"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Return 64 digits."""
        digits = str(value).replace(":", "").lower()
        if len(digits) != FINGERPRINT_DIGITS or set(digits) - set("0123456789abcdef"):
            self.fail(
                f"{value!r} is no fingerprint, {FINGERPRINT_DIGITS} hexadecimal digits", param, ctx
            )
        return digits


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """`200ms` or `0.2s`: seconds."""

    name = "time"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return seconds."""
        text = str(value)
        unit = 1e-3 if text.endswith("ms") else 1.0
        try:
            number = float(text.removesuffix("ms").removesuffix("s")) * unit
        except ValueError:
            number = math.nan
        if not LEAST_LATENCY <= number <= MOST_LATENCY or not text.endswith("s"):
            self.fail(f"{value!r} is not a time from 1ms to 60s", param, ctx)
        return number


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


class FiniteRange(click.FloatRange):
    """A range of numbers, which infinity and what is no number are outside of."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


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


PROFILE = click.option(
    "--profile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of `lmc calibrate`, which travels in the stream, 0.1 to 1.5 MB, unless it is one "
    "of the shipped; default: the shipped profile, or one measured on the first frames.",
)
NATIVE = click.option(
    "--native",
    is_flag=True,
    help="Whole frames at their own size instead of the crop that the weights were made for.",
)
QUALITY = click.option(
    "--quality",
    type=click.Choice(list(QUALITIES)),
    default=None,
    show_default=DEFAULT_QUALITY,
    help=f"qp {', '.join(map(str, QUALITIES.values()))}: with the first, the cloud of a classifier "
    "nearly always comes to the answer of the uncoded network; of other tasks see --evaluate.",
)
QP = click.option(
    "--qp",
    type=click.IntRange(0, MAX_QP),
    default=None,
    help="Quantiser in place of a named quality; 6 more double the step.",
)
EFFORT = click.option(
    "--effort",
    type=click.IntRange(0, MAX_EFFORT),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="From fast to thorough; 0 searches no motion; 5 to 9 also run the cloud sub-model to "
    "lower the task loss, of classifiers only.",
)
MAX_LATENCY = click.option(
    "--max-latency",
    type=Duration(),
    default="200ms",
    show_default=True,
    help="How long a frame may take beyond the least delay of the link; what would take longer is "
    "not sent, and not waited for.",
)
TOKEN = click.option(
    "--token",
    metavar="FILE|TEXT",
    help="What senders show to be let in: a file that holds it, or the token itself, which other "
    "users of the machine may see.",
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


def token_of(given: str) -> str:
    """Return the token that a file holds, or that is given itself.

    Raises:
        click.BadParameter: it is none.
    """
    path = Path(given)
    try:
        token = path.read_text(encoding="utf-8").strip() if path.is_file() else given
    except ValueError as error:
        raise click.BadParameter(f"{given}: holds no text", param_hint="--token") from error
    if not 0 < len(token.encode()) <= MOST_TOKEN_BYTES:
        raise click.BadParameter(
            f"a token of {len(token.encode())} bytes, expected 1 to {MOST_TOKEN_BYTES}",
            param_hint="--token",
        )
    return token


def own_files(model: str, task: str | None) -> list[tuple[str, str | Path | None]]:
    """Return what --model and --task read, each with the option that it is told by."""
    from codec.models.sources import is_file
    from codec.pipeline.network_tasks import task_files

    found: list[tuple[str, str | Path | None]] = [("--model", model)] if is_file(model) else []
    return found + [("--task", path) for path in task_files(task)]
