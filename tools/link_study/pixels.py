"""The anchor: x265 on the pixels that the model sees, over packets like those of RTP, the whole
network at the cloud.

    pictures ─► x265, intra refresh ─► packets of 1200 bytes ═ link ═► pictures, in time or lost

Instead of key frames, a column of intra blocks walks over the pictures, once in `REFRESH` frames;
nobody asks for anything, nothing is sent again but the first pictures.

A picture that is lost is replaced by the one before it, as result and as reference: that is what
decoders do that conceal at all.  FFmpeg's decoder of HEVC conceals nothing: after a loss it gives
no more pictures.  It is brought to go on by the numbers of pictures (picture order counts): those
that arrive are numbered anew, so that each predicts from the one that arrived before it.  With one
reference picture and no B-frames, that is all that tells what is predicted from what; but from the
third picture on x265 wants two to be there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import av
import numpy as np
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from codec.files.pictures import from_pictures, to_pictures
from codec.files.video_coders import LOW_DELAY, X265_PLAIN, encode_video, x265
from tools.link_study.link import Clock, Condition, Path

__all__ = ["REFRESH", "Arrived", "arrived", "coded_at", "decoded", "nearest", "renumbered"]

REFRESH: Final = 32
"""Frames in which all of the picture is refreshed."""
PACKET_BYTES: Final = 1200
RTP_HEADER: Final = bytes(12)
FIRST: Final = 2
"""Pictures without which there is nothing."""
PIXEL_FORMAT: Final = "yuv420p"
CODER = x265(
    f"{LOW_DELAY}:{X265_PLAIN}:ref=1:intra-refresh=1:scenecut=0:keyint={REFRESH}:min-keyint=1"
)
FINEST, COARSEST = 8.0, 46.0
"""crf."""
CRF_STEPS: Final = 7
"""Halvings of their distance: crf to a third."""
START_CODE = re.compile(b"\0\0\0?\1")
LSB_FIRST, LSB_BITS = 21, 8
"""Where a slice of a P picture says its number: behind the header of the NAL unit (16 bits), the
flag of the first slice, the parameter set (0: one bit) and the type (P: three bits); x265 writes
eight bits of it.
"""


def coded_at(rgb: NDArray[np.uint8], crf: float) -> list[bytes]:
    """Encode frames (N, H, W, 3); return the packet of each."""
    pictures = [
        VideoFrame.from_ndarray(picture, format=PIXEL_FORMAT)
        for picture in to_pictures(rgb, PIXEL_FORMAT)
    ]
    return [packet for _, packet in encode_video(pictures, CODER, crf, PIXEL_FORMAT)]


def nearest(rgb: NDArray[np.uint8], frame_rate: float, rate: float) -> tuple[float, list[bytes]]:
    """Find the crf whose rate on a link without loss, overhead included, is nearest to `rate` in
    bit/s; return it with the packets.
    """
    finest, coarsest = FINEST, COARSEST
    best: tuple[float, float, list[bytes]] | None = None
    for _ in range(CRF_STEPS):
        crf = (finest + coarsest) / 2
        packets = coded_at(rgb, crf)
        found = arrived(packets, frame_rate, Condition(), max_latency=1.0, seed=0)
        miss = found.carried_bytes * 8 * frame_rate / len(packets) / rate
        if best is None or abs(miss - 1) < best[0]:
            best = (abs(miss - 1), crf, packets)
        finest, coarsest = (crf, coarsest) if miss > 1 else (finest, crf)
    assert best is not None
    return best[1:]


@dataclass(slots=True)
class Arrived:
    """What became of the packets: when each frame's result was due or there, None where it is
    lost; bytes as of `Course`.
    """

    latency: list[float]
    there: list[bool]
    carried_bytes: int
    lost_bytes: int


def arrived(
    packets: Sequence[bytes],
    frame_rate: float,
    condition: Condition,
    *,
    max_latency: float,
    seed: int,
) -> Arrived:
    """Send packets, one each 1 / `frame_rate` seconds; the first ones again until they are there,
    the others once.
    """
    clock = Clock()
    parts = [-(-len(packet) // PACKET_BYTES) for packet in packets]
    missing = list(parts)
    reliable = iter(range(FIRST))
    complete: dict[int, float] = {}
    first_of: dict[int, float] = {}
    sent_bytes = arrived_bytes = 0

    def take(content: bytes) -> None:
        nonlocal arrived_bytes
        arrived_bytes += len(content)
        number = int.from_bytes(content[:4], "big")
        first_of.setdefault(number, clock.now)
        missing[number] -= 1
        if not missing[number]:
            complete[number] = clock.now

    def take_first(content: bytes) -> None:
        del content
        complete[next(reliable)] = clock.now

    path = Path(clock, replace(condition, duplicated=0.0), take, take_first, seed)

    def send(number: int) -> None:
        nonlocal sent_bytes
        packet = packets[number]
        if number < FIRST:
            path.send_message(packet)
            return
        for start in range(0, len(packet), PACKET_BYTES):
            head = number.to_bytes(4, "big") + RTP_HEADER[4:]
            content = head + packet[start : start + PACKET_BYTES]
            sent_bytes += len(content)
            path.send(content)

    for number in range(len(packets)):
        clock.at(number / frame_rate, lambda number=number: send(number))  # type: ignore[misc]
    clock.run(len(packets) / frame_rate + 10 * (condition.delay + max_latency) + 1)

    latency, there = [], []
    for number in range(len(packets)):
        captured = number / frame_rate
        deadline = captured + condition.delay + max_latency
        found = complete.get(number)
        in_time = number < FIRST or (found is not None and found <= deadline)
        if not in_time:  # told by a later one, or by the deadline
            later = [at for other, at in first_of.items() if other > number]
            found = min([deadline, *later])
        assert found is not None
        latency.append(max(found - captured, 0.0))
        there.append(in_time)
    return Arrived(latency, there, path.carried_bytes, sent_bytes - arrived_bytes)


def decoded(packets: Sequence[bytes], there: Sequence[bool]) -> NDArray[np.float32]:
    """Decode what is there; return a picture for every frame, (N, H, W, 3), 0 to 255.

    Raises:
        ValueError: the decoder gives other pictures than it was given.
    """
    decoder = CodecContext.create("hevc", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count, decoder.thread_type = 1, "NONE"
    given = [packet for packet, arrived in zip(packets, there, strict=True) if arrived]
    frames = [
        frame
        for number, packet in enumerate(given)
        for frame in decoder.decode(av.Packet(renumbered(packet, number)))
    ]
    frames += decoder.decode(None)
    if len(frames) != len(given):
        raise ValueError(f"{len(given)} pictures given to the decoder, {len(frames)} came out")
    pictures = from_pictures(
        [frame.to_ndarray(format=PIXEL_FORMAT) for frame in frames], PIXEL_FORMAT
    )
    newest = np.cumsum(there) - 1
    return np.asarray(pictures[newest], np.float32)


def renumbered(packet: bytes, number: int) -> bytes:
    """Give a P picture another number, of which a packet holds the last eight bits."""
    if number == 0:
        return packet
    out, last = bytearray(), 0
    for start in START_CODE.finditer(packet):
        out += _unit(packet[last : start.start()], number)
        out += start.group()
        last = start.end()
    return bytes(out + _unit(packet[last:], number))


def _unit(unit: bytes, number: int) -> bytes:
    """Do so with a NAL unit, if it is a slice."""
    if not unit or unit[0] >> 1 > 1:  # TRAIL_N, TRAIL_R
        return unit
    plain = unit.replace(b"\0\0\3", b"\0\0")
    bits = len(plain) * 8
    value = int.from_bytes(plain, "big")
    shift = bits - LSB_FIRST - LSB_BITS
    mask = ((1 << LSB_BITS) - 1) << shift
    value = (value & ~mask) | ((number % (1 << LSB_BITS)) << shift)
    return re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", value.to_bytes(len(plain), "big"))
