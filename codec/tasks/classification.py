"""One class in many: the most probable ones, KL divergence and top-1 agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import ModelError
from codec.metrics import TaskFidelity, kl_divergence
from codec.tasks.outputs import one_output
from codec.tasks.task import Comparison, Figures, Geometry, Moment, Scoring, same_shape
from codec.tasks.truth import Truth, refuse_truth

__all__ = ["Classes", "Classification"]

SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Classes:
    """The most probable classes: number, label and probability, falling."""

    top: tuple[tuple[int, str, float], ...]

    def rows(self, moment: Moment) -> list[dict[str, Any]]:
        """Return one row: frame number, pts, time in seconds, and the top classes."""
        return [
            {
                "frame": moment.number,
                "pts": moment.pts,
                "time": moment.time,
                "top5": [
                    {"class": number, "label": label, "probability": round(probability, 6)}
                    for number, label, probability in self.top
                ],
            }
        ]


class Classification:
    """The task of a network whose output is the logits of classes, (N, classes).

    Args:
        labels: of the classes; empty: `class 0`, `class 1` and so on.
        output: which output the logits are, by place or name.
    """

    name: Final = "classification"
    loss: Final = "kl"
    target: Final = 0.07

    def __init__(self, labels: Sequence[str] = (), output: int | str = 0) -> None:
        self.labels, self._output = tuple(labels), output

    def logits(self, outputs: object) -> Tensor:
        """Return the logits, (N, classes).

        Raises:
            ModelError: the output has another shape, or another number of classes than labels.
        """
        found = one_output(outputs, self._output)
        if found.ndim != 2:
            raise ModelError(
                f"the model's output has shape {tuple(found.shape)}; classes were expected"
            )
        if self.labels and len(self.labels) != found.shape[1]:
            raise ModelError(
                f"the model's output has {found.shape[1]} classes, the task {len(self.labels)} "
                "labels; give one label for each class"
            )
        return found

    def finish(self, outputs: object, geometry: Geometry) -> Classes:
        """Return the five most probable classes of one frame."""
        logits = self.logits(outputs)[0].detach()
        best = torch.softmax(logits.double(), 0).topk(min(SHOWN, len(logits)))
        return Classes(
            tuple(
                (int(number), self._label(int(number)), float(value))
                for value, number in zip(best.values, best.indices, strict=True)
            )
        )

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return sqrt(p) (d - <p, d>), d the error of the logits, p the softmax of the reference.

        Half its squared length is the divergence to second order: the Fisher information of the
        softmax is diag(p) - p p^T.
        """
        expected, found = self.logits(reference).detach(), self.logits(outputs)
        same_shape(expected, found, str(self._output))
        p = torch.softmax(expected, 1)
        error = found - expected
        return [p.sqrt() * (error - (p * error).sum(1, keepdim=True))]

    def lost(self, reference: object, outputs: object) -> float:
        """Return the divergence in nats, of a batch the mean."""
        expected, found = self.logits(reference), self.logits(outputs)
        same_shape(expected, found, str(self._output))
        return float(kl_divergence(expected.detach().cpu(), found.detach().cpu()).mean())

    def comparison(self) -> Comparison:
        """Begin a comparison."""
        return _Fidelity(self)

    def against(self, truth: Truth) -> Scoring:
        """Refuse: annotations are of things in frames.

        Raises:
            TaskError: always.
        """
        refuse_truth(self.name)

    def draw(
        self,
        result: Classes,
        rgb: NDArray[np.uint8],
        colour: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Write the most probable class into the corner; that of the uncoded network below it."""
        from codec.tasks.drawing import DECODED, UNCODED, text_on  # noqa: PLC0415 - needs Pillow

        _, label, probability = result.top[0]
        line = int(colour == UNCODED)
        return text_on(rgb, f"{label} {probability:.2f}", line, colour or DECODED)

    def _label(self, number: int) -> str:
        return self.labels[number] if self.labels else f"class {number}"


class _Fidelity:
    """Figures `kl`, the mean divergence in nats, and `top1_agreement`, a share."""

    def __init__(self, task: Classification) -> None:
        self._task, self._fidelity = task, TaskFidelity()

    def update(self, reference: object, outputs: object, geometry: Geometry) -> None:
        expected, found = (self._task.logits(each).detach().cpu() for each in (reference, outputs))
        same_shape(expected, found, "of classes")
        self._fidelity.update(expected, found)

    def figures(self) -> Figures:
        return {"kl": self._fidelity.kl(), "top1_agreement": self._fidelity.top1_agreement()}
