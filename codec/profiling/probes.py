"""Random gradients of the cloud sub-model: what an error in the features costs the task.

Their mean outer product is the *sensitivity*, as the task has it: of classes the Fisher information
of the output's distribution, of outputs of which nothing is known the Gauss-Newton matrix of the
standardised values.  No labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from codec.encoding.arithmetic import as_written

__all__ = ["AnyCloud", "Criterion", "probe_gradients"]

AnyCloud = Callable[[Sequence[Tensor]], Any]
"""The cloud sub-model: batches of coded tensors -> a tensor, or a dict, list or tuple of them."""


class Criterion(Protocol):
    """What a task says of the errors of its outputs."""

    @property
    def loss(self) -> str:
        """Return the name of the figure that `lost` returns."""

    @property
    def target(self) -> float:
        """Return how much of it inputs may lose at the reference qp."""

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return residuals of which half the squared length is what the error costs,
        differentiable by `outputs`.
        """

    def lost(self, reference: object, outputs: object) -> float:
        """Return what one input lost."""


@as_written()
def probe_gradients(
    cloud: AnyCloud,
    features: Sequence[Tensor],
    count: int,
    generator: torch.Generator,
    task: Criterion,
) -> list[Tensor]:
    """Return `count` random gradients whose mean outer product is the sensitivity: random signs on
    the task's residuals.

    Args:
        cloud: the cloud sub-model.
        features: (C, H, W) for each tensor of the split.
        count: how many.
        generator: of the signs, on the CPU.
        task: what errors of the output cost.

    Returns:
        (count, C, H, W) for each tensor.
    """
    inputs = [tensor.detach()[None].requires_grad_() for tensor in features]
    draws: list[list[Tensor]] = []
    reference = cloud([tensor.detach() for tensor in inputs])
    with torch.enable_grad():
        residuals = task.residuals(reference, cloud(inputs))
        if not any(residual.requires_grad for residual in residuals):
            # the task may have found nothing that could be worse
            return [tensor.new_zeros(count, *tensor.shape[1:]) for tensor in inputs]
        for _ in range(count):  # one forward pass serves them all
            total = torch.zeros((), dtype=torch.float32, device=residuals[0].device)
            for residual in residuals:
                total = total + (residual * _signs(residual, generator)).sum()
            gradients = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)
            draws.append(
                [
                    torch.zeros_like(tensor) if gradient is None else gradient
                    for tensor, gradient in zip(inputs, gradients, strict=True)
                ]
            )
    return [torch.cat(of_tensor) for of_tensor in zip(*draws, strict=True)]


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, like.shape, generator=generator, device="cpu") * 2 - 1
    return signs.to(like)
