"""What a decoder is willing to allocate for a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from codec.errors import LimitExceededError

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoder is willing to allocate for a stream; exceeding any raises
    `LimitExceededError`.
    """

    header_bytes: int = 1 << 24
    profile_bytes: int = 1 << 26
    packet_bytes: int = 1 << 26
    tensors: int = 256
    channels: int = 2048
    elements: int = 1 << 24
    kept_elements: int = 1 << 26
    input_pixels: int = 1 << 26
    index_entries: int = 1 << 22
    vectors: int = 1 << 18

    def check(self, name: str, value: int, enough: int | None = None) -> None:
        """Raise `LimitExceededError` if `value` is larger than the limit called `name`.

        Args:
            name: of the limit.
            value: what the stream asks for, as far as it is known.
            enough: the limit that will do, if that may be more.
        """
        limit = getattr(self, name)
        if value > limit:
            to_pass = f"{name}={value if enough is None else enough}"
            raise LimitExceededError(
                f"{name.replace('_', ' ')}: {value} in the stream, limit {limit}; to allow that, "
                f"pass --limits {to_pass} (in the library Limits({to_pass}))"
            )


DEFAULT_LIMITS: Final = Limits()
