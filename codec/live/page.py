"""The page of `lmc receive --page`: what comes in, as it comes in, in a browser.

    with LivePage(8080) as page:
        print(page.address)
        page.update(LiveStatus(senders=(ShownSender(1, "camera", ...),)))   # twice a second, say

    update ─► the newest status ◄── GET /status?sender=1, a few times a second ── page.html

A receiver states what it has; whoever looks asks for it.  Nothing is kept here but the newest
status, and nothing is written in JSON unless somebody looks.  What is served is one file, complete
in itself, and one answer in JSON; whatever strangers wrote (names, results) becomes text there,
never markup.  A page of another site that has its name point here (DNS rebinding) is refused by
the name that it asks for.

Measures nothing; `thumbnails.py` makes the pictures.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from socketserver import ThreadingTCPServer
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FRAMES",
    "FrameState",
    "LivePage",
    "LiveStatus",
    "ShownFrame",
    "ShownSender",
]

FRAMES: Final = 600
"""Frames of a sender that are shown, the newest."""
SENDERS: Final = 64
THUMBNAILS: Final = 8
THUMBNAIL_SIDE: Final = 256
ROWS: Final = 20
COLUMNS: Final = 12
CHARACTERS: Final = 120
"""Of a name, or of a value in a result."""

CONNECTIONS: Final = 16
"""Connections at a time; with one more, the oldest is closed."""
SECONDS: Final = 5.0
"""How long a connection may keep silent."""
QUERY_BYTES: Final = 256
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Status = dict[str, Any]


class FrameState(StrEnum):
    """What became of a frame."""

    KEY = "key"
    DECODED = "decoded"
    CONCEALED = "concealed"
    SKIPPED = "skipped"
    """By the sender, before inference."""
    LOST = "lost"
    """Neither decoded nor concealed."""


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A frame: what became of it, bytes that arrived, and seconds from capture to result."""

    number: int
    state: FrameState
    size: int = 0
    latency: float | None = None


@dataclass(frozen=True, slots=True)
class ShownSender:
    """A sender, as it is shown.

    `loss` is a share, latencies are in seconds.  Of `frames`, oldest first, the last `FRAMES` are
    shown; `result` holds the rows of the frame `result_of`; `thumbnails` are (H, W), a few of them.
    """

    number: int
    name: str
    model: str = ""
    split: str = ""
    connected: bool = True
    decoded: int = 0
    concealed: int = 0
    skipped: int = 0
    lost: int = 0
    kbit_per_s: float = 0.0
    frames_per_s: float = 0.0
    loss: float = 0.0
    latency_p50: float | None = None
    latency_p95: float | None = None
    frames: tuple[ShownFrame, ...] = ()
    result_of: ShownFrame | None = None
    result: Sequence[Mapping[str, Any]] = ()
    thumbnails: Sequence[NDArray[np.uint8]] = ()


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """What a receiver has: its senders, where it listens, whom it refused, how late is too late."""

    senders: tuple[ShownSender, ...] = ()
    listening: str = ""
    refused: int = 0
    max_latency: float | None = None


class LivePage:
    """Serves the page while it is entered, from threads of its own.

    Args:
        port: 0 for any that is free.
        host: a name or address of this machine; all but loopback can be reached from elsewhere,
            and the page asks nobody who they are.

    Raises:
        OSError: on entering, if the port is taken or the host is none of this machine.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._port, self._host = port, host
        self._newest = LiveStatus(), time.monotonic()
        self._server: _Server | None = None

    def __enter__(self) -> LivePage:
        """Begin to serve."""
        try:
            self._server = _Server(self, self._port, self._host)
        except OSError as error:
            raise OSError(
                error.errno, f"no page at {self._host} port {self._port}: {error.strerror}"
            ) from error
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="lmc-page", daemon=True
        ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def address(self) -> str:
        """Where it is looked at."""
        if self._server is None:
            raise ValueError("the page is not served yet: enter it first")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_address[1]}/"

    def update(self, status: LiveStatus) -> None:
        """Show this from now on; what it holds must not be changed any more.

        Once a second is enough, and the least: the page says so when nothing new comes.
        """
        self._newest = status, time.monotonic()

    def answer(self, sender: int | None) -> bytes:
        """Write the newest status in JSON, this sender (else the first) with all that it has."""
        status, since = self._newest
        senders = status.senders[:SENDERS]
        chosen = next((one for one in senders if one.number == sender), None)
        if chosen is None and senders:
            chosen = senders[0]
        return json.dumps(
            {
                "age": time.monotonic() - since,
                "listening": _text(status.listening),
                "refused": status.refused,
                "max_latency": _finite(status.max_latency),
                "senders": [_summary(one) for one in senders],
                "selected": None if chosen is None else _details(chosen),
            },
            allow_nan=False,
            separators=(",", ":"),
        ).encode()


def _summary(sender: ShownSender) -> Status:
    return {
        "number": sender.number,
        "name": _text(sender.name),
        "model": _text(sender.model),
        "split": _text(sender.split),
        "connected": sender.connected,
        "decoded": sender.decoded,
        "concealed": sender.concealed,
        "skipped": sender.skipped,
        "lost": sender.lost,
        "kbit_per_s": _finite(sender.kbit_per_s),
        "frames_per_s": _finite(sender.frames_per_s),
        "loss": _finite(sender.loss),
        "latency_p50": _finite(sender.latency_p50),
        "latency_p95": _finite(sender.latency_p95),
    }


def _details(sender: ShownSender) -> Status:
    rows = _unfolded(sender.result)
    columns, cells = _table(rows)
    return {
        **_summary(sender),
        "frames": [_frame(frame) for frame in sender.frames[-FRAMES:]],
        "result_of": None if sender.result_of is None else _frame(sender.result_of),
        "columns": columns,
        "rows": cells,
        "more_rows": max(len(rows) - ROWS, 0),
        "thumbnails": [_picture(grey) for grey in sender.thumbnails[:THUMBNAILS]],
    }


def _frame(frame: ShownFrame) -> list[int | float | str | None]:
    return [frame.number, frame.state, frame.size, _finite(frame.latency)]


def _unfolded(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the list of rows that a lone row holds, as classes are given; else the rows."""
    if len(rows) == 1:
        for value in rows[0].values():
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                return value
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Lay rows out under the names that any of them has, all as text."""
    shown = [{_text(str(name)): value for name, value in row.items()} for row in rows[:ROWS]]
    columns = list(dict.fromkeys(name for row in shown for name in row))[:COLUMNS]
    return columns, [[_cell(row.get(name)) for name in columns] for row in shown]


def _cell(value: Any) -> str:  # noqa: ANN401 - whatever a row holds
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return _text(
        value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    )


def _text(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _picture(grey: NDArray[np.uint8]) -> Status:
    step = max(-(-max(grey.shape) // THUMBNAIL_SIDE), 1)
    small = grey[::step, ::step].astype(np.uint8)
    height, width = small.shape
    return {"width": width, "height": height, "grey": base64.b64encode(small.tobytes()).decode()}


class _Server(ThreadingTCPServer):
    """Takes connections, a bounded number at a time."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, page: LivePage, port: int, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.page, self.host = page, host
        self.html, self.policy = _page_and_policy()
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._opening = threading.Lock()
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer in a thread, having closed the oldest connection where there are too many."""
        with self._opening:
            if len(self._open) >= CONNECTIONS:
                oldest, _ = self._open.popitem(last=False)
                # its thread, which finds it at its end, closes it
                _end(oldest)
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        """Close a connection."""
        with self._opening:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Keep quiet: a browser that goes away is no error of the receiver's."""

    def names(self, host: str) -> bool:
        """Tell whether a request for this host means this page."""
        if host in LOOPBACK or host == self.host.lower():
            return True
        if self.host not in {"0.0.0.0", "::"}:
            return False
        try:
            ip_address(host)  # an address, unlike a name, points nowhere else
        except ValueError:
            return False
        return True


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    timeout = SECONDS

    def do_GET(self) -> None:
        """Send the page, or the status."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            target = urlsplit(self.path[:QUERY_BYTES])
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", b"no such address\n")
            return
        if not self.server.names(host):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page has another name\n")
        elif target.path == "/":
            self._send(HTTPStatus.OK, "text/html", self.server.html)
        elif target.path == "/status":
            sender = parse_qs(target.query).get("sender", [""])[0]
            number = int(sender) if re.fullmatch("[0-9]{1,18}", sender) else None
            self._send(HTTPStatus.OK, "application/json", self.server.page.answer(number))
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there are / and /status\n")

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """Name the server without its versions."""
        return "lmc"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet: the terminal shows the link."""


def _page_and_policy() -> tuple[bytes, str]:
    """Read the page, and state that nothing runs or loads in it but what is in it."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    def hashes(element: str) -> str:
        sources = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
            for source in sources
        )

    return page.encode(), (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
