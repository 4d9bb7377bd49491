"""Fidelity of decoded features: NRMSE of tensors, KL divergence and top-1 agreement of outputs.

Rate is counted where bytes are written, and BD-rate belongs to the studies; neither is here.
Nothing here is normative: a decoder needs none of it.

Source: H. Ulhaq and I. V. Bajić, "Latent space motion analysis for collaborative intelligence",
arXiv:2102.04018, equations (13) and (14).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "FeatureNrmse",
    "TaskFidelity",
    "kl_divergence",
    "nrmse_from_psnr",
    "top1_agreement",
]


@dataclass(slots=True)
class _TensorError:
    """What (13) needs of one tensor, so far."""

    squared_error: float = 0.0
    elements: int = 0
    low: float = math.inf
    high: float = -math.inf

    def nrmse(self) -> float:
        if self.elements == 0:
            raise ValueError("no frame has been measured yet")
        dynamic_range = self.high - self.low
        root = math.sqrt(self.squared_error / self.elements)
        if dynamic_range == 0.0:
            return 0.0 if root == 0.0 else math.inf
        return root / dynamic_range


class FeatureNrmse:
    """Normalised root-mean-square error of the feature tensors of a clip, frame by frame.

    For one tensor with actual values a and reconstructed values p over a whole clip

        NRMSE = (1/R) sqrt( (1/N) sum_i (p_i - a_i)^2 ),    R = max_i a_i - min_i a_i        (13)

    where i runs over all N elements of all frames: every channel and every position counts, and R
    is the dynamic range of the actual tensor over the clip, not of one frame.  A tensor that never
    changes (R = 0) has NRMSE 0 if it is reconstructed exactly and infinity otherwise.

    Several tensors are combined by element count, as if each had been divided by its own range:

        combined = sqrt( sum_k N_k NRMSE_k^2 / sum_k N_k )

    which for one tensor is its NRMSE.

    Invariants:
        * Memory is constant: a sum, a count and two extremes per tensor.
        * The figure depends on the values and on the order of frames only.  Squared errors are
          float64 and are added in an order written down here rather than chosen by a library, so
          that encoder and decoder report the same bits on any machine.

    Args:
        tensor_count: how many tensors are coded per frame, at least 1.
    """

    def __init__(self, tensor_count: int) -> None:
        if tensor_count < 1:
            raise ValueError(f"tensor_count is {tensor_count}, expected at least 1")
        self._tensors = [_TensorError() for _ in range(tensor_count)]

    def update(
        self, index: int, actual: NDArray[np.float32], reconstructed: NDArray[np.float32]
    ) -> None:
        """Add one frame of one tensor.

        Args:
            index: which tensor, 0 <= index < tensor_count.
            actual: (C, H, W) float32, what the edge sub-model gave.
            reconstructed: (C, H, W) float32, what the decoder gives.

        Raises:
            TypeError: something else than NumPy arrays.
            ValueError: the index, the shapes or a value that is not finite.
        """
        for what, array in (("actual", actual), ("reconstructed", reconstructed)):
            if not isinstance(array, np.ndarray):
                raise TypeError(
                    f"tensor {index}: {what} is a {type(array).__name__}, expected a NumPy array; "
                    "tensor.cpu().numpy() is one of a tensor"
                )
        if not 0 <= index < len(self._tensors):
            raise ValueError(f"tensor index is {index}, expected 0 to {len(self._tensors) - 1}")
        if actual.shape != reconstructed.shape or actual.size == 0:
            raise ValueError(
                f"tensor {index}: actual has shape {actual.shape}, reconstructed has "
                f"{reconstructed.shape}; expected equal shapes with at least one element"
            )
        error = reconstructed.astype(np.float64) - actual.astype(np.float64)
        squared_error = _ordered_sum(np.square(error).reshape(-1))
        low, high = float(actual.min()), float(actual.max())
        if not math.isfinite(squared_error):
            finite = bool(np.isfinite(actual).all())
            what = "reconstructed" if finite else "actual"
            raise ValueError(f"tensor {index}: a value is not finite, or too large: {what}")
        tensor = self._tensors[index]
        tensor.squared_error += squared_error
        tensor.elements += actual.size
        tensor.low = min(tensor.low, low)
        tensor.high = max(tensor.high, high)

    def update_frame(self, actual: Sequence[Tensor], reconstructed: Sequence[Tensor]) -> None:
        """Add one frame of all tensors, wherever they lie; arguments and errors as of `update`."""
        for number, (mine, theirs) in enumerate(zip(actual, reconstructed, strict=True)):
            self.update(number, mine.cpu().numpy(), theirs.cpu().numpy())

    def per_tensor(self) -> tuple[float, ...]:
        """Return the NRMSE of each tensor by (13).

        Raises:
            ValueError: a tensor has no frame yet.
        """
        return tuple(tensor.nrmse() for tensor in self._tensors)

    def combined(self) -> float:
        """Return the NRMSE of all tensors together, each normalised by its own dynamic range.

        Raises:
            ValueError: a tensor has no frame yet.
        """
        if len(self._tensors) == 1:
            return self._tensors[0].nrmse()  # without squaring and rooting: equal bits
        total = sum(tensor.elements for tensor in self._tensors)
        weighted = math.fsum(tensor.elements * tensor.nrmse() ** 2 for tensor in self._tensors)
        return math.sqrt(weighted / total)


def _ordered_sum(values: NDArray[np.float64]) -> float:
    """Add a vector of at least one element by folding its halves.

    NumPy's own sum adds in an order that depends on the vector width of the CPU; element-wise
    additions leave nothing to choose, and folding is as accurate as pairwise summation.
    """
    while values.size > 1:
        half = values.size // 2
        folded = values[:half] + values[half : 2 * half]
        if values.size % 2:
            folded[0] += values[-1]
        values = folded
    return float(values[0])


def kl_divergence(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """Compute KL(p_ref || p_rec) of the softmax of each sample, in nats.

    Args:
        reference_logits: (..., classes) finite, from the uncompressed features.
        logits: (..., classes) finite, from the reconstructed features.

    Returns:
        (...) float64, at least 0.

    Raises:
        ValueError: the shapes differ or a logit is not finite.
    """
    _check_logits(reference_logits, logits)
    log_reference = torch.log_softmax(reference_logits.double(), dim=-1)
    log_reconstructed = torch.log_softmax(logits.double(), dim=-1)
    divergence = (log_reference.exp() * (log_reference - log_reconstructed)).sum(dim=-1)
    return divergence.clamp_min(0.0)  # rounding takes nearly equal outputs to about -1e-16


def top1_agreement(reference_logits: Tensor, logits: Tensor) -> float:
    """Compute the share of samples whose most probable class is that of the reference.

    Args:
        reference_logits: (..., classes) finite, from the uncompressed features.
        logits: (..., classes) finite, from the reconstructed features.

    Returns:
        A share from 0 to 1.

    Raises:
        ValueError: the shapes differ, a logit is not finite or there is no sample.
    """
    _check_logits(reference_logits, logits)
    agrees = reference_logits.argmax(dim=-1) == logits.argmax(dim=-1)
    if agrees.numel() == 0:
        raise ValueError("no sample to compare")
    return int(agrees.sum()) / agrees.numel()


def _check_logits(reference_logits: Tensor, logits: Tensor) -> None:
    if reference_logits.shape != logits.shape or logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"reference logits have shape {tuple(reference_logits.shape)}, logits have "
            f"{tuple(logits.shape)}; expected equal shapes (..., classes)"
        )
    if not (bool(reference_logits.isfinite().all()) and bool(logits.isfinite().all())):
        raise ValueError("a logit is not finite")


class TaskFidelity:
    """How well the task survives coding: mean KL divergence and top-1 agreement, batch by batch.

    No labels are needed: the reference is the output of the uncompressed model.
    """

    def __init__(self) -> None:
        self._divergence = 0.0
        self._agreeing = 0
        self._samples = 0

    def update(self, reference_logits: Tensor, logits: Tensor) -> None:
        """Add a batch of outputs.

        Args:
            reference_logits: (..., classes) finite, from the uncompressed features.
            logits: (..., classes) finite, from the reconstructed features.

        Raises:
            ValueError: the shapes differ or a logit is not finite.
        """
        divergence = kl_divergence(reference_logits, logits)
        agrees = reference_logits.argmax(dim=-1) == logits.argmax(dim=-1)
        self._divergence += float(divergence.sum())
        self._agreeing += int(agrees.sum())
        self._samples += agrees.numel()

    def kl(self) -> float:
        """Return the mean KL(p_ref || p_rec) in nats.

        Raises:
            ValueError: no sample yet.
        """
        self._check_samples()
        return self._divergence / self._samples

    def top1_agreement(self) -> float:
        """Return the share of samples whose most probable class is that of the reference.

        Raises:
            ValueError: no sample yet.
        """
        self._check_samples()
        return self._agreeing / self._samples

    def _check_samples(self) -> None:
        if self._samples == 0:
            raise ValueError("no sample has been measured yet")


def nrmse_from_psnr(psnr: float) -> float:
    """Convert decibels to an NRMSE: PSNR = 20 log10(1 / NRMSE), equation (14); infinity gives 0."""
    return float(10.0 ** (-psnr / 20.0))
