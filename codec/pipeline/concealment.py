"""What stands in for a frame that did not arrive in time: the last good one, moved on.

    last good frame ─► compensate by a share of its own field ─► in place of the next
                    ─► by twice that ─► of the one after

Motion goes on for a few frames as it was; so the field that brought the last good frame from the
one before it brings it to the next one, about.  Half as far serves best, and always from the last
good frame: what is interpolated again and again fades.  Nothing here is normative: decoding goes on
from what was decoded, as soon as a packet comes that can be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.format.constants import MAX_VECTOR
from codec.format.header import SequenceHeader
from codec.format.profile import Profile
from codec.normative.decoder import DecodedFrame
from codec.normative.motion import compensate, latent_displacement
from codec.normative.reconstruction import features_of

__all__ = ["Concealer"]

SHARE = 0.5
"""Of the motion of the last good frame, how much each missing one goes on with: vectors are chosen
for what they save, and content that moves differently is worse off moved far.
"""


class Concealer:
    """Makes frames up from those decoded before them.

    Args:
        header: of the stream.
        profile: the one that the decoder has.
    """

    def __init__(self, header: SequenceHeader, profile: Profile) -> None:
        self._header, self._profile = header, profile
        self._last: DecodedFrame | None = None
        self._vectors: NDArray[np.float64] | None = None
        self._missing = 0

    def note(self, frame: DecodedFrame, *, steps: int = 1) -> None:
        """Take a frame that has been decoded.

        Args:
            frame: the latest.
            steps: how many frames lie between it and the one that it was predicted from, which
                its vectors lead to.
        """
        self._last, self._missing = frame, 0
        vectors = frame.vectors
        self._vectors = None if vectors is None else vectors / max(steps, 1)

    def conceal(self, pts: int) -> DecodedFrame | None:
        """Return what the next frame may look like; None before the first good one.

        Args:
            pts: of the frame that is missing.
        """
        last = self._last
        if last is None:
            return None
        self._missing += 1
        latents = last.latents
        if self._vectors is not None:
            header = self._header
            moved = np.round(self._vectors * (SHARE * self._missing))
            vectors = np.clip(moved, -MAX_VECTOR, MAX_VECTOR).astype(np.int32)
            latents = tuple(
                compensate(latent, latent_displacement(vectors, header.grid, spec))
                for latent, spec in zip(latents, header.tensors, strict=True)
            )
        features = tuple(features_of(latents, self._profile))
        return DecodedFrame(pts, False, last.qp, features, latents, last.vectors)
