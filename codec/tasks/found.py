"""Things found in a frame, each with its class and score: boxes, masks, key points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.tasks.rle import encode_mask
from codec.tasks.task import Moment

__all__ = ["Instances"]


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
