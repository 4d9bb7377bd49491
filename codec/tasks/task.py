"""The protocol of tasks, and what passes between its methods.

    outputs of the cloud ─► finish ─► Result ─► rows (JSON), draw (on the frame)
            │                            │
            │   uncoded network ─────────┴──► Comparison.update, a frame at a time ─► figures
            ▼
        residuals r(outputs; reference):  1/2 |r|^2 is what the error costs the task

The residuals are what calibration and the refinement of levels need to know of a task.  They are
differentiable, vanish where outputs and reference agree, and are scaled so that half their squared
length is the *distortion* of the frames together.  Hence, with J their derivative by the features,
J^T J is the sensitivity, and the gradient of <signs, r> for random signs is a random vector of that
covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import ModelError
from codec.tasks.truth import Truth

__all__ = [
    "Comparison",
    "Figures",
    "Geometry",
    "Mean",
    "Moment",
    "Result",
    "Scoring",
    "Task",
    "distortion",
    "same_shape",
]

Figures = dict[str, float]
"""What a comparison came to, by names that do not change."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the pixels of a frame lie in the network's input: input = frame · scale + offset.

    Coordinates are continuous: a frame reaches from 0 to its width and height.  Results are stated
    in pixels of the frame, which is the source's where these are known, else the input itself.
    """

    input_width: int
    input_height: int
    width: int
    height: int
    scale_x: float = 1.0
    scale_y: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what maps nothing."""
        sizes = (self.input_width, self.input_height, self.width, self.height)
        if min(sizes) < 1 or not (self.scale_x > 0 and self.scale_y > 0):
            raise ValueError(f"sizes and scales of a frame are positive: {self}")

    @classmethod
    def of_input(cls, width: int, height: int) -> Geometry:
        """State results in pixels of the network's input."""
        return cls(width, height, width, height)

    @classmethod
    def stretched(cls, input_width: int, input_height: int, width: int, height: int) -> Geometry:
        """Describe a frame of width × height that was stretched to the network's input."""
        return cls(
            input_width, input_height, width, height, input_width / width, input_height / height
        )

    def to_frame(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (..., 2 k) input coordinates x, y, x, y … into those of the frame, within it."""
        repeat = points.shape[-1] // 2
        offset = np.tile([self.left, self.top], repeat)
        scale = np.tile([self.scale_x, self.scale_y], repeat)
        most = np.tile([self.width, self.height], repeat)
        return np.asarray(np.clip((points - offset) / scale, 0, most))

    def sample(self, picture: NDArray[Any], outside: int) -> NDArray[Any]:
        """Bring a (H, W) map that covers the input to the frame's size, by nearest neighbour.

        What the network has not seen, because it was cropped away, becomes `outside`.
        """
        height, width = picture.shape
        x = (np.arange(self.width) + 0.5) * self.scale_x + self.left
        y = (np.arange(self.height) + 0.5) * self.scale_y + self.top
        column = np.floor(x * width / self.input_width).astype(np.int64)
        row = np.floor(y * height / self.input_height).astype(np.int64)
        found = picture[np.clip(row, 0, height - 1)[:, None], np.clip(column, 0, width - 1)]
        seen = ((row >= 0) & (row < height))[:, None] & ((column >= 0) & (column < width))
        return np.asarray(np.where(seen, found, outside).astype(picture.dtype))


@dataclass(frozen=True, slots=True)
class Moment:
    """Which frame it is: its number in the clip, its timestamp, and that in seconds."""

    number: int
    pts: int = 0
    time: float = 0.0


class Result(Protocol):
    """What a network says about one frame, as plain values."""

    def rows(self, moment: Moment) -> list[dict[str, Any]]:
        """Return what is written to JSON for the frame: one row, or as many as things found."""


class Comparison(Protocol):
    """Figures of a clip, from what two networks say about its frames."""

    def update(self, reference: object, outputs: object, geometry: Geometry) -> None:
        """Add a frame: the outputs of the uncoded network, and those from decoded features."""

    def figures(self) -> Figures:
        """Return the figures of all frames so far.

        Raises:
            ValueError: there was none.
        """


class Scoring(Protocol):
    """Figures of a clip, from what a network says about its frames and what is true."""

    def add(self, number: int, result: Any) -> None:  # noqa: ANN401 - of the task's `finish`
        """Add a frame by its number; one that is not annotated is left out."""

    def figures(self) -> Figures:
        """Return the figures of all frames so far.

        Raises:
            ValueError: there was none.
        """


class Task(Protocol):
    """What outputs mean.  See the module."""

    @property
    def name(self) -> str:
        """Return the name by which the task is asked for."""

    @property
    def loss(self) -> str:
        """Return the name of the figure that falls with the error, quietly: for curves and tuning.

        It is the mean over frames of what `lost` returns.
        """

    @property
    def target(self) -> float:
        """Return how much of `loss` a frame may lose at the reference qp."""

    def finish(self, outputs: object, geometry: Geometry) -> Result:
        """Turn the outputs of one frame into what they say about it.

        Raises:
            ModelError: they are not what the task expects.
        """

    def residuals(self, reference: object, outputs: object) -> list[Tensor]:
        """Return r, differentiable by `outputs`; the frames of a batch add up.

        Raises:
            ModelError: the outputs are not what the task expects.
        """

    def lost(self, reference: object, outputs: object) -> float:
        """Return what one frame lost, in the unit of `loss`; the distortion or close to it."""

    def comparison(self) -> Comparison:
        """Begin a comparison with the uncoded network."""

    def against(self, truth: Truth) -> Scoring:
        """Begin a comparison with annotations.

        Raises:
            TaskError: annotations do not say what this task is about.
        """

    def draw(
        self,
        result: Any,  # noqa: ANN401 - of the class that `finish` returns
        rgb: NDArray[np.uint8],
        colour: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Return a (H, W, 3) frame with a result of this task drawn on it.

        Args:
            result: of `finish`.
            rgb: frame of the size that results are stated in.
            colour: for everything; None: one for each class.
        """


def distortion(residuals: Sequence[Tensor]) -> float:
    """Return half the squared length of residuals."""
    return 0.5 * sum(float(part.detach().double().square().sum()) for part in residuals)


class Mean:
    """A mean over frames."""

    def __init__(self) -> None:
        self.total, self.frames = 0.0, 0

    def add(self, value: float) -> None:
        """Count a frame."""
        self.total += value
        self.frames += 1

    def value(self) -> float:
        """Return the mean.

        Raises:
            ValueError: there is no frame yet.
        """
        if not self.frames:
            raise ValueError("no frame has been compared yet")
        return self.total / self.frames


def same_shape(reference: Tensor, found: Tensor, name: str) -> None:
    """Refuse outputs that cannot be compared.

    Raises:
        ModelError: the shapes differ.
    """
    if reference.shape != found.shape:
        raise ModelError(
            f"output {name} has shape {tuple(found.shape)}, the uncoded network gives "
            f"{tuple(reference.shape)}; tasks compare equal shapes"
        )
