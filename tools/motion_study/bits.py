"""What motion saves in the codec itself: bits of the second of two frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from codec.encoding.config import EncoderConfig
from codec.encoding.encoder import Encoder
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.profiling.simple import simple_header
from tools.motion_study.predictions import VECTOR_GRID
from tools.motion_study.settings import SIZE, Row
from tools.motion_study.warps import (
    Affine,
)

__all__ = ["CODED_ELEMENTS", "CODED_PAIRS", "CODED_QP", "mean_bits"]

CODED_PAIRS = 4
CODED_QP = 24
CODED_ELEMENTS = 1 << 18
"""The codec looks at larger tensors through fewer of their channels."""


def field_of(affine: Affine, header: SequenceHeader) -> NDArray[np.int32]:
    """Return an affine motion as the codec's field: (rows, columns, 2), quarter pixels."""
    rows, columns = header.field_shape
    centre = (header.grid - 1) / 2
    y, x = np.arange(rows) * header.grid + centre, np.arange(columns) * header.grid + centre
    nodes = np.stack(np.meshgrid(y, x, indexing="ij"), -1)
    size = (header.input_height, header.input_width)
    quarters = np.rint((affine.source(nodes, size) - nodes) * 4)
    return np.asarray(quarters, np.int32)


def _coded_bits(reference: Tensor, actual: Tensor, affine: Affine, spec: TensorSpec) -> list[float]:
    """Code two frames; bits per element of the second: intra, without motion, with it."""
    step = -(-spec.elements // CODED_ELEMENTS)
    reference, actual = reference[::step], actual[::step]
    own = replace(spec, channels=len(reference))
    header = replace(simple_header([own], [[reference], [actual]], *SIZE), grid=VECTOR_GRID)
    found = []
    for vectors, intra in ((None, True), (None, False), (field_of(affine, header), False)):
        # from effort 2 on, a field that does not pay for itself is not sent
        encoder = Encoder(header, EncoderConfig(qp=CODED_QP, keyint=2, scene_cut=False))
        first: FramePacket = encoder.encode([reference]).packet
        second = encoder.encode([actual], vectors, intra=intra).packet
        found.append(8 * len(second.to_bytes(first)) / own.elements)
    return found


def mean_bits(
    before: Sequence[tuple[Tensor, Affine]], after: Sequence[Tensor], spec: TensorSpec
) -> Row:
    """Code pairs of frames: mean bits per element of the second, and what share motion saves."""
    bits = np.mean(
        [
            _coded_bits(reference, actual, affine, spec)
            for (reference, affine), actual in zip(before, after, strict=True)
        ],
        axis=0,
    )
    return {
        **dict(zip(("bits_intra", "bits_zero", "bits_motion"), map(float, bits), strict=True)),
        "saved_against_zero": float(1 - bits[2] / bits[1]),
        "saved_against_intra": float(1 - bits[2] / bits[0]),
    }
