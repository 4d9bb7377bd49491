"""BD-rate and BD-KL: known answers, the reference package, refusals, fronts, comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy", reason="BD-rate needs the extra `study`")

from tools.rate_distortion.bd_rate import (
    Comparison,
    Curve,
    bd_kl,
    bd_rate,
    bootstrap,
    envelope,
    render,
    restrict,
)

RATE = [60.0, 110.0, 250.0, 600.0, 1300.0, 2900.0]
KL = [1.4, 0.6, 0.21, 0.07, 0.018, 0.004]
METHODS = ("pchip", "akima")


@pytest.mark.parametrize("method", METHODS)
def test_curve_against_itself_is_zero(method: str) -> None:
    found = bd_rate(RATE, KL, RATE, KL, method)
    assert found.percent == pytest.approx(0, abs=1e-9)
    assert (found.low, found.high) == (pytest.approx(0.004), pytest.approx(1.4))
    assert found.overlap == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_factor_of_rate(method: str, factor: float) -> None:
    found = bd_rate(RATE, KL, [rate * factor for rate in RATE], KL, method)
    assert found.percent == pytest.approx(100 * (factor - 1))


@pytest.mark.parametrize("method", METHODS)
def test_order_of_points_is_free(method: str) -> None:
    ascending = bd_rate(RATE, KL, RATE[1:], [kl * 1.3 for kl in KL[1:]], method)
    descending = bd_rate(RATE[::-1], KL[::-1], RATE[:0:-1], [kl * 1.3 for kl in KL[:0:-1]], method)
    assert ascending == descending


@pytest.mark.parametrize("method", METHODS)
def test_power_laws_have_a_closed_form(method: str) -> None:
    """Straight lines in logarithms are interpolated exactly."""
    kl = np.geomspace(1, 0.01, 6)
    rate_a, rate_b = 100 * kl**-0.8, 80 * kl**-0.7
    found = bd_rate(list(rate_a), list(kl), list(rate_b), list(kl), method)
    middle = math.log(0.1)  # of the range, in logarithms
    assert found.percent == pytest.approx(100 * (0.8 * math.exp(0.1 * middle) - 1))


def test_limits_cut_the_range() -> None:
    """By PCHIP, whose pieces depend on their neighbours only."""
    other = [rate * (2 if kl > 0.1 else 1) for rate, kl in zip(RATE, KL, strict=True)]
    found = bd_rate(RATE, KL, other, KL, limits=(0.0, 0.018))
    assert found.percent == pytest.approx(0, abs=1e-9)
    assert (found.low, found.high) == (pytest.approx(0.004), pytest.approx(0.018))


@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_the_package_bjontegaard(method: str) -> None:
    reference = pytest.importorskip(
        "bjontegaard", reason="the cross-check needs the extra `study` (package bjontegaard)"
    )
    rng = np.random.default_rng(5)
    for _ in range(20):
        curves = []
        for points in rng.integers(4, 9, 2):
            rate = np.sort(rng.uniform(20, 5000, points))
            kl = np.sort(np.exp(rng.uniform(math.log(0.004), math.log(1.2), points - 2)))
            # Ends that overlap, so that neither side refuses.
            kl = np.array([0.002 * rng.uniform(1, 1.5), *kl, 2 * rng.uniform(1, 1.5)])
            curves += [rate, kl[::-1]]
        rate_a, kl_a, rate_b, kl_b = curves
        expected = reference.bd_rate(
            rate_a,
            -np.log(kl_a),
            rate_b,
            -np.log(kl_b),
            method=method,
            require_matching_points=False,
            min_overlap=0,
        )
        found = bd_rate(list(rate_a), list(kl_a), list(rate_b), list(kl_b), method)
        assert found.percent == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_bd_kl_agrees_with_the_package_bjontegaard(method: str) -> None:
    """Its BD-PSNR is a mean difference of quality at equal rate, over log10 of the rate."""
    reference = pytest.importorskip(
        "bjontegaard", reason="the cross-check needs the extra `study` (package bjontegaard)"
    )
    rng = np.random.default_rng(6)
    for _ in range(20):
        curves = []
        for points in rng.integers(4, 9, 2):
            inner = np.sort(rng.uniform(60, 4000, points - 2))
            rate = np.array([rng.uniform(20, 50), *inner, rng.uniform(4500, 6000)])
            curves += [rate, np.sort(np.exp(rng.uniform(-6, 0, points)))[::-1]]
        rate_a, kl_a, rate_b, kl_b = curves
        expected = reference.bd_psnr(
            rate_a,
            -np.log(kl_a),
            rate_b,
            -np.log(kl_b),
            method=method,
            require_matching_points=False,
            min_overlap=0,
        )
        found = bd_kl(list(rate_a), list(kl_a), list(rate_b), list(kl_b), method)
        assert found.percent == pytest.approx(100 * math.expm1(-expected), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_factor_of_kl(method: str) -> None:
    found = bd_kl(RATE, KL, RATE, [kl * 3 for kl in KL], method)
    assert found.percent == pytest.approx(200)
    assert (found.low, found.high) == (pytest.approx(60), pytest.approx(2900))
    with pytest.raises(ValueError, match=r"span rate 60 to 2\.9e"):
        bd_kl(RATE, KL, [rate * 100 for rate in RATE], KL, method)


@pytest.mark.parametrize(
    ("rate", "kl", "message"),
    [
        (RATE[:3], KL[:3], "has 3 rates and 3 KL; expected at least 4"),
        (RATE, KL[:-1], "has 6 rates and 5 KL"),
        ([0.0, *RATE[1:]], KL, "expected > 0"),
        (RATE, [*KL[:-1], math.nan], "expected > 0"),
        (RATE, [*KL[:-2], 0.07, 0.004], "does not fall"),
        (RATE, [1.4, 0.21, 0.6, 0.07, 0.018, 0.004], "does not fall"),
        (RATE, [kl * 1000 for kl in KL], "span KL 0.004 to 1.4 and 4 to 1.4e"),
        (RATE, [kl * 200 for kl in KL], "an overlap of at least 25%"),
    ],
)
def test_refusals(rate: list[float], kl: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bd_rate(RATE, KL, rate, kl)


def test_overlap_within_limits_must_be_a_factor_of_two() -> None:
    with pytest.raises(ValueError, match=r"within 0.1 to 0.15; .* a factor of 2"):
        bd_rate(RATE, KL, RATE, KL, limits=(0.1, 0.15))
    with pytest.raises(ValueError, match="within 5 to 9"):
        bd_rate(RATE, KL, RATE, KL, limits=(5, 9))


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'cubic': expected one of pchip, akima"):
        bd_rate(RATE, KL, RATE, KL, "cubic")


def test_envelope_keeps_what_nothing_beats() -> None:
    points = [(100, 0.5), (80, 0.6), (90, 0.6), (100, 0.55), (120, 0.5), (200, 0.6), (300, 0.1)]
    assert envelope(points) == [(80, 0.6), (100, 0.5), (300, 0.1)]
    assert envelope([(1, 2), (1, 2)]) == [(1, 2)]
    assert envelope([]) == []


def test_envelope_leaves_out_what_gains_too_little() -> None:
    points = [(1.0, 0.5), (2.0, 0.49), (3.0, 0.477), (4.0, 0.47), (5.0, 0.3)]
    assert envelope(points) == points
    assert envelope(points, margin=0.05) == [(1.0, 0.5), (4.0, 0.47), (5.0, 0.3)]


def test_envelope_need_not_be_convex() -> None:
    points = [(1.0, 1.0), (2.0, 0.9), (3.0, 0.1)]
    assert envelope(points) == points


def test_restrict_keeps_one_neighbour_on_either_side() -> None:
    front = list(zip(RATE, KL, strict=True))
    assert restrict(front, (0.05, 0.3)) == front[1:5]
    assert restrict(front, (0.001, 2)) == front
    assert restrict(front, (0.08, 0.1)) == []


# --- comparisons ------------------------------------------------------------------------------


def curve(factor: float = 1.0, frames: int = 64, points: int = 6) -> Curve:
    pairs = zip([rate * factor for rate in RATE], KL, strict=True)
    return Curve.from_points(list(pairs)[:points], frames)


def compare(
    anchor: dict[str, Curve], test: dict[str, Curve], measure: str = "bd_rate"
) -> Comparison:
    return Comparison.of(
        "blocks.10", ("lmc", "tiles"), anchor, test, limits=(0.005, 1.0), measure=measure
    )


def test_all_variants_make_one_front() -> None:
    doubled = [(rate * factor, kl) for rate, kl in zip(RATE, KL, strict=True) for factor in (1, 2)]
    assert Curve.from_points(doubled, 64) == curve()
    assert Curve.from_points([(100, 0.0), (50, 0.1)], 64).front == ((50, 0.1),)


def test_comparison_clip_by_clip() -> None:
    test = {"a": curve(0.5), "b": curve(0.8), "c": curve(1.1), "d": curve(), "e": curve()}
    anchor = {"a": curve(), "b": curve(), "c": curve(), "d": curve(frames=32)}
    found = compare(anchor, test)
    assert found.figures() == pytest.approx({"a": -50, "b": -20, "c": 10})
    assert found.mean() == pytest.approx(-20)
    assert found.clips["d"] == "measured over 32 frames, not 64"
    assert found.clips["e"] == "not measured"
    content = found.to_json()
    assert content["clips_compared"] == 3
    assert content["clips"]["a"]["low"] == pytest.approx(0.005)
    assert content["clips"]["d"] == {"refusal": "measured over 32 frames, not 64"}
    low, high = content["interval"]
    assert -50.001 < low < -20 < high < 10.001
    text = render([found])
    assert "-50.0 % (-50.0)" in text
    assert "+10.0 % c" in text
    assert "-20.0 % (of 3 clips)" in text
    assert "refused: d against tiles: measured over 32 frames, not 64" in text


def test_short_curves_are_refused_with_the_reason() -> None:
    found = compare({"a": curve()}, {"a": curve(points=3)})
    assert "expected at least 4" in str(found.clips["a"])
    assert found.mean() is None
    assert found.to_json()["interval"] is None
    assert "refused" in render([found])


def test_comparison_by_kl() -> None:
    worse = Curve.from_points([(rate, kl * 1.5) for rate, kl in zip(RATE, KL, strict=True)], 64)
    found = compare({"a": curve()}, {"a": worse}, "bd_kl")
    assert found.figures() == pytest.approx({"a": 50})


def test_bootstrap_is_the_spread_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    values = list(rng.normal(-40, 10, 400))
    low, high = bootstrap(values)
    assert low < np.mean(values) < high
    assert high - low == pytest.approx(2 * 1.96 * 10 / 20, rel=0.15)
    assert bootstrap(values) == (low, high)
    assert bootstrap([1.0, 1.0, 1.0]) == (1.0, 1.0)
    assert bootstrap([1.0, 2.0]) is None
