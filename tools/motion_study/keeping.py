"""Results of experiments as JSON, exactly: arrays, and numbers that JSON has no word for, too.

rows, or a mapping with arrays ──packed──► JSON ──unpacked──► the same
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["packed", "unpacked"]

ARRAY = {"array", "dtype", "shape"}
NUMBER = {"number"}


def packed(value: Any) -> Any:  # noqa: ANN401 - whatever an experiment returns
    """Turn mappings, sequences, arrays and scalars into JSON; tuples become lists."""
    if isinstance(value, Mapping):
        return {key: packed(found) for key, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [packed(found) for found in value]
    if isinstance(value, np.ndarray):
        content = base64.b64encode(zlib.compress(np.ascontiguousarray(value).tobytes()))
        return {"array": content.decode(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    return value


def unpacked(value: Any) -> Any:  # noqa: ANN401 - whatever an experiment returned
    """Undo `packed`."""
    if isinstance(value, list):
        return [unpacked(found) for found in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == ARRAY:
        content = zlib.decompress(base64.b64decode(value["array"]))
        return np.frombuffer(content, value["dtype"]).reshape(value["shape"])
    if value.keys() == NUMBER:
        return float(value["number"])
    return {key: unpacked(found) for key, found in value.items()}
