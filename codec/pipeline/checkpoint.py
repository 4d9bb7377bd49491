"""The sums of a calibration so far, in a file that only its own job goes on from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from codec.files.outputs import open_output
from codec.profiling.statistics import TensorStatistics

__all__ = ["CHECKPOINT_SECONDS", "KINDS", "Checkpoint"]

CHECKPOINT_SECONDS: Final = 30.0
KINDS: Final = ("photographs", "videos")
"""Inputs are counted by kind."""


class Checkpoint:
    """Where the sums of a job are kept, if anywhere.

    Args:
        path: of the file; None keeps nothing.
        key: tells jobs apart.
        seconds: least time between two writes.
        force: a file that is there and is none of this job may be overwritten.
    """

    def __init__(self, path: Path | None, key: str, seconds: float, *, force: bool) -> None:
        self._path, self._seconds, self._force = path, seconds, force
        self._key = hashlib.sha256(key.encode()).hexdigest()
        self._last = time.monotonic()

    def load(self, statistics: Sequence[TensorStatistics], device: str) -> dict[str, int]:
        """Take over the sums of the file, if it is of this job; return how many inputs of each kind
        are in them.

        Raises:
            FileExistsError: it is something else, and no `force`.
        """
        done = self._read(statistics, device)
        if done is None:
            if self._path is not None and self._path.is_dir():
                raise IsADirectoryError(f"{self._path}: is a directory; move it away")
            if self._path is not None and self._path.exists() and not self._force:
                raise FileExistsError(
                    f"{self._path}: exists and is no checkpoint of this job; move it away, or pass "
                    "--force to overwrite it"
                )
            done = dict.fromkeys(KINDS, 0)
        self._last = time.monotonic()
        return done

    def save_if_due(self, statistics: Sequence[TensorStatistics], done: Mapping[str, int]) -> None:
        """Write them if the last time is long enough ago."""
        if time.monotonic() - self._last >= self._seconds:
            self.save(statistics, done)
            self._last = time.monotonic()

    def save(self, statistics: Sequence[TensorStatistics], done: Mapping[str, int]) -> None:
        """Write the sums, and how many inputs of each kind are in them."""
        if self._path is None:
            return
        tensors = {
            f"{number}.{name}": tensor
            for number, each in enumerate(statistics)
            for name, tensor in each.sums.items()
        }
        state = json.dumps({"job": self._key, "done": dict(done)})
        with open_output(str(self._path), force=True) as file:
            file.write(save(tensors, {"state": state}))

    def _read(self, statistics: Sequence[TensorStatistics], device: str) -> dict[str, int] | None:
        if self._path is None or not self._path.is_file():
            return None
        try:
            with safe_open(self._path, framework="pt", device=device) as file:
                state = json.loads((file.metadata() or {}).get("state", "{}"))
                if not isinstance(state, dict) or state.get("job") != self._key:
                    return None
                found = [
                    {name: file.get_tensor(f"{number}.{name}") for name in each.sums}
                    for number, each in enumerate(statistics)
                ]
            done = {kind: int(state["done"][kind]) for kind in KINDS}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            return None  # whatever it is, it is no checkpoint of this job
        for each, sums in zip(statistics, found, strict=True):
            for name, tensor in each.sums.items():
                if (sums[name].shape, sums[name].dtype) != (tensor.shape, tensor.dtype):
                    return None
        for each, sums in zip(statistics, found, strict=True):
            each.sums.update(sums)
        return done
