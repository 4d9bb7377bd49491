"""Things found in a frame, each with its class and score: boxes, masks, key points.

What a network's outputs say about them is the affair of a `Decoder`: `tasks.distribution_boxes`,
`tasks.movenet`, `tasks.torchvision_instances`, or one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codec.tasks.boxes import matches
from codec.tasks.coco import AveragePrecision, IouType, Truth
from codec.tasks.rle import encode_mask, mask_iou
from codec.tasks.task import Comparison, Figures, Geometry, Mean, Moment, distortion

__all__ = ["Decoder", "InstanceTask", "Instances", "Kind"]

Kind = Literal["detection", "masks", "keypoints"]
_IOU: Final[dict[str, IouType]] = {"detection": "bbox", "masks": "segm", "keypoints": "keypoints"}


@dataclass(frozen=True, slots=True)
class Instances:
    """Things found in one frame, the most certain first.

    boxes (N, 4) float64: left, top, right, bottom in pixels; scores (N,); labels (N,) int64,
    category numbers; masks, if any, (N, H, W) bool; points, if any, (N, K, 3): x, y and score.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None = None
    points: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Refuse parts of different lengths."""
        count = len(self.boxes)
        parts = [self.scores, self.labels, self.masks, self.points]
        if self.boxes.shape != (count, 4) or any(p is not None and len(p) != count for p in parts):
            raise ValueError("boxes, scores, labels, masks and points are of one number of things")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.boxes)

    def rows(self, moment: Moment) -> list[dict[str, Any]]:
        """Return a row of COCO's results format for each thing; `image_id` is the frame's number.

        Boxes are left, top, width and height, in the pixels that the result is stated in.
        """
        rows = []
        for number in range(len(self)):
            left, top, right, bottom = (float(value) for value in self.boxes[number])
            row: dict[str, Any] = {
                "image_id": moment.number,
                "category_id": int(self.labels[number]),
                "bbox": [round(v, 2) for v in (left, top, right - left, bottom - top)],
                "score": round(float(self.scores[number]), 6),
            }
            if self.masks is not None:
                row["segmentation"] = encode_mask(self.masks[number])
            if self.points is not None:
                row["keypoints"] = [round(float(value), 3) for value in self.points[number].ravel()]
            rows.append(row)
        return rows


class Decoder(Protocol):
    """Reads things out of a network's outputs."""

    def decode(self, outputs: object, geometry: Geometry) -> Instances:
        """Return what was found in one frame.

        Raises:
            ModelError: the outputs are not as described.
        """

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return r as `Task.residuals` does; the parts that are score errors come first."""

    def score_error(self, reference: object, outputs: object) -> float:
        """Return the sum of squared errors of the scores of a frame."""


@dataclass(frozen=True)
class InstanceTask:
    """The task of a detector.

    Args:
        kind: what counts: boxes, masks or key points.
        decoder: of the network's outputs.
        names: of categories, by number.
        skeleton: pairs of key points to be joined by lines.
    """

    kind: Kind
    decoder: Decoder
    names: Mapping[int, str] = field(default_factory=dict)
    skeleton: tuple[tuple[int, int], ...] = ()

    loss = "distortion"
    target = 0.1

    @property
    def name(self) -> str:
        """Return what kind of task it is."""
        return self.kind

    def finish(self, outputs: object, geometry: Geometry) -> Instances:
        """Return what was found in one frame."""
        return self.decoder.decode(outputs, geometry)

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return those of the decoder."""
        return self.decoder.residuals(reference, outputs)

    def lost(self, reference: object, outputs: object) -> float:
        """Return the distortion."""
        return distortion(self.residuals(reference, outputs))

    def comparison(self) -> Comparison:
        """Begin a comparison with the uncoded network."""
        return _InstanceComparison(self)

    def against(self, truth: Truth) -> AveragePrecision:
        """Begin a comparison with annotations."""
        return AveragePrecision(_IOU[self.kind], truth)

    def draw(
        self,
        result: Instances,
        rgb: NDArray[np.uint8],
        colour: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Draw boxes with labels and scores, masks and skeletons."""
        from codec.tasks.drawing import draw_instances  # noqa: PLC0415 - needs Pillow

        return draw_instances(result, rgb, self.names, self.skeleton, colour)


class _InstanceComparison:
    """Figures `ap` (mean over IoU or OKS of 0.5 to 0.95), `ap50`, `score_error` and `distortion`;
    of masks also `mask_iou`.

    What the uncoded network finds is taken for the truth.
    """

    def __init__(self, task: InstanceTask) -> None:
        self._task = task
        self._precision = AveragePrecision(_IOU[task.kind])
        self._lost, self._score_error = Mean(), Mean()
        self._overlap, self._masks = 0.0, 0

    def update(
        self, reference: object, outputs: object, geometry: Geometry, number: int = 0
    ) -> None:
        self._lost.add(self._task.lost(reference, outputs))
        self._score_error.add(self._task.decoder.score_error(reference, outputs))
        wanted, found = (self._task.finish(each, geometry) for each in (reference, outputs))
        image = self._lost.frames
        self._precision.expect(image, wanted.rows(Moment(image)))
        self._precision.add(image, found.rows(Moment(image)))
        if wanted.masks is not None and found.masks is not None:
            pairs = matches(wanted.boxes, wanted.labels, found.boxes, found.labels, 1e-9)
            self._overlap += sum(mask_iou(wanted.masks[i], found.masks[j]) for i, j in pairs)
            # what has no partner, on either side, overlaps nothing
            self._masks += len(wanted) + len(found) - len(pairs)

    def figures(self) -> Figures:
        figures = {
            "distortion": self._lost.value(),
            "score_error": self._score_error.value(),
            **self._precision.figures(),
        }
        if self._task.kind == "masks":
            figures["mask_iou"] = self._overlap / self._masks if self._masks else 1.0
        return figures
