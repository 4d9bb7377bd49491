"""What torchvision's detectors return: a dict of boxes, scores, labels, and masks or key points.

Suppression has been done.  The numbers of things on both sides may differ, so residuals are those
of things that belong together, and the scores of those that have no partner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import ModelError
from codec.tasks.boxes import matches
from codec.tasks.found import Instances
from codec.tasks.instances import Kind
from codec.tasks.task import Geometry

__all__ = ["TorchvisionInstances"]

MASK_THRESHOLD: Final = 0.5
_SHAPES: Final[dict[str, tuple[int | str, ...]]] = {
    "boxes": (4,),
    "scores": (),
    "labels": (),
    "masks": (1, "H", "W"),
    "keypoints": ("K", 3),
    "keypoints_scores": ("K",),
}
"""Of a thing, by output."""


@dataclass(frozen=True)
class TorchvisionInstances:
    """Decoder of the dict, or of a list with the dict of one frame.

    Boxes are (n, 4) in pixels of the input: left, top, right, bottom; labels are category numbers;
    masks (n, 1, H, W) probabilities; keypoints (n, K, 3), with keypoints_scores (n, K).

    Args:
        kind: which of them is wanted.
        score_threshold: least score of what is kept.
    """

    kind: Kind
    score_threshold: float

    @property
    def target(self) -> float:
        """Return how much distortion leaves about nine tenths of the average precision."""
        return 0.2

    def decode(self, outputs: object, geometry: Geometry) -> Instances:
        """Return what was found in one frame."""
        found = self._parts(outputs)
        scores, corners = _array(found["scores"]), _array(found["boxes"])
        # what has no area is nothing that was found
        there = (corners[:, 2:] > corners[:, :2]).all(1) & (scores >= self.score_threshold)
        kept = np.flatnonzero(there)
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        boxes = geometry.to_frame(corners[kept])
        labels = _array(found["labels"]).astype(np.int64)[kept]
        masks = points = None
        if self.kind == "masks":
            certain = _array(found["masks"])[kept, 0] >= MASK_THRESHOLD
            masks = np.zeros((len(kept), geometry.height, geometry.width), bool)
            for number, mask in enumerate(certain):
                masks[number] = geometry.sample(mask, 0)
        if self.kind == "keypoints":
            points = _array(found["keypoints"])[kept]
            points[..., :2] = geometry.to_frame(points[..., :2])
            if "keypoints_scores" in found:  # logits of a heat map's largest value
                logits = _array(found["keypoints_scores"])[kept]
                points[..., 2] = 1 / (1 + np.exp(-logits))
        return Instances(boxes, scores[kept], labels, masks, points)

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return errors of scores, then of sides by the box's size times its score, then of masks
        and key points likewise.
        """
        wanted = {name: value.detach() for name, value in self._parts(reference).items()}
        found = self._parts(outputs)
        pairs = matches(*_of(wanted), *_of(found))
        first = torch.tensor([i for i, _ in pairs], dtype=torch.long)
        second = torch.tensor([j for _, j in pairs], dtype=torch.long)
        alone = [
            side["scores"][[k for k in range(len(side["scores"])) if k not in set(used.tolist())]]
            for side, used in ((wanted, first), (found, second))
        ]
        score = wanted["scores"][first]
        size = wanted["boxes"][first][:, 2:] - wanted["boxes"][first][:, :2]
        size = size.clamp(min=1)
        sides = found["boxes"][second] - wanted["boxes"][first]
        residuals = [
            torch.cat([found["scores"][second] - score, *alone]),
            sides / size.repeat(1, 2) * score[:, None],
        ]
        if self.kind == "masks":
            before, after = wanted["masks"][first], found["masks"][second]
            area = before.sum((1, 2, 3), keepdim=True).clamp(min=1)
            residuals.append((after - before) / area.sqrt() * score[:, None, None, None])
        if self.kind == "keypoints":
            moved = found["keypoints"][second][..., :2] - wanted["keypoints"][first][..., :2]
            count = max(moved.shape[1], 1)
            residuals.append(moved / size[:, None] * (score[:, None, None] / count**0.5))
        return residuals

    def score_error(self, reference: object, outputs: object) -> float:
        """Return the sum of squared errors of scores, 0 for the one that a thing does not have."""
        return float(self.residuals(reference, outputs)[0].detach().double().square().sum())

    def _parts(self, outputs: object) -> Mapping[str, Tensor]:
        if isinstance(outputs, Sequence) and len(outputs) == 1:
            outputs = outputs[0]
        needed = {"boxes", "scores", "labels"} | ({self.kind} - {"detection"})
        if not isinstance(outputs, Mapping) or not needed <= outputs.keys():
            keys = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else ""
            raise ModelError(
                f"the model's output is a {type(outputs).__name__} {keys}; the task expects one "
                f"dict with {', '.join(sorted(needed))}, as torchvision's detectors return it"
            )
        for name in sorted(needed | ({"keypoints_scores"} & outputs.keys())):
            _check_shape(name, outputs[name], outputs["scores"])
        return outputs


def _check_shape(name: str, found: object, scores: object) -> None:
    """Refuse what has another shape than torchvision's of so many scores."""
    things = len(scores) if isinstance(scores, Tensor) and scores.ndim == 1 else "n"
    sides = ", ".join(map(str, _SHAPES[name]))
    expected = (things, *_SHAPES[name])
    fits = (
        isinstance(found, Tensor)
        and found.ndim == len(expected)
        and all(
            side == wanted or isinstance(wanted, str)
            for side, wanted in zip(found.shape, expected, strict=True)
        )
        and (found.is_floating_point() or name == "labels")
    )
    if not fits:
        given = f"{tuple(found.shape)} {found.dtype}" if isinstance(found, Tensor) else repr(found)
        raise ModelError(
            f"the model's output {name} is {given[:60]}; the task expects a tensor of "
            f"({things}{sides and ', '}{sides})"
            f"{'' if name == 'labels' else ' floating-point numbers'}"
        )


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy().copy()


def _of(parts: Mapping[str, Tensor]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return _array(parts["boxes"]), _array(parts["labels"]).astype(np.int64)
