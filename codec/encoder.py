"""Features in, packets out: the encoder's decisions around the normative loop.

Every decision (levels, block modes, key frames) is written into the stream, so floating point is
welcome here. Where vectors come from is left to `motion_search.py`, or to the caller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.bitstream import DEFAULT_LIMITS, MAX_QP, MAX_VECTOR, FramePacket, Limits, SequenceHeader
from codec.entropy import (
    MODE_INTER,
    MODE_INTRA,
    MODE_SKIP,
    FrameSymbols,
    FrameSyntax,
    SymbolWriter,
    TensorSymbols,
)
from codec.errors import BitstreamError
from codec.exact import LATENT_LIMIT
from codec.probability import MAX_DIRECT_LEVEL, tables
from codec.profile import INTER, INTRA, profile_of
from codec.quantization import quantise, step_size
from codec.reconstruction import Reconstructor, checksum, features_of
from codec.transform import ForwardTransform, split_blocks

__all__ = ["EncodedFrame", "Encoder", "EncoderConfig"]

LAMBDA = 0.14
"""Lagrangian per squared step: what a bit may cost in squared error.  High-rate theory says 0.116
(6 dB a bit and a uniform cell of step²/12); dead zones at low rate want more."""
ROUNDING_INTRA, ROUNDING_INTER = 0.30, 0.22
"""Of magnitudes: one half would be plain rounding, less widens the dead zone."""
INTRA_BITS = 2
"""What the mode of an intra block costs beside that of another, about."""
ESCAPE_BITS = 8
"""What an escape costs beside its symbol, about."""
SCENE_CUT_MARGIN = 0.75
"""A frame becomes a key frame when coding all of it intra costs less than this share of its inter
cost."""


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """What the user chooses: `qp` 0…51 (6 = factor 2 in step), `keyint` frames from key frame to
    key frame at most.
    """

    qp: int = 24
    keyint: int = 64
    scene_cut: bool = True

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        if not 0 <= self.qp <= MAX_QP:
            raise ValueError(f"qp {self.qp} is outside 0 … {MAX_QP}")
        if self.keyint < 1:
            raise ValueError(f"keyint {self.keyint} is below 1")

    def to_json(self) -> str:
        """Return the configuration as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EncoderConfig:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A packet and what the encoder knows about it: its reconstruction, and ideal bits by syntax
    element.
    """

    packet: FramePacket
    features: tuple[Tensor, ...]
    latents: tuple[Tensor, ...]
    bits: dict[str, float]


class _Choice:
    """One way to code the blocks of a tensor: (P, N) levels in scan order, and per block D, R and J
    = D + lambda R.

    Distortion is in squared steps; `energy` is the distortion of sending nothing.
    """

    def __init__(
        self,
        coefficients: Tensor,
        position: Tensor,
        classes: NDArray[np.intp],
        step: int,
        rounding: float,
    ) -> None:
        values = coefficients.reshape(-1, coefficients.shape[2])[position]
        self.levels = quantise(values, step, rounding)
        magnitude = self.levels.abs()
        scaled = values.abs() * (1.0 / step)
        self.energy = (scaled * scaled).sum(0)
        self.distortion = (scaled - magnitude).square().sum(0)
        symbol = magnitude.clamp(max=MAX_DIRECT_LEVEL + 1).long()
        rates = _rates().to(values.device)[torch.from_numpy(classes).to(values.device)]
        self.rate = torch.gather(rates, 1, symbol).sum(0)
        self.cost = self.distortion + LAMBDA * self.rate


@cache
def _rates() -> Tensor:
    """Return (classes, 33) code lengths by magnitude; the last entry stands for escapes."""
    bits = torch.from_numpy(tables().bits)
    return torch.cat([bits[:, MAX_DIRECT_LEVEL:-1], bits[:, -1:] + ESCAPE_BITS], 1)


class Encoder:
    """Encodes the feature tensors of one stream, frame by frame.

    Args:
        header: what the stream is: tensors, frame size, profile.
        config: how to code it.
        device: where the arithmetic runs; the bits do not depend on it, the decisions may.
        limits: those of the decoders that the stream is for.

    Raises:
        ValueError: such a decoder would refuse the header.

    Example:
        >>> encoder = Encoder(header, EncoderConfig(qp=24))  # doctest: +SKIP
        >>> packet = encoder.encode(features, vectors).packet  # doctest: +SKIP
    """

    def __init__(
        self,
        header: SequenceHeader,
        config: EncoderConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.header = header
        self.config = config or EncoderConfig()
        try:  # what no decoder would read must not be written
            SequenceHeader.from_bytes(header.to_bytes(), limits)
            self.profile = profile_of(header, limits)
        except BitstreamError as error:
            raise ValueError(f"header: {error}") from error
        self._device = torch.device(device)
        self._syntax = FrameSyntax(header, self.profile)
        self._reconstructor = Reconstructor(header.tensors, self.profile, header.grid, device)
        self._forward = [ForwardTransform(tensor, device) for tensor in self.profile.tensors]
        self._means = [
            torch.from_numpy(tensor.mean.astype(np.float32)).to(device)[:, None, None]
            for tensor in self.profile.tensors
        ]
        self._positions = [
            torch.from_numpy(tensor.scan.position).to(device) for tensor in self.profile.tensors
        ]
        self._previous: FramePacket | None = None
        self._since_key = 0

    def encode(
        self,
        features: Sequence[Tensor],
        vectors: NDArray[np.int32] | None = None,
        *,
        pts: int | None = None,
        intra: bool = False,
        key: bool = False,
    ) -> EncodedFrame:
        """Encode one frame.

        Args:
            features: one (C, H, W) float tensor for each tensor of the header, finite.
            vectors: (rows, columns, 2) int32 motion field, (y, x) in quarter pixels of the input
                frame, content at x came from x + v in the frame before; None: no motion.
            pts: presentation time in the header's time base; default: one frame duration after the
                last.
            intra: predict no block from the frame before.
            key: make this a key frame.

        Returns:
            The packet, its reconstruction and its cost.

        Raises:
            ValueError: shapes do not fit the header, or values are not finite.
        """
        latents = self._latents_of(features)
        vectors = self._checked(vectors)
        if pts is None:
            pts = 0 if self._previous is None else self._previous.pts + self._previous.duration
        key = key or self._previous is None or self._since_key >= self.config.keyint
        frame, predictions = self._decide(latents, vectors, key=key, intra=intra)
        self._syntax.bits.clear()
        writer = SymbolWriter()
        self._syntax.code(writer, frame)
        reconstruction = self._reconstructor.reconstruct(predictions, frame)
        duration = self.header.frame_duration
        if not frame.key and self._previous is not None:
            duration = pts - self._previous.pts
        packet = FramePacket(
            key=frame.key,
            pts=pts,
            qp=frame.qp,
            has_vectors=frame.vectors is not None,
            checksum=checksum(reconstruction),
            payload=writer.finish(),
            duration=duration,
        )
        self._previous = packet
        self._since_key = 1 if frame.key else self._since_key + 1
        recovered = features_of(reconstruction, self.profile)
        return EncodedFrame(
            packet, tuple(recovered), tuple(reconstruction), dict(self._syntax.bits)
        )

    def _latents_of(self, features: Sequence[Tensor]) -> list[Tensor]:
        specs = self.header.tensors
        shapes = [tuple(tensor.shape) for tensor in features]
        if shapes != [spec.shape for spec in specs]:
            raise ValueError(
                f"features of shapes {shapes}, expected {[spec.shape for spec in specs]}"
            )
        latents = []
        for tensor, spec, profile in zip(features, specs, self.profile.tensors, strict=True):
            # in float64, so that no finite feature overflows before it is clipped
            latent = torch.round(
                tensor.to(self._device, torch.float64) * 2.0**profile.fraction_bits
            )
            if not bool(torch.isfinite(latent).all()):
                raise ValueError(f"features of {spec.name!r} are not finite")
            latents.append(latent.clamp_(-LATENT_LIMIT, LATENT_LIMIT).to(torch.float32))
        return latents

    def _checked(self, vectors: NDArray[np.int32] | None) -> NDArray[np.int32] | None:
        if vectors is None:
            return None
        expected = (*self.header.field_shape, 2)
        if vectors.shape != expected:
            raise ValueError(f"motion field of shape {vectors.shape}, expected {expected}")
        if not vectors.any():
            return None  # says the same in fewer bytes
        return np.clip(vectors, -MAX_VECTOR, MAX_VECTOR).astype(np.int32)

    def _decide(
        self, latents: list[Tensor], vectors: NDArray[np.int32] | None, *, key: bool, intra: bool
    ) -> tuple[FrameSymbols, list[Tensor]]:
        """Choose key or inter frame, block modes and levels."""
        qp = self.config.qp
        step = step_size(qp)
        if not key and not intra:
            predictions = self._reconstructor.predict(vectors)
            tensors, cost, intra_cost = self._inter_frame(latents, predictions, qp, step)
            key = self.config.scene_cut and intra_cost < SCENE_CUT_MARGIN * cost
            if not key:
                if all((symbols.modes == MODE_INTRA).all() for symbols in tensors):
                    vectors = None  # nothing is predicted with them
                return FrameSymbols(False, qp, vectors, tensors), predictions
        tensors = self._intra_frame(latents, qp, step, key=key)
        return FrameSymbols(key, qp, None, tensors), self._reconstructor.predict(None)

    def _intra_frame(
        self, latents: list[Tensor], qp: int, step: int, *, key: bool
    ) -> list[TensorSymbols]:
        """Return the symbols of a frame all of whose blocks are intra, a key frame or not."""
        expected = self._syntax.expected_classes(key, qp)
        tensors = []
        for number, latent in enumerate(latents):
            choice = self._intra_choice(number, latent, expected[number], step)
            modes = np.full(choice.levels.shape[1], MODE_INTRA, np.uint8)
            tensors.append(_symbols(modes, choice.levels))
        return tensors

    def _inter_frame(
        self, latents: list[Tensor], predictions: list[Tensor], qp: int, step: int
    ) -> tuple[list[TensorSymbols], float, float]:
        """Return the symbols of an inter frame, what coding it without intra blocks would cost, and
        what coding all of it intra would.
        """
        expected = self._syntax.expected_classes(False, qp)
        tensors, total, intra_total = [], 0.0, 0.0
        for number, (latent, prediction) in enumerate(zip(latents, predictions, strict=True)):
            classes = expected[number]
            alone = self._intra_choice(number, latent, classes, step)
            residual = latent - prediction.to(torch.float32)
            predicted = self._choice(number, residual, classes[INTER], step, ROUNDING_INTER)
            costs = torch.stack(
                [predicted.energy, predicted.cost, alone.cost + LAMBDA * INTRA_BITS]
            )
            chosen = costs.argmin(0)  # numbered as the modes are
            modes = chosen.cpu().numpy().astype(np.uint8)
            empty = (predicted.levels == 0).all(0).cpu().numpy()
            modes[(modes == MODE_INTER) & empty] = MODE_SKIP
            levels = torch.where(chosen == MODE_INTRA, alone.levels, predicted.levels)
            tensors.append(_symbols(modes, levels))
            total += float(torch.minimum(predicted.energy, predicted.cost).sum())
            intra_total += float(alone.cost.sum())
        return tensors, total, intra_total

    def _intra_choice(
        self, number: int, latent: Tensor, classes: NDArray[np.intp], step: int
    ) -> _Choice:
        residual = latent - self._means[number]
        return self._choice(number, residual, classes[INTRA], step, ROUNDING_INTRA)

    def _choice(
        self, number: int, residual: Tensor, classes: NDArray[np.intp], step: int, rounding: float
    ) -> _Choice:
        blocks = split_blocks(residual, self.profile.tensors[number].block_size)
        return _Choice(
            self._forward[number](blocks), self._positions[number], classes, step, rounding
        )


def _symbols(modes: NDArray[np.uint8], levels: Tensor) -> TensorSymbols:
    """Keep the levels of the blocks that are not skipped."""
    coded = levels.cpu().numpy()[:, modes != MODE_SKIP].astype(np.int32)
    return TensorSymbols(modes, coded, np.zeros(coded.shape, np.uint8))
