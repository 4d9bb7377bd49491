"""Any network: nothing is known of its outputs, so they count by their relative error.

    error of an output = sum (found - reference)^2 / sum (reference - its mean)^2

over a clip, and the mean over outputs in total.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import ModelError
from codec.tasks.outputs import float_tensors
from codec.tasks.task import Comparison, Figures, Geometry, Moment, Scoring, distortion, same_shape
from codec.tasks.truth import Truth, refuse_truth

__all__ = ["Anything", "Tensors"]

_LEAST: Final = 1e-24
"""Squared deviation that a constant output is taken to have."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """Nothing but the outputs, by name."""

    tensors: dict[str, Tensor]

    def rows(self, moment: Moment) -> list[dict[str, Any]]:
        """Return a row of shapes, means and deviations: what can be looked at."""
        outputs = {
            name: {
                "shape": list(value.shape),
                "mean": float(value.double().mean()),
                "deviation": float(value.double().std(correction=0)),
            }
            for name, value in self.tensors.items()
        }
        return [
            {"frame": moment.number, "pts": moment.pts, "time": moment.time, "outputs": outputs}
        ]


class Anything:
    """The task of a network of which nothing is said."""

    name: Final = "anything"
    loss: Final = "error"
    target: Final = 0.02

    def finish(self, outputs: object, geometry: Geometry) -> Tensors:
        """Return the outputs."""
        return Tensors({name: value.detach() for name, value in float_tensors(outputs).items()})

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return errors by the deviation of the reference, so that every output counts alike.

        Which dimension the frames of a batch are in is not known: they count as one frame.
        """
        expected, found = float_tensors(reference), float_tensors(outputs)
        _check_names(expected, found)
        residuals = []
        for name, value in expected.items():
            same_shape(value, found[name], name)
            wanted = value.detach()
            deviation = (wanted - wanted.double().mean()).square().sum().clamp(min=_LEAST).sqrt()
            weight = math.sqrt(2 / len(expected)) / float(deviation)
            residuals.append((found[name] - wanted) * weight)
        return residuals

    def lost(self, reference: object, outputs: object) -> float:
        """Return the mean relative error of the outputs."""
        return distortion(self.residuals(reference, outputs))

    def comparison(self) -> Comparison:
        """Begin a comparison."""
        return _RelativeError()

    def against(self, truth: Truth) -> Scoring:
        """Refuse: annotations are of things in frames.

        Raises:
            TaskError: always.
        """
        refuse_truth(self.name)

    def draw(
        self,
        result: Tensors,
        rgb: NDArray[np.uint8],
        colour: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Return the frame: there is nothing to draw."""
        return rgb


class _RelativeError:
    """Figures `error`, the mean of those of the outputs, and `error_NAME` of each output."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def update(self, reference: object, outputs: object, geometry: Geometry) -> None:
        expected, found = float_tensors(reference), float_tensors(outputs)
        _check_names(expected, found)
        for name, wanted in expected.items():
            same_shape(wanted, found[name], name)
            a, b = wanted.detach().double(), found[name].detach().double()
            sums = self._sums.setdefault(name, [0.0, 0.0, 0.0, 0.0])
            sums[0] += float((a - b).square().sum())
            sums[1] += float(a.sum())
            sums[2] += float(a.square().sum())
            sums[3] += a.numel()

    def figures(self) -> Figures:
        if not self._sums:
            raise ValueError("no frame has been compared yet")
        errors = {
            f"error_{name}": error / max(squares - total**2 / count, _LEAST)
            for name, (error, total, squares, count) in self._sums.items()
        }
        return {"error": math.fsum(errors.values()) / len(errors), **errors}


def _check_names(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    if expected.keys() != found.keys():
        raise ModelError(
            f"outputs are {', '.join(found)}, those of the uncoded network {', '.join(expected)}"
        )
