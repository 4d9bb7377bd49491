"""`lmc plan`."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from codec.cli.group import main
from codec.cli.parameters import (
    EFFORT,
    FORCE,
    MODEL,
    PREPROCESSING,
    TASK,
    WEIGHTS,
    FiniteRange,
    own_files,
    weight_file,
)
from codec.cli.terminal import check_files, refuse_terminal, say, write_json
from codec.errors import JobError
from codec.files.outputs import open_output, temporary_folder

if TYPE_CHECKING:
    from codec.planning.plan import Plan

__all__ = ["plan"]

RATES: Final = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
MOST_SECONDS: Final = 60.0


class Rate(click.ParamType):  # type: ignore[type-arg,unused-ignore] # new in click 8.3
    """`2mbit`, `500kbit`: bits per second."""

    name = "rate"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return bits per second."""
        match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)(bit|kbit|mbit|gbit)", str(value))
        number = _number(match[1]) * RATES[match[2]] if match else math.nan
        if not 1 <= number <= 1e12:
            self.fail(
                f"{value!r} is no rate, a number and bit, kbit, mbit or gbit (per second), such as "
                "2mbit",
                param,
                ctx,
            )
        return number


class Time(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """`60ms`, `0.1s`: seconds, 0 among them."""

    name = "time"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return seconds."""
        match = re.fullmatch(r"([0-9.]+)(ms|s)", str(value))
        number = _number(match[1]) * (1e-3 if match[2] == "ms" else 1) if match else math.nan
        if not 0 <= number <= MOST_SECONDS:
            self.fail(f"{value!r} is not a time from 0ms to 60s", param, ctx)
        return number


class Watts(click.ParamType):  # type: ignore[type-arg,unused-ignore] # as above
    """`edge=4,radio=0.8`: watts of both."""

    name = "power"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[float, float]:
        """Return the watts of edge and radio."""
        match = re.fullmatch(r"edge=([0-9.]+),radio=([0-9.]+)", str(value))
        found = (_number(match[1]), _number(match[2])) if match else (math.nan, math.nan)
        if not all(map(math.isfinite, found)):
            self.fail(f"{value!r} is not edge=WATTS,radio=WATTS", param, ctx)
        return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@main.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@MODEL
@WEIGHTS
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="Cuts to consider, in place of up to ten chosen from the network.",
)
@PREPROCESSING
@TASK
@click.option("--link", type=Rate(), required=True, metavar="RATE", help="Its rate: 2mbit.")
@click.option(
    "--rtt", type=Time(), default="60ms", show_default=True, metavar="TIME", help="Its round trip."
)
@click.option(
    "--edge-slowdown",
    type=FiniteRange(0.01, 1000),
    default=1.0,
    show_default=True,
    help="How many times slower than this machine the edge device is.",
)
@click.option(
    "--fidelity",
    type=FiniteRange(0, min_open=True),
    help="What a frame may lose, in the unit of the task's loss (of classes kl, in nats; of things "
    "found their distortion); rates are compared there. Default: what calibration allows, of "
    "classes 0.07.",
)
@EFFORT
@click.option(
    "--energy",
    type=Watts(),
    metavar="edge=W,radio=W",
    help="Watts of the edge device while it computes, and of its radio while it sends.",
)
@click.option(
    "--photographs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A photograph, or a folder of them, to measure profiles on where none is shipped; "
    "default: the clips themselves.",
)
@click.option(
    "--frames", type=click.IntRange(2), default=24, show_default=True, help="Of each clip."
)
@click.option(
    "--resume",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps what is measured: with another link the same is not measured again.",
)
@click.option("-o", "--output", help="Write the plan as JSON; - is standard output.")
@click.option(
    "--page", type=click.Path(dir_okay=False), help="Write the plan as a page, one HTML file."
)
@click.option("-q", "--quiet", is_flag=True, help="Nothing on the terminal.")
@FORCE
def plan(
    clips: tuple[Path, ...],
    model: str,
    weights: str,
    splits: tuple[str, ...],
    preprocessing: Path | None,
    task: str | None,
    link: float,
    rtt: float,
    edge_slowdown: float,
    fidelity: float | None,
    effort: int,
    energy: tuple[float, float] | None,
    photographs: tuple[Path, ...],
    frames: int,
    resume: Path | None,
    output: str | None,
    page: str | None,
    quiet: bool,
    force: bool,
) -> None:
    """Say where to cut a network for CLIPS and a link: what each cut takes at the edge, on the link
    and in the cloud at equal loss of the task, beside the pictures by x265 and the whole network at
    the edge.

    Times are processor seconds of this machine; reading, resizing and conversion of colours are not
    counted, as they are the same for all or a camera's.
    """
    from codec.planning.measurement import Setting
    from codec.planning.planner import Request, make_plan
    from codec.planning.stages import Link, Power, Terms
    from codec.planning.table import plan_text

    names = [path.name for path in clips]
    if len(set(names)) < len(names):
        raise click.UsageError("two clips have the same name; a plan tells them apart by it")
    pictures = _pictures(photographs)
    inputs: list[tuple[str, str | Path | None]] = [
        *(("CLIPS", path) for path in clips),
        *(("--photographs", path) for path in pictures),
        *own_files(model, task),
        ("--weights", weight_file(weights)),
        ("--preprocessing", preprocessing),
    ]
    check_files({"-o": output, "--page": page}, inputs, force=force)
    if page is not None:
        _needs_templates()
    if page == "-":
        refuse_terminal("stdout")
    request = Request(
        clips=clips,
        setting=Setting(model, weights, preprocessing, task, frames, effort),
        terms=Terms(Link(link, rtt), edge_slowdown, None if energy is None else Power(*energy)),
        fidelity=fidelity,
        splits=splits,
        photographs=pictures,
    )
    with ExitStack() as stack:
        folder = resume or stack.enter_context(temporary_folder("lmc-plan-"))
        paths = [*(path for _, path in inputs), *photographs, resume, output, page]
        made = make_plan(
            request,
            folder,
            command=_command(sys.argv[1:], [Path(path) for path in paths if path is not None]),
            quiet=quiet or not sys.stderr.isatty(),
        )
    shown = b"" if page is None else _page(made)  # before anything is written
    if output is not None:
        write_json(output, made.to_json(), force=force)
    if page is not None:
        with open_output(page, force=force) as file:
            file.write(shown)
    if not quiet:
        say(plan_text(made), err="-" in (output, page))


def _pictures(given: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the files that are named, and those in the folders."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(each for each in path.iterdir() if each.is_file())
        else:
            found.append(path)
    if given and not found:
        raise click.UsageError(f"--photographs {given[0]}: an empty folder; give pictures")
    return tuple(found)


def _needs_templates() -> None:
    """Refuse before anything is measured."""
    if find_spec("jinja2") is None:
        raise JobError(
            "--page needs the extra `page`, which is not installed: "
            "pip install 'latent-motion-codec[page]'"
        )


def _page(made: Plan) -> bytes:
    from codec.planning.page import plan_page

    return plan_page(made).encode()


def _command(words: Sequence[str], paths: Sequence[Path]) -> str:
    """Give the command as typed, but files by name only: whose folders they are in is nobody's
    affair.

    Args:
        words: what was typed behind `lmc`.
        paths: those among them, alone or behind an option: PATH, --x=PATH, -oPATH.
    """
    from codec.models.boundary import printable

    def named(word: str) -> str:
        starts = [0]
        if word.startswith("--"):
            starts += [word.find("=") + 1]
        elif word.startswith("-"):
            starts += range(2, len(word))
        for start in starts:
            if Path(word[start:]) in paths:
                return word[:start] + (Path(word[start:]).name or word[start:])
        return word

    return shlex.join(["lmc", *(printable(named(word)) for word in words)])
