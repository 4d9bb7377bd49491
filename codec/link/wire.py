"""The numbers of the wire, and its primitive values <-> bytes: bitstreams/LINK.md."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from codec.errors import CorruptBitstreamError
from codec.format.primitives import ByteReader, in_range

LINK_VERSION: Final = 2
TICKS: Final = 10_000
"""Units of time on the wire, in a second."""

# bounds
MAX_COUNT: Final = (1 << 48) - 1
"""Numbers, sequence numbers, bytes and ticks."""
MAX_FRAGMENTS: Final = 255
MAX_HELLO_BYTES: Final = 512
"""What is read of a peer that has not shown its token."""
MAX_TOKEN_BYTES: Final = 128
MAX_REQUEST_BYTES: Final = 1 << 16
"""A map of importance or a request for quality."""
SESSION_BYTES: Final = 16
REPORTED: Final = 64
"""Frames before the newest decoded one that a report speaks of."""
RECENT: Final = 1024
"""Datagrams before the highest that are told from repetitions, and may be said to be missing."""
MAX_RUNS: Final = 32
"""Runs of missing datagrams that one report tells of."""

DATAGRAM_OVERHEAD: Final = 60
"""IPv4, UDP and QUIC around a datagram: counted in every rate, since the link carries it too."""

# types and flags
DATAGRAMS: Final = 0x40


class Kind(IntEnum):
    """The first byte: bit 7 set from the receiver, bit 6 set in datagrams."""

    HELLO = 0x01
    HEADER = 0x02
    WHOLE = 0x03
    BYE = 0x04
    FRAGMENT = 0x41
    WELCOME = 0x81
    REFUSAL = 0x82
    IMPORTANCE = 0x83
    QUALITY = 0x84
    FEEDBACK = 0xC1


def read_count(source: ByteReader, what: str) -> int:
    """Read a number, a sequence number, a size or a time."""
    return in_range(what, source.varint(), 0, MAX_COUNT)


def read_kind(source: ByteReader, *, datagram: bool) -> Kind:
    """Read the first byte; refuse what came the wrong way."""
    kind = source.u8()
    if bool(kind & DATAGRAMS) != datagram:
        raise CorruptBitstreamError(
            f"type {kind:#04x} came as a {'datagram' if datagram else 'message'}"
        )
    try:
        return Kind(kind)
    except ValueError as error:
        raise CorruptBitstreamError(f"type {kind:#04x} is unknown") from error
