"""The task of a detector: boxes, masks or key points, by average precision.

What a network's outputs say about them is the affair of a `Decoder`: `tasks.distribution_boxes`,
`tasks.movenet`, `tasks.torchvision_instances`, or one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codec.tasks.boxes import matches
from codec.tasks.coco import AveragePrecision, IouType
from codec.tasks.found import Instances
from codec.tasks.rle import mask_iou
from codec.tasks.task import Comparison, Figures, Geometry, Mean, Moment, Scoring, distortion
from codec.tasks.truth import Truth

__all__ = ["Decoder", "InstanceTask", "Kind"]

Kind = Literal["detection", "masks", "keypoints"]
_IOU: Final[dict[str, IouType]] = {"detection": "bbox", "masks": "segm", "keypoints": "keypoints"}
_PARTS: Final = {"detection": "bbox", "masks": "segmentation", "keypoints": "keypoints"}
"""What annotations must have."""


class Decoder(Protocol):
    """Reads things out of a network's outputs."""

    @property
    def target(self) -> float:
        """Return how much distortion leaves about nine tenths of the average precision."""

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

    @property
    def name(self) -> str:
        """Return what kind of task it is."""
        return self.kind

    @property
    def target(self) -> float:
        """Return that of the decoder."""
        return self.decoder.target

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

    def against(self, truth: Truth) -> Scoring:
        """Begin a comparison with annotations."""
        truth.check(self.names)
        wanted = truth.of(self.names, _PARTS[self.kind])
        return _InstanceScoring(AveragePrecision(_IOU[self.kind], wanted))

    def draw(
        self,
        result: Instances,
        rgb: NDArray[np.uint8],
        colour: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Draw boxes with labels and scores, masks and skeletons."""
        from codec.tasks.drawing import draw_instances  # noqa: PLC0415 - needs Pillow

        return draw_instances(result, rgb, self.names, self.skeleton, colour)


class _InstanceScoring:
    """Figures `ap` and `ap50`."""

    def __init__(self, precision: AveragePrecision) -> None:
        self._precision = precision

    def add(self, number: int, result: Instances) -> None:
        self._precision.add(number, result.rows(Moment(number)))

    def figures(self) -> Figures:
        return self._precision.figures()


class _InstanceComparison:
    """Figures `ap` (mean over IoU or OKS of 0.5 to 0.95), `ap50`, `score_error` and `distortion`;
    of masks also `mask_iou`; and how many things are `found`, and `found_uncoded`: with none,
    the figures say little.

    What the uncoded network finds is taken for the truth.
    """

    def __init__(self, task: InstanceTask) -> None:
        self._task = task
        self._precision = AveragePrecision(_IOU[task.kind])
        self._lost, self._score_error = Mean(), Mean()
        self._overlap, self._masks = 0.0, 0
        self._found = self._wanted = 0

    def update(self, reference: object, outputs: object, geometry: Geometry) -> None:
        self._lost.add(self._task.lost(reference, outputs))
        self._score_error.add(self._task.decoder.score_error(reference, outputs))
        wanted, found = (self._task.finish(each, geometry) for each in (reference, outputs))
        self._wanted += len(wanted)
        self._found += len(found)
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
        return figures | {"found": float(self._found), "found_uncoded": float(self._wanted)}
