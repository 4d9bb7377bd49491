"""What an anchor answers to a scene that is not for it."""

__all__ = ["AnchorUnavailableError"]


class AnchorUnavailableError(ValueError):
    """An anchor needs what this machine or this clip has not."""
