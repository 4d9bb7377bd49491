"""Levels by the output of the cloud sub-model: a small linear one, whose divergence is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SEEDS, header_of, plausible_profile, random_features

from codec.encoding.config import Decisions, EncoderConfig
from codec.encoding.encoder import Encoder
from codec.encoding.forward_transform import ForwardTransform
from codec.encoding.levels import LevelChoice, TensorPlan
from codec.encoding.payloads import FrameWriter
from codec.encoding.refinement import TaskRefinement
from codec.format.header import SequenceHeader, TensorSpec
from codec.format.profile import INTRA, Profile, profile_of
from codec.normative.decoder import Decoder
from codec.normative.quantization import step_sizes
from codec.normative.reconstruction import Reconstructor, features_of
from codec.normative.symbols import MODE_INTRA, MODE_SKIP, FrameSymbols, block_qps
from codec.normative.transform import InverseTransform, split_blocks

CLASSES = 10
PRICE, PROFILE_SHARE = Decisions().price, Decisions().profile_share
SPECS = (TensorSpec("t", 4, 6, 7, 8, 8), TensorSpec("u", 3, 5, 5, 8, 8))


def linear_cloud(seed: int, specs: tuple[TensorSpec, ...], gain: float = 0.1):
    """Logits of ten classes, a linear function of all features."""
    rng = np.random.default_rng(seed)
    weights = [
        torch.from_numpy(rng.normal(size=(CLASSES, *spec.shape)) * gain).float() for spec in specs
    ]

    def cloud(features):
        return sum(
            torch.einsum("nchw,kchw->nk", tensor, weight)
            for tensor, weight in zip(features, weights, strict=True)
        )

    return cloud


def stream(rng: np.random.Generator, count: int, *, cut: bool = True) -> SequenceHeader:
    """One or two tensors.  `cut`: the first has dense bands of which only some components are
    coded, which leaves a divergence too large for the quadratic form.
    """
    tensors = (
        plausible_profile(rng, 4, 4, bands=3, dense=cut, cut=cut),
        plausible_profile(rng, 3, 5),
    )
    return header_of(SPECS[:count], Profile(tensors[:count]), size=(56, 56))


class Frame:
    """A frame planned as an intra one, and what a decoder would have of it.  `reach`: blocks have
    offsets up to it, and weights that these do not express.
    """

    def __init__(
        self, seed: int, count: int, qp: int, price: float, *, cut: bool = False, reach: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.header = stream(rng, count, cut=cut)
        self.profile = profile_of(self.header)
        self.qp, self.price = qp, price
        self.cloud = linear_cloud(seed, self.header.tensors)
        self.features = random_features(rng, self.header, 1)[0]
        self.loop = Reconstructor(self.header.tensors, self.profile, self.header.grid)
        self.plans = []
        payloads = FrameWriter(self.header, self.profile)
        for tensor, one, feature in zip(
            payloads.tensors_at(True, qp), self.profile.tensors, self.features, strict=True
        ):
            mean = torch.from_numpy(one.mean)[:, None, None]
            residual = feature * 2.0**one.fraction_bits - mean
            coefficients = ForwardTransform(one)(split_blocks(residual, one.block_size))
            offsets = rng.integers(-reach, reach + 1, tensor.blocks)
            weights = np.exp2(rng.uniform(-reach, reach, tensor.blocks)).astype(np.float32)
            steps = torch.from_numpy(step_sizes(block_qps(qp, offsets)))
            values = coefficients.flatten(0, 1)[one.scan.position] / steps
            prices = np.float32(price) / weights
            choice = LevelChoice(
                tensor,
                values.float().numpy(),
                one.points,
                np.full(tensor.blocks, INTRA),
                qp,
                np.arange(tensor.blocks),
                offsets,
                Decisions(price=price),
                prices,
            )
            modes = np.full(tensor.blocks, MODE_INTRA, np.uint8)
            self.plans.append(
                TensorPlan(modes, choice.values, choice.levels, choice.classes, offsets, weights)
            )

    def reconstruct(self, plans: list[TensorPlan]) -> list[torch.Tensor]:
        frame = FrameSymbols(True, self.qp, None, [plan.symbols() for plan in plans])
        for symbols, plan in zip(frame.tensors, plans, strict=True):
            symbols.classes = plan.classes[:, plan.modes != MODE_SKIP]
        return features_of(self.loop.trial(self.loop.predict(None), frame), self.profile)

    def refine(self, rounds: int = 3, directions: int = 9, cloud=None) -> list[TensorPlan]:
        refinement = TaskRefinement(
            cloud or self.cloud,
            self.profile,
            Decisions(price=self.price, rounds=rounds, directions=directions),
        )
        return refinement.refine(self.features, self.plans, self.reconstruct, self.qp)

    def divergence(self, plans: list[TensorPlan]) -> float:
        outputs = [
            torch.log_softmax(self.cloud([one[None] for one in features])[0].double(), 0)
            for features in (self.features, self.reconstruct(plans))
        ]
        return float((outputs[0].exp() * (outputs[0] - outputs[1])).sum())

    def distortion(self, plans: list[TensorPlan]) -> float:
        return sum(
            plan.distortion(one.points)
            for plan, one in zip(plans, self.profile.tensors, strict=True)
        )

    def cost(self, plans: list[TensorPlan]) -> float:
        """J of the module's docstring, weighted as in the first frame of a stream."""
        weight = self.distortion(self.plans) / self.divergence(self.plans)
        return (
            weight * (1 - PROFILE_SHARE) * self.divergence(plans)
            + PROFILE_SHARE * self.distortion(plans)
            + self.price * sum(plan.bits() for plan in plans)
        )


@settings(max_examples=25)
@given(
    SEEDS,
    st.integers(1, 2),
    st.integers(12, 40),
    st.sampled_from((1e-6, 0.02, PRICE, 1.0)),
    st.integers(1, 3),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from((0, 3)),
)
def test_refined_plans_never_cost_more_by_their_own_measure(
    seed, count, qp, price, rounds, directions, cut, reach
):
    frame = Frame(seed, count, qp, price, cut=cut, reach=reach)
    given_levels = [plan.levels.copy() for plan in frame.plans]
    refined = frame.refine(rounds, directions)
    assert frame.cost(refined) <= frame.cost(frame.plans) * (1 + 1e-5)
    for plan, before in zip(frame.plans, given_levels, strict=True):
        np.testing.assert_array_equal(plan.levels, before)
    for plan, before in zip(refined, frame.plans, strict=True):
        assert plan.levels.shape == before.levels.shape
        np.testing.assert_array_equal(plan.modes, before.modes)  # intra blocks stay
        np.testing.assert_array_equal(plan.values, before.values)


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 2), st.integers(18, 36))
def test_divergence_falls_where_bits_are_cheap(seed, count, qp):
    frame = Frame(seed, count, qp, 1e-4)
    refined = frame.refine()
    before, after = frame.divergence(frame.plans), frame.divergence(refined)
    assert after < before
    assert any(
        (new.levels != old.levels).any() for new, old in zip(refined, frame.plans, strict=True)
    )


@pytest.mark.parametrize("reach", [0, 4])
def test_divergence_falls_a_lot_on_average(reach):
    """Wherever the steps of blocks are their own, too."""
    frames = [Frame(seed, 1, 30, PRICE, reach=reach) for seed in range(8)]
    before = sum(frame.divergence(frame.plans) for frame in frames)
    after = sum(frame.divergence(frame.refine(rounds=1)) for frame in frames)
    assert after < 0.2 * before


def test_what_counts_more_is_kept_closer():
    """Of blocks of different weights, levels are moved where errors count less."""
    frames = [Frame(seed, 1, 30, PRICE, reach=4) for seed in range(8)]
    before = sum(frame.distortion(frame.plans) for frame in frames)
    after = sum(frame.distortion(frame.refine(rounds=1)) for frame in frames)
    assert after < 1.75 * before  # 1.98 with all alike


def test_outputs_that_nothing_moves_are_left_alone():
    """A softmax so sure of itself that its Fisher information vanishes; one class; a constant."""
    frame = Frame(0, 1, 24, PRICE)
    sure = torch.tensor([200.0] + [0.0] * (CLASSES - 1))
    for cloud in (
        lambda features: frame.cloud(features) * 1e-3 + sure,
        lambda features: frame.cloud(features)[:, :1],
        lambda features: frame.cloud(features) * 0,
    ):
        refined = frame.refine(cloud=cloud)
        for new, old in zip(refined, frame.plans, strict=True):
            np.testing.assert_array_equal(new.levels, old.levels)


def test_gradients_that_are_not_finite_are_left_alone():
    """exp() overflows, clamp() hides it, and the gradient is 0 · inf."""
    frame = Frame(0, 1, 24, PRICE)
    refined = frame.refine(cloud=lambda features: (frame.cloud(features) * 1e4).exp().clamp(max=9))
    assert all(new is old for new, old in zip(refined, frame.plans, strict=True))


def test_outputs_that_are_not_logits_are_left_alone():
    frame = Frame(0, 1, 24, PRICE)

    def dense(features):
        return features[0]

    refined = frame.refine(cloud=dense)
    assert all(new is old for new, old in zip(refined, frame.plans, strict=True))


@pytest.mark.parametrize("number", [0, 1])
def test_the_adjoint_is_the_transpose_of_the_inverse_transform(number):
    """<A g, c> = <g, inverse(c)>: coefficients so large that rounding to integers is nothing."""
    rng = np.random.default_rng(number)
    (*_, profile) = profile_of(stream(rng, number + 1)).tensors
    shape = (profile.block_size**2, profile.components, 5)
    coefficients = np.round(rng.normal(size=shape) * (1 << 20))
    for frequency, rank in enumerate(profile.ranks):
        coefficients[frequency, rank:] = 0
    residual = InverseTransform(profile)(torch.from_numpy(coefficients))
    assert float(residual.abs().max()) > 1e4
    gradient = torch.from_numpy(rng.normal(size=residual.shape))
    found = ForwardTransform(profile, adjoint=True)(gradient.float()).double().numpy()
    norm = float(gradient.norm() * residual.norm())
    difference = float((found * coefficients).sum()) - float((gradient * residual).sum())
    # the integer basis is that of both sides; float32 and the rounding of residuals remain
    assert abs(difference) <= 3e-6 * norm


# --- in the encoder -------------------------------------------------------------------------------


@settings(max_examples=15)
@given(SEEDS, st.integers(1, 2), st.integers(7, 9), st.integers(10, 45), st.booleans())
def test_decoder_has_what_the_encoder_had(seed, count, effort, qp, intra):
    rng = np.random.default_rng(seed)
    header = stream(rng, count)
    config = EncoderConfig(qp=qp, keyint=3, effort=effort)
    encoder = Encoder(header, config, cloud=linear_cloud(seed, header.tensors))
    decoder = Decoder(header)
    for features in random_features(rng, header, 5):
        encoded = encoder.encode(features, intra=intra)
        decoded = decoder.decode(encoded.packet)
        for mine, theirs in zip(decoded.latents, encoded.latents, strict=True):
            assert torch.equal(mine, theirs)


def test_a_cloud_changes_packets_and_lowers_the_divergence():
    rng = np.random.default_rng(1)
    header = stream(rng, 2)
    cloud = linear_cloud(1, header.tensors)
    frames = random_features(rng, header, 6)
    config = EncoderConfig(qp=28, effort=9, scene_cut=False)
    totals = []
    for one in (None, cloud):
        encoder, total = Encoder(header, config, cloud=one), 0.0
        for features in frames:
            outputs = [
                torch.log_softmax(cloud([tensor[None] for tensor in tensors])[0], 0)
                for tensors in (features, encoder.encode(features).features)
            ]
            total += float((outputs[0].exp() * (outputs[0] - outputs[1])).sum())
        totals.append(total)
    assert totals[1] < 0.8 * totals[0]


def test_without_a_cloud_the_highest_efforts_are_like_the_one_below():
    rng = np.random.default_rng(2)
    header = stream(rng, 1)
    frames = random_features(rng, header, 3)
    packets = []
    for effort in (6, 7, 9):
        encoder = Encoder(header, dataclasses.replace(EncoderConfig(qp=24), effort=effort))
        packets.append([encoder.encode(features).packet for features in frames])
    assert packets[0] == packets[1] == packets[2]
