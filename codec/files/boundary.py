"""The boundary to PyAV and FFmpeg: whatever they throw leaves as one line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from codec.errors import FeatureCodecError, VideoError

__all__ = ["as_video_error", "reason"]


def reason(error: BaseException) -> str:
    """What FFmpeg says, without the file name that PyAV appends to it."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def as_video_error(what: str) -> Iterator[None]:
    """Turn whatever a library throws into a `VideoError`: nothing foreign reaches a user."""
    try:
        yield
    except FeatureCodecError:
        raise
    except Exception as error:
        raise VideoError(f"{what} ({reason(error)})") from error
