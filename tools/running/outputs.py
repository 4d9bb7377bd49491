"""What the commands here have in common with `lmc` as to files: no input is overwritten, and what
goes wrong with a file is told in one line that names it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from codec.errors import FeatureCodecError
from codec.files.outputs import check_outputs, one_line, open_output

__all__ = ["guarded", "write_text"]


@contextmanager
def guarded(
    outputs: Mapping[str, str] | None = None, inputs: Iterable[tuple[str, str | Path | None]] = ()
) -> Iterator[None]:
    """Refuse outputs that are inputs (see `check_outputs`), then tell errors as click does.

    Outputs may exist: the studies are made to be done again.
    """
    try:
        try:
            check_outputs(outputs or {}, inputs, force=True)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        yield
    except (FeatureCodecError, OSError) as error:
        raise click.ClickException(one_line(error)) from error


def write_text(path: Path, text: str) -> None:
    """Write a file: all of it or nothing."""
    with open_output(str(path), force=True) as file:
        file.write(text.encode())
