"""QUIC connections on the loopback: messages, datagrams, fingerprints, strangers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("aioquic")

from codec.errors import LinkError
from codec.live.identity import Identity
from codec.live.transport import DATAGRAM_BYTES, Connection, Listener, connect, listen

LARGEST = 1 << 20


class Echo:
    """Sends everything back."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.reasons: list[str] = []

    def datagram(self, content: bytes) -> None:
        self.connection.send([content], [])

    def message(self, content: bytes) -> None:
        self.connection.send([], [content])

    def closed(self, reason: str, *, later: bool) -> None:
        self.reasons.append(reason)


class Kept:
    """Keeps everything."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.messages: list[bytes] = []
        self.reasons: list[str] = []

    def datagram(self, content: bytes) -> None:
        self.datagrams.append(content)

    def message(self, content: bytes) -> None:
        self.messages.append(content)

    def closed(self, reason: str, *, later: bool) -> None:
        self.reasons.append(reason)


@asynccontextmanager
async def listening(identity: Identity, **options: int) -> AsyncIterator[Listener]:
    def arrived(connection: Connection) -> None:
        connection.end = Echo(connection)
        listener.known(connection)

    listener = await listen(("127.0.0.1", 0), identity, arrived, **{"largest": LARGEST, **options})
    try:
        yield listener
    finally:
        listener.close()


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def test_what_leaves_beside_what_was_sent_is_counted():
    async def scene() -> None:
        identity = Identity.make()
        async with (
            listening(identity) as listener,
            connect(listener.address, identity.fingerprint, largest=LARGEST) as connection,
        ):
            connection.end = kept = Kept()
            for _ in range(10):
                connection.send([b"1"], [])
                await asyncio.sleep(0.05)  # within which what comes back is acknowledged
            assert len(kept.datagrams) == 10
            assert 10 * 40 < connection.beside() < 10 * 80
            assert connection.beside() == 0

    asyncio.run(scene())


def test_messages_and_datagrams_come_back():
    large = os.urandom(300_000)

    async def scene() -> None:
        identity = Identity.make()
        async with (
            listening(identity) as listener,
            connect(listener.address, identity.fingerprint, largest=LARGEST) as connection,
        ):
            kept = Kept()
            connection.end = kept
            connection.send([bytes(DATAGRAM_BYTES), b""], [b"", large, b"end"])
            await until(lambda: len(kept.messages) == 3 and len(kept.datagrams) == 2)
            assert kept.messages == [b"", large, b"end"]
            assert kept.datagrams == [bytes(DATAGRAM_BYTES), b""]
            with pytest.raises(ValueError, match="a datagram of 1151 bytes: at most 1150"):
                connection.send([bytes(DATAGRAM_BYTES + 1)], [])

    asyncio.run(scene())


def test_another_certificate_is_refused_with_both_fingerprints():
    async def scene() -> None:
        identity, expected = Identity.make(), Identity.make().fingerprint
        async with listening(identity) as listener:
            with pytest.raises(LinkError) as caught:
                async with connect(listener.address, expected, largest=LARGEST):
                    pytest.fail("let in")
            assert f"has the fingerprint {identity.fingerprint}, expected {expected};" in str(
                caught.value
            )

    asyncio.run(scene())


def test_nobody_there():
    async def scene() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionError, match="no receiver answers"):
                async with connect(silent.getsockname(), "", largest=LARGEST):
                    pytest.fail("nobody answers")

    import codec.live.transport as transport

    before, transport.HANDSHAKE_SECONDS = transport.HANDSHAKE_SECONDS, 0.2
    try:
        asyncio.run(scene())
    finally:
        transport.HANDSHAKE_SECONDS = before


def test_a_message_that_is_too_large_ends_the_connection():
    async def scene() -> None:
        identity = Identity.make()
        async with (
            listening(identity, largest=100) as listener,
            connect(listener.address, identity.fingerprint, largest=LARGEST) as connection,
        ):
            kept = Kept()
            connection.end = kept
            connection.send([], [bytes(100), bytes(101)])
            await until(lambda: bool(kept.reasons))
            assert kept.messages == [bytes(100)]
            assert kept.reasons == ["a message of 101 bytes, at most 100 are taken"]

    asyncio.run(scene())


def test_garbage_disturbs_nobody():
    async def scene() -> None:
        identity = Identity.make()
        async with (
            listening(identity) as listener,
            connect(listener.address, identity.fingerprint, largest=LARGEST) as connection,
        ):
            kept = Kept()
            connection.end = kept
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for number in range(300):
                    content = os.urandom(1 + number * 5)
                    # a header of QUIC in front of some of it
                    front = bytes([0xC3, 0, 0, 0, 1, 8]) if number % 2 else b""
                    stranger.sendto(front + content, listener.address)
                    if number % 50 == 0:
                        await asyncio.sleep(0.01)
            connection.send([], [b"still here"])
            await until(lambda: kept.messages == [b"still here"])

    asyncio.run(scene())


def test_who_says_nothing_is_sent_away(monkeypatch):
    import codec.live.transport as transport

    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 0.3)

    async def scene() -> None:
        identity = Identity.make()
        listener = await listen(("127.0.0.1", 0), identity, lambda _: None, largest=LARGEST)
        async with connect(listener.address, identity.fingerprint, largest=LARGEST) as connection:
            kept = Kept()
            connection.end = kept
            await until(lambda: bool(kept.reasons))
            assert kept.reasons == ["nothing was said in time"]
            assert listener.refused == 1
        listener.close()

    asyncio.run(scene())
