"""Stages side by side: what one makes ahead, in a thread of its own, the next one takes.

    video ─► edge sub-model ─► queue ─► motion search ─► coding ─► packet
    └────────── ahead ────────┘         └──── the caller's thread ────┘

Most of what a stage does is done by torch and FFmpeg, which let other threads run meanwhile.  Order
is kept, and results are those of one thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")

PATIENCE = 2.0
"""Seconds that whoever leaves waits for the item that is being made."""


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException


class _End:
    pass


class _Stage(Generic[Item]):
    """Runs an iterator in a thread.

    Invariants:
      * the iterator is advanced, and closed, by that thread alone;
      * at most `depth` items wait, besides the one that is being made;
      * `close` waits for the thread, but not for ever: one that waits for a camera or a pipe ends
        with whatever comes next, or with the program.
    """

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[Item | _Failure | _End] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last: _Failure | _End = _End()
        try:
            for item in self._items:
                self._queue.put(item)
                if self._closed.is_set():
                    break
        except BaseException as error:
            last = _Failure(error)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
        self._queue.put(last)

    def taken(self) -> Iterator[Item]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item

    def close(self) -> None:
        self._closed.set()
        until = time.monotonic() + PATIENCE
        while self._thread.is_alive() and time.monotonic() < until:
            try:  # whoever waits for room goes on, and sees that it is over
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue


@contextmanager
def ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Iterator[Item]]:
    """Let an iterator run ahead of whoever takes its items, in a thread, while in this context.

    Args:
        items: advanced and closed in that thread, so that whatever it needs is its own to close;
            what it raises is raised where the next item would be taken.
        depth: how many items may wait.
    """
    stage = _Stage(items, depth)
    try:
        yield stage.taken()
    finally:
        stage.close()
