"""Primitive values <-> bytes, both directions side by side: FORMAT.md 3."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from codec.errors import CorruptBitstreamError, TruncatedBitstreamError
from codec.format.constants import MAX_NAME_BYTES, MAX_VARINT_BYTES

__all__ = ["ByteReader", "ByteWriter", "crc32", "in_range", "varint_size"]


def crc32(content: bytes | memoryview, before: int = 0) -> int:
    """Return the CRC-32 of ISO 3309 (zlib, PNG), of content that follows what `before` is of."""
    return zlib.crc32(content, before)


def varint_size(value: int) -> int:
    """Return how many bytes a varint takes: seven bits each."""
    return max((value.bit_length() + 6) // 7, 1)


@dataclass(slots=True)
class ByteWriter:
    """Append primitive values to a byte string."""

    content: bytearray = field(default_factory=bytearray)

    def u8(self, value: int) -> None:
        """Write one byte."""
        self.content.append(value)

    def fixed(self, value: int, width: int) -> None:
        """Write an unsigned little-endian integer of `width` bytes."""
        self.content += value.to_bytes(width, "little")

    def varint(self, value: int) -> None:
        """Write an unsigned integer below 2^63 in LEB128: seven bits a byte, least significant
        first.
        """
        if not 0 <= value < 1 << (7 * MAX_VARINT_BYTES):
            raise ValueError(f"varint {value} is outside 0 … 2^63 - 1")
        while value >= 0x80:
            self.content.append(value & 0x7F | 0x80)
            value >>= 7
        self.content.append(value)

    def signed(self, value: int) -> None:
        """Write a signed integer as a varint: 0, -1, 1, -2, … become 0, 1, 2, 3, …."""
        self.varint(2 * value if value >= 0 else -2 * value - 1)

    def text(self, value: str) -> None:
        """Write a UTF-8 string of at most 255 bytes behind its length."""
        raw = value.encode()
        if len(raw) > MAX_NAME_BYTES:
            raise ValueError(f"name of {len(raw)} bytes: at most {MAX_NAME_BYTES} fit")
        self.u8(len(raw))
        self.content += raw

    def raw(self, value: bytes) -> None:
        """Write bytes as they are."""
        self.content += value


@dataclass(slots=True)
class ByteReader:
    """Take primitive values off a byte string; running out is a `TruncatedBitstreamError`."""

    content: bytes
    position: int = 0

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self.content) - self.position

    def raw(self, count: int) -> bytes:
        """Read `count` bytes."""
        if count > self.remaining:
            raise TruncatedBitstreamError(
                f"needed {count} bytes at offset {self.position}, found {self.remaining}"
            )
        self.position += count
        return self.content[self.position - count : self.position]

    def u8(self) -> int:
        """Read one byte."""
        return self.raw(1)[0]

    def fixed(self, width: int) -> int:
        """Read an unsigned little-endian integer of `width` bytes."""
        return int.from_bytes(self.raw(width), "little")

    def varint(self) -> int:
        """Read a LEB128 integer; longer than needed or over 63 bits is corrupt."""
        value = 0
        for index in range(MAX_VARINT_BYTES):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise CorruptBitstreamError(
                        f"varint at offset {self.position - index - 1} is longer than needed"
                    )
                return value
        raise CorruptBitstreamError(
            f"varint at offset {self.position - MAX_VARINT_BYTES} exceeds 63 bits"
        )

    def signed(self) -> int:
        """Read a signed varint."""
        value = self.varint()
        return -(value >> 1) - 1 if value & 1 else value >> 1

    def text(self) -> str:
        """Read a UTF-8 string behind its length byte."""
        return self.utf8(self.u8())

    def utf8(self, count: int) -> str:
        """Read `count` bytes of UTF-8."""
        raw = self.raw(count)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise CorruptBitstreamError(
                f"name at offset {self.position - len(raw)} is not UTF-8"
            ) from error

    def end(self, what: str) -> None:
        """Raise `CorruptBitstreamError` unless everything has been read."""
        if self.remaining:
            raise CorruptBitstreamError(f"{what}: {self.remaining} bytes left over")


def in_range(what: str, value: int, low: int, high: int) -> int:
    """Return `value`; raise `CorruptBitstreamError` unless it lies in low … high."""
    if not low <= value <= high:
        raise CorruptBitstreamError(f"{what} {value} is outside {low} … {high}")
    return value
