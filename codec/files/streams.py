"""Streams over file objects: header, packets, end packet; seeking by the index.

Knows bytes and files, neither tensors nor models.  Reading works on pipes and is independent of how
reads are chopped; only `StreamReader.seek` needs a file that can seek, and without one decoding
simply goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar

from codec.errors import BitstreamError, CorruptBitstreamError, TruncatedBitstreamError
from codec.format.constants import CRC_BYTES, TRAILER_BYTES, TYPE_END
from codec.format.header import SequenceHeader
from codec.format.packets import EndPacket, FramePacket, check_running
from codec.format.primitives import ByteReader, crc32
from codec.format.slots import Slots
from codec.limits import DEFAULT_LIMITS, Limits

__all__ = ["BeforeFault", "StreamReader", "StreamWriter"]

CHUNK = 1 << 16
Parsed = TypeVar("Parsed")
Item = TypeVar("Item")


class StreamWriter:
    """Writes one stream; `close` writes the end packet, without which the stream counts as
    truncated.

    What decoders with `limits` would refuse is not written: that raises `LimitExceededError`.
    """

    def __init__(
        self, file: BinaryIO, header: SequenceHeader, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._file = file
        self._limits = limits
        self._kept = Slots[FramePacket](header.references)
        self._key_frames: list[tuple[int, int]] = []
        self.frames = 0
        content = header.to_bytes()
        self.header_bytes = self.bytes_written = len(content)
        self._running = crc32(content)
        file.write(content)

    def write(self, packet: FramePacket) -> int:
        """Write one packet and return its size in bytes."""
        self._limits.check("packet_bytes", len(packet.payload))
        if packet.key:
            self._limits.check("index_entries", len(self._key_frames) + 1)
            self._key_frames.append((self.frames, self.bytes_written))
        content = packet.to_bytes(self._kept[packet.predicted_from], self._running)
        self._running = crc32(content, 0 if packet.key else self._running)
        self._file.write(content)
        self._file.flush()  # at the other end of a pipe the frame can be decoded now
        self._kept.keep(packet.without_payload, packet.slots, key=packet.key)
        self.frames += 1
        self.bytes_written += len(content)
        return len(content)

    def close(self) -> None:
        """Write the end packet; the file stays open."""
        content = EndPacket(self.frames, tuple(self._key_frames), self._running).to_bytes()
        self._file.write(content)
        self._file.flush()
        self.bytes_written += len(content)


class StreamReader:
    """Reads one stream: `header` at once, then packets by iterating.

    While one iterates, `packet_number` and `packet_bytes` tell of the packet at hand.
    """

    def __init__(self, file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> None:
        self._file = file
        # read1 returns what a pipe holds, where read would wait for a full chunk of later frames
        self._read: Callable[[int], bytes] = getattr(file, "read1", file.read)
        self.limits = limits
        self._buffer = b""
        self._start = file.tell() if file.seekable() else 0
        self._number = 0
        self._running: int | None = None
        self.header, self.header_bytes = self._take(self._parse_header, "the sequence header")
        self._kept = Slots[FramePacket](self.header.references)
        self.bytes_read = self.header_bytes
        self.packet_bytes = 0
        """Size of the packet read last."""

    @property
    def seekable(self) -> bool:
        """Whether the stream lies in a file, all of it, and does not come through a pipe."""
        return self._file.seekable()

    @property
    def frames_read(self) -> int:
        """Number of the next frame: of all frames once the end has been read."""
        return self._number

    @property
    def packet_number(self) -> int:
        """Number of the packet read last: the frame that it codes."""
        return self._number - 1

    def _parse_header(self, source: ByteReader) -> tuple[SequenceHeader, int]:
        header, source.position = SequenceHeader.from_bytes(source.content, self.limits)
        self._running = crc32(source.content[: source.position])
        return header, source.position

    def __iter__(self) -> Iterator[FramePacket]:
        """Yield the packets up to the end packet.

        Raises:
            TruncatedBitstreamError: the file ends before the end packet does.
            CorruptBitstreamError: a packet is damaged, frames are missing, or something follows the
            end packet.  Damage to a packet shows when it is decoded, or to whoever only reads at
            the next key frame or the end.
        """
        while True:
            before = self.bytes_read
            parsed = self._take(self._parse_packet, f"packet {self._number}")
            if isinstance(parsed, EndPacket):
                break
            self.packet_bytes = self.bytes_read - before
            self._kept.keep(parsed.without_payload, parsed.slots, key=parsed.key)
            self._number += 1  # also if the caller stops here
            yield parsed
        if parsed.frames != self._number:
            raise CorruptBitstreamError(
                f"end packet: {parsed.frames} frames announced, {self._number} found"
            )
        left = len(self._buffer) or len(self._file.read(1))
        if left:
            raise CorruptBitstreamError(f"{left} or more bytes behind the end packet")

    def _parse_packet(self, source: ByteReader) -> FramePacket | EndPacket:
        running = self._running
        if source.remaining and source.content[source.position] == TYPE_END:
            end = EndPacket.read(source, self.limits)
            check_running(end.running, running)
            self.bytes_read += source.position
            return end
        duration = self.header.frame_duration
        packet = FramePacket.read(source, self._kept, duration, self.limits, running)
        before = 0 if packet.key else running
        if before is not None:
            self._running = crc32(source.content[: source.position], before)
        self.bytes_read += source.position
        return packet

    def _take(self, parse: Callable[[ByteReader], Parsed], what: str) -> Parsed:
        """Parse something at the front of the buffer, reading on until it is complete."""
        while True:
            source = ByteReader(self._buffer)
            try:
                parsed = parse(source)
            except TruncatedBitstreamError as error:
                more = self._read(max(CHUNK, len(self._buffer)))
                if not more:
                    raise TruncatedBitstreamError(
                        f"the stream ends within {what}: {error}; the file was cut off, "
                        "or its writer did not finish"
                    ) from error
                self._buffer += more
            except CorruptBitstreamError as error:
                raise CorruptBitstreamError(f"{what}: {error}") from error
            else:
                self._buffer = self._buffer[source.position :]
                return parsed

    def index(self) -> EndPacket | None:
        """Return the end packet, read from the end of the file; None if the file cannot seek."""
        if not self.seekable:
            return None
        here = self._file.tell()
        trailer = TRAILER_BYTES + CRC_BYTES
        size = self._file.seek(0, os.SEEK_END) - self._start
        try:
            if size < self.header_bytes + trailer:
                raise TruncatedBitstreamError(
                    "the stream ends before its end packet; the file was cut off"
                )
            self._file.seek(-trailer, os.SEEK_END)
            length = int.from_bytes(self._file.read(TRAILER_BYTES), "little")
            if not trailer < length <= size - self.header_bytes:
                raise TruncatedBitstreamError(
                    "no end packet at the end of the file; it was cut off, or is damaged"
                )
            self.limits.check("packet_bytes", length)
            self._file.seek(-length, os.SEEK_END)
            return EndPacket.read(ByteReader(self._file.read(length)), self.limits)
        except CorruptBitstreamError as error:
            raise CorruptBitstreamError(f"the end of the file: {error}") from error
        finally:
            self._file.seek(here)

    def seek(self, frame: int) -> None:
        """Go to the last key frame at or before `frame`, by the index; without one to the first
        frame.  A file that cannot seek stays where it is.
        """
        if not self.seekable:
            return
        try:
            end = self.index()
        except BitstreamError:  # cut, damaged or still growing: reading finds out where
            end = None
        key_frames = ((0, self.header_bytes), *(end.key_frames if end else ()))
        self._number, offset = [entry for entry in key_frames if entry[0] <= frame][-1]
        self._file.seek(self._start + offset)
        self._buffer = b""
        self._kept, self._running = Slots(self.header.references), None
        self.bytes_read = offset


class BeforeFault(Iterable[Item]):
    """Iterates over what comes before the fault of a stream, and keeps the fault as `error`."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self.error: BitstreamError | OSError | None = None

    def __iter__(self) -> Iterator[Item]:
        while True:
            try:
                item = next(self._items)
            except StopIteration:
                return
            except (BitstreamError, OSError) as error:
                self.error = error
                return
            yield item
