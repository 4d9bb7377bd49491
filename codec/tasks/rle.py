"""Masks as COCO writes them: run lengths down the columns, as a string.

The runs of zeros and ones alternate, beginning with zeros.  From the third on, a run is written as
the difference from the one two before it; five bits a character, low ones first, the sixth bit set
where more follow, the whole offset by 48.  Sign: as in two's complement.

Source: the COCO API's `maskApi`, as its format is described there.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_mask", "encode_mask", "mask_iou"]

_FIRST: Final = 48
_MORE: Final = 0x20
_SIGN: Final = 0x10


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return {"size": [H, W], "counts": string} of an (H, W) mask."""
    height, width = mask.shape
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    text = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            piece = value & 0x1F
            value >>= 5
            more = value != (-1 if piece & _SIGN else 0)
            text.append(chr(_FIRST + (piece | _MORE if more else piece)))
    return {"size": [height, width], "counts": "".join(text)}


def decode_mask(encoded: dict[str, Any]) -> NDArray[np.bool_]:
    """Return the (H, W) mask of `encode_mask`; counts may also be a list, as in annotations.

    Raises:
        ValueError: the runs do not fill the size.
    """
    height, width = encoded["size"]
    counts = encoded["counts"]
    runs = _runs(counts) if isinstance(counts, str) else list(counts)
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError(
            f"the runs of a mask of {height} x {width} add up to {sum(runs)}, expected "
            f"{height * width}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.asarray(np.repeat(values, runs).reshape((height, width), order="F"))


def _runs(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        piece = ord(character) - _FIRST
        value |= (piece & 0x1F) << shift
        shift += 5
        if not piece & _MORE:
            if piece & _SIGN:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def mask_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the intersection over the union of two masks; 1 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
