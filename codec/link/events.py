"""What sessions tell their callers: events, plans, bytes to send, and how it goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = [
    "Acked",
    "Ended",
    "Frame",
    "FramePlan",
    "ImportanceMap",
    "Lost",
    "Missing",
    "Opened",
    "Outgoing",
    "QualityRequest",
    "ReceiverEvent",
    "ReceiverStatus",
    "Refused",
    "SenderEvent",
    "SenderStatus",
    "Skipped",
    "Welcomed",
]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be sent now: datagrams in this order, messages reliably and in this order."""

    datagrams: list[bytes] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FramePlan:
    """How a frame is to be coded, decided before it is computed."""

    number: int
    key: bool
    slots: tuple[int, int] | None
    """(predicted from, kept in), None for a key frame."""
    reference_number: int | None
    most_bytes: float
    """What the link will carry of it; a key frame's is a wish."""
    captured: float


# --- events of the sender -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The receiver has let us in; `resumed`: it still has the frames of this session."""

    resumed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver has not let us in."""

    reason: str


@dataclass(frozen=True, slots=True)
class ImportanceMap:
    """The receiver sends a map of importance."""

    content: bytes


@dataclass(frozen=True, slots=True)
class QualityRequest:
    """The receiver asks for another quality."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Acked:
    """The receiver has decoded a frame."""

    number: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A frame has not been decoded when its result was due; late, it may still be."""

    number: int


SenderEvent = Welcomed | Refused | ImportanceMap | QualityRequest | Acked | Lost

# --- events of the receiver -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The sequence header of the stream to come; once in a session, however often it resumes."""

    header: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose reference has been delivered; numbers only grow.

    After decoding it, call `ReceiverSession.decoded`.
    """

    number: int
    packet: bytes
    key: bool
    reference: int | None
    """The number of the frame that it is predicted from, None for a key frame."""
    captured_at: float
    """On the receiver's clock, as if the link's least delay were none."""
    late: bool
    """Its result was given up as `Missing`; decoded, it is still worth its reference."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A frame that is not there when its result is due: conceal it."""

    number: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """Frames first … last that the sender never sent, or that are missing in a gap so long that
    nothing is left to conceal them from.
    """

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The source has ended; all frames below `end` have had their event.  What was `Missing` from
    `end` on, before this was known, never was.
    """

    end: int


ReceiverEvent = Opened | Frame | Missing | Skipped | Ended

# --- how it goes ----------------------------------------------------------------------------------


@dataclass(slots=True)
class SenderStatus:
    """The sender's view of the link; bit/s, seconds, shares of 1, counts since the start."""

    rate: float = 0.0
    goodput: float = 0.0
    loss: float = 0.0
    rtt: float | None = None
    queue_delay: float = 0.0
    acknowledged_only: bool = False
    frames_sent: int = 0
    frames_skipped: int = 0
    frames_dropped: int = 0
    """Planned, but not sent: late, or no longer decodable; counted as sent as well."""
    frames_acked: int = 0
    frames_lost: int = 0
    datagrams_again: int = 0
    """Sent once more, after they were lost."""
    key_frames: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class ReceiverStatus:
    """The receiver's view; counts since the start of the session."""

    received_bytes: int = 0
    datagrams: int = 0
    loss: float = 0.0
    frames: int = 0
    late: int = 0
    missing: int = 0
    skipped: int = 0
    undecodable: int = 0
    """Complete, but predicted from what is not there; counted as missing as well."""
    key_frames: int = 0
    refused: Counter[str] = field(default_factory=Counter)
