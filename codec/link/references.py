"""Which frame the next one is predicted from, and the slot that it is kept in.

Rules:
1. A frame is *alive* if it was decoded, or if it is not given up and its reference is alive.  One
   whose result is given up is not, while it may still come late.
2. A frame is predicted from the newest alive frame that is in a slot; where losses are frequent,
   from the newest decoded one only.
3. The newest decoded frame in a slot is never overwritten, so that there always is one.
4. Where nothing alive is left, a key frame comes, and it alone is in a slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from codec.link.downstream import FrameReport
from codec.link.wire import REPORTED

__all__ = ["Choice", "References"]

REMEMBERED = 4 * REPORTED
"""Frames of which something is known, beside those in slots."""


class _State(Enum):
    PENDING = "pending"
    DECODED = "decoded"
    LOST = "lost"


@dataclass(slots=True)
class _Sent:
    reference: int | None
    reliable: bool
    state: _State = _State.PENDING
    late: bool = False
    """Its result has been given up, and this been told."""
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The frame predicted from (None: key frame), its slot, and the slot to keep the frame in."""

    reference: int | None
    slots: tuple[int, int] | None


class References:
    """The frames that a receiver may have, by number and by slot."""

    def __init__(self, count: int) -> None:
        if not 2 <= count <= 16:
            raise ValueError(f"{count} references: a link needs 2 … 16")
        self._slots: list[int | None] = [None] * count
        self._sent: dict[int, _Sent] = {}

    def alive(self, number: int) -> bool:
        """Tell whether a frame has been or may still be decoded: rule 1."""
        while (sent := self._sent.get(number)) is not None:
            if sent.state is not _State.PENDING:
                return sent.state is _State.DECODED
            if sent.reference is None:
                return True
            number = sent.reference
        return False

    def decoded(self, number: int) -> bool:
        """Tell whether a frame is known decoded."""
        sent = self._sent.get(number)
        return sent is not None and sent.state is _State.DECODED

    def choose(self, *, acknowledged_only: bool, key: bool = False) -> Choice:
        """Choose for the next frame: rules 2 to 4."""
        held = [number for number in self._slots if number is not None]
        alive = [number for number in held if self.alive(number)]
        acked = [number for number in held if self.decoded(number)]
        if key or not alive:
            return Choice(None, None)
        reference = max(acked if acknowledged_only and acked else alive)
        return Choice(reference, (self._slots.index(reference), self._victim(reference)))

    def _victim(self, reference: int) -> int:
        """Choose the slot to overwrite.

        Of frames on their way, the oldest is nearest to being acknowledged and the newest is the
        next reference; of the others goes the one that leaves the smallest gap, so that however
        long the link, one is acknowledged every now and then.
        """
        if None in self._slots:
            return self._slots.index(None)
        held = [number for number in self._slots if number is not None]
        for number in held:
            if not self.alive(number):
                return self._slots.index(number)
        acked = sorted(number for number in held if self.decoded(number))
        outdated = [number for number in acked[:-1] if number != reference]
        if outdated:
            return self._slots.index(outdated[0])
        pending = sorted(number for number in held if not self.decoded(number))
        if not pending:  # two slots, both decoded, predicted from the older
            return self._slots.index(acked[0])
        inner = [
            (pending[place + 1] - pending[place - 1], -number)
            for place, number in enumerate(pending)
            if 0 < place < len(pending) - 1 and number != reference
        ]
        return self._slots.index(-min(inner)[1] if inner else pending[-1])

    def needed(self, number: int) -> bool:
        """Tell whether the frame sent last is this one, or predicted from it, directly or not."""
        coded = (other for other, sent in self._sent.items() if not sent.abandoned)
        newest = max(coded, default=None)
        while newest is not None and newest > number:
            sent = self._sent.get(newest)
            newest = None if sent is None else sent.reference
        return newest == number

    def sent(self, number: int, choice: Choice, *, reliable: bool) -> None:
        """Note that a frame has been coded as chosen."""
        if choice.slots is None:
            self._slots = [None] * len(self._slots)
            self._slots[0] = number
        else:
            self._slots[choice.slots[1]] = number
        self._sent[number] = _Sent(choice.reference, reliable)
        if len(self._sent) > 2 * REMEMBERED:
            kept = {*self._slots, *sorted(self._sent)[-REMEMBERED:]}
            self._sent = {key: sent for key, sent in self._sent.items() if key in kept}

    def reliable(self, number: int) -> None:
        """Note that a frame went on the stream: it arrives, be it late."""
        if number in self._sent:
            self._sent[number].reliable = True

    def went_reliably(self, number: int) -> bool:
        """Tell whether a frame went on the stream."""
        sent = self._sent.get(number)
        return sent is not None and sent.reliable

    def abandoned(self, number: int) -> None:
        """Note that a frame will never have been sent."""
        self.given_up(number)
        if number in self._sent:
            self._sent[number].late = self._sent[number].abandoned = True

    def given_up(self, number: int) -> None:
        """Note that a frame will never be decoded."""
        if number in self._sent and self._sent[number].state is _State.PENDING:
            self._sent[number].state = _State.LOST

    @property
    def under_way(self) -> int:
        """How many frames are neither known decoded nor given up."""
        return sum(sent.state is _State.PENDING for sent in self._sent.values())

    def doubted(self) -> None:
        """Give up all that is not known decoded."""
        for number in self._sent:
            self.abandoned(number)

    def forgotten(self) -> None:
        """Give up everything: the receiver has nothing of this session."""
        self._sent.clear()
        self._slots = [None] * len(self._slots)

    def reported(self, report: FrameReport) -> tuple[list[int], list[int]]:
        """Take a report; return the frames newly known decoded, and those whose results are newly
        known to have been given up.

        Lost is only what comes before a decoded frame: none is ever decoded after that.
        """
        acked, late = [], []
        newest = -1 if report.decoded is None else report.decoded
        for number, sent in self._sent.items():
            if sent.state is not _State.DECODED and report.has(number):
                sent.state = _State.DECODED
                acked.append(number)
                continue
            if sent.state is _State.PENDING and number < newest:
                sent.state = _State.LOST
            given_up = sent.state is _State.LOST or (number < report.due and not sent.reliable)
            if given_up and sent.state is not _State.DECODED and not sent.late:
                sent.late = True
                late.append(number)
        return acked, late

    def pending_key(self) -> bool:
        """Tell whether a key frame is on its way."""
        return any(
            sent.reference is None and sent.state is _State.PENDING for sent in self._sent.values()
        )
