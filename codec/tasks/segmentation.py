"""A class for every pixel: label maps, and how much of them agrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import ModelError, TaskError
from codec.tasks.coco import judge
from codec.tasks.outputs import one_output
from codec.tasks.rle import decode_mask, encode_mask
from codec.tasks.task import (
    Comparison,
    Figures,
    Geometry,
    Mean,
    Moment,
    Scoring,
    distortion,
    same_shape,
)
from codec.tasks.truth import Truth

__all__ = ["UNSEEN", "LabelMap", "Overlap", "Segmentation"]

UNSEEN: Final = 255
"""Label of pixels that the network was not shown."""
Activation = Literal["none", "sigmoid", "softmax"]


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The class of every pixel of a frame: (H, W) uint8, `UNSEEN` outside of what was shown."""

    labels: NDArray[np.uint8]

    def rows(self, moment: Moment) -> list[dict[str, Any]]:
        """Return a row with a run-length-encoded mask for every class but the first that occurs.

        The form is that of COCO's results; `image_id` is the frame's number.
        """
        return [
            {
                "image_id": moment.number,
                "category_id": int(label),
                "segmentation": encode_mask(self.labels == label),
            }
            for label in np.unique(self.labels)
            if label not in {0, UNSEEN}
        ]


class Segmentation:
    """The task of a network whose output has a value for every class and pixel, (N, C, H, W).

    Args:
        labels: of the classes, the first that of the background; of one channel: of what is not in
            the mask and what is.
        activation: what is still to be applied to the output: softmax over channels, sigmoid of
            one channel, or none, if it holds probabilities.
        output: which output it is, by place or name.
        threshold: of one channel, the probability from which on a pixel is in the mask.
    """

    name: Final = "segmentation"
    loss: Final = "distortion"

    def __init__(
        self,
        labels: Sequence[str],
        *,
        activation: Activation,
        output: int | str = 0,
        threshold: float = 0.5,
    ) -> None:
        if not 2 <= len(labels) <= UNSEEN:
            raise ValueError(f"{len(labels)} labels, expected 2 to {UNSEEN}, background first")
        if activation == "sigmoid" and len(labels) != 2:
            raise ValueError("a sigmoid makes one mask: expected two labels, background first")
        self.labels = tuple(labels)
        self._activation, self._output, self._threshold = activation, output, threshold

    @property
    def target(self) -> float:
        """Return a mean divergence, or a squared error, that leaves an overlap of about 0.97."""
        return 0.01 if self._activation == "softmax" else 0.001

    def probabilities(self, outputs: object) -> Tensor:
        """Return (N, C, H, W), or C = 1 for one mask.

        Raises:
            ModelError: the output has another shape.
        """
        values = self._values(outputs)
        if self._activation == "softmax":
            return torch.softmax(values, 1)
        return torch.sigmoid(values) if self._activation == "sigmoid" else values

    def finish(self, outputs: object, geometry: Geometry) -> LabelMap:
        """Return the most probable class of every pixel of one frame."""
        found = self.probabilities(outputs)[0].detach()
        label = found[0] >= self._threshold if len(found) == 1 else found.argmax(0)
        return LabelMap(geometry.sample(label.to(torch.uint8).cpu().numpy(), UNSEEN))

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return, by the root of the number of pixels, the error of every pixel.

        Of a softmax it is that of classification, so that the distortion is the mean divergence; of
        probabilities the error itself, which a sigmoid makes small where it is saturated.
        """
        raw, found = self._values(reference).detach(), self._values(outputs)
        same_shape(raw, found, str(self._output))
        pixels = math.sqrt(raw.shape[-2] * raw.shape[-1])
        if self._activation == "softmax":
            p = torch.softmax(raw, 1)
            error = found - raw
            return [p.sqrt() * (error - (p * error).sum(1, keepdim=True)) / pixels]
        expected = self.probabilities(reference).detach()
        return [(self.probabilities(outputs) - expected) / pixels]

    def lost(self, reference: object, outputs: object) -> float:
        """Return the distortion."""
        return distortion(self.residuals(reference, outputs))

    def comparison(self) -> Comparison:
        """Begin a comparison."""
        return _MapComparison(self)

    def against(self, truth: Truth) -> Scoring:
        """Begin a comparison with annotations whose category is the number of a label."""
        truth.check(dict(enumerate(self.labels)))
        return _MapScoring(len(self.labels), truth.of({}, "segmentation"))

    def draw(
        self,
        result: LabelMap,
        rgb: NDArray[np.uint8],
        colour: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Blend the classes over the frame."""
        from codec.tasks.drawing import blend, colour_of  # noqa: PLC0415 - needs Pillow

        for label in np.unique(result.labels):
            if label not in {0, UNSEEN}:
                rgb = blend(rgb, result.labels == label, colour or colour_of(int(label)))
        return rgb

    def _values(self, outputs: object) -> Tensor:
        found = one_output(outputs, self._output)
        channels = {len(self.labels)} if self._activation == "softmax" else {1, len(self.labels)}
        if self._activation == "sigmoid":
            channels = {1}
        if found.ndim != 4 or found.shape[1] not in channels:
            expected = " or ".join(str(each) for each in sorted(channels))
            raise ModelError(
                f"the model's output has shape {tuple(found.shape)}; the task expects (N, C, H, W) "
                f"with C = {expected}"
            )
        return found


class Overlap:
    """Counts of pixels by class in two maps: intersection over union, and agreement."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros((classes, classes), np.int64)

    def add(self, reference: NDArray[np.uint8], found: NDArray[np.uint8]) -> None:
        """Count a frame; pixels that either side has not seen are left out."""
        if reference.shape != found.shape:
            raise ValueError(f"maps of {reference.shape} and {found.shape} cannot be compared")
        classes = len(self._counts)
        counted = (reference < classes) & (found < classes)
        place = reference[counted].astype(np.int64) * classes + found[counted]
        self._counts += np.bincount(place, minlength=classes**2).reshape(classes, classes)

    def figures(self) -> Figures:
        """Return `miou`, the mean over the classes that occur, and `pixel_agreement`."""
        total = int(self._counts.sum())
        if not total:
            raise ValueError("no pixel has been compared yet")
        common = np.diag(self._counts)
        union = self._counts.sum(0) + self._counts.sum(1) - common
        occurs = union > 0
        return {
            "miou": float((common[occurs] / union[occurs]).mean()),
            "pixel_agreement": float(common.sum() / total),
        }


class _MapComparison:
    """Figures `miou` and `pixel_agreement` with the uncoded network's map, and `distortion`."""

    def __init__(self, task: Segmentation) -> None:
        self._task, self._overlap, self._lost = task, Overlap(len(task.labels)), Mean()

    def update(self, reference: object, outputs: object, geometry: Geometry) -> None:
        self._lost.add(self._task.lost(reference, outputs))
        maps = (self._task.finish(each, geometry).labels for each in (reference, outputs))
        self._overlap.add(*maps)

    def figures(self) -> Figures:
        return {"distortion": self._lost.value(), **self._overlap.figures()}


class _MapScoring:
    """Figures `miou` and `pixel_agreement` with annotations; the smaller of two lies on top."""

    def __init__(self, classes: int, truth: Truth) -> None:
        self._classes, self._truth, self._overlap = classes, truth, Overlap(classes)
        rows = (row for rows in truth.annotations.values() for row in rows)
        if any(isinstance(row["segmentation"], list) for row in rows):
            judge()  # at once, rather than with the first polygon

    def add(self, number: int, result: LabelMap) -> None:
        if number not in self._truth.annotations:
            return
        painted = np.zeros(result.labels.shape, np.uint8)
        for each in sorted(self._truth.annotations[number], key=lambda each: -float(each["area"])):
            known = 0 <= each["category_id"] < self._classes
            label = each["category_id"] if known else UNSEEN  # what the task has no label for
            painted[_mask_of(each.get("segmentation"), painted.shape)] = label
        self._overlap.add(painted, result.labels)

    def figures(self) -> Figures:
        return self._overlap.figures()


def _mask_of(written: object, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the mask that polygons or run lengths describe."""
    height, width = shape
    if isinstance(written, dict):
        mask = decode_mask(written)
    elif isinstance(written, list) and written:
        masks = judge().mask
        merged = masks.merge(masks.frPyObjects(written, height, width))
        mask = decode_mask({"size": merged["size"], "counts": merged["counts"].decode()})
    else:
        raise TaskError("an annotation has no segmentation; expected polygons or run lengths")
    if mask.shape != shape:
        raise TaskError(
            f"an annotated mask is of {mask.shape[1]}x{mask.shape[0]}, frames of {width}x{height}"
        )
    return mask
