"""What became of the task over a clip: against the uncoded network, and against what is true.

figures            decoded against uncoded features       as the task names them: `ap`, `kl` …
…_truth            decoded features against annotations
…_truth_uncoded    uncoded ones against annotations: what the network itself can do
"""

from __future__ import annotations

from typing import Any

from codec.errors import TaskError
from codec.tasks.task import Comparison, Geometry, Scoring, Task
from codec.tasks.truth import Truth

__all__ = ["Evaluation", "refuse_lost"]


class Evaluation:
    """Takes the outputs for one frame after the other.

    Args:
        task: what they stand for.
        geometry: places are in pixels of its frame.
        truth: annotations, by the numbers of the clip's frames.
        first: number of the first frame in the clip.
        to_the_end: the last frame will be the clip's.

    Raises:
        TaskError: what judges is not there, or the annotations are of other frames or of what the
            task does not find.
    """

    def __init__(
        self,
        task: Task,
        geometry: Geometry,
        truth: Truth | None = None,
        *,
        first: int = 0,
        to_the_end: bool = False,
    ) -> None:
        self._task, self._geometry, self._truth = task, geometry, truth
        self._number, self._first, self._to_the_end = first, first, to_the_end
        self._comparison: Comparison = task.comparison()
        self._compared = 0
        self._scored = 0
        self._of_decoded: Scoring | None = None
        self._of_uncoded: Scoring | None = None
        if truth is not None:
            size = geometry.width, geometry.height
            if truth.size not in {None, size}:
                raise TaskError(
                    f"{truth.source}: images are of {_shown(truth.size)}, the clip's frames of "
                    f"{_shown(size)}; expected annotations of this clip"
                )
            self._of_decoded, self._of_uncoded = task.against(truth), task.against(truth)

    def update(self, outputs: object, uncoded: object | None) -> None:
        """Add the next frame.

        Args:
            outputs: of the cloud sub-model, from decoded features.
            uncoded: from uncoded ones; None where they are not at hand.

        Raises:
            ModelError: they are not what the task expects.
        """
        if uncoded is not None:
            self._comparison.update(uncoded, outputs, self._geometry)
            self._compared += 1
        if self._truth is not None and self._number in self._truth.annotations:
            self._scored += 1
            for scoring, each in ((self._of_decoded, outputs), (self._of_uncoded, uncoded)):
                if scoring is not None and each is not None:
                    scoring.add(self._number, self._task.finish(each, self._geometry))
        self._number += 1

    def figures(self) -> dict[str, Any]:
        """Return the figures, see the module, and `frames_truth`, how many were annotated.

        Raises:
            TaskError: annotations are of other frames, or cannot be used.
            ValueError: there was no frame.
        """
        figures: dict[str, Any] = self._comparison.figures() if self._compared else {}
        if self._truth is None or self._of_decoded is None or self._of_uncoded is None:
            return figures
        last = max(self._truth.annotations, default=-1)
        if not self._scored or (self._to_the_end and last >= self._number):
            raise TaskError(
                f"{self._truth.source}: annotates frames {min(self._truth.annotations, default=0)} "
                f"to {last}, counted from 0, the clip has frames {self._first} to "
                f"{self._number - 1}; say with --truth-frames how images are frames"
            )
        figures["frames_truth"] = self._scored
        scorings = [("truth", self._of_decoded)]
        if self._compared:
            scorings.append(("truth_uncoded", self._of_uncoded))
        for suffix, scoring in scorings:
            figures |= {f"{name}_{suffix}": value for name, value in scoring.figures().items()}
        return figures


def refuse_lost(frames: int) -> None:
    """Refuse annotations, which are of numbers of frames, of a clip that has lost some.

    Raises:
        TaskError: it has.
    """
    if frames:
        raise TaskError(
            f"{frames} frames were lost to damage, so that those behind have other numbers than "
            "in the annotations; leave --truth out"
        )


def _shown(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[0]}x{size[1]}"
