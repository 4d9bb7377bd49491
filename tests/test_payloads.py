"""Code lengths by syntax element: what a frame comes to before it is written."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import SEEDS, random_symbols, stream_headers

from codec.encoding.payloads import FrameWriter
from codec.format.profile import profile_of
from codec.normative.symbols import MODE_SKIP, FrameSymbols, TensorSymbols


@settings(max_examples=20)
@given(stream_headers(), SEEDS)
def test_code_lengths_add_up_to_the_payload(header, seed):
    profile = profile_of(header)
    writer = FrameWriter(header, profile)
    for frame in random_symbols(np.random.default_rng(seed), header, profile, 3):
        of_blocks = writer.block_bits(frame)
        lengths = copy.deepcopy(writer).code_lengths(frame)
        assert of_blocks == pytest.approx(sum(lengths.get(e, 0) for e in ("modes", "offsets")))
        assert all(lengths.values())
        total = sum(lengths.values())
        assert total / 8 - 1 <= len(writer.write(frame)) <= 1.02 * total / 8 + 9


@settings(max_examples=20)
@given(stream_headers(), SEEDS)
def test_elements_without_a_symbol_are_left_out(header, seed):
    profile = profile_of(header)
    writer = FrameWriter(header, profile)
    (key,) = random_symbols(np.random.default_rng(seed), header, profile, 1)
    names = {"offsets"} | {f"levels of {spec.name}" for spec in header.tensors}
    assert set(writer.code_lengths(key)) <= names
    skipped = [
        TensorSymbols(
            np.zeros(one.blocks, np.uint8),
            np.zeros((one.positions, 0), np.int32),
            np.zeros((one.positions, 0), np.uint8),
            one.offsets,
        )
        for one in writer.tensors_at(False, key.qp)
    ]
    assert set(writer.code_lengths(FrameSymbols(False, key.qp, None, skipped))) == {"modes"}


@settings(max_examples=5)
@given(stream_headers())
def test_a_key_frame_with_other_blocks_than_intra_is_refused(header):
    profile = profile_of(header)
    (key,) = random_symbols(np.random.default_rng(0), header, profile, 1)
    key.tensors[0].modes[0] = MODE_SKIP
    with pytest.raises(ValueError, match="not all intra"):
        FrameWriter(header, profile).write(key)
