"""Boxes as distributions over distances, level by level of a pyramid: NanoDet and its kind.

A cell (x, y) of a level of stride s has the centre ((x, y) + 0.5) s + shift.  For each of the four
sides, left, top, right and bottom, the network gives a distribution over 0 … bins − 1; its mean,
times s, is how far the side lies from the centre.

Source: X. Li et al., "Generalized focal loss", arXiv:2006.04388, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from codec.errors import ModelError
from codec.tasks.boxes import suppress
from codec.tasks.found import Instances
from codec.tasks.outputs import one_output
from codec.tasks.task import Geometry, same_shape

__all__ = ["DistributionBoxes"]

MOST_CANDIDATES: Final = 1000
"""Boxes above the threshold that suppression looks at: the most certain."""
MOST: Final = 100


@dataclass(frozen=True)
class DistributionBoxes:
    """Decoder of scores (N, cells, classes) and distributions (N, cells, 4 bins) of each level.

    Args:
        scores: which outputs the scores are, by place or name, a level after the other.
        boxes: which outputs the distributions are.
        strides: of the levels, pixels of the input.
        bins: of each side's distribution.
        categories: number of each class.
        score_threshold: least score of a box.
        nms_iou: overlap above which the less certain of two boxes of a class is dropped.
        activation: `sigmoid` if scores are logits, else `none`.
        centre_shift: see the module, pixels.
    """

    scores: tuple[int | str, ...]
    boxes: tuple[int | str, ...]
    strides: tuple[int, ...]
    bins: int
    categories: tuple[int, ...]
    score_threshold: float
    nms_iou: float
    activation: str = "none"
    centre_shift: float = 0.0

    @property
    def target(self) -> float:
        """Return how much distortion leaves about nine tenths of the average precision."""
        return 0.2

    def decode(self, outputs: object, geometry: Geometry) -> Instances:
        """Return the boxes of one frame that are left after suppression."""
        boxes, scores, labels = [], [], []
        for (found, distributions), stride in zip(self._levels(outputs), self.strides, strict=True):
            sure, label = (value[0].detach().double() for value in found.max(2))
            across, down = -(-geometry.input_width // stride), -(-geometry.input_height // stride)
            if across * down != len(sure):
                raise ModelError(
                    f"the level of stride {stride} has {len(sure)} cells; an input of "
                    f"{geometry.input_width}x{geometry.input_height} has {across} x {down}"
                )
            chosen = torch.nonzero(sure >= self.score_threshold)[:, 0]
            sides = self._sides(distributions[:, chosen])[0].detach().double() * stride
            cells = torch.stack([chosen % across, chosen // across], 1).double()
            centre = (cells + 0.5) * stride + self.centre_shift
            boxes.append(torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], 1).cpu().numpy())
            scores.append(sure[chosen].cpu().numpy())
            labels.append(label[chosen].cpu().numpy())
        corners = geometry.to_frame(np.concatenate(boxes))
        certain = np.concatenate(scores)
        classes = np.concatenate(labels).astype(np.int64)
        first = np.argsort(-certain, kind="stable")[:MOST_CANDIDATES]
        kept = first[suppress(corners[first], certain[first], classes[first], self.nms_iou, MOST)]
        categories = np.array(self.categories, np.int64)[classes[kept]]
        return Instances(corners[kept], certain[kept], categories)

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return errors of scores, and those of sides by the box's size times its score.

        Scores are probabilities: behind their sigmoid the slope p (1 − p) leaves little of the
        errors of what is certain to be background or an object.  A side that is off by a tenth of
        the box weighs as much as a score that is off by a tenth; boxes of the background, whose
        scores are next to nothing, weigh next to nothing.
        """
        of_scores, of_boxes = [], []
        pairs = zip(self._levels(reference), self._levels(outputs), strict=True)
        for (expected, wanted), (found, given) in pairs:
            same_shape(expected, found, "of scores")
            same_shape(wanted, given, "of boxes")
            expected = expected.detach()  # noqa: PLW2901
            of_scores.append(found - expected)
            sides = self._sides(wanted.detach())
            size = (sides[..., :2] + sides[..., 2:]).clamp(min=1).repeat(1, 1, 2)
            weight = expected.amax(2, keepdim=True) / size
            of_boxes.append((self._sides(given) - sides) * weight)
        return of_scores + of_boxes

    def score_error(self, reference: object, outputs: object) -> float:
        """Return the sum of squared errors of all scores."""
        parts = self.residuals(reference, outputs)[: len(self.strides)]
        return sum(float(part.detach().double().square().sum()) for part in parts)

    def _sides(self, distributions: Tensor) -> Tensor:
        """Return (N, cells, 4) distances in cells."""
        count, cells, _ = distributions.shape
        weights = torch.softmax(distributions.reshape(count, cells, 4, self.bins), 3)
        return weights @ torch.arange(self.bins).to(weights)

    def _levels(self, outputs: object) -> Sequence[tuple[Tensor, Tensor]]:
        levels = []
        for score, box in zip(self.scores, self.boxes, strict=True):
            found, distributions = one_output(outputs, score), one_output(outputs, box)
            wanted = (len(self.categories), 4 * self.bins)
            for which, tensor, width in zip(
                (score, box), (found, distributions), wanted, strict=True
            ):
                if tensor.ndim != 3 or tensor.shape[2] != width:
                    raise ModelError(
                        f"output {which} has shape {tuple(tensor.shape)}; the task expects "
                        f"(N, cells, {width})"
                    )
            if self.activation == "sigmoid":
                found = torch.sigmoid(found)
            levels.append((found, distributions))
        return levels
