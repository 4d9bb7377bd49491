"""The boundary to networks, code of other people: whatever it throws leaves as one line of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from codec.errors import ModelError

__all__ = ["as_model_error", "dtype_name", "first_line", "printable", "quiet"]


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


def printable(name: str) -> str:
    """Return a name of a file as a header may hold it."""
    text = name.encode(errors="replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def dtype_name(tensor: torch.Tensor) -> str:
    """Name the type of a tensor's elements: `float32`."""
    return str(tensor.dtype).removeprefix("torch.")
