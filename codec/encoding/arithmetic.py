"""Floating point as the code says it, whatever the caller's torch has been told.

A decoder needs none of it: its integers travel in float64, which no autocast touches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["as_written", "autocasts"]

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


def autocasts() -> bool:
    """Tell whether autocast is on in this thread, for any device."""
    return any(torch.is_autocast_enabled(device) for device in AUTOCAST_DEVICES)


@contextmanager
def as_written() -> Iterator[None]:
    """Compute in the types that the code names, whatever the caller has switched on around it.

    Autocast takes products of float32 matrices to bfloat16, and inference mode makes tensors that
    no gradient passes: both are meant for the caller's model.  Within, gradients are off until they
    are asked for.  (Defaults of device and type need no care here: no tensor is made by them.)
    """
    with ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.no_grad())
        yield
