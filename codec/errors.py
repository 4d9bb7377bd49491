"""The error tree: who is to blame, and for what.

`BitstreamError` and its leaves blame bytes; `VideoError`, `ModelError` and `TaskError` blame a
file, a model or a weight file that the user named, `FeatureError` the tensors that a model or a
caller gave, `JobError` a folder of kept results, or the processes that work was given to.  A
caller's programming mistake is a plain `ValueError` or `TypeError`.  Every message says what was
found, what was expected and, where there is one, the remedy, in one line.
"""

__all__ = [
    "BitstreamError",
    "CorruptBitstreamError",
    "FeatureCodecError",
    "FeatureError",
    "JobError",
    "LimitExceededError",
    "LinkError",
    "ModelError",
    "TaskError",
    "TruncatedBitstreamError",
    "UnsupportedBitstreamError",
    "VideoError",
]


class FeatureCodecError(Exception):
    """Root of every error that this package raises about its inputs."""


class BitstreamError(FeatureCodecError, ValueError):
    """A stream cannot be decoded."""


class CorruptBitstreamError(BitstreamError):
    """The bytes contradict themselves: a check, a reserved bit, a value out of its range."""


class TruncatedBitstreamError(BitstreamError, EOFError):
    """The bytes end before the stream does."""


class UnsupportedBitstreamError(BitstreamError):
    """The stream is of a format version, or needs a model or profile, that this decoder does not
    have.
    """


class LimitExceededError(BitstreamError):
    """The stream asks for more memory or work than `Limits` allows."""


class VideoError(FeatureCodecError):
    """A video cannot be opened, has no video stream, or lacks what was asked of it."""


class FeatureError(FeatureCodecError, ValueError):
    """Feature tensors cannot be coded: another shape or number than stated, values out of range."""


class JobError(FeatureCodecError):
    """A kept result is damaged, or those who should do the work are not there."""


class LinkError(FeatureCodecError):
    """The other end of a link is not let in, does not let us in, or is not the one expected."""


class ModelError(FeatureCodecError):
    """A model, split point or weight file is unknown, unusable or does not fit the stream."""


class TaskError(FeatureCodecError):
    """A task cannot be made of its description, or compared: its file, annotations or a package."""
