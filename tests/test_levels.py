"""Levels by rate and distortion: against plain rounding, against scalars, and against coding."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import (
    SEEDS,
    header_of,
    plausible_profile,
    random_symbols,
    stream_headers,
)

from codec.encoding.code_lengths import symbol_bits
from codec.encoding.config import Decisions
from codec.encoding.levels import (
    ESCAPE_BITS,
    LevelChoice,
    TensorPlan,
    estimated_cost,
    level_bits,
)
from codec.encoding.payloads import FrameWriter
from codec.format.constants import MAX_LEVEL
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.packets import FramePacket
from codec.format.profile import INTER, INTRA, Profile, profile_of
from codec.format.tables import ESCAPE, MAX_DIRECT_LEVEL, tables
from codec.normative.symbols import MODE_INTER, MODE_INTRA, MODE_SKIP, FrameSymbols
from codec.normative.syntax import FrameReader

PRICE = Decisions().price
KINDS = st.sampled_from((INTRA, INTER))
QPS = st.integers(0, 51)
PRICES = st.sampled_from((0.0, 0.01, PRICE, 0.5, 10.0))
SPREADS = st.sampled_from((0.0, 0.1, 0.5, 1.0, 3.0, 100.0))


def worn(
    header: SequenceHeader, profile: Profile, rng: np.random.Generator
) -> tuple[FrameWriter, FrameReader]:
    """Both ends of a stream, a few frames into it."""
    writer, reader = FrameWriter(header, profile), FrameReader(header, profile)
    for frame in random_symbols(rng, header, profile, 2):
        has_offsets = writer.changes_offsets(frame)
        payload = writer.write(frame)
        has_vectors = frame.vectors is not None
        reader.read(FramePacket(frame.key, 0, frame.qp, has_vectors, payload, 1, has_offsets))
    return writer, reader


def choice_of(tensor, values, points, kind, qp, price, rounding=None) -> LevelChoice:
    prices = np.full(values.shape[1], price, np.float32)
    kinds, blocks = np.full(tensor.blocks, kind), np.arange(tensor.blocks)
    decisions = Decisions(price=price, rounding=rounding)
    return LevelChoice(tensor, values, points, kinds, qp, blocks, tensor.offsets, decisions, prices)


def random_values(rng: np.random.Generator, shape: tuple[int, int], spread: float) -> np.ndarray:
    """Coefficients in steps, the later ones of the scan smaller, some blocks empty."""
    slope = np.linspace(1.5, 0.1, shape[0])[:, None]
    busy = rng.random(shape[1]) < 0.8
    return (rng.laplace(size=shape) * spread * slope * busy).astype(np.float32)


def choices(
    header: SequenceHeader,
    profile: Profile,
    writer: FrameWriter,
    rng: np.random.Generator,
    kind: int,
    qp: int,
    price: float,
    spread: float,
) -> list[LevelChoice]:
    """A choice for every tensor of a stream."""
    return [
        choice_of(
            tensor,
            random_values(rng, (len(one.scan.position), tensor.blocks), spread),
            one.points,
            kind,
            qp,
            price,
        )
        for tensor, one in zip(writer.tensors_at(False, qp), profile.tensors, strict=True)
    ]


def scalar_costs(
    values: np.ndarray, levels: np.ndarray, classes: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distortion and rate per block, a level at a time, from the frozen tables."""
    distortion, rate = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for (position, block), level in np.ndenumerate(levels):
        number, magnitude = classes[position, block], abs(int(level))
        recovered = 0.0
        if magnitude:
            recovered = np.sign(level) * (magnitude - points[number, int(magnitude > 1)] / 64)
        distortion[block] += (float(values[position, block]) - recovered) ** 2
        escaped = magnitude > MAX_DIRECT_LEVEL
        symbol = ESCAPE if escaped else int(level) + MAX_DIRECT_LEVEL
        rate[block] += symbol_bits()[number, symbol] + ESCAPE_BITS * escaped
    return distortion, rate


def test_level_bits_are_those_of_the_tables():
    bits = level_bits()
    assert bits.shape == (len(tables().levels), MAX_DIRECT_LEVEL + 2)
    for magnitude in range(MAX_DIRECT_LEVEL + 1):
        for sign in (-1, 1):
            column = symbol_bits()[:, MAX_DIRECT_LEVEL + sign * magnitude]
            np.testing.assert_array_equal(bits[:, magnitude], column)
    np.testing.assert_array_equal(bits[:, -1], symbol_bits()[:, ESCAPE] + ESCAPE_BITS)


# --- the choice -----------------------------------------------------------------------------------


@given(stream_headers(max_tensors=1), SEEDS, KINDS, QPS, PRICES, SPREADS)
def test_distortion_and_rate_agree_with_scalars(header, seed, kind, qp, price, spread):
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    writer, _ = worn(header, profile, rng)
    (choice,) = choices(header, profile, writer, rng, kind, qp, price, spread)
    points = profile.tensors[0].points
    distortion, rate = scalar_costs(choice.values, choice.levels, choice.classes, points)
    # float32 sums, the distortion as what is left of the energy
    np.testing.assert_allclose(
        choice.distortion, distortion, rtol=1e-4, atol=1e-4 + 1e-5 * choice.energy.max()
    )
    np.testing.assert_allclose(choice.rate, rate, rtol=1e-4)
    np.testing.assert_allclose(choice.cost, choice.distortion + price * choice.rate, rtol=1e-5)
    np.testing.assert_allclose(choice.energy, np.square(choice.values).sum(0), rtol=1e-4)


@given(stream_headers(max_tensors=1), SEEDS, KINDS, QPS, PRICES, SPREADS)
def test_no_worse_than_rounding_or_zeros_under_the_same_classes(
    header, seed, kind, qp, price, spread
):
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    writer, _ = worn(header, profile, rng)
    (choice,) = choices(header, profile, writer, rng, kind, qp, price, spread)
    points = profile.tensors[0].points

    def cost(levels: np.ndarray) -> np.ndarray:
        distortion, rate = scalar_costs(choice.values, levels, choice.classes, points)
        return distortion + price * rate

    rounded = np.clip(np.round(choice.values), -MAX_LEVEL, MAX_LEVEL).astype(np.int32)
    tolerance = 1e-4 + 1e-6 * choice.energy.max(initial=0)
    chosen = cost(choice.levels)
    assert (chosen <= cost(rounded) + tolerance).all()
    assert (chosen <= cost(np.zeros_like(rounded)) + tolerance).all()


@given(stream_headers(max_tensors=1), SEEDS, KINDS, QPS, SPREADS)
def test_levels_take_fewer_bits_as_bits_get_dearer(header, seed, kind, qp, spread):
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    writer, _ = worn(header, profile, rng)
    tensor, one = writer.tensors_at(False, qp)[0], profile.tensors[0]
    values = random_values(rng, (len(one.scan.position), tensor.blocks), spread)
    found = [
        choice_of(tensor, values, one.points, kind, qp, price) for price in (0, 0.01, PRICE, 1e6)
    ]
    for choice in found:
        assert (choice.levels * values >= 0).all()
        assert (np.abs(choice.levels) <= np.abs(values) + 0.5).all()
    # in the first pass, whose classes depend on no level
    first = next(bound for bound in one.scan.bounds if bound)
    rates = [
        level_bits()[choice.classes, np.minimum(np.abs(choice.levels), MAX_DIRECT_LEVEL + 1)]
        for choice in found
    ]
    for cheap, dear in pairwise(rates):
        assert (dear[:first] <= cheap[:first]).all()


def small_stream() -> tuple[SequenceHeader, Profile]:
    """A tensor of 3 x 8 x 8 with two dense bands."""
    profile = Profile(
        (plausible_profile(np.random.default_rng(5), 3, 4, bands=2, dense=True, cut=True),)
    )
    return header_of((TensorSpec("t", 3, 8, 8, 8, 8),), profile, size=(64, 64)), profile


def test_the_largest_values_are_clipped_to_the_largest_level():
    header, profile = small_stream()
    tensor, one = FrameWriter(header, profile).tensors_at(True, 0)[0], profile.tensors[0]
    values = np.full((len(one.scan.position), tensor.blocks), 1e6, np.float32)
    values[::2] *= -1
    choice = choice_of(tensor, values, one.points, INTRA, 0, PRICE)
    np.testing.assert_array_equal(choice.levels, np.sign(values) * MAX_LEVEL)


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5, 1, 2, 8, 40])
@pytest.mark.parametrize("price", [0.02, PRICE, 0.3])
def test_the_estimate_is_within_reason(spread, price):
    """At the qp that the profile was made for: of the order of the true cost, never over sending
    nothing, and rising with the spread.
    """
    header, profile = small_stream()
    one = profile.tensors[0]
    tensor = FrameWriter(header, profile).tensors_at(True, 24)[0]
    drawn = np.random.default_rng(0).laplace(size=(len(one.scan.position), tensor.blocks))
    values = (drawn * spread).astype(np.float32)
    estimate = estimated_cost(values, price)
    assert estimate.shape == (tensor.blocks,)
    assert (estimate <= np.square(values).sum(0) * (1 + 1e-5)).all()
    assert (estimate <= estimated_cost(2 * values, price) * (1 + 1e-5)).all()
    choice = choice_of(tensor, values, one.points, INTRA, 24, price)
    true = np.minimum(choice.cost, choice.energy).sum()
    assert 0.25 * true <= estimate.sum() <= 4 * true


# --- the plan -------------------------------------------------------------------------------------


def plan_of(choice: LevelChoice, mode: int, offsets: NDArray[np.int64] | None = None) -> TensorPlan:
    modes = np.full(len(choice.cost), mode, np.uint8)
    if offsets is None:
        offsets = np.zeros(len(modes), np.int64)
    weights = np.ones(len(modes), np.float32)
    return TensorPlan(modes, choice.values, choice.levels, choice.classes, offsets, weights)


@given(SEEDS, st.integers(1, 12), st.integers(1, 6))
def test_blocks_become_skipped_or_inter_as_they_have_levels(seed, positions, blocks):
    rng = np.random.default_rng(seed)
    shape = positions, blocks
    nothing = np.zeros(shape, np.int32)
    modes = rng.integers(0, 3, blocks).astype(np.uint8)
    before = modes.copy()
    offsets = np.zeros(blocks, np.int64)
    plan = TensorPlan(
        modes,
        nothing.astype(np.float32),
        nothing,
        nothing.astype(np.uint8),
        offsets,
        np.ones(len(modes), np.float32),
    )
    levels = (rng.integers(-2, 3, shape) * (rng.random(blocks) < 0.5)).astype(np.int32)
    found = plan.with_levels(levels)
    for mode, old, column in zip(found.modes, before, levels.T, strict=True):
        expected = MODE_INTER if column.any() else MODE_SKIP
        assert mode == (MODE_INTRA if old == MODE_INTRA else expected)
    np.testing.assert_array_equal(plan.modes, before)
    np.testing.assert_array_equal(found.levels, levels)
    symbols = found.symbols()
    np.testing.assert_array_equal(symbols.modes, found.modes)
    np.testing.assert_array_equal(symbols.levels, levels[:, found.modes != MODE_SKIP])


@settings(max_examples=30)
@given(stream_headers(), SEEDS, QPS, SPREADS)
def test_plans_cost_what_scalars_say(header, seed, qp, spread):
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    writer, _ = worn(header, profile, rng)
    found = choices(header, profile, writer, rng, INTER, qp, PRICE, spread)
    for choice, one in zip(found, profile.tensors, strict=True):
        plan = plan_of(choice, MODE_INTER)
        plan = plan.with_levels(np.where(rng.random(len(plan.modes)) < 0.5, 0, plan.levels))
        distortion, rate = scalar_costs(plan.values, plan.levels, plan.classes, one.points)
        assert plan.distortion(one.points) == pytest.approx(distortion.sum(), rel=1e-4, abs=1e-4)
        assert plan.bits() == pytest.approx(rate[plan.modes != MODE_SKIP].sum(), rel=1e-4)
        zeros = np.zeros_like(plan.levels)
        _, rate = scalar_costs(plan.values, zeros, plan.classes, one.points)
        np.testing.assert_allclose(plan.zero_bits(), rate, rtol=1e-4)


@given(stream_headers(), SEEDS, QPS, SPREADS)
def test_coding_a_plan_meets_its_classes_and_gives_its_levels_back(header, seed, qp, spread):
    """Inter, intra and skipped blocks together, each planned as if all were of its kind."""
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    writer, reader = worn(header, profile, rng)
    inter = choices(header, profile, writer, rng, INTER, qp, PRICE, spread)
    intra = choices(header, profile, writer, rng, INTRA, qp, PRICE, spread)
    plans = []
    states = writer.tensors_at(False, qp)
    for predicted, alone, state in zip(inter, intra, states, strict=True):
        plan = plan_of(predicted, MODE_SKIP, state.offsets).with_levels(
            np.where(predicted.cost < predicted.energy, predicted.levels, 0)
        )
        chosen = rng.random(len(plan.modes)) < 0.4
        plans.append(
            TensorPlan(
                np.where(chosen, MODE_INTRA, plan.modes).astype(np.uint8),
                np.where(chosen, alone.values, plan.values),
                np.where(chosen, alone.levels, plan.levels),
                np.where(chosen, alone.classes, plan.classes),
                plan.offsets,
                plan.weights,
            )
        )
    frame = FrameSymbols(False, qp, None, [plan.symbols() for plan in plans])
    lengths = copy.deepcopy(writer).code_lengths(frame)
    packet = FramePacket(False, 0, qp, False, writer.write(frame), 1)
    parsed = reader.read(packet)
    for plan, coded, read in zip(plans, frame.tensors, parsed.tensors, strict=True):
        kept = plan.modes != MODE_SKIP
        for symbols in (coded, read):
            np.testing.assert_array_equal(symbols.modes, plan.modes)
            np.testing.assert_array_equal(symbols.levels, plan.levels[:, kept])
            np.testing.assert_array_equal(symbols.classes, plan.classes[:, kept])
    escapes = sum(int((np.abs(plan.levels) > MAX_DIRECT_LEVEL).sum()) for plan in plans)
    if not escapes:
        coded_bits = sum(bits for name, bits in lengths.items() if name.startswith("levels"))
        assert coded_bits == pytest.approx(sum(plan.bits() for plan in plans), rel=1e-4, abs=1e-6)


# --- a plain quantiser ----------------------------------------------------------------------------


@given(stream_headers(max_tensors=1), SEEDS, KINDS, QPS, SPREADS, st.sampled_from((0.2, 0.3, 0.5)))
def test_rounding_is_a_dead_zone_and_costs_what_scalars_say(header, seed, kind, qp, spread, offset):
    rng = np.random.default_rng(seed)
    profile = profile_of(header)
    writer, _ = worn(header, profile, rng)
    tensor, one = writer.tensors_at(False, qp)[0], profile.tensors[0]
    values = random_values(rng, (len(one.scan.position), tensor.blocks), spread)
    choice = choice_of(tensor, values, one.points, kind, qp, PRICE, rounding=offset)
    expected = np.sign(values) * np.floor(np.abs(values) + np.float32(offset))
    np.testing.assert_array_equal(choice.levels, expected)
    distortion, rate = scalar_costs(values, choice.levels, choice.classes, one.points)
    np.testing.assert_allclose(
        choice.distortion, distortion, rtol=1e-4, atol=1e-4 + 1e-5 * choice.energy.max()
    )
    np.testing.assert_allclose(choice.rate, rate, rtol=1e-4)
