"""Which qp comes next, to keep a rate or an error: one pass, no look-ahead, any number of frames.

    next() -> qp, most_bytes ─► Encoder.encode ─► update(packet_bytes, key, qp, nrmse)

Pure arithmetic on what the packets came to; bounding a frame is left to `encoder`.  Rates count
every byte of the file: headers, framing, end packet.

Invariants of `BitrateControl`, as long as frames at the largest qp cost less than the target:
    * Of any 100 or more frames from the start, the bytes, with an end packet behind them, are at
      most `TOLERANCE` times the target.  Every frame is bounded by what is left of that.
    * What a key frame costs is saved before it or paid back behind it, on a line that the qp does
      not have to follow up and down.
"""

from __future__ import annotations

import math
from typing import Protocol

from codec.format.constants import MAX_QP
from codec.format.packets import EndPacket
from codec.format.primitives import varint_size

__all__ = [
    "SETTLED",
    "TARGET_RANGES",
    "TOLERANCE",
    "BitrateControl",
    "NrmseControl",
    "RateControl",
]

TOLERANCE = 1.05
"""Most bytes of a file, in targets, for clips of `SETTLED` frames or more."""
SETTLED = 100
TARGET_RANGES = {"bitrate": (1e-3, 1e9), "target_nrmse": (1e-9, 1.0)}
"""Least and largest targets: kbit/s, and NRMSE."""
AHEAD = 0.03
"""How far ahead of the target the bytes may be behind a key frame that was expected."""
RESERVE, LEAST_RESERVE = 0.045, 7
"""How far behind the target saving for a key frame may leave the bytes: a share of them, or frames'
worth."""
FIRST_SHARE = 0.3
"""Share of the budget of `SETTLED` frames that the first key frame may take."""
PAID_BACK = 90
"""Frames in which that is paid back."""
REACTION = 12
"""Frames in which a deviation is to be gone."""
BURST = 6
"""How many frames' worth any frame may take where the tolerance has room for it."""
INTER_QP_PER_HALVING = 3.5
"""How many qp halve the rate of inter frames, about, at rates where they are worth controlling;
that of key frames it takes `KEY_QP_PER_HALVING`."""
KEY_QP_PER_HALVING = 5.5
USUAL_QP, USUAL_BITS = 30, 0.07
"""A qp and the bits per feature element that clips come to with it, about."""
MEMORY, KEY_MEMORY = 10, 2
"""Frames over which costs are averaged, and key frames over which theirs are."""
HOLD = 0.8
"""The qp stays while it is no farther than this from the one wanted: a change costs a byte."""
QP_PER_DOUBLING = 11
"""How many qp double the NRMSE, about."""
USUAL_NRMSE = 0.032
"""The NRMSE that clips come to with qp 24, about."""
NRMSE_MEMORY, NRMSE_GAIN = 4, 0.25
"""Frames over which squared errors are averaged; share of a deviation that a frame answers to."""
NRMSE_HORIZON = 32
"""Frames in which an excess of squared error is to be made up for."""
NRMSE_WANDER = 12
"""How far the qp may go from that of the last key frame.  Where nothing moves, coarser qp change
nothing, and would ruin the first frame in which something does."""
FRAMING, KEY_FRAMING = 8, 18
"""Bytes of a packet beside its payload, the least of inter frames and the most of key frames, with
what they take in the index."""
SLACK_BYTES, SLACK_SHARE = 10, 0.02
"""What a payload may be beyond its estimate."""


class RateControl(Protocol):
    """Chooses the qp of every frame from what the frames before it came to."""

    def next(self) -> tuple[int, float | None]:
        """Return the qp of the next frame, and most bytes of its payload if they are bounded."""

    def update(self, *, packet_bytes: int, key: bool, qp: int, nrmse: float) -> None:
        """Note what a frame came to: its packet, and the NRMSE of the clip up to it (of no account
        to a control of the rate).
        """


class BitrateControl:
    """Keeps a rate.

        bytes less target · frames
          │
          │                          __..--  TOLERANCE: never above, from frame 100 on
          │  ┌─.         __..--┌─.           ceiling: as far as is planned, AHEAD of the target
          │  │  '-.      ┌─.   │  '-.
          0──┤     '-.   │  '-.│     '-.──►  frames
                      '-.│                   what the next key frame is expected to take, saved

    Args:
        kbit_per_s: the target.
        frame_rate: frames per second.
        keyint: frames from key frame to key frame at most.
        key_offset: how much finer than asked key frames are coded.
        header_bytes: size of the sequence header.
        elements: feature elements of a frame, for the first guess.
    """

    def __init__(
        self,
        kbit_per_s: float,
        frame_rate: float,
        *,
        keyint: int,
        key_offset: int,
        header_bytes: int,
        elements: int,
    ) -> None:
        self._target = kbit_per_s * 1000 / 8 / frame_rate
        self._keyint, self._key_offset = keyint, key_offset
        left = max(self._target * SETTLED - header_bytes, 0.0)
        self._first = header_bytes + left * min(FIRST_SHARE, keyint / 2 / SETTLED)
        self._written = header_bytes
        self._index_bytes = 0
        self._frames = self._key_at = self._key_position = 0
        self._inter_cost = _Mean()
        self._key_cost = _Mean()
        usual = USUAL_BITS * elements / 8
        self._qp = _within(USUAL_QP - INTER_QP_PER_HALVING * math.log2(self._target / usual))
        self._held = round(self._qp)

    def _end_bytes(self, frames: int) -> int:
        """Return the size of the end packet of the stream so far."""
        return EndPacket.size_of(2 * varint_size(frames) + self._index_bytes)

    def _ceiling(self, frames: int) -> float:
        """Return the most bytes that are planned for."""
        target = self._target
        settled = (1 + AHEAD) * target
        if frames >= PAID_BACK:
            return settled * frames
        # a header may be larger than all that: then it is paid back as fast as it can be
        return self._first + (settled * PAID_BACK - self._first) * frames / PAID_BACK

    def _limit(self, frames: int) -> float:
        """Return the most bytes ever."""
        # half of the target for every frame that is still to come before it counts
        kept = max(SETTLED - frames, 0) * max(self._target / 2, FRAMING)
        return TOLERANCE * self._target * max(frames, SETTLED) - kept

    def _spendable(self) -> float:
        """Return the bytes that a frame may take now, on average, if all is to be well later."""
        frames = self._frames
        spent = self._written + self._end_bytes(frames)
        ahead = frames + REACTION
        allowed = (self._ceiling(ahead) - spent) / REACTION
        if frames < PAID_BACK:
            allowed = min(
                allowed,
                (self._ceiling(PAID_BACK) - spent) / max(PAID_BACK - frames, REACTION),
            )
        key_at = self._key_at + self._keyint  # the next, if the encoder chooses none before
        floor = self._target * (key_at - max(RESERVE * key_at, LEAST_RESERVE))
        before_key = max(self._ceiling(key_at + 1) - self._expected_key(self._qp), floor)
        return min(allowed, (before_key - spent) / max(key_at - frames, REACTION))

    def next(self) -> tuple[int, float | None]:
        """Return the qp of the next frame, and most bytes of its payload."""
        frames = self._frames
        spent = self._written + self._end_bytes(frames + 1) + KEY_FRAMING
        room = self._limit(frames + 1) - spent
        planned = self._ceiling(frames + 1) - spent
        if frames == 0:
            most = min(room, planned)
        elif frames - self._key_at >= self._keyint:
            self._aim_key(spent)
            most = min(room, max(planned, BURST * self._target))
        else:
            rate = self._spendable()
            self._aim(rate)
            # half of the tolerance at most, so that a frame behind this one has some left
            most = min(room, max(room / 2 if frames >= PAID_BACK else planned, BURST * rate))
        most = (most - SLACK_BYTES) / (1 + SLACK_SHARE)
        return self._held, max(most, 1.0)

    def _aim_key(self, spent: float) -> None:
        """Move the qp towards the one at which all frames up to the next key frame are paid for."""
        ahead = max(self._keyint, REACTION)
        budget = (self._ceiling(self._frames + ahead) - spent) * self._keyint / ahead
        wanted = 0
        while (
            wanted < MAX_QP
            and self._expected_key(wanted)
            + (self._keyint - 1)
            * (FRAMING + self._inter_cost.value * 2 ** (-wanted / INTER_QP_PER_HALVING))
            > budget
        ):
            wanted += 1
        self._qp += min(max(wanted - self._qp, -2.0), 2.0)
        self._held = round(self._qp)

    def _expected_key(self, qp: float) -> float:
        """Return what a key frame would take, with what it takes in the index."""
        cost = self._key_cost.value * 2 ** (-(qp - self._key_offset) / KEY_QP_PER_HALVING)
        return cost + KEY_FRAMING

    def _aim(self, rate: float) -> None:
        """Move the qp towards the one whose frames take `rate` bytes."""
        if self._inter_cost.value == 0:
            return
        payload = max(rate - FRAMING, 1e-3)
        wanted = INTER_QP_PER_HALVING * math.log2(self._inter_cost.value / payload)
        self._qp = _within(self._qp + min(max(wanted - self._qp, -1.0), 2.0))
        if abs(self._qp - self._held) > HOLD:
            self._held = round(self._qp)

    def update(self, *, packet_bytes: int, key: bool, qp: int, nrmse: float) -> None:
        """Note what a frame came to."""
        del nrmse  # of the other control
        if key:
            self._index_bytes += varint_size(self._frames - self._key_at)
            self._index_bytes += varint_size(self._written - self._key_position)
            self._key_at, self._key_position = self._frames, self._written
            self._key_cost.add(packet_bytes * 2 ** (qp / KEY_QP_PER_HALVING), KEY_MEMORY)
            # a key frame that had to be coarse says what the frames behind it can afford
            if qp + self._key_offset > self._qp:
                self._qp = min(qp + self._key_offset, float(MAX_QP))
                self._held = round(self._qp)
        else:
            payload = max(packet_bytes - FRAMING, 0.5)
            self._inter_cost.add(payload * 2 ** (qp / INTER_QP_PER_HALVING), MEMORY)
            if qp > self._held:  # it had to be bounded
                self._qp, self._held = float(qp), qp
        self._written += packet_bytes
        self._frames += 1


class NrmseControl:
    """Keeps the NRMSE of the clip, `FeatureNrmse`, at a target.

    Args:
        target: above 0.
        keyint: frames from key frame to key frame at most.
    """

    def __init__(self, target: float, *, keyint: int) -> None:
        self._target, self._keyint = target, keyint
        self._frames = self._key_at = 0
        self._squares = 0.0
        self._recent, self._usual = _Mean(), _Mean()
        self._qp = self._key_qp = _within(24 + QP_PER_DOUBLING * math.log2(target / USUAL_NRMSE))
        self._held = round(self._qp)

    def next(self) -> tuple[int, float | None]:
        """Return the qp of the next frame."""
        if self._frames - self._key_at >= self._keyint:
            # of the frames that will inherit its errors, rather than of the last one
            self._qp = self._usual.value
            self._held = round(self._qp)
        elif self._recent.value > 0:
            square = self._target**2
            excess = self._squares - self._frames * square
            wanted = min(max(square - excess / NRMSE_HORIZON, square / 4), square * 2)
            step = NRMSE_GAIN * QP_PER_DOUBLING / 2 * math.log2(wanted / self._recent.value)
            self._qp += min(max(step, -1.0), 1.0)
            self._qp = _within(min(self._qp, self._key_qp + NRMSE_WANDER))
            if abs(self._qp - self._held) > HOLD:
                self._held = round(self._qp)
        return self._held, None

    def update(self, *, packet_bytes: int, key: bool, qp: int, nrmse: float) -> None:
        """Note what a frame came to."""
        del packet_bytes, qp
        if key:
            self._key_at, self._key_qp = self._frames, self._qp
            self._usual = _Mean()
        self._frames += 1
        self._usual.add(self._qp, self._keyint)
        if math.isfinite(nrmse):  # else nothing has changed so far
            total = self._frames * nrmse**2
            # the dynamic range may have grown, and all errors before are less by that
            self._recent.add(max(total - self._squares, 0.0), NRMSE_MEMORY)
            self._squares = total


class _Mean:
    """A running mean that forgets: of the first values plain, then exponential."""

    def __init__(self) -> None:
        self.value = 0.0
        self._count = 0

    def add(self, value: float, memory: int) -> None:
        """Add a value, which weighs one in `memory`, or one in as many as there are."""
        self._count = min(self._count + 1, memory)
        self.value += (value - self.value) / self._count


def _within(qp: float) -> float:
    return min(max(qp, 0.0), float(MAX_QP))
