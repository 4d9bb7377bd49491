"""Where networks come from, preprocessing as data, n^k and offsets, the cut."""

from typing import Final

__all__ = ["DEFAULT_MODEL"]

DEFAULT_MODEL: Final = "efficientnet_lite0"
