"""Figures of a link as it runs: what people watch, not what decides anything."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Latencies", "Speed", "in_words"]

REMEMBERED: Final = 250
SECONDS: Final = 2.0
"""Over which a speed is taken."""


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


def in_words(what: str, times: Latencies) -> str:
    """Say how long something took, behind other such; nothing where there was none."""
    middle, most = times.quantile(0.5), times.quantile(0.95)
    if middle is None or most is None:
        return ""
    return f"; {what} {middle * 1e3:.1f} ms, of 95 % at most {most * 1e3:.1f} ms"


class Speed:
    """How fast a total grows, a second, over the last few."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, float]] = deque()

    def of(self, total: float, now: float) -> float:
        """Take the total of now; return the speed."""
        self._totals.append((now, total))
        while len(self._totals) > 2 and now - self._totals[1][0] >= SECONDS:
            self._totals.popleft()
        since, before = self._totals[0]
        return (total - before) / (now - since) if now > since else 0.0
