"""What the commands print, and what they refuse to print on or to overwrite."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from codec.files.outputs import STANDARD_OUTPUT, check_outputs, naming, open_output

__all__ = [
    "check_files",
    "json_line",
    "print_report",
    "progress",
    "refuse_terminal",
    "say",
    "write_json",
]


def say(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print a line; an error in doing so names the stream."""
    with naming("standard error" if err else STANDARD_OUTPUT):
        click.echo(text, nl=nl, err=err)


def print_report(report: Mapping[str, Any], *, to_stderr: bool) -> None:
    """Print a report line by line, without the MD5s."""
    width = max([22, *map(len, report)])
    for key, value in report.items():
        if key == "frame_md5":
            continue
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        say(f"{key:{width}} {text}", err=to_stderr)


@contextmanager
def progress(total: int | None, *, quiet: bool, unit: str = "frame") -> Iterator[Any]:
    """Yield a function that notes a text behind a progress bar and moves it on, by one if no number
    is given.
    """
    from tqdm import tqdm

    with tqdm(
        total=total, unit=unit, disable=quiet or not sys.stderr.isatty(), file=sys.stderr
    ) as bar:

        def advance(note: str, count: int = 1) -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance


def check_files(
    outputs: Mapping[str, str | None],
    inputs: Iterable[tuple[str, str | Path | None]],
    *,
    force: bool,
) -> None:
    """Refuse outputs that would overwrite an input or each other, mix in a pipe, or fill a
    terminal; see `check_outputs`.
    """
    try:
        check_outputs(outputs, inputs, force=force)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if outputs.get("-o") == "-":
        refuse_terminal("stdout")


def refuse_terminal(name: str) -> None:
    """Refuse a terminal as a binary input or output, "stdin" or "stdout"."""
    stream = getattr(sys, name)
    if stream is not None and stream.isatty():
        full = f"standard {name.removeprefix('std')}put"
        raise click.UsageError(f"{full} is a terminal; redirect it, or name a file")


def write_json(path: str, content: object, *, force: bool) -> None:
    """Write JSON to a file, or to - for standard output; what is no finite number becomes null."""
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    with open_output(path, force=force) as file:
        file.write(f"{text}\n".encode())


def json_line(row: object) -> bytes:
    """Return JSON in one line; what is no finite number becomes null."""
    return f"{json.dumps(_finite(row), allow_nan=False)}\n".encode()


def _finite(content: object) -> object:
    """Return the same without NaN and infinities, which JSON does not have."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
