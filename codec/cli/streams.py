"""Streams named on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from codec.cli.terminal import refuse_terminal
from codec.files.outputs import named, standard_stream
from codec.limits import Limits

if TYPE_CHECKING:
    from codec.files.streams import StreamReader

__all__ = ["open_stream"]


@contextmanager
def open_stream(path: str, limits: Limits) -> Iterator[StreamReader]:
    """Open a file, or - for standard input."""
    from codec.files.streams import StreamReader

    with ExitStack() as stack:
        file: BinaryIO
        if path == "-":
            refuse_terminal("stdin")
            file, path = standard_stream("stdin"), "standard input"
        else:
            file = stack.enter_context(Path(path).open("rb"))
        yield StreamReader(named(file, path), limits)
