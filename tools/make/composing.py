"""Streams composed from symbols, not from tensors.

Modes, levels and vectors come from SHAKE-256 and integer arithmetic, so every platform writes the
same packets, and values occur that no sensible encoder would choose.  No weights, no video, no GPU.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from codec.encoding.payloads import FrameWriter
from codec.files.streams import StreamReader
from codec.format.constants import CHECK_BYTES, CRC_BYTES, LATENT_LIMIT, TYPE_KEY, TYPE_MASK
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import EndPacket, FramePacket
from codec.format.primitives import ByteWriter, crc32
from codec.format.profile import Band, Profile, TensorProfile, profile_of
from codec.format.slots import Slots
from codec.format.tables import DEFAULT_POINTS
from codec.normative.reconstruction import Reconstructor, bytes_of
from codec.normative.symbols import MODE_INTRA, MODE_SKIP, FrameSymbols, TensorSymbols

__all__ = [
    "REVISION",
    "Composer",
    "assemble",
    "chained",
    "dense_band",
    "header_of",
    "noise",
    "packet_from",
    "parts",
    "plain_profile",
    "seal",
    "usual_header",
]

REVISION = 6
"""Of all streams: version 2 of the format changed the bytes of every one."""


def noise(label: str, *shape: int) -> NDArray[np.uint8]:
    """Return bytes that depend on nothing but the label."""
    content = hashlib.shake_256(label.encode()).digest(math.prod(shape))
    return np.ndarray(shape, np.uint8, content)


def random_levels(label: str, positions: int, blocks: int, density: int) -> NDArray[np.int32]:
    """Return (P, M) levels, of geometric magnitude; along the scan, density / 256 to 0 of them are
    not zero.
    """
    magnitude = 1 + np.zeros((positions, blocks), np.int32)
    bits = noise(label + " magnitude", positions, blocks)
    for place in range(8):
        magnitude += (bits & ((2 << place) - 1)) == 0
    threshold = density * (positions - np.arange(positions))[:, None] // positions
    magnitude[noise(label + " zero", positions, blocks) >= threshold] = 0
    sign = 1 - 2 * (noise(label + " sign", positions, blocks) & 1).astype(np.int32)
    return (magnitude * sign).astype(np.int32)


def random_modes(label: str, count: int, weights: Sequence[int]) -> NDArray[np.uint8]:
    """Return modes of blocks: skip, inter and intra with the given weights."""
    bounds = np.cumsum(weights)
    value = noise(label, count).astype(np.int64) * bounds[-1] >> 8
    return np.asarray(np.searchsorted(bounds, value, side="right"), np.uint8)


def random_offsets(label: str, count: int, reach: int) -> NDArray[np.int64]:
    """Return offsets of blocks with magnitudes up to `reach`."""
    value = noise(label, count).astype(np.int64)
    return np.asarray((value * (2 * reach + 1) >> 8) - reach)


def plain_profile(
    channels: int,
    block_size: int = 4,
    *,
    fraction_bits: int = 6,
    gain: int | Sequence[int] = 1 << 14,
    shift: int = 14,
) -> TensorProfile:
    """Return a profile with one diagonal band, means and scales unlike each other."""
    channel = np.arange(channels)
    frequency = np.arange(block_size**2)
    slope = frequency // block_size + frequency % block_size
    return TensorProfile(
        fraction_bits,
        block_size,
        (37 * channel - 55).astype(np.int32),
        (
            Band(
                np.full(channels, gain, np.int16),
                shift,
                np.stack([30 - channel % 8, 22 - channel % 8]).astype(np.int8),
            ),
        ),
        np.zeros(block_size**2, np.uint8),
        np.full(block_size**2, channels),
        np.stack([-3 * slope, -2 * slope]).astype(np.int8),
        np.array(DEFAULT_POINTS, np.int8),
    )


def dense_band(label: str, channels: int, columns: int, shift: int, scale: int = 30) -> Band:
    """Return a band with a matrix of noise, of a gain around one."""
    matrix = noise(f"{label} matrix", channels, columns).astype(np.int16) - 128
    scales = scale - 2 * np.arange(columns)
    return Band(
        (matrix * (1 << shift >> 7)).astype(np.int16),
        shift,
        np.stack([scales, scales - 8]).astype(np.int8),
    )


def header_of(
    specs: Sequence[TensorSpec],
    profiles: Sequence[TensorProfile] | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    grid: int = 16,
) -> SequenceHeader:
    """Return a header with an embedded profile."""
    profile = Profile(tuple(profiles or (plain_profile(spec.channels) for spec in specs)))
    return SequenceHeader(
        tensors=tuple(specs),
        input_height=size[0],
        input_width=size[1],
        profile_hash=profile.hash,
        profile=profile.to_bytes(),
        grid=grid,
    )


def usual_header() -> SequenceHeader:
    """Return the header of streams that are about something else: 4 x 8 x 8 at stride 8."""
    return header_of([TensorSpec("features", 4, 8, 8, 8, 8, 7, 7)])


class Composer:
    """Writes a stream frame by frame from symbols that its caller chooses, or from noise."""

    def __init__(self, header: SequenceHeader, label: str) -> None:
        self.header = header
        self.label = label
        self.packets: list[FramePacket] = []
        self.latents: list[list[memoryview]] = []
        """Of each frame, as its check is of them."""
        self._profile = profile_of(header)
        self._payloads = FrameWriter(header, self._profile)
        self._reconstructor = Reconstructor(
            header.tensors, self._profile, header.grid, references=header.references
        )
        self._kept = Slots[FramePacket](header.references)
        self._counts = [
            int(np.prod(tensor.blocks(spec.height, spec.width)))
            for tensor, spec in zip(self._profile.tensors, header.tensors, strict=True)
        ]

    def frame(
        self,
        *,
        key: bool = False,
        qp: int = 24,
        vectors: NDArray[np.int32] | None = None,
        weights: Sequence[int] = (2, 5, 1),
        density: int = 120,
        offsets: int | None = None,
        pts: int | None = None,
        repeat: bool = False,
        levels: Callable[[NDArray[np.int32]], NDArray[np.int32]] = lambda drawn: drawn,
        tail: bytes = b"",
        slots: tuple[int, int] | None = None,
    ) -> None:
        """Append a frame.

        Args:
            key: a key frame.
            qp: quantiser.
            vectors: the motion field.
            weights: of the modes skip, inter, intra.
            density: share of non-zero levels in the first position of the scan, in 1/256.
            offsets: reach of the offsets drawn for blocks; None: as in the frame before.
            pts: default: as expected.
            repeat: the frame before once more.
            levels: makes of the drawn levels the ones to code.
            tail: appended to the payload.
            slots: predicted from, kept in, in streams that keep several frames.
        """
        self._payloads.predicted_from = slots[0] if slots else 0
        previous = self._kept[self._payloads.predicted_from]
        if repeat and previous is not None:
            weights, qp = (1, 0, 0), previous.qp
        label = f"{self.label} {len(self.packets)}"
        before = self._payloads.tensors_at(key, qp)
        tensors = []
        for number, (count, profile) in enumerate(
            zip(self._counts, self._profile.tensors, strict=True)
        ):
            modes = (
                np.full(count, MODE_INTRA, np.uint8)
                if key
                else random_modes(f"{label} {number} modes", count, weights)
            )
            shape = (len(profile.scan.position), int((modes != MODE_SKIP).sum()))
            drawn = levels(random_levels(f"{label} {number}", *shape, density))
            moved = before[number].offsets
            if offsets is not None:
                chosen = random_offsets(f"{label} {number} offsets", count, offsets)
                moved = np.where(modes == MODE_SKIP, moved, chosen)
            tensors.append(TensorSymbols(modes, drawn, np.zeros(shape, np.uint8), moved))
        frame = FrameSymbols(key, qp, vectors, tensors, repeat, slots)
        has_offsets = self._payloads.changes_offsets(frame)
        payload = self._payloads.write(frame)
        latents = self._reconstructor.reconstruct(
            self._reconstructor.predict(vectors, self._payloads.predicted_from), frame
        )
        assert max(float(latent.abs().max()) for latent in latents) <= LATENT_LIMIT
        self.latents.append(list(bytes_of(latents)))
        if pts is None:
            pts = previous.next_pts if previous else 0
        usual = self.header.frame_duration
        self.packets.append(
            FramePacket(
                key=key,
                pts=pts,
                qp=qp,
                has_vectors=vectors is not None,
                payload=payload + tail,
                duration=usual if key or previous is None else pts - previous.pts,
                has_offsets=has_offsets,
                repeat=repeat,
                slots=slots,
            ).sealed(previous, self.latents[-1])
        )
        self._kept.keep(self.packets[-1], slots, key=key)

    def field(self, number: int, reach: int) -> NDArray[np.int32]:
        """Return a random motion field with components of magnitude at most `reach`."""
        shape = (*self.header.field_shape, 2)
        label = f"{self.label} vectors {number}"
        value = noise(label, *shape).astype(np.int64) << 8 | noise(label + " low", *shape)
        return (value * (2 * reach + 1) // (1 << 16) - reach).astype(np.int32)

    def content(self, index: Sequence[int] | None = None) -> bytes:
        """Return the stream; `index` restricts which key frames its index names."""
        pieces = [self.header.to_bytes()]
        entries = []
        kept = Slots[FramePacket](self.header.references)
        for number, packet in enumerate(self.packets):
            if packet.key and (index is None or number in index):
                entries.append((number, sum(map(len, pieces))))
            pieces.append(packet.to_bytes(kept[packet.predicted_from]))
            kept.keep(packet, packet.slots, key=packet.key)
        return assemble(pieces, index=entries)


def seal(content: bytes) -> bytes:
    """Replace the CRC at the end of a header or of an end packet by the right one."""
    body = content[:-CRC_BYTES]
    return body + crc32(body).to_bytes(CRC_BYTES, "little")


def parts(content: bytes) -> list[bytes]:
    """Cut a stream into header, packets and end packet."""
    reader = StreamReader(io.BytesIO(content))
    sizes = [reader.header_bytes, *(reader.packet_bytes for _ in reader)]
    ends = np.cumsum(sizes).tolist()
    return [content[a:b] for a, b in zip([0, *ends], [*ends, len(content)], strict=True)]


def packet_from(
    tag: int, fields: bytes, payload: bytes, latents: bytes = b"", flipped: int = 0
) -> bytes:
    """Return a frame packet with any tag, fields in front of the length, and the check of such a
    reconstruction, but for flipped bits; a running CRC is put in by `chained`.
    """
    out = ByteWriter()
    out.u8(tag)
    out.raw(fields)
    out.varint(len(payload))
    out.raw(payload)
    key = tag & TYPE_MASK == TYPE_KEY
    width = CRC_BYTES if key else CHECK_BYTES
    check = crc32(latents, crc32(bytes(out.content))) ^ flipped
    out.fixed(check & (1 << 8 * width) - 1, width)
    return bytes(out.content) + bytes(CRC_BYTES if key else 0)


def chained(pieces: Sequence[bytes]) -> tuple[list[bytes], int]:
    """Put the right running CRCs into the key frames among header and packets; return as well the
    one for the end packet.
    """
    found, running = [pieces[0]], crc32(pieces[0])
    for piece in pieces[1:]:
        key = piece[0] & TYPE_MASK == TYPE_KEY
        said = running.to_bytes(CRC_BYTES, "little")
        found.append(piece[:-CRC_BYTES] + said if key else piece)
        running = crc32(found[-1], 0 if key else running)
    return found, running


def assemble(
    pieces: Sequence[bytes],
    frames: int | None = None,
    index: Sequence[tuple[int, int]] | None = None,
) -> bytes:
    """Join header and packets, with an end packet that says so, and by default names the first
    frame.
    """
    if index is None:
        index = ((0, len(pieces[0])),) if len(pieces) > 1 else ()
    count = len(pieces) - 1 if frames is None else frames
    pieces, running = chained(pieces)
    return b"".join(pieces) + EndPacket(count, tuple(index), running).to_bytes()
