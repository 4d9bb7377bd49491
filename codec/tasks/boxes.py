"""Boxes: intersection over union, and the suppression of those that say the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["box_iou", "matches", "suppress"]


def box_iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, M), of boxes (N, 4) and (M, 4): left, top, right, bottom."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(common / np.maximum(union, 1e-12))


def suppress(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    most_iou: float,
    most: int,
) -> NDArray[np.intp]:
    """Choose boxes, the most certain first, that overlap no better one of their class by more.

    Returns:
        Indices of at most `most`, in the order of falling scores; equal ones in their own.
    """
    order = np.argsort(-scores, kind="stable")
    overlap = box_iou(boxes[order], boxes[order]) > most_iou
    overlap &= labels[order][:, None] == labels[order][None, :]
    kept: list[int] = []
    gone = np.zeros(len(order), bool)
    for number in range(len(order)):
        if len(kept) == most:
            break
        if not gone[number]:
            kept.append(number)
            gone |= overlap[number]
    return np.asarray(order[kept], np.intp)


def matches(
    reference: NDArray[np.float64],
    reference_labels: NDArray[np.int64],
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    least_iou: float = 0.5,
) -> list[tuple[int, int]]:
    """Pair boxes of one class, the largest overlaps first, each box once."""
    overlap = box_iou(reference, boxes)
    overlap[(reference[:, None] == boxes[None]).all(2)] = 1  # of no area, too
    overlap[reference_labels[:, None] != labels[None, :]] = 0
    pairs: list[tuple[int, int]] = []
    while overlap.size:
        i, j = (int(k) for k in np.unravel_index(overlap.argmax(), overlap.shape))
        if overlap[i, j] < least_iou:
            break
        pairs.append((i, j))
        overlap[i, :] = 0
        overlap[:, j] = 0
    return pairs
