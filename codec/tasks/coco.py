"""Average precision by pycocotools: against what the uncoded network finds, or annotations.

The definition is COCO's: precision averaged over 101 recalls, over IoU thresholds of 0.5 to 0.95
(of key points: object key-point similarity), over categories that occur in the truth, with at most
100 things a frame (20 of key points).
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from typing import Any, Final, Literal

import numpy as np

from codec.errors import TaskError
from codec.tasks.rle import decode_mask
from codec.tasks.task import Figures
from codec.tasks.truth import Truth

__all__ = ["AveragePrecision", "IouType", "judge"]

IouType = Literal["bbox", "segm", "keypoints"]
VISIBLE: Final = 0.2
"""Score from which on a key point of the uncoded network is taken to be there."""
MOST: Final[dict[IouType, int]] = {"bbox": 100, "segm": 100, "keypoints": 20}
"""Things of a frame that COCO looks at, the most certain."""
_PERSON_POINTS: Final = 17
_OTHER_SIGMA: Final = 0.05
"""Deviation, by the root of the area, of key points that are not COCO's."""


class AveragePrecision:
    """Figures `ap` and `ap50` of a clip.

    Both are 1 where nothing was to be found and nothing was, and 0 where only something was found.

    Args:
        kind: what overlap is measured by.
        truth: annotations; None: those of `expect`.

    Raises:
        TaskError: pycocotools is not there.
    """

    def __init__(self, kind: IouType, truth: Truth | None = None) -> None:
        judge()  # at once, rather than behind the last frame
        self._kind, self._truth = kind, truth
        self._expected: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self._found: dict[int, list[dict[str, Any]]] = {}

    def expect(self, frame: int, rows: list[dict[str, Any]]) -> None:
        """Take the results of a network, the most certain first, for the truth about a frame."""
        self._expected[frame] = [_annotation(row, self._kind) for row in rows[: MOST[self._kind]]]

    def add(self, frame: int, rows: list[dict[str, Any]]) -> None:
        """Add results of a frame; one that is not annotated is left out."""
        if self._truth is not None:
            if frame not in self._truth.annotations:
                return
            self._expected[frame] = self._truth.annotations[frame]
        self._found[frame] = rows

    def figures(self) -> Figures:
        """Return the figures.

        Raises:
            TaskError: pycocotools cannot use the annotations.
            ValueError: no frame was added.
        """
        if not self._found:
            raise ValueError("no frame has been compared yet")
        expected = [
            {**row, "image_id": frame, "id": number}
            for number, (frame, row) in enumerate(
                ((f, row) for f in self._found for row in self._expected[f]), start=1
            )
        ]
        found = [{**row, "image_id": frame} for frame, rows in self._found.items() for row in rows]
        wanted = any(not row["iscrowd"] for row in expected)
        if not expected or not found:
            value = float(not wanted and not found)
            return {"ap": value, "ap50": value}
        try:
            return self._evaluated(expected, found)
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            raise TaskError(
                f"pycocotools cannot use the annotations ({type(error).__name__}: {error}); "
                f"{self._kind} needs all that COCO's own files have"
            ) from error

    def _evaluated(self, expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> Figures:
        pycocotools = judge()
        categories = {row["category_id"] for row in (*expected, *found)}
        size = next((m["size"] for r in found if (m := r.get("segmentation"))), [0, 0])
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            truth = pycocotools.coco.COCO()
            truth.dataset = {
                "info": {},
                "images": [{"id": f, "height": size[0], "width": size[1]} for f in self._found],
                "annotations": expected,
                "categories": [{"id": each} for each in sorted(categories)],
            }
            truth.createIndex()
            evaluation = pycocotools.cocoeval.COCOeval(truth, truth.loadRes(found), self._kind)
            if self._kind == "keypoints":
                count = len(found[0]["keypoints"]) // 3
                if count != _PERSON_POINTS:
                    evaluation.params.kpt_oks_sigmas = np.full(count, _OTHER_SIGMA)
            evaluation.evaluate()
            evaluation.accumulate()
        # (IoU, recall, category, area, most things): all areas come first, most things last
        precision = evaluation.eval["precision"][:, :, :, 0, -1]

        def mean(values: Any) -> float:  # noqa: ANN401
            counted = values[values > -1]
            return float(counted.mean()) if counted.size else 1.0  # nothing that counts was there

        return {"ap": mean(precision), "ap50": mean(precision[0])}


def judge() -> Any:  # noqa: ANN401 - it ships no types
    """Return pycocotools, which is an extra, with its modules.

    Raises:
        TaskError: it is not there.
    """
    try:
        import pycocotools.coco  # noqa: PLC0415
        import pycocotools.cocoeval  # noqa: PLC0415
        import pycocotools.mask  # noqa: PLC0415
    except ImportError as error:
        raise TaskError(
            "figures by COCO's rules need pycocotools; pip install 'latent-motion-codec[tasks]'"
        ) from error
    return pycocotools


def _annotation(row: dict[str, Any], kind: IouType) -> dict[str, Any]:
    _, _, width, height = row["bbox"]
    made = {**row, "area": width * height, "iscrowd": 0}
    del made["score"]
    if kind == "segm":
        made["area"] = int(decode_mask(row["segmentation"]).sum())
    if kind == "keypoints":
        points = np.array(row["keypoints"], float).reshape(-1, 3)
        points[:, 2] = np.where(points[:, 2] >= VISIBLE, 2, 0)
        made["keypoints"] = points.ravel().tolist()
        made["num_keypoints"] = int((points[:, 2] > 0).sum())
    return made
