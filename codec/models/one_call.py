"""A network's half whose operations run in one call, beside which other threads run Python.

Between two operations of a module its thread has to wait for Python's lock, hundreds of times a
frame; TorchScript goes through all of them without it.  torch calls that deprecated, and has
nothing else that needs no compiler: where it is gone, or a network cannot be recorded, the module
runs as it is.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["in_one_call"]

SLOW = 0.2
"""Seconds from which on a batch is hardly longer for waiting."""
RUNS = 2
"""Of which the first is watched, to make the later ones faster."""


def in_one_call(module: Callable[..., Any], images: Tensor) -> Callable[..., Any]:
    """Return what computes the same, bit by bit, of batches of that shape in one call.

    Args:
        module: a graph of modules; what is computed depends on the shape of its input alone.
        images: a batch to compare the two with.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated, and that sizes become constants
        try:
            start = time.perf_counter()
            expected = module(images)
            if time.perf_counter() - start > SLOW:
                return module
            trace: Any = torch.jit.trace
            made = trace(module, torch.zeros_like(images), check_trace=False)
            if not all(_equal(expected, made(images)) for _ in range(RUNS)):
                return module
        except Exception:  # whatever torch does not record
            return module

    def one_call(batch: Tensor) -> Any:  # noqa: ANN401 - what the module returns
        return made(batch) if batch.shape == images.shape else module(batch)

    return one_call


def _equal(first: Any, second: Any) -> bool:  # noqa: ANN401 - what modules return
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    return len(first) == len(second) and all(map(_equal, first, second))
