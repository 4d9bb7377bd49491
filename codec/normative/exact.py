"""Integers that travel in float64: the arithmetic of everything a decoder computes.

Sums and products of integers are exact in float64 as long as every partial result stays below 2^53
in magnitude, in whatever order they are summed; so BLAS, any number of threads, any CPU and any GPU
give the same bits.  Every use states its bound; `tests/test_exactness.py` tries the extremes.
Nothing here knows about tensors of features.
"""

import torch
from torch import Tensor

__all__ = ["exact_matmul", "round_shift"]


def round_shift(values: Tensor, bits: int) -> Tensor:
    """Divide integers by 2^bits, rounding to nearest, halves towards plus infinity: (values +
    2^(bits-1)) >> bits.

    Args:
        values: float64 integers, magnitude below 2^52.
        bits: 0 … 40.

    Returns:
        float64 integers.  Exact: scaling by a power of two is, and the sum needs at most 53 bits.
    """
    if bits == 0:
        return values
    return (values * 0.5**bits).add_(0.5).floor_()


def exact_matmul(left: Tensor, right: Tensor) -> Tensor:
    """Multiply float64 integer matrices; the caller states why no sum reaches 2^53."""
    assert left.dtype == right.dtype == torch.float64  # noqa: S101 - a bug of ours, not an input
    return torch.matmul(left, right)
