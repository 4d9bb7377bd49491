"""Levels by what they do to the output of the cloud sub-model: thorough, and slow.

The profile says what errors cost on average; here the sub-model itself says what they cost in this
frame.  Around the reconstruction x with output z(x), and with p the softmax of the uncompressed
output, the divergence is quadratic,

    KL ~ 1/2 |r|^2,   r = B^T (z(x) - z_ref),   B B^T = diag(p) - p p^T

B cut to its largest directions.  One backward pass for each gives A = dr/dlevels; then single
levels are moved by one, the best move first, as long as

    J = w (1 - m) 1/2 |r + A d|^2 + m D + price R

falls: D is the profile's distortion in squared steps, each block's by its weight, R the rate, w the
ratio of the two measures of distortion so far.  m keeps the tensors close to the original beyond
this one output, for the frames that are predicted from them.  A few rounds follow one another,
since z is not linear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.config import Decisions
from codec.encoding.forward_transform import ForwardTransform, gradient_blocks
from codec.encoding.levels import TensorPlan, level_bits, recovered_values
from codec.format.constants import MAX_LEVEL
from codec.format.profile import Profile
from codec.format.tables import MAX_DIRECT_LEVEL
from codec.metrics import kl_divergence
from codec.normative.quantization import step_sizes
from codec.normative.symbols import MODE_INTRA, block_qps

__all__ = ["CloudFunction", "TaskRefinement"]

CloudFunction = Callable[[Sequence[Tensor]], Tensor]
"""Features, each (N, C, H, W), to output (N, classes), differentiable."""

PROBABLE = 128
"""Most probable classes that B is made from."""
CANDIDATES = 4000
"""Coefficients considered: those that move the output most."""
MOST_MOVES = 1000


class TaskRefinement:
    """Moves the levels of a frame to where the task notices their error least.

    Args:
        cloud: the cloud sub-model.
        profile: of the stream.
        decisions: rounds, directions, price and share of the profile.
        device: where the cloud sub-model runs.
    """

    def __init__(
        self,
        cloud: CloudFunction,
        profile: Profile,
        decisions: Decisions,
        device: torch.device | str = "cpu",
    ) -> None:
        self._cloud, self._profile = cloud, profile
        self._decisions, self._device = decisions, device
        self._adjoint = [
            ForwardTransform(tensor, device, adjoint=True) for tensor in profile.tensors
        ]
        self._positions = [tensor.scan.position for tensor in profile.tensors]
        self._sums = [0.0, 0.0]

    def refine(
        self,
        features: Sequence[Tensor],
        plans: list[TensorPlan],
        reconstruct: Callable[[list[TensorPlan]], list[Tensor]],
        qp: int,
    ) -> list[TensorPlan]:
        """Return plans of lower J, or the ones given.

        Args:
            features: of the frame, (C, H, W).
            plans: what would be coded; returned as they are where the output is no distribution
                over classes.
            reconstruct: plans -> features as the decoder will have them.
            qp: of the frame.
        """
        with torch.no_grad():
            reference = self._output(features)
        if not _is_distribution(reference):
            return plans
        decisions, share = self._decisions, self._decisions.profile_share
        basis = _output_basis(reference[0], decisions.directions)
        best: tuple[float, list[TensorPlan]] | None = None
        for number in range(decisions.rounds + 1):
            last = number == decisions.rounds
            inputs = [tensor[None].to(self._device) for tensor in reconstruct(plans)]
            with torch.set_grad_enabled(not last):
                output = self._cloud([tensor.requires_grad_(not last) for tensor in inputs])[0]
            if not (bool(output.isfinite().all()) and (last or output.requires_grad)):
                break
            divergence = float(kl_divergence(reference[0], output.detach()))
            distortion = sum(plan.distortion(p) for plan, p in self._with_points(plans))
            if number == 0:
                self._sums[0] += distortion
                self._sums[1] += divergence
            weight = self._sums[0] / max(self._sums[1], 1e-9)
            total = (
                weight * (1 - share) * divergence
                + share * distortion
                + decisions.price * sum(plan.bits() for plan in plans)
            )
            if best is None or total < best[0]:
                best = total, plans
            if last:
                break
            rows = self._jacobian(inputs, output, basis, plans, qp)
            if not np.isfinite(rows).all():
                break
            residual = (output.detach() - reference[0]) @ basis
            search = _Moves(
                self._with_points(plans), rows, residual.double().cpu().numpy(), weight, decisions
            )
            search.run()
            plans = search.plans()
        return plans if best is None else best[1]

    def _with_points(self, plans: list[TensorPlan]) -> list[tuple[TensorPlan, NDArray[np.int8]]]:
        return [
            (plan, tensor.points) for plan, tensor in zip(plans, self._profile.tensors, strict=True)
        ]

    def _output(self, features: Sequence[Tensor]) -> Tensor:
        return self._cloud([tensor[None].to(self._device) for tensor in features])

    def _jacobian(
        self,
        inputs: list[Tensor],
        output: Tensor,
        basis: Tensor,
        plans: list[TensorPlan],
        qp: int,
    ) -> NDArray[np.float32]:
        """Return A, (K, all coefficients of all tensors in scan order)."""
        with torch.enable_grad():
            gradients = [
                # zero for tensors that the output does not depend on
                torch.autograd.grad(
                    output @ direction,
                    inputs,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                for direction in basis.t()
            ]
        parts = []
        for number, (tensor, plan) in enumerate(zip(self._profile.tensors, plans, strict=True)):
            rows, size = [], tensor.block_size
            scale = step_sizes(block_qps(qp, plan.offsets)) * 0.5**tensor.fraction_bits
            for gradient in gradients:
                blocks = gradient_blocks(gradient[number][0], size)
                coefficients = self._adjoint[number](blocks).cpu().numpy()
                flat = coefficients.reshape(-1, blocks.shape[0])
                rows.append((flat[self._positions[number]] * scale.astype(np.float32)).ravel())
            parts.append(np.stack(rows))
        return np.concatenate(parts, 1)


class _Moves:
    """The state of the descent: levels of the candidates, r, and what each move would change."""

    def __init__(
        self,
        plans: list[tuple[TensorPlan, NDArray[np.int8]]],
        rows: NDArray[np.float32],
        residual: NDArray[np.float64],
        weight: float,
        decisions: Decisions,
    ) -> None:
        self._plans = [plan for plan, _ in plans]
        self._price, self._share = decisions.price, decisions.profile_share
        shapes = [plan.levels.shape for plan, _ in plans]
        self._levels = np.concatenate([plan.levels.ravel() for plan, _ in plans])
        strength = np.square(rows).sum(0)
        chosen = np.flatnonzero(strength)
        if len(chosen) > CANDIDATES:
            chosen = chosen[np.argpartition(strength[chosen], -CANDIDATES)[-CANDIDATES:]]
        self._chosen = chosen
        self._rows = np.ascontiguousarray(rows[:, chosen].T).astype(np.float64)
        self._gain = weight * (1 - self._share)
        self._strength = 0.5 * self._gain * strength[chosen]
        self._residual = residual
        self._value = np.concatenate([plan.values.ravel() for plan, _ in plans])[chosen]
        self._weight = np.concatenate(
            [np.broadcast_to(plan.weights, plan.levels.shape).ravel() for plan, _ in plans]
        )[chosen]
        self._class = np.concatenate([plan.classes.ravel() for plan, _ in plans])[chosen]
        self._point = np.concatenate([points[plan.classes.ravel()] for plan, points in plans])[
            chosen
        ]
        # blocks, numbered through: how many levels they have, and what coding them at all costs
        first = 0
        blocks = []
        for _, count in shapes:
            blocks.append(first + np.arange(count))
            first += count
        self._block = np.concatenate(
            [np.tile(block, shape[0]) for block, shape in zip(blocks, shapes, strict=True)]
        )[chosen]
        self._filled = np.concatenate([(plan.levels != 0).sum(0) for plan, _ in plans])
        # nothing for intra blocks, which are coded in any case
        self._opening = self._price * np.concatenate(
            [np.where(plan.modes == MODE_INTRA, 0, plan.zero_bits()) for plan, _ in plans]
        )
        self._current = self._levels[chosen]
        self._change = np.empty((2, len(chosen)))
        everything = np.arange(len(chosen))
        for direction in (0, 1):
            self._change[direction] = self._static(everything, 2 * direction - 1)

    def _static(self, index: NDArray[np.intp], delta: int) -> NDArray[np.float64]:
        """Return what a move changes in m D + price R."""
        old, new = self._current[index], self._current[index] + delta
        number, value, point = self._class[index], self._value[index], self._point[index]
        share = self._share * self._weight[index]
        rates = level_bits()

        def cost(level: NDArray[np.int32]) -> NDArray[np.float64]:
            error = np.square(value - recovered_values(level, point))
            bits = rates[number, np.minimum(np.abs(level), MAX_DIRECT_LEVEL + 1)]
            return np.asarray(share * error + self._price * bits)

        change = cost(new) - cost(old)
        change[np.abs(new) > MAX_LEVEL] = np.inf
        return np.asarray(change)

    def run(self) -> None:
        if not len(self._chosen):
            return  # nothing moves this output: a saturated softmax, for example
        for _ in range(MOST_MOVES):
            slope = self._gain * (self._rows @ self._residual)
            down = self._change[0] - slope + self._strength
            up = self._change[1] + slope + self._strength
            # the first level of a block opens it, taking the only one away saves that
            opening, filled = self._opening[self._block], self._filled[self._block]
            opened = np.where(filled == 0, opening, 0)
            down += opened - np.where((filled == 1) & (self._current == 1), opening, 0)
            up += opened - np.where((filled == 1) & (self._current == -1), opening, 0)
            i, j = int(down.argmin()), int(up.argmin())
            index, delta = (i, -1) if down[i] < up[j] else (j, 1)
            if min(down[i], up[j]) >= 0:
                break
            before = self._current[index]
            self._current[index] += delta
            block = self._block[index]
            self._filled[block] += int(self._current[index] != 0) - int(before != 0)
            self._residual = self._residual + delta * self._rows[index]
            one = np.array([index])
            for direction in (0, 1):
                self._change[direction, index] = self._static(one, 2 * direction - 1)[0]

    def plans(self) -> list[TensorPlan]:
        levels = self._levels.copy()
        levels[self._chosen] = self._current
        result, first = [], 0
        for plan in self._plans:
            size = plan.levels.size
            result.append(plan.with_levels(levels[first : first + size].reshape(plan.levels.shape)))
            first += size
        return result


def _is_distribution(output: object) -> bool:
    """Tell whether an output is the finite logits of one sample."""
    return (
        isinstance(output, Tensor)
        and output.ndim == 2
        and output.shape[0] == 1
        and output.shape[1] > 1
        and bool(output.isfinite().all())
    )


def _output_basis(logits: Tensor, directions: int) -> Tensor:
    """Return B, (classes, K): a square root of the Fisher information of the softmax, cut to K."""
    p = torch.softmax(logits.double(), 0)
    top = p.topk(min(PROBABLE, len(p))).indices
    q = p[top]
    values, vectors = torch.linalg.eigh(torch.diag(q) - torch.outer(q, q))
    kept = min(directions, len(values))
    basis = torch.zeros(len(p), kept, dtype=torch.float64, device=logits.device)
    basis[top] = vectors[:, -kept:] * values[-kept:].clamp(min=0).sqrt()
    return basis.to(logits.dtype)
