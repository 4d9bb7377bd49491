"""What a frame passes on its way to an answer, and what that comes to over a link.

    edge device                      link                     cloud
    edge sub-model, encoder    ─►    bytes · 8 / rate    ─►    decoder, cloud sub-model
    × slowdown                       + half a round trip

*Latency* is that of one frame which waits for no other, from the picture to the answer at the far
end.  *Throughput* is that of frames in a row, each stage at work on another one: the slowest stage
bounds it.  The edge sub-model and the encoder share one processor, and so do decoder and cloud.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "Link", "Power", "Stages", "Terms", "edge_load", "estimate", "latency"]

T = TypeVar("T", float, NDArray[np.float64])
"""A figure, or one for each of many resamplings."""


@dataclass(frozen=True, slots=True)
class Link:
    """The way from the edge to the cloud."""

    bits_per_second: float
    rtt_seconds: float

    def __post_init__(self) -> None:
        """Refuse what is no link."""
        if not (self.bits_per_second > 0 and self.rtt_seconds >= 0):
            raise ValueError(f"a rate is positive, a round trip not negative: {self}")


@dataclass(frozen=True, slots=True)
class Power:
    """What the edge device takes: while it computes, and its radio while it sends."""

    edge_watts: float
    radio_watts: float


@dataclass(frozen=True, slots=True)
class Terms:
    """Under what a plan is made.

    `edge_slowdown`: how many times slower the edge device is than where times were measured; it
    counts for the encoder too.
    """

    link: Link
    edge_slowdown: float = 1.0
    power: Power | None = None

    def __post_init__(self) -> None:
        """Refuse a device that takes no time."""
        if not self.edge_slowdown > 0:
            raise ValueError(f"edge_slowdown is {self.edge_slowdown}, expected a positive number")


@dataclass(frozen=True, slots=True)
class Stages:
    """What one frame takes, seconds where they were measured, and what crosses the link."""

    edge_seconds: float
    encode_seconds: float
    bytes_sent: float
    decode_seconds: float
    cloud_seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a frame comes to under some terms.

    `edge_load_seconds` is what the edge device is busy with it, `link_seconds` without the round
    trip; `bottleneck` is "edge", "link" or "cloud"; `edge_joules` is None without a `Power`.
    """

    edge_load_seconds: float
    link_seconds: float
    cloud_load_seconds: float
    latency_seconds: float
    frames_per_second: float
    bottleneck: str
    edge_joules: float | None


def edge_load(edge: T, encode: T, terms: Terms) -> T:
    """Return the seconds that the edge device is busy with a frame, from those measured here."""
    return (edge + encode) * terms.edge_slowdown


def latency(edge_load: T, bytes_sent: T, cloud_load: T, link: Link) -> T:
    """Return the seconds from a picture to its answer at the far end."""
    sending = 8 * bytes_sent / link.bits_per_second
    return edge_load + sending + link.rtt_seconds / 2 + cloud_load


def estimate(stages: Stages, terms: Terms) -> Estimate:
    """Take a frame over a link."""
    edge = edge_load(stages.edge_seconds, stages.encode_seconds, terms)
    link = 8 * stages.bytes_sent / terms.link.bits_per_second
    cloud = stages.decode_seconds + stages.cloud_seconds
    loads = {"edge": edge, "link": link, "cloud": cloud}
    bottleneck = max(loads, key=lambda name: loads[name])
    slowest = loads[bottleneck]
    power = terms.power
    return Estimate(
        edge_load_seconds=edge,
        link_seconds=link,
        cloud_load_seconds=cloud,
        latency_seconds=latency(edge, stages.bytes_sent, cloud, terms.link),
        frames_per_second=1 / slowest if slowest > 0 else float("inf"),
        bottleneck=bottleneck,
        edge_joules=None if power is None else power.edge_watts * edge + power.radio_watts * link,
    )
