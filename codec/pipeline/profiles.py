"""Which profile a clip is coded with: a file's, the one shipped for these very weights, or one
measured on its first frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from torch import Tensor

from codec.errors import BitstreamError, LimitExceededError, ModelError
from codec.format.header import SequenceHeader
from codec.format.profile import (
    Profile,
    embedded,
    padded_elements,
    profile_of,
    shipped_profile,
)
from codec.limits import Limits
from codec.models.submodels import SplitModel
from codec.pipeline.network_tasks import task_like
from codec.profiling.fixed_point import block_size_for
from codec.profiling.simple import measure_profile
from codec.profiling.weighted import channel_weights

__all__ = [
    "MEASURED_FRAMES",
    "WEIGHTED_PIXELS",
    "check_limits",
    "measured_for",
    "naming",
    "profile_of_file",
    "shipped_for",
]

MEASURED_FRAMES: Final = 8
"""First frames that a profile is measured on where the clip is not there as a whole."""
WEIGHTED_PIXELS: Final = 1 << 20
"""Largest input whose gradients are taken: they need several times the memory of the features."""


def shipped_for(model: str, split: str, weights_hash: bytes) -> Profile | None:
    """Return the profile shipped for a model, a split and these very weights, or None."""
    profile = shipped_profile(f"{model}@{split}")
    # sensitivities are those of the weights: of others they say nothing
    fits = profile is not None and profile.provenance.get("weights_hash") == weights_hash.hex()
    return profile if fits else None


def profile_of_file(path: Path, model: str, split: str, weights_hash: bytes) -> Profile:
    """Return the profile of a file of `lmc calibrate`.

    Raises:
        OSError: there is no such file.
        UnsupportedBitstreamError, CorruptBitstreamError: it holds no profile.
        ModelError: it was measured for another model, split or weights.
    """
    profile = Profile.load(path)
    asked = {"model": model, "split": split, "weights_hash": weights_hash.hex()}
    for key, expected in asked.items():
        found = profile.provenance.get(key, expected)
        if found != expected:
            raise ModelError(
                f"{path}: measured for {key.replace('_', ' of the ')} {found}, "
                f"asked for {expected}; run lmc calibrate for it"
            )
    return profile


def naming(header: SequenceHeader, profile: Profile, *, apart: bool = False) -> SequenceHeader:
    """Return a header that names a profile, and carries it if it neither is shipped nor apart."""
    carried = embedded(profile, embed=not apart)
    return replace(header, profile_hash=profile.hash, profile=carried)


def check_limits(header: SequenceHeader, profile: Profile | None, limits: Limits) -> None:
    """Refuse, before any work, a stream that decoders with these limits would refuse.

    Args:
        header: of the stream.
        profile: the one that it names; None: it is yet to be measured, and its hash of no meaning.
        limits: of the decoders.

    Raises:
        LimitExceededError: too large; names the limits that will do.
        ValueError: no decoder reads it, or the profile is of other tensors.
    """
    try:
        if profile is not None:  # first, since elements of whole blocks are the most
            profile_of(header, limits, profile)
        else:
            sizes = [block_size_for(spec) for spec in header.tensors]
            limits.check("elements", padded_elements(header.tensors, sizes))
        SequenceHeader.from_bytes(header.to_bytes(), limits)
    except LimitExceededError as error:
        raise LimitExceededError(f"{error}, to decoders too") from error
    except BitstreamError as error:
        raise ValueError(f"header: {error}") from error


def measured_for(
    split: SplitModel,
    samples: Iterable[Sequence[Tensor]],
    *,
    weigh: Sequence[Sequence[Tensor]] = (),
) -> Profile:
    """Measure a simple profile on frames, its channels weighted by how the cloud takes them where
    that is possible and not too much work.

    Args:
        split: the sub-models.
        samples: features of some frames.
        weigh: those of them that the cloud is asked about, on its device; none: it is not asked.

    Raises:
        FeatureError, ValueError: features that no profile expresses.
    """
    weights = None
    height, width = split.input_size
    if weigh and height * width <= WEIGHTED_PIXELS:
        with suppress(ModelError):  # whatever the cloud puts out, its features can be coded
            task = task_like(split.cloud([tensor[None] for tensor in weigh[0]]))
            weights = channel_weights(split.tensors, weigh, split.cloud, task)
    return measure_profile(split.tensors, samples, weights=weights)
