"""The boundary to networks, code of other people: whatever it throws leaves as one line of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from codec.errors import ModelError

__all__ = [
    "as_model_error",
    "check_file",
    "dtype_name",
    "first_line",
    "printable",
    "quiet",
    "read_file",
]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torchvision says about initialisation, no concern of whoever runs a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or else its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def as_model_error(what: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever tracing, cutting or running a network throws into a `ModelError` of one line
    that begins with `what`.
    """
    try:
        yield
    except ModelError as error:  # fx adds lines about where it was
        raise type(error)(first_line(error)) from error
    except Exception as error:  # the model's own code, which may fail in any way
        raise ModelError(f"{what}: {first_line(error)}{remedy}") from error


def check_file(path: Path) -> None:
    """Refuse what is no file of a network; to read a pipe would wait for whoever writes it.

    Raises:
        ModelError: there is none, or it is something else.
    """
    if path.is_file():
        return
    found = "there is no such file"
    if path.is_dir():
        found = "is a directory; name a file (.pt2, .onnx)"
    elif path.exists():
        found = "is no regular file; a pipe cannot be read twice: copy it to a file first"
    raise ModelError(f"model {str(path)!r}: {found}")


def read_file(path: Path) -> bytes:
    """Read a file of a network.

    Raises:
        ModelError: it cannot be read.
    """
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"model {str(path)!r}: {error.strerror or first_line(error)}") from error


def printable(name: str) -> str:
    """Return a name of a file as a header may hold it."""
    text = name.encode(errors="replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def dtype_name(tensor: torch.Tensor) -> str:
    """Name the type of a tensor's elements: `float32`."""
    return str(tensor.dtype).removeprefix("torch.")
