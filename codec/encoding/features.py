"""Features as their owner hands them in: checked before anything is computed from them.

Anybody's tensors come this way, so each message says which tensor, what was found and expected,
and the way on.  Encoder only: what a decoder gives needs no check.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from codec.errors import FeatureError
from codec.format.header import TensorSpec

__all__ = ["checked_features", "checked_range"]


def checked_features(features: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[Tensor]:
    """Return the tensors of one frame, detached, if they are what `specs` say.

    Args:
        features: one (C, H, W) tensor per spec, of any real type, on any device.
        specs: of the stream.

    Raises:
        TypeError: something else than tensors.
        FeatureError: another number of tensors or another shape, or tensors without real values.
    """
    if isinstance(features, Tensor):
        raise TypeError(
            f"one frame is a tensor of shape {tuple(features.shape)}, expected a list of "
            f"{len(specs)}, one (C, H, W) tensor per spec; put it in a list"
        )
    for number, tensor in enumerate(features):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"features[{number}] is a {type(tensor).__name__}, expected a torch tensor; "
                "torch.from_numpy makes one of a NumPy array"
            )
    expected = [spec.shape for spec in specs]
    if len(features) != len(specs):
        shapes = [tuple(tensor.shape) for tensor in features]
        raise FeatureError(
            f"features of shapes {shapes}, {len(shapes)} in number, "
            f"expected {len(expected)}: {expected}"
        )
    for tensor, spec in zip(features, specs, strict=True):
        _check(tensor, spec)
    return [tensor.detach() for tensor in features]


def _check(tensor: Tensor, spec: TensorSpec) -> None:
    found = tuple(tensor.shape)
    if found != spec.shape:
        remedy = ""
        if found[1:] == spec.shape:
            remedy = ": one frame, without a batch dimension; " + (
                "take it off with tensor[0]" if found[0] == 1 else "hand in its frames one by one"
            )
        raise FeatureError(
            f"features of {spec.name!r} have shape {found}, expected {spec.shape}{remedy}"
        )
    if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
        kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
        raise FeatureError(
            f"features of {spec.name!r} are {kind}; expected dense real numbers: use to_dense or "
            "dequantize, and code real and imaginary parts as tensors of their own"
        )
    if tensor.is_meta:
        raise FeatureError(
            f"features of {spec.name!r} lie on the meta device, where tensors have no values; "
            "compute them on cpu or cuda"
        )


def checked_range(values: Tensor, spec: TensorSpec, limit: float, remedy: str) -> float:
    """Return the largest magnitude of float64 features.

    Raises:
        FeatureError: it is above `limit`, or a value is not finite; `remedy` says what to do about
            the former.
    """
    peak = float(values.abs().max())
    if peak <= limit:
        return peak
    if not bool(values.isfinite().all()):
        raise FeatureError(
            f"features of {spec.name!r} are not finite: they hold NaN or infinity; "
            "look for a division or an overflow in the model"
        )
    raise FeatureError(
        f"features of {spec.name!r} reach {peak:.3g} in magnitude, the largest that can be coded "
        f"is {limit:.6g}; {remedy}"
    )
