"""Packets -> frames in presentation order, under the damage policy of `files.damage`.

It cannot see damage that its codec does not detect: a few flipped bits in H.264, HEVC or VP9 decode
to a wrong picture without a complaint of any decoder, and MPEG-2 leaves out a picture without a
header.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, cast

from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from codec.errors import VideoError
from codec.files.boundary import reason
from codec.files.damage import Damage, DamagePolicy

__all__ = ["Decoding", "configure"]

JOINT_PACKETS: Final = 2
"""Packets ahead in which a new recording shows."""
READ_FAILURES: Final = 16
"""Failed reads in a row after which a damaged container counts as ended."""

# Without "explode" decoders paint over what they could not decode, and say nothing.  They look
# closest with one thread: H.264 does without error detection where slices are decoded in parallel.
# Decoders of pictures complain by themselves, and would "explode" at tags that they do not know.
ERROR_DETECTION: Final = {"err_detect": "explode+crccheck"}
STRICT_INTRA_CODECS: Final = {"mjpeg", "ffv1"}


def configure(context: VideoCodecContext, policy: DamagePolicy) -> None:
    """Have a decoder look as closely as it can, or as it is asked to, before it has decoded."""
    context.thread_type = "NONE"
    context.thread_count = 1
    codec = context.codec
    lenient = codec.intra_only and codec.canonical_name not in STRICT_INTRA_CODECS
    if policy != "conceal" and not lenient:
        context.options = ERROR_DETECTION


class Decoding:
    """Packets -> frames in presentation order, each with the number of packets dropped before it.

        reading ──(error, corrupt packet or frame)──► drain: frames that were complete before it
           ▲                                             │ "stop": raise
           └── the next key frame ◄── drop packets ◄─────┘

    Invariants:
      * No frame is given that the decoder or the container calls damaged, or that is decoded
        between damage and the next key frame.
      * Until a frame has come out, errors are no reason to stop: that is how decoders say that a
        recording starts inside a GOP.  The same holds behind damage.
      * Nor are errors in pictures shown before the key frame that decoding started from: they lean
        on the GOP before it, which is not there (an open GOP).
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        name: str,
        policy: DamagePolicy,
        damage: Damage,
    ) -> None:
        self._container, self._stream, self._name = container, stream, name
        self._context = stream.codec_context
        self._policy, self._damage = policy, damage
        self._conceal = policy == "conceal"
        self._given = 0
        self._dropped = 0
        self._fresh = True  # no frame has come out since the start, or since the last damage
        self._wait_for_key = False
        self._key_pts: int | None = None  # of the key frame that decoding started from
        self._waiting: set[int] = set()  # pts of packets whose frames have not come out
        self.excuse = ""

    def frames(self) -> Iterator[tuple[VideoFrame, int]]:
        """Yield all frames; raise `VideoError` at the first damage if the policy is to stop."""
        for packet, flaw in self._judged():
            if packet is None:
                yield from self._broken(flaw, None, decoded=False)
            elif self._wait_for_key and not packet.is_keyframe:
                self._dropped += 1
            else:
                self._wait_for_key = False
                yield from self._decode(packet, flaw)
        for frame in self._drain():
            yield self._give(frame)
        if self._dropped and self._given:  # to the end, no frame came any more
            self._damage.places += 1
            self._damage.frames += self._dropped

    def _judged(self) -> Iterator[tuple[Packet[VideoStream] | None, str]]:
        """Yield packets, each with what is wrong with it ("" if nothing), None for what could not
        be read.

        Demuxers call a packet corrupt when pieces are missing; FFmpeg's parsers pass the mark on to
        the packet before it.  Where one recording ends and another begins the count of pieces jumps
        too: the mark means nothing when, one or two packets on, a key frame comes whose time jumps.
        """
        ahead: deque[tuple[Packet[VideoStream] | None, str]] = deque()
        packets = self._packets()
        while True:
            ahead.extend(islice(packets, JOINT_PACKETS + 1 - len(ahead)))
            if not ahead:
                return
            packet, flaw = ahead.popleft()
            if packet is not None and packet.is_corrupt and not self._joint(packet, ahead):
                flaw = "" if self._conceal else "incomplete packet"
            yield packet, flaw

    def _joint(
        self,
        packet: Packet[VideoStream],
        ahead: Iterable[tuple[Packet[VideoStream] | None, str]],
    ) -> bool:
        before = packet
        for following, _ in ahead:
            if following is None or following.dts is None or before.dts is None:
                return False
            if following.is_keyframe and following.dts <= before.dts:
                return True  # forward it may be a hole as well, which nobody must take for a joint
            before = following
        return False

    def _packets(self) -> Iterator[tuple[Packet[VideoStream] | None, str]]:
        """Yield packets, and in place of what cannot be read None and the reason."""
        failures = 0
        demuxer = self._container.demux(self._stream)
        while failures < READ_FAILURES:
            try:
                packet = next(demuxer, None)
            except IndexError:
                # a stream that a damaged table brought up midway: PyAV stumbles over it at the end
                return
            except Exception as error:  # whatever else PyAV makes of damage
                failures += 1
                yield None, reason(error)
                demuxer = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size:  # an empty one would end decoding
                failures = 0
                yield packet, ""

    def _decode(self, packet: Packet[VideoStream], flaw: str) -> Iterator[tuple[VideoFrame, int]]:
        if packet.pts is not None:
            self._waiting.add(packet.pts)
        if flaw:
            yield from self._broken(flaw, packet.pts, decoded=False)
            return
        try:
            frames = cast("Sequence[VideoFrame]", self._context.decode(packet))
        except Exception as error:  # whatever PyAV makes of damage
            yield from self._broken(reason(error), packet.pts, decoded=True)
            return
        if self._fresh and self._key_pts is None and packet.is_keyframe:
            self._key_pts = packet.pts
        for frame in frames:
            if self._wait_for_key:  # what came out together with a damaged frame, behind it
                self._dropped += 1
            elif frame.is_corrupt and not self._conceal:
                yield from self._broken("damaged frame", frame.pts, decoded=True)
            else:
                yield self._give(frame)

    def _give(self, frame: VideoFrame) -> tuple[VideoFrame, int]:
        dropped, self._dropped = self._dropped, 0
        self._fresh = False
        self._given += 1
        # a packet that later frames overtake gives none by design (hidden frames, second fields)
        if frame.pts is not None:
            self._waiting = {pts for pts in self._waiting if pts > frame.pts}
        return frame, dropped

    def _broken(
        self, reason: str, pts: int | None, *, decoded: bool
    ) -> Iterator[tuple[VideoFrame, int]]:
        """Give what was complete before the damage at `pts`, then stop, or wait for a key frame.

        What a decoder made of the damage, if it came that far, may be among what it holds: the
        frame of that time, or any if that is not known.
        """
        if self._fresh and None not in (pts, self._key_pts) and pts < self._key_pts:  # type: ignore[operator]
            self._dropped += 1
            return
        if self._conceal:
            self._dropped += 1
            self.excuse = f" ({reason})"
            return
        stop = self._policy == "stop"
        held = self._drain()
        if decoded:
            held = [frame for frame in held if pts is not None and frame.pts != pts]
        # the damaged frame, what PyAV forgets when it raises, and what would have come between
        missing = self._waiting - {frame.pts for frame in held if frame.pts is not None}
        for frame in held:
            if stop and missing and frame.pts is not None and frame.pts > min(missing):
                break  # it is shown behind the damage
            yield self._give(frame)
        if self._fresh:
            self.excuse = f" ({reason}); --damaged conceal takes what a lenient decoder makes of it"
        elif stop:
            raise VideoError(
                f"{self._name}: cannot be decoded at frame {self._given} ({reason}); "
                "--damaged skip goes on at the next key frame behind it, --damaged conceal takes "
                "what a lenient decoder makes of it"
            )
        self._dropped += max(len(missing), 1)
        self._waiting.clear()
        self._fresh = True
        self._wait_for_key = not self._context.codec.intra_only
        self._key_pts = None

    def _drain(self) -> list[VideoFrame]:
        """Take the frames that the decoder still holds, and make it ready to start anew."""
        try:
            held = cast("Sequence[VideoFrame]", self._context.decode(None))
        except Exception:  # damage that comes to light only here: its frame stays away
            held = ()
        self._context.flush_buffers()
        return [frame for frame in held if self._conceal or not frame.is_corrupt]
