"""Packets in, tensors out.  Readable beside FORMAT.md 6, section by section.

No files, no models: `files.streams` brings packets, the cloud sub-model finishes the task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.errors import CorruptBitstreamError
from codec.format.header import SequenceHeader
from codec.format.packets import FramePacket
from codec.format.profile import Profile, profile_of
from codec.format.slots import Slots
from codec.limits import DEFAULT_LIMITS, Limits
from codec.normative.reconstruction import Reconstructor, bytes_of, features_of, md5_of
from codec.normative.syntax import FrameReader

__all__ = ["DecodedFrame", "Decoder"]


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A decoded frame: `features` are float32 (C, H, W), `latents` the integers that they are, in
    float32 too.

    Latents are the decoder's own memory, which the next frame is predicted from: read them, and
    clone what is to be changed.  Features are the caller's.

    `vectors` is the motion field that the frame was predicted with, (rows, columns, 2) int32,
    (y, x) in quarter pixels of the input frame: content at x came from x + v in the frame that this
    one is predicted from.
    Node (i, j) sits in the middle of its cell, at input pixel i · grid + (grid - 1) / 2 of the
    header's grid.  None where the stream has none: key frames, and frames without motion.
    """

    pts: int
    key: bool
    qp: int
    features: tuple[Tensor, ...]
    latents: tuple[Tensor, ...]
    vectors: NDArray[np.int32] | None

    def md5(self) -> str:
        """Return the MD5 of all latents, int32 little-endian, C order."""
        return md5_of(self.latents)


class Decoder:
    """Decodes the packets of one stream, in order, from any key frame on.

    Where the stream keeps several frames, packets may be missing: those that are predicted from
    frames that have been decoded can be.

    Args:
        header: of the stream.
        profile: what the stream was written with, where its header only names it by hash.
        device: where features are made; their bits do not depend on it.
        limits: what to allocate at most.

    Raises:
        BitstreamError: the profile is missing, another one, damaged, or too large.

    >>> with open("clip.lmc", "rb") as file:
    ...     reader = codec.StreamReader(file)
    ...     decoder = codec.Decoder(reader.header)
    ...     frames = [decoder.decode(packet) for packet in reader]
    >>> frames[0].features[0].shape
    torch.Size([16, 28, 28])
    """

    def __init__(
        self,
        header: SequenceHeader,
        *,
        profile: Profile | None = None,
        device: torch.device | str = "cpu",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.header = header
        self.profile = profile_of(header, limits, profile)
        self._reader = FrameReader(header, self.profile)
        self._reconstructor = Reconstructor(
            header.tensors, self.profile, header.grid, device, header.references
        )
        self._whole = Slots[bool](header.references)
        """Slots whose frames have come out right."""

    def decode(self, packet: FramePacket) -> DecodedFrame:
        """Decode one packet.

        After an error, what was kept in the slot of this frame is lost, with a key frame all.

        Raises:
            CorruptBitstreamError: the payload is malformed, or packet and reconstruction are not
            what the encoder had.
        """
        lost = not packet.key and self._whole[packet.predicted_from] is None
        self._whole.keep(None, packet.slots, key=packet.key)  # until this one has come out right
        if lost:
            raise CorruptBitstreamError(
                "an inter frame without the frame that it is predicted from; "
                "decoding starts at a key frame, and goes on at one after an error"
            )
        frame = self._reader.read(packet)
        predictions = self._reconstructor.predict(frame.vectors, packet.predicted_from)
        latents = self._reconstructor.reconstruct(predictions, frame)
        found = packet.check_of(bytes_of(latents))
        if found != packet.check:
            raise CorruptBitstreamError(
                f"frame at pts {packet.pts}: check {packet.check:#x}, computed {found:#x}; the "
                "packet was damaged, or encoder and decoder have drifted apart"
            )
        self._whole.keep(True, packet.slots, key=packet.key)
        features = features_of(latents, self.profile)
        return DecodedFrame(
            packet.pts, packet.key, packet.qp, tuple(features), tuple(latents), frame.vectors
        )
