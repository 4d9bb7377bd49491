"""The command itself: how it starts, ends and fails."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import nullcontext, suppress
from typing import Any

import click

from codec import __version__
from codec.errors import FeatureCodecError
from codec.files.outputs import STANDARD_OUTPUT, ended_by_signals, naming, one_line

__all__ = ["main"]

RARELY = (50_000, 20, 20)
"""How rarely Python looks for cycles: what torch makes as it is imported lives as long as the
process, and going through it again and again took a tenth of the start."""


class _Lmc(click.Group):
    """Turns errors that are not bugs into one line and exit code 1, signals into 128 + their
    number.
    """

    def main(self, args: Any = None, *more: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's
        """Run: as the command of this process where no arguments are given, else as a function."""
        command = args is None
        if command:
            prepare_standard_streams()
            gc.set_threshold(*RARELY)
        try:
            # what comes through is of --help and --version, which click prints outside of `invoke`
            with ended_by_signals() if command else nullcontext(), naming(STANDARD_OUTPUT):
                return super().main(args, *more, **extra)
        except OSError as error:
            sys.exit(tell(error))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what no file is called, however the rest is understood."""
        for word in args:
            if "\0" in word:
                raise click.UsageError(f"{word!r} holds a NUL, which no argument may", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        try:
            return super().invoke(ctx)
        except (FeatureCodecError, OSError) as error:
            ctx.exit(tell(error))
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)


def prepare_standard_streams() -> None:
    """Keep files that will be opened off the numbers of closed streams, which libraries print to;
    print what the terminal has no letters for as escapes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    with suppress(AttributeError):  # None where it is closed
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def tell(error: FeatureCodecError | OSError) -> int:
    """Print an error and return the exit code."""
    if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
        with suppress(AttributeError, OSError):  # Python would try again at its exit, and complain
            descriptor = os.open(os.devnull, os.O_WRONLY)
            os.dup2(descriptor, sys.stdout.fileno())
            os.close(descriptor)
        if isinstance(error, BrokenPipeError):
            return 1  # its reader has seen enough
    with suppress(OSError):
        click.echo(f"lmc: {one_line(error)}", err=True)
    return 1


@click.group(cls=_Lmc, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lmc")
def main() -> None:
    """Code the feature tensors of video: motion-compensated, bit-exact, ready for the rest of the
    network.
    """
