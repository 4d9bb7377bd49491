"""Both ends of a live link in one process, for the tests of `codec.live`."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from small_detector import write_detector
from videos import moving, write_video

from codec.encoding.config import EncoderConfig
from codec.live.identity import Identity
from codec.live.receiving import ReceiveOptions, Receiver
from codec.live.sending import Sender, SendOptions
from codec.pipeline.edge import EdgeSource
from codec.pipeline.options import VideoOptions

FRAMES = 12
TOKEN = "open sesame"
LATENCY = 2.0
"""Seconds: the machines of tests are slow, and what they check is not that."""


def write_inputs(folder: Path) -> Path:
    """Write small.pt2, small.toml, detection.toml, clip.mkv and long.mkv, four times as long."""
    write_detector(folder)
    there = moving(FRAMES, (1, 2), 64, 64)
    write_video(folder / "clip.mkv", there)
    write_video(folder / "long.mkv", (there + there[::-1]) * 2)
    return folder


def network_options(folder: Path) -> list[str]:
    """What `lmc encode` and `lmc send` are told of the network."""
    known = {"--model": "small.pt2", "--preprocessing": "small.toml", "--task": "detection.toml"}
    named = [word for option, name in known.items() for word in (option, str(folder / name))]
    return [*named, "--split", "relu"]


class Served:
    """A receiver in a thread of its own."""

    def __init__(self, options: ReceiveOptions, identity: Identity, **more: Any) -> None:
        self.rows: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.unhandled: list[str] = []
        """Exceptions that have reached the event loop."""
        self.fingerprint = identity.fingerprint
        self._options, self._identity, self._more = options, identity, more
        self._listening = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        assert self._listening.wait(30)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self.error = error
        self._listening.set()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda _, told: self.unhandled.append(str(told)))
        more = {"write": self.rows.extend, **self._more}
        self.receiver = Receiver(self._options, self._identity, tell=self.lines.append, **more)
        self.address = await self.receiver.open()
        self._listening.set()
        await self.receiver.run(self._stop)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call something in its event loop."""

        async def called() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(30)

    def account(self, number: int = 1) -> dict[str, int]:
        """What it has said became of a sender's frames."""
        told = f"sender {number}: of "
        (line,) = (line for line in self.lines if line.startswith(told))
        return read_account(line)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert not self.unhandled
        if self.error is not None:
            raise self.error


def read_account(line: str) -> dict[str, int]:
    """Read what either end says of frames."""
    found = {"frames": int(re.search(r"of (\d+) frames", line)[1])}
    words = "decoded late|without a result|decoded|concealed|skipped|lost|given up"
    return found | {what: int(count) for count, what in re.findall(rf"(\d+) ({words})", line)}


@contextmanager
def serving(
    folder: Path,
    identity: Identity | None = None,
    record: Any = None,
    write: Any = None,
    **options: Any,
) -> Iterator[Served]:
    settings = {
        "address": ("127.0.0.1", 0),
        "token": TOKEN,
        "max_latency": LATENCY,
        "finish": True,
        "model": str(folder / "small.pt2"),
        **options,
    }
    more = {"record": record} if write is None else {"record": record, "write": write}
    served = Served(ReceiveOptions(**settings), identity or Identity.make(), **more)
    try:
        yield served
    finally:
        served.stop()


def send(
    folder: Path,
    served: Served | None,
    *,
    clip: str = "clip.mkv",
    record: Any = None,
    stop: asyncio.Event | None = None,
    **options: Any,
) -> Sender:
    """Send the clip, and return the sender when it is done."""
    made = sender(folder, served, clip=clip, record=record, **options)

    async def run() -> None:
        await made.run(stop or asyncio.Event())

    asyncio.run(run())
    return made


def sender(
    folder: Path,
    served: Served | None,
    *,
    clip: str = "clip.mkv",
    record: Any = None,
    tell: list[str] | None = None,
    **more: Any,
) -> Sender:
    settings: dict[str, Any] = {
        "token": TOKEN,
        "max_latency": LATENCY,
        "bitrate": None,
        "references": 4,
        **more,
    }
    if served is not None:
        settings = {"address": served.address, "fingerprint": served.fingerprint, **settings}
    options = SendOptions(**settings)
    source = EdgeSource(
        folder / clip, replace(video_options(folder)), references=options.references
    )
    lines = [] if tell is None else tell
    return Sender(source, EncoderConfig(qp=16), options, record=record, tell=lines.append)


def video_options(folder: Path) -> VideoOptions:
    return VideoOptions(
        model=str(folder / "small.pt2"),
        split="relu",
        preprocessing=folder / "small.toml",
        task=str(folder / "detection.toml"),
        config=EncoderConfig(qp=16, scene_cut=False),
    )


class LossyRelay:
    """Stands between the ends and drops the packets that `drop` says, by their count."""

    def __init__(self, address: tuple[str, int], drop: Callable[[int], bool]) -> None:
        self._far, self._drop = address, drop
        self._near_side, self._far_side = (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)
        )
        for each in (self._near_side, self._far_side):
            each.bind(("127.0.0.1", 0))
            each.settimeout(0.05)
        self.address: tuple[str, int] = self._near_side.getsockname()
        self._near: tuple[str, int] | None = None
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=each, daemon=True) for each in (self._there, self._back)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._near_side.close()
        self._far_side.close()

    def _there(self) -> None:
        count = 0
        while not self._over.is_set():
            with suppress(TimeoutError):
                content, self._near = self._near_side.recvfrom(65536)
                if not self._drop(count):
                    self._far_side.sendto(content, self._far)
                count += 1

    def _back(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                content, _ = self._far_side.recvfrom(65536)
                if self._near is not None:
                    self._near_side.sendto(content, self._near)
