"""Key points as MoveNet gives them for several persons: centres, regressions, heat maps, offsets.

For each person, a peak (y, x) of the centre heat map,

    guess of point k     (y, x) + regression_k (y, x)
    its place            where heat map k / (distance to the guess + 1.8) is largest
    the point            the place + offset_k there
    the box              of the sizes at the peak, around it

in cells, rows before columns.  Source: TensorFlow, "Next-generation pose detection with MoveNet".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from codec.errors import ModelError
from codec.tasks.boxes import suppress
from codec.tasks.found import Instances
from codec.tasks.outputs import one_output
from codec.tasks.task import Geometry, same_shape

__all__ = ["Movenet"]

NEARBY: Final = 1.8
MOST_CANDIDATES: Final = 100
"""Peaks above the threshold that are looked at: the most certain."""
MOST: Final = 20
PERSON: Final = 1
"""COCO's number of the category."""


@dataclass(frozen=True)
class Movenet:
    """Decoder of five outputs, each (N, channels, H, W).

    Args:
        centres: which output the heat map of centres is, by place or name: 1 channel.
        heatmaps: a heat map for each of the K points.
        regressions: 2 K channels, y and x of each point.
        offsets: likewise.
        sizes: 2 channels, height and width of the box.
        points: K.
        score_threshold: least value of a centre.
        nms_iou: overlap above which the less certain of two persons is dropped.
    """

    centres: int | str
    heatmaps: int | str
    regressions: int | str
    offsets: int | str
    sizes: int | str
    points: int
    score_threshold: float
    nms_iou: float

    @property
    def target(self) -> float:
        """Return how much distortion leaves about nine tenths of the average precision."""
        return 1.0

    def decode(self, outputs: object, geometry: Geometry) -> Instances:
        """Return the persons in one frame."""
        centre, heat, guess, offset, size = (part[0].detach() for part in self._parts(outputs))
        peak = (centre == max_pool2d(centre, 3, 1, 1)) & (centre >= self.score_threshold)
        rows, columns = torch.nonzero(peak[0], as_tuple=True)
        first = centre[0, rows, columns].argsort(descending=True, stable=True)[:MOST_CANDIDATES]
        rows, columns = rows[first], columns[first]
        scores = centre[0, rows, columns].double().cpu().numpy()
        height, width = centre.shape[-2:]
        cell = np.array([geometry.input_width / width, geometry.input_height / height])
        down = torch.arange(height).to(heat)[:, None]
        across = torch.arange(width).to(heat)
        boxes = np.zeros((len(rows), 4))
        found = np.zeros((len(rows), self.points, 3))
        numbers = torch.arange(self.points)
        for person, (y, x) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            tall, wide = size[:, y, x].tolist()
            corners = np.array([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2]) + 0.5
            boxes[person] = corners * np.tile(cell, 2)
            at = guess[:, y, x].reshape(-1, 2) + torch.tensor([y, x]).to(guess)
            distance = torch.hypot(down - at[:, 0, None, None], across - at[:, 1, None, None])
            place = (heat / (distance + NEARBY)).reshape(self.points, -1).argmax(1).cpu()
            row, column = place // width, place % width
            shift = offset.reshape(self.points, 2, height, width)[numbers, :, row, column].cpu()
            found[person, :, 0] = (column + shift[:, 1]).double().numpy() * cell[0]
            found[person, :, 1] = (row + shift[:, 0]).double().numpy() * cell[1]
            found[person, :, 2] = heat[numbers, row, column].double().cpu().numpy()
        boxes = geometry.to_frame(boxes)
        found[..., :2] = geometry.to_frame(found[..., :2])
        labels = np.full(len(rows), PERSON, np.int64)
        kept = suppress(boxes, scores, labels, self.nms_iou, MOST)
        return Instances(boxes[kept], scores[kept], labels[kept], points=found[kept])

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return errors of the heat maps, and those of distances by the person's size.

        Distances count where there is a person or a point: in proportion to the heat maps.
        """
        expected = [part.detach() for part in self._parts(reference)]
        found = self._parts(outputs)
        for wanted, given in zip(expected, found, strict=True):
            same_shape(wanted, given, "of key points")
        centre, heat, _, _, size = expected
        scale = size.clamp(min=1).mean(1, keepdim=True)
        errors = [given - wanted for wanted, given in zip(expected, found, strict=True)]
        by_person = centre / scale
        by_point = heat.repeat_interleave(2, 1) / scale
        return [
            errors[0],
            errors[1],
            errors[2] * by_person,
            errors[3] * by_point,
            errors[4] * by_person,
        ]

    def score_error(self, reference: object, outputs: object) -> float:
        """Return the sum of squared errors of both kinds of heat maps."""
        parts = self.residuals(reference, outputs)[:2]
        return sum(float(part.detach().double().square().sum()) for part in parts)

    def _parts(self, outputs: object) -> list[Tensor]:
        chosen = (self.centres, self.heatmaps, self.regressions, self.offsets, self.sizes)
        channels = (1, self.points, 2 * self.points, 2 * self.points, 2)
        parts = [one_output(outputs, each) for each in chosen]
        for which, part, count in zip(chosen, parts, channels, strict=True):
            expected = (parts[0].shape[0], count, *parts[0].shape[2:])
            if part.ndim != 4 or part.shape != expected:
                raise ModelError(
                    f"output {which} has shape {tuple(part.shape)}; the task expects "
                    f"(N, {count}, H, W), of one size with the heat map of centres"
                )
        return parts
