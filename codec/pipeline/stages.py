"""Stages side by side: what one makes ahead, in a thread of its own, the next one takes.

    video ─► queue ─► edge sub-model ─► queue ─► motion search ─► coding ─► packet
    └ ahead ┘         └─── ahead ───┘           └──── the caller's thread ────┘

Most of what a stage does is done by torch and FFmpeg, which let other threads run meanwhile.  Order
is kept, and results are those of one thread.
"""

from __future__ import annotations

import atexit
import queue
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")


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
      * once `close` returns, the thread has ended.
    """

    def __init__(self, items: Generator[Item, None, None], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[Item | _Failure | _End] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last: _Failure | _End = _End()
        try:
            with closing(self._items):
                for item in self._items:
                    self._queue.put(item)
                    if self._closed.is_set():
                        break
        except BaseException as error:
            last = _Failure(error)
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
        while self._thread.is_alive():
            try:  # whoever waits for room goes on, and sees that it is over
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue


@contextmanager
def ahead(
    items: Generator[Item, None, None], depth: int = 2
) -> Generator[Iterator[Item], None, None]:
    """Let a generator run ahead of whoever takes its items, in a thread, while in this context.

    Leaving waits for the item that is being made: nothing that may wait for ever, for a camera or a
    pipe, is run ahead.  What torch holds by thread (autocast, the current device) is the thread's.

    Args:
        items: advanced and closed in that thread, so that whatever it needs is its own to close;
            what it raises is raised where the next item would be taken.
        depth: how many items may wait.
    """
    with _short_turns:
        stage = _Stage(items, depth)
        # a thread in the midst of torch at the end of the program would end it by a signal
        atexit.register(stage.close)
        try:
            yield stage.taken()
        finally:
            stage.close()
            atexit.unregister(stage.close)


class _ShortTurns:
    """Lets threads of Python take turns often, while any stage runs.

    A network is hundreds of calls, and before each its thread waits for its turn: for up to 5 ms,
    as Python has it, and whoever waits for the network's frame meanwhile runs Python alone.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._before, self._set = seconds, 0.0, 0.0
        self._stages, self._lock = 0, threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if not self._stages:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._seconds, self._before))
                self._set = sys.getswitchinterval()
            self._stages += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stages -= 1
            # left alone if somebody else has set it meanwhile
            if not self._stages and sys.getswitchinterval() == self._set:
                sys.setswitchinterval(self._before)


_short_turns = _ShortTurns(1e-4)
