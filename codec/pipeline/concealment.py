"""What stands in for a frame that did not arrive in time: the last good one, moved on.

    last good frame ─► compensate by its own field ─► in place of the next ─► … of the one after

Motion goes on for a few frames as it was; so the field that brought the last good frame from the
one before it brings it to the next one, about.  Nothing here is normative: decoding goes on from
what was decoded, as soon as a packet comes that can be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codec.format.header import SequenceHeader
from codec.format.profile import Profile
from codec.normative.decoder import DecodedFrame
from codec.normative.motion import compensate, latent_displacement
from codec.normative.reconstruction import features_of

__all__ = ["Concealer"]


class Concealer:
    """Makes frames up from those decoded before them.

    Args:
        header: of the stream.
        profile: the one that the decoder has.

    Example:
        >>> concealer = Concealer(decoder.header, decoder.profile)
        >>> concealer.note(decoder.decode(packet))
        >>> missing = concealer.conceal(pts=1)
    """

    def __init__(self, header: SequenceHeader, profile: Profile) -> None:
        self._header, self._profile = header, profile
        self._last: DecodedFrame | None = None
        self._latents: tuple[Tensor, ...] = ()
        self._displacements: list[NDArray[np.int64]] | None = None

    def note(self, frame: DecodedFrame, *, steps: int = 1) -> None:
        """Take a frame that has been decoded.

        Args:
            frame: the latest.
            steps: how many frames lie between it and the one that it was predicted from, which
                its vectors lead to.
        """
        self._last, self._latents, self._displacements = frame, frame.latents, None
        if frame.vectors is not None:
            # of one frame; the rounding of quarter pixels is of no account here
            vectors = np.round(frame.vectors / max(steps, 1)).astype(np.int32)
            self._displacements = [
                latent_displacement(vectors, self._header.grid, spec)
                for spec in self._header.tensors
            ]

    def conceal(self, pts: int) -> DecodedFrame | None:
        """Return what the next frame may look like; None before the first good one.

        Args:
            pts: of the frame that is missing.
        """
        last = self._last
        if last is None:
            return None
        if self._displacements is not None:
            self._latents = tuple(
                compensate(latent, displacement)
                for latent, displacement in zip(self._latents, self._displacements, strict=True)
            )
        features = tuple(features_of(self._latents, self._profile))
        return DecodedFrame(pts, False, last.qp, features, self._latents, last.vectors)
