"""Features -> profile: measured statistics, no labels, no training.

The simple profile: every channel its own component (diagonal synthesis; one step for the whole
tensor, or one for each channel by its weight), the mean of each channel, and the scale of every
coefficient as a sum of one number per channel and one per frequency.  A few hundred bytes: it is
what travels in streams without a profile of `lmc calibrate`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.arithmetic import as_written
from codec.encoding.features import checked_features, checked_range
from codec.encoding.forward_transform import ForwardTransform
from codec.errors import FeatureError
from codec.format.constants import LATENT_LIMIT
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.profile import MAX_FRACTION_BITS, Band, Profile, TensorProfile
from codec.format.tables import DEFAULT_POINTS
from codec.normative.stripes import stripes
from codec.normative.transform import SPECTRUM_BITS, split_blocks
from codec.profiling.fixed_point import (
    MAX_MATRIX,
    STEP_LATENTS,
    STEP_UNITS,
    block_size_for,
    to_int8,
    to_latents,
)

__all__ = ["measure_profile", "simple_header"]

SPECTRUM_UNITS: Final = 1 << SPECTRUM_BITS
MATRIX_BITS: Final = 14
INTER_SCALE: Final = 8
"""How many qp smaller than the intra one the scale of inter residuals is taken to be: a factor of
2.5."""
NOMINAL_QP: Final = 26
"""Without another measure of what the task tolerates, the step of this qp equals the standard
deviation."""
CENTRED: Final = 2.0**14
"""Means of so many deviations are taken off before the transform, whose float32 would drown these
in rounding."""
LEAST_UNIT, LARGEST_UNIT = 2.0**-21, 2.0**16
"""Steps at qp 0 that fraction bits and shifts can express."""
FACTORS_PER_OCTAVE: Final = 2
"""Steps of channels are told apart to half an octave, so that few values occur and pack well."""


def measure_profile(
    specs: Sequence[TensorSpec],
    samples: Iterable[Sequence[Tensor]],
    *,
    units: Sequence[float] | None = None,
    weights: Sequence[NDArray[np.float64]] | None = None,
    provenance: dict[str, object] | None = None,
) -> Profile:
    """Measure a simple profile.

    Args:
        specs: the tensors.
        samples: for each image or frame, one (C, H, W) float tensor per spec; at least one.
        units: per tensor, the quantiser step at qp 0 in feature units; default: such that the step
            at qp 26 is the standard deviation of the tensor around its channel means.
        weights: per tensor (C,), what an error in a channel costs (`channel_weights`); default:
            alike in all.
        provenance: what to note in the profile about its origin.

    Raises:
        ValueError: no samples.
        FeatureError: tensors of other shapes, not finite, or of a range that cannot be coded.
        TypeError: something else than tensors.
    """
    collected = [_Moments(spec) for spec in specs]
    for features in samples:
        for moments, tensor in zip(collected, checked_features(features, specs), strict=True):
            moments.update(tensor)
    tensors = []
    for number, moments in enumerate(collected):
        if not moments.count:
            raise ValueError("a profile is measured on at least one frame; none came")
        tensors.append(
            moments.profile(
                None if units is None else units[number],
                None if weights is None else weights[number],
            )
        )
    return Profile(tuple(tensors), dict(provenance or {}))


def simple_header(
    specs: Sequence[TensorSpec],
    samples: Iterable[Sequence[Tensor]],
    input_height: int,
    input_width: int,
) -> SequenceHeader:
    """Return a header for your own tensors, with a simple profile measured on `samples` embedded.

    Args:
        specs: name, shape and stride of each tensor.
        samples: as for `measure_profile`; the first frames of the sequence will do.
        input_height: of the frames that vectors refer to, pixels.
        input_width: likewise.

    Raises:
        ValueError, FeatureError, TypeError: as of `measure_profile`.
    """
    profile = measure_profile(specs, samples)
    return SequenceHeader(
        tensors=tuple(specs),
        input_height=input_height,
        input_width=input_width,
        profile_hash=profile.hash,
        profile=profile.to_bytes(),
    )


class _Moments:
    """First and second moments of one tensor, the second in the DCT domain of its blocks."""

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._size = block_size_for(spec)
        frequencies = self._size**2
        self.count = 0
        self._low, self._high = math.inf, -math.inf
        shapes = ((spec.channels,), (frequencies, spec.channels), *((spec.channels,),) * 2)
        self._sum, self._squares, self._direct, self._origin = (
            torch.zeros(shape, dtype=torch.float64, device="cpu") for shape in shapes
        )
        self._forward = ForwardTransform(
            self._assemble(0, np.zeros(spec.channels), np.ones(spec.channels), 0)
        )

    @as_written()
    def update(self, tensor: Tensor) -> None:
        parts = stripes(self._spec.channels, self._spec.elements)
        means = torch.empty(self._spec.channels, dtype=torch.float64, device="cpu")
        squares = 0.0  # around the means
        for first, last in parts:
            exact = tensor[first:last].to("cpu", torch.float64)
            checked_range(
                exact,
                self._spec,
                LATENT_LIMIT,
                "divide them by a constant, and multiply what the decoder gives by it",
            )
            self._low = min(self._low, float(exact.min()))
            self._high = max(self._high, float(exact.max()))
            if not self.count:
                means[first:last] = exact.mean((1, 2))
                centred = exact - means[first:last, None, None]
                squares += float(centred.square().mean()) * (last - first)
        if not self.count and self._low < self._high:
            spread = math.sqrt(squares / self._spec.channels)
            if float(means.abs().max()) > CENTRED * spread:
                self._origin = means
        centred = torch.empty(self._spec.shape, dtype=torch.float32, device="cpu")
        sums = torch.empty_like(means)
        for first, last in parts:
            exact = tensor[first:last].to("cpu", torch.float64)
            centred[first:last] = exact - self._origin[first:last, None, None]
            sums[first:last] = centred[first:last].double().mean((1, 2))
        rows = -(-self._spec.height // self._size)
        blocks = rows * -(-self._spec.width // self._size)
        self.count += blocks
        # not in place, which is refused where the sums were begun in inference mode
        self._sum = self._sum + sums * blocks
        for first, last in stripes(rows, self._spec.elements):
            # the forward transform of the neutral profile scales by SPECTRUM_UNITS: see `profile`
            part = centred[:, first * self._size : last * self._size]
            spectrum = self._forward(split_blocks(part, self._size)).double()
            self._squares = self._squares + spectrum.square().sum(2)
            self._direct = self._direct + spectrum[0].sum(1)

    def profile(
        self, unit: float | None, weight: NDArray[np.float64] | None = None
    ) -> TensorProfile:
        mean = (self._sum / self.count).numpy()  # from the origin on
        squares = (self._squares / self.count).numpy() / SPECTRUM_UNITS**2
        # around the mean: only the constant frequency has one, block size times that of the channel
        direct = (self._direct / self.count).numpy() / SPECTRUM_UNITS
        squares[0] = np.maximum(
            squares[0] - 2 * direct * mean * self._size + (mean * self._size) ** 2, 0
        )
        variance = float(squares.mean())
        if unit is None:
            unit = math.sqrt(variance) * 2.0 ** (-NOMINAL_QP / 6) if variance > 0 else 2.0**-8
        if not LEAST_UNIT <= unit <= LARGEST_UNIT:
            raise FeatureError(
                f"features of {self._spec.name!r}: a step of {unit:.3g} at qp 0 is outside "
                f"{LEAST_UNIT:g} … {LARGEST_UNIT:g}; they lie from {self._low:.3g} to "
                f"{self._high:.3g}: scale them to a deviation around 1"
            )
        # how many units the step of a channel is
        octaves = np.zeros(self._spec.channels) if weight is None else -0.5 * np.log2(weight)
        factors = 2.0 ** (np.round(octaves * FACTORS_PER_OCTAVE) / FACTORS_PER_OCTAVE)
        factors = np.clip(factors, LEAST_UNIT / unit, LARGEST_UNIT / unit)
        finest, coarsest = unit * float(factors.min()), unit * float(factors.max())
        fraction_bits = min(
            max(math.ceil(math.log2(STEP_LATENTS / finest)), 0),
            math.floor(math.log2(LARGEST_UNIT / coarsest)),  # or the shift would be negative
            MAX_FRACTION_BITS,
        )
        fraction_bits = self._with_room(fraction_bits, variance)
        latent = 2.0**fraction_bits
        # spectrum = matrix · coefficient >> shift: a level of one at qp 0 (64) becomes unit ·
        # latent · 16
        gain = unit * latent * SPECTRUM_UNITS / STEP_UNITS
        shift = MATRIX_BITS - max(math.ceil(math.log2(gain * float(factors.max()))), 0)
        synthesis = np.minimum(np.round(gain * factors * 2.0**shift), MAX_MATRIX)
        steps = unit * factors
        scale = 6 * np.log2(np.maximum(np.sqrt(squares), steps * 2.0**-12) / steps)
        per_component = scale.mean(0)
        per_frequency = scale.mean(1) - scale.mean()
        return self._assemble(
            fraction_bits,
            (mean + self._origin.numpy()) * latent,
            synthesis,
            shift,
            np.stack([per_component, per_component - INTER_SCALE]),
            np.stack([per_frequency, per_frequency]),
        )

    def _with_room(self, fraction_bits: int, variance: float) -> int:
        """Return fewer fraction bits where latents of so many would not hold the features."""
        peak = max(abs(self._low), abs(self._high))
        if peak * 2.0**fraction_bits <= LATENT_LIMIT:
            return fraction_bits
        room = min(LATENT_LIMIT / 2 / peak, 2.0**MAX_FRACTION_BITS)  # for twice what was seen
        fraction_bits = max(math.floor(math.log2(room)), 0)
        # rounding in the transform gives a constant a spread
        deviation = math.sqrt(variance) if self._low < self._high else 0.0
        if 0 < deviation < 0.5**fraction_bits:
            raise FeatureError(
                f"features of {self._spec.name!r} vary by only {deviation:.3g} around values of up "
                f"to {peak:.3g}; subtract their mean, and add it to what the decoder gives"
            )
        return fraction_bits

    def _assemble(
        self,
        fraction_bits: int,
        mean: NDArray[Any],
        synthesis: NDArray[Any],
        shift: int,
        component_scale: NDArray[Any] | None = None,
        frequency_scale: NDArray[Any] | None = None,
    ) -> TensorProfile:
        channels, frequencies = self._spec.channels, self._size**2
        if component_scale is None:
            component_scale = np.zeros((2, channels))
        if frequency_scale is None:
            frequency_scale = np.zeros((2, frequencies))
        band = Band(synthesis.astype(np.int16), shift, to_int8(component_scale))
        return TensorProfile(
            fraction_bits,
            self._size,
            to_latents(mean),
            (band,),
            np.zeros(frequencies, np.uint8),
            np.full(frequencies, channels),
            to_int8(frequency_scale),
            np.array(DEFAULT_POINTS, np.int8),
        )
