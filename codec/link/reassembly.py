"""Fragments of frames put together again, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from codec.link.upstream import Fragment, FrameHead, WholeFrame

__all__ = ["Reassembly", "Whole"]


@dataclass(frozen=True, slots=True)
class Whole:
    """A frame that is complete."""

    head: FrameHead
    packet: bytes


@dataclass(slots=True)
class _Partial:
    head: FrameHead
    count: int
    parts: dict[int, bytes] = field(default_factory=dict)


class Reassembly:
    """Frames that are not delivered yet, complete or not.

    Args:
        most_frames: how many are held.
        most_bytes: how many bytes they may have together.
        frame_bytes: how many one may have.
    """

    def __init__(self, *, most_frames: int, most_bytes: int, frame_bytes: int) -> None:
        self._most_frames, self._most_bytes = most_frames, most_bytes
        self._frame_bytes = frame_bytes
        self._partial: dict[int, _Partial] = {}
        self.whole: dict[int, Whole] = {}
        self.size = 0

    def _room(self, number: int, size: int, *, whole: bool) -> str | None:
        """Make room for `size` bytes more of a frame, by dropping others; or say why not."""
        if size > self._frame_bytes:
            return "oversize"
        known = number in self._partial
        while (
            len(self._partial) + len(self.whole) + (not known) > self._most_frames
            or self.size + size > self._most_bytes
        ):
            # incomplete older frames go first, then complete ones, which wait for what may never
            # come; a whole frame is on the stream, and worth more than what follows it
            older = [other for other in self._partial if other < number]
            older = older or [other for other in self.whole if other < number]
            later = [other for other in (*self._partial, *self.whole) if other > number]
            if older:
                self.drop(min(older))
            elif whole and later:
                self.drop(max(later))
            else:
                return "full"
        return None

    def fragment(self, fragment: Fragment) -> str | None:
        """Take a fragment; return why it is refused, None if it is not."""
        number = fragment.head.number
        partial = self._partial.get(number)
        if number in self.whole:
            return "repeated"
        if partial is not None:
            if partial.head != fragment.head or partial.count != fragment.count:
                return "contradictory"
            if fragment.index in partial.parts:
                return "repeated"
            held = sum(map(len, partial.parts.values()))
            if held + len(fragment.content) > self._frame_bytes:
                return "oversize"
        refused = self._room(number, len(fragment.content), whole=False)
        if refused is not None:
            return refused
        partial = self._partial.setdefault(number, _Partial(fragment.head, fragment.count))
        partial.parts[fragment.index] = fragment.content
        self.size += len(fragment.content)
        if len(partial.parts) == partial.count:
            del self._partial[number]
            packet = b"".join(partial.parts[index] for index in range(partial.count))
            self.whole[number] = Whole(partial.head, packet)
        return None

    def frame(self, frame: WholeFrame) -> str | None:
        """Take a frame that came in one piece, likewise."""
        number = frame.head.number
        if number in self.whole:
            return "repeated"
        refused = self._room(number, len(frame.packet), whole=True)
        if refused is not None:
            return refused
        self.drop(number)
        self.whole[number] = Whole(frame.head, frame.packet)
        self.size += len(frame.packet)
        return None

    def drop(self, number: int) -> None:
        """Let go of a frame, if it is held."""
        partial = self._partial.pop(number, None)
        if partial is not None:
            self.size -= sum(map(len, partial.parts.values()))
        whole = self.whole.pop(number, None)
        if whole is not None:
            self.size -= len(whole.packet)

    def drop_until(self, number: int) -> None:
        """Let go of all frames up to and including `number`."""
        for other in [*self._partial, *self.whole]:
            if other <= number:
                self.drop(other)

    def clear(self) -> None:
        """Let go of everything."""
        self._partial.clear()
        self.whole.clear()
        self.size = 0
