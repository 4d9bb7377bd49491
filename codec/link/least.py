"""The least of the recent past: what a delay would be without a queue."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Least"]


@dataclass(slots=True)
class Least:
    """Windowed minimum in constant memory: of this window and the one before."""

    window: float
    """Seconds; what is remembered is between one and two of it."""
    _before: float = float("inf")
    _current: float = float("inf")
    _since: float | None = None

    def add(self, value: float, now: float) -> None:
        """Take a value."""
        if self._since is None:
            self._since = now
        if now - self._since >= self.window:
            self._before = self._current if now - self._since < 2 * self.window else float("inf")
            self._current, self._since = float("inf"), now
        self._current = min(self._current, value)

    @property
    def value(self) -> float:
        """The least one, infinity before the first."""
        return min(self._before, self._current)

    def reset(self) -> None:
        """Forget everything."""
        self._before = self._current = float("inf")
        self._since = None
