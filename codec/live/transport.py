"""QUIC by aioquic: one connection for each sender, TLS 1.3, nothing else accepted.

    datagrams   as they are, lost or not
    messages    on one bidirectional stream that the sender opens, each behind its length, u32

Bytes in, bytes out: what they say is the affair of `codec.link`.

What others can make this end hold is bounded:
1. Nothing is kept of an address before it has answered (Retry).
2. Of connections that nothing is known of yet there are so many, and so many of one host; with one
   more, the oldest of whoever has the most ends.  One that stays unknown ends in a few seconds.
3. A message has a largest size, and so has what has arrived of the stream and waits for a gap in it
   to be filled.
4. Whatever a packet makes of aioquic, the loop goes on.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol, cast

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.connection import NetworkAddress, QuicConnection
from aioquic.quic.packet_builder import QuicSentPacket

from codec.errors import LinkError
from codec.link.wire import DATAGRAM_OVERHEAD
from codec.live.identity import Identity, fingerprint_of

__all__ = ["DATAGRAM_BYTES", "Connection", "End", "Listener", "connect", "listen"]

ALPN: Final = "lmc-live/1"
DATAGRAM_BYTES: Final = 1150
"""Largest datagram: what a QUIC packet of 1200 bytes, which every network carries, has room for."""
LENGTH_BYTES: Final = 4
STREAM: Final = 0
"""The first bidirectional stream of a client, and the only one."""
PACKET_BYTES: Final = 28
"""IPv4 and UDP around a packet."""
ACK_SECONDS: Final = 0.02
"""For which a sender collects what it acknowledges; QUIC allows 25 ms.  Nobody waits for it: what
has arrived is the session's affair.
"""
WINDOW: Final = 1 << 21
"""Most bytes in flight."""
IDLE_SECONDS: Final = 5.0
HANDSHAKE_SECONDS: Final = 5.0
HELLO_SECONDS: Final = 3.0
"""In which a sender has to become known."""
ALIVE_SECONDS: Final = 1.5
"""A connection with nothing to say says that it is there, as routers forget silent ones."""
MOST_OPENING: Final = 64
MOST_OF_A_HOST: Final = 16
"""Connections of which nothing is known yet."""
STRANGERS_BYTES: Final = 1 << 12
KNOWN_BYTES: Final = 1 << 22
"""Of the stream, beyond the largest message, that may wait for what is missing before them."""
LARGEST_FRAME: Final = 1 << 16
REFUSED, LATER = 1, 2
"""Error codes of the application: the other end does not keep to the protocol, or may not come in;
it may try again.
"""


class SteadyWindow(QuicCongestionControl):
    """A window that neither grows nor shrinks.

    QUIC's own congestion control (New Reno) takes every loss for congestion and halves its window:
    at a random loss of 10 % it would come down to two packets a round trip, however wide the link.
    Here the session says what is sent when, by the delay and by what arrives, and skips frames
    rather than queueing them.  So the window is wide, and there only to bound what a peer that
    acknowledges nothing can have us keep.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.congestion_window = WINDOW

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        """Count it."""
        self.bytes_in_flight += packet.sent_bytes

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        """Count it off."""
        self.bytes_in_flight -= packet.sent_bytes

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        """Count them off."""
        self.bytes_in_flight -= sum(packet.sent_bytes for packet in packets)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Count them off."""
        self.bytes_in_flight -= sum(packet.sent_bytes for packet in packets)

    def on_persistent_congestion(self) -> None:
        """Leave that to the session."""

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        """Leave that to the session."""


class _Counted(asyncio.DatagramTransport):
    """Of a connection, whose socket may be others' as well: counts what leaves."""

    def __init__(self, transport: asyncio.DatagramTransport) -> None:
        super().__init__()
        self._transport = transport
        self.size = 0
        """Bytes, with those of IP and UDP."""

    def sendto(self, data: Any, addr: Any = None) -> None:  # noqa: ANN401 - asyncio's
        """Send a packet."""
        self.size += len(data) + PACKET_BYTES
        self._transport.sendto(data, addr)


STEADY: Final = "lmc-steady"
register_congestion_control(STEADY, SteadyWindow)


class End(Protocol):
    """Whoever takes what arrives on a connection."""

    def datagram(self, content: bytes) -> None:
        """Take a datagram."""

    def message(self, content: bytes) -> None:
        """Take a message."""

    def closed(self, reason: str, *, later: bool) -> None:
        """Take note that the connection has ended, and why, if the other end has said; `later`: it
        may be tried again.
        """


class Connection(QuicConnectionProtocol):
    """One connection; whoever made it sets `end` before anything arrives.

    `largest` is the largest message that is taken, which its end may raise once it knows the other
    one.
    """

    def __init__(
        self,
        quic: QuicConnection,
        stream_handler: Any = None,  # noqa: ANN401 - aioquic's
        *,
        largest: int,
        opened: Callable[[Connection], None] | None = None,
        ended: Callable[[Connection], None] | None = None,
    ) -> None:
        super().__init__(quic, stream_handler)
        self.end: End | None = None
        self.largest = largest
        self._opened, self._ended = opened, ended
        self.known = False
        """Whether the other end is no stranger."""
        self.refused = 0
        """Packets that could not be taken."""
        self._asked = self._beside = 0
        self._incoming = bytearray()
        self._delivered = 0
        self._alive: asyncio.TimerHandle | None = None
        self._over = False
        self._settled = asyncio.Event()
        self._shaken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._counted = _Counted(cast(asyncio.DatagramTransport, transport))
        super().connection_made(self._counted)

    def beside(self) -> int:
        """Return how many bytes have left since this was last asked, beside what was to be sent:
        acknowledgements, and again what was lost of messages.
        """
        before = self._beside
        self._beside = max(before, self._counted.size - self._asked)
        return self._beside - before

    @property
    def address(self) -> str:
        """Where the other end is, for people."""
        found = self._quic.get_peer_address()
        return "somewhere" if found is None else f"{found[0]}:{found[1]}"

    @property
    def certificate_fingerprint(self) -> str:
        """That of the other end's certificate, after the handshake."""
        # aioquic has no public name for it; without one nobody would be let in
        certificate = getattr(self._quic.tls, "_peer_certificate", None)
        return "" if certificate is None else fingerprint_of(certificate)

    def send(self, datagrams: Iterable[bytes], messages: Iterable[bytes]) -> None:
        """Send these now.

        Raises:
            ValueError: a datagram is too large.
        """
        if self._over:
            return
        for content in messages:
            length = len(content).to_bytes(LENGTH_BYTES, "little")
            self._quic.send_stream_data(STREAM, length + content)
            packets = -(-len(content) // DATAGRAM_BYTES)
            self._asked += LENGTH_BYTES + len(content) + packets * DATAGRAM_OVERHEAD
        for content in datagrams:
            if len(content) > DATAGRAM_BYTES:
                raise ValueError(f"a datagram of {len(content)} bytes: at most {DATAGRAM_BYTES}")
            self._quic.send_datagram_frame(content)
            self._asked += len(content) + DATAGRAM_OVERHEAD
        self.transmit()

    def refuse(self, reason: str, *, later: bool = False) -> None:
        """End the connection, and say why, and whether the other end may try again."""
        self._over = True
        self.close(error_code=LATER if later else REFUSED, reason_phrase=reason)

    def keep_alive(self) -> None:
        """Say every few seconds that this end is there."""
        if self._over:
            return
        try:
            self._quic.send_ping(0)
            self.transmit()
        except Exception:
            self.abandon("a fault of the transport", later=True)
            return
        self._alive = self._loop.call_later(ALIVE_SECONDS, self.keep_alive)

    async def answered(self) -> bool:
        """Wait until the handshake is over, or will never be; tell which."""
        await self._settled.wait()
        return self._shaken

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Take a UDP packet."""
        try:
            super().datagram_received(data, addr)
        except Exception:  # what comes from anywhere may be anything
            self.refused += 1
        if self._held() > self.largest + (KNOWN_BYTES if self.known else STRANGERS_BYTES):
            self.refused += 1
            self.abandon("more was sent than is taken")

    def _held(self) -> int:
        """Tell how many bytes have come on streams and cannot be taken yet."""
        # aioquic has no public name for it, and widens its own window as long as bytes come,
        # even if the first one never does
        used = getattr(getattr(self._quic, "_local_max_data", None), "used", 0)
        return int(used) - self._delivered

    def _handle_timer(self) -> None:
        try:
            super()._handle_timer()
        except Exception:  # without its timer it would never end
            self.refused += 1
            self.abandon("a fault of the transport", later=True)

    def abandon(self, reason: str, *, later: bool = False) -> None:
        """The same, and keep nothing of it."""
        with suppress(Exception):
            self.refuse(reason, later=later)
        self.forget()
        self._connection_terminated_handler()
        self._terminated("")

    def forget(self) -> None:
        """Let no timer come back to a connection whose socket closes."""
        for timer in (self._timer, self._alive):
            if timer is not None:
                timer.cancel()
        self._timer = self._alive = None

    def _terminated(self, reason: str, *, later: bool = True) -> None:
        self._over = True
        if self._alive is not None:
            self._alive.cancel()
        self._settled.set()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)
        end, self.end = self.end, None
        if end is not None:
            end.closed(reason, later=later)

    def quic_event_received(self, event: events.QuicEvent) -> None:
        """Take what has arrived."""
        if isinstance(event, events.HandshakeCompleted):
            self._shaken = True
            self._settled.set()
            if self._opened is not None:
                self._opened(self)
        elif isinstance(event, events.ConnectionTerminated):
            told = event.error_code in {REFUSED, LATER} and event.frame_type is None
            reason = event.reason_phrase if told else ""
            self._terminated(reason, later=event.error_code != REFUSED)
        elif self._over or self.end is None:
            pass
        elif isinstance(event, events.DatagramFrameReceived):
            self.end.datagram(event.data)
        elif isinstance(event, events.StreamDataReceived):
            self._take(event)

    def _take(self, event: events.StreamDataReceived) -> None:
        """Cut the stream into messages."""
        if event.stream_id != STREAM or event.end_stream:
            self.refuse("there is one stream, and it stays open")
            return
        self._incoming += event.data
        self._delivered += len(event.data)
        while not self._over and len(self._incoming) >= LENGTH_BYTES:
            length = int.from_bytes(self._incoming[:LENGTH_BYTES], "little")
            if length > self.largest:
                self.refuse(f"a message of {length} bytes, at most {self.largest} are taken")
                return
            if len(self._incoming) < LENGTH_BYTES + length:
                return
            content = bytes(self._incoming[LENGTH_BYTES : LENGTH_BYTES + length])
            del self._incoming[: LENGTH_BYTES + length]
            if self.end is not None:
                self.end.message(content)


class Listener(QuicServer):
    """Takes connections; `refused` counts what it did not take: packets that are none, connections
    beyond those that may be opening.
    """

    def __init__(
        self, identity: Identity, arrived: Callable[[Connection], None], *, largest: int
    ) -> None:
        configuration = _configuration(is_client=False)
        configuration.certificate = identity.certificate
        configuration.private_key = identity.key
        self._largest, self._arrived = largest, arrived
        self._opening: dict[Connection, tuple[str, asyncio.TimerHandle]] = {}
        self._host = ""
        self.refused = 0
        super().__init__(
            configuration=configuration,
            create_protocol=self._made,
            retry=True,  # nothing is kept of an address before it has answered
        )

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._transport is not None  # noqa: S101 - `listen` gives no other
        found = self._transport.get_extra_info("sockname")
        return str(found[0]), int(found[1])

    def close(self) -> None:
        """End all connections, and listen no more."""
        open_ones = {each for each in self._protocols.values() if isinstance(each, Connection)}
        super().close()
        for connection in open_ones:
            connection.forget()

    def known(self, connection: Connection) -> None:
        """Take note that a connection is no stranger's."""
        connection.known = True
        self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        _, timer = self._opening.pop(connection, ("", None))
        if timer is not None:
            timer.cancel()

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Take a UDP packet."""
        self._host = str(addr[0])
        try:
            super().datagram_received(data, addr)
        except Exception:  # whatever a stranger's bytes make of aioquic, the others go on
            self.refused += 1

    def _made(self, quic: QuicConnection, stream_handler: Any = None) -> Connection:  # noqa: ANN401
        self._make_room()
        connection = Connection(
            quic,
            stream_handler,
            largest=self._largest,
            opened=self._arrived,
            ended=self._ended,
        )
        timer = asyncio.get_running_loop().call_later(
            HELLO_SECONDS, self._end, connection, "nothing was said in time"
        )
        self._opening[connection] = self._host, timer
        return connection

    def _make_room(self) -> None:
        """End the oldest connection of whoever has the most opening, if there are too many."""
        hosts = Counter(host for host, _ in self._opening.values())
        if hosts[self._host] >= MOST_OF_A_HOST:
            host = self._host
        elif hosts.total() >= MOST_OPENING:
            host = hosts.most_common(1)[0][0]
        else:
            return
        oldest = next(each for each, (of, _) in self._opening.items() if of == host)
        self._end(oldest, "others wait to be let in")

    def _ended(self, connection: Connection) -> None:
        self._leave(connection)
        self.refused += connection.refused

    def _end(self, connection: Connection, reason: str) -> None:
        self.refused += 1
        connection.abandon(reason, later=True)


async def listen(
    address: tuple[str, int],
    identity: Identity,
    arrived: Callable[[Connection], None],
    *,
    largest: int,
) -> Listener:
    """Listen for senders.

    Args:
        address: host and port; port 0: any that is free.
        identity: what senders know this end by.
        arrived: is given every connection whose handshake is over, to set its `end`; what it has
            not made known after some seconds is ended.
        largest: bytes of a message.

    Raises:
        LinkError: the address cannot be listened at.
    """
    loop = asyncio.get_running_loop()
    host, port = address
    try:
        _, listener = await loop.create_datagram_endpoint(
            lambda: Listener(identity, arrived, largest=largest), local_addr=(host, port)
        )
    except OSError as error:
        raise LinkError(f"cannot listen at {host}:{port}: {_reason(error)}") from error
    return listener


@asynccontextmanager
async def connect(
    address: tuple[str, int], fingerprint: str, *, largest: int
) -> AsyncIterator[Connection]:
    """Connect to the receiver of a fingerprint.

    Raises:
        LinkError: there is another one; nothing has been said to it.
        ConnectionError: nobody answers.
    """
    loop = asyncio.get_running_loop()
    host, port = address
    try:
        (family, _, _, _, place), *_ = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
        quic = QuicConnection(configuration=_configuration(is_client=True))
        quic._ack_delay = ACK_SECONDS  # aioquic has no public name for it
        transport, connection = await loop.create_datagram_endpoint(
            lambda: Connection(quic, largest=largest), family=family, local_addr=(anywhere, 0)
        )
    except OSError as error:
        raise ConnectionError(f"{host}:{port}: {_reason(error)}") from error
    try:
        connection.connect(place)
        answered = False
        with suppress(TimeoutError):
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                answered = await connection.answered()
        if not answered:
            raise ConnectionError(f"{host}:{port}: no receiver answers")
        found = connection.certificate_fingerprint
        if not hmac.compare_digest(found, fingerprint):
            raise LinkError(
                f"the receiver at {host}:{port} has the fingerprint {found}, expected "
                f"{fingerprint}; nothing was sent to it: pass what `lmc receive` has printed"
            )
        connection.keep_alive()
        connection.beside()  # the handshake, which is over
        yield connection
    finally:
        with suppress(Exception):
            connection.close()
        connection.forget()
        transport.close()


def _configuration(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=[ALPN],
        congestion_control_algorithm=STEADY,
        idle_timeout=IDLE_SECONDS,
        max_datagram_frame_size=LARGEST_FRAME,
        server_name="lmc" if is_client else None,
        verify_mode=ssl.CERT_NONE,  # of authorities there are none: the fingerprint is compared
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
