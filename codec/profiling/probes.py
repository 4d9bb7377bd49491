"""Random gradients of the cloud sub-model: what an error in the features costs the task.

Their mean outer product is the *sensitivity*: what a task says of errors, where one is given; else
the Fisher information of the output's distribution for classes, the Gauss-Newton matrix of the
standardised values for anything else.  No labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from codec.encoding.arithmetic import as_written
from codec.errors import ModelError

__all__ = ["AnyCloud", "Criterion", "is_classification", "output_tensors", "probe_gradients"]

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


def output_tensors(output: object) -> list[Tensor]:
    """Return the float tensors in a model's output: a tensor, or dicts, lists and tuples of them.

    Raises:
        ModelError: there is none.
    """
    found: list[Tensor] = []
    waiting = [output]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Tensor):
            if value.is_floating_point():
                found.append(value)
        elif isinstance(value, dict):
            waiting[:0] = value.values()
        elif isinstance(value, list | tuple):
            waiting[:0] = value
    if not found:
        raise ModelError(f"the model's output, {type(output).__name__}, holds no float tensor")
    return found


def is_classification(outputs: Sequence[Tensor]) -> bool:
    """Tell whether the outputs are taken for the logits of one class in many: one (N, classes)."""
    return len(outputs) == 1 and outputs[0].ndim == 2 and outputs[0].shape[1] > 1


@as_written()
def probe_gradients(
    cloud: AnyCloud,
    features: Sequence[Tensor],
    count: int,
    generator: torch.Generator,
    task: Criterion | None = None,
) -> list[Tensor]:
    """Return `count` random gradients whose mean outer product is the sensitivity.

    A task: random signs on its residuals.  Without one, classes: w = sqrt(p) eps - p <sqrt(p), eps>
    with random signs eps has the softmax's Fisher information diag(p) - p p^T as its covariance, so
    grad <w, logits> has that of the features.
    Anything else: random signs on outputs divided by their standard deviations and the root of
    their number, so that every output tensor counts alike.

    Args:
        cloud: the cloud sub-model.
        features: (C, H, W) for each tensor of the split.
        count: how many.
        generator: of the signs, on the CPU.
        task: what errors of the output cost; None: taken from the shape of the output.

    Returns:
        (count, C, H, W) for each tensor.
    """
    inputs = [tensor.detach()[None].requires_grad_() for tensor in features]
    draws: list[list[Tensor]] = []
    reference = None if task is None else cloud([tensor.detach() for tensor in inputs])
    with torch.enable_grad():
        outputs = cloud(inputs)
        if task is None:
            values = output_tensors(outputs)
            weights = [partial(_probe, values, value.detach()) for value in values]
        else:
            values = task.residuals(reference, outputs)
            weights = [partial(_signs, value) for value in values]
        if not any(value.requires_grad for value in values):
            raise ModelError("the model's output does not depend on the features")
        for _ in range(count):  # one forward pass serves them all
            total = torch.zeros((), dtype=torch.float32, device=values[0].device)
            for value, draw in zip(values, weights, strict=True):
                total = total + (value * draw(generator)).sum()
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


def _probe(outputs: Sequence[Tensor], output: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the weights of one output: see `probe_gradients`."""
    signs = _signs(output, generator)
    if is_classification(outputs):
        p = torch.softmax(output, 1)
        weights = p.sqrt() * signs
        return weights - p * weights.sum(1, keepdim=True)
    if not output.numel():  # a detector may find nothing
        return signs
    spread = output.double().std(correction=0).clamp(min=1e-12)
    return signs / (spread * math.sqrt(output.numel())).to(output)
