"""What is kept of the frames of a stream for others to be predicted from: FORMAT.md 4.8."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Slots"]

Item = TypeVar("Item")


class Slots(Generic[Item]):
    """One item for each frame that is kept: its packet, its contexts, its latents.

        key frame ─► 0 │ 1 │ … │ N - 1     the others are emptied
        any other: predicted from one slot, kept in one, the same or another

    A file has one slot as a rule, and every frame is predicted from the one before it.
    """

    def __init__(self, count: int = 1) -> None:
        self._items: list[Item | None] = [None] * count

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, slot: int) -> Item | None:
        """Return what a slot holds, None if it is empty."""
        return self._items[slot]

    def keep(self, item: Item | None, slots: tuple[int, int] | None, *, key: bool) -> None:
        """Keep what has become of a frame, or None: that nothing has.

        Args:
            item: of the frame.
            slots: predicted from, kept in; None: the only one, or the first.
            key: whether it is a key frame, behind which nothing else is kept.
        """
        if key:
            self._items = [None] * len(self._items)
        self._items[slots[1] if slots else 0] = item
