"""Figures of a link as it runs: what people watch, not what decides anything."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Latencies"]

REMEMBERED: Final = 250


class Latencies:
    """The latencies of the newest frames, seconds."""

    def __init__(self) -> None:
        self._newest: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, seconds: float) -> None:
        """Note one."""
        self._newest.append(seconds)

    def quantile(self, share: float) -> float | None:
        """Return the least that this share of them does not exceed; None before the first."""
        if not self._newest:
            return None
        ordered = sorted(self._newest)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
