"""BD-rate over log KL: known answers, the reference package, refusals, fronts, and the command."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("scipy", reason="BD-rate needs the extra `study`")

from tools.bd_rate import bd_rate, envelope, main, restrict

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


# --- the command ------------------------------------------------------------------------------


def write(path: Path, rows: list[Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def measured(clip: str, factor: float, **changed: object) -> list[dict[str, object]]:
    """Rows as of `tools.measure`."""
    row = {"clip": clip, "model": "m", "split": "blocks.4", "motion": "search", "frames": 64}
    return [
        row | {"qp": number, "bytes_per_frame": rate * factor, "kl": kl} | changed
        for number, (rate, kl) in enumerate(zip(RATE, KL, strict=True))
    ]


def anchored(clip: str, anchor: str, variant: str, factor: float, **changed: object) -> list[Any]:
    """Rows as of `tools.anchors`."""
    row = {"clip": clip, "model": "m", "split": "blocks.4", "anchor": anchor, "variant": variant}
    return [
        row | {"point": number, "frames": 64, "bytes_per_frame": rate * factor, "kl": kl} | changed
        for number, (rate, kl) in enumerate(zip(RATE, KL, strict=True))
    ]


def run(tmp_path: Path, test: list[Any], anchors: list[Any], *options: str) -> Result:
    write(tmp_path / "test.csv", test)
    write(tmp_path / "anchors.csv", anchors)
    arguments = [str(tmp_path / "test.csv"), str(tmp_path / "anchors.csv"), *options]
    return CliRunner().invoke(main, arguments)


def test_table(tmp_path: Path) -> None:
    """Variants merge to the better of them; an empty split serves every split."""
    result = run(
        tmp_path,
        [*measured("one.mp4", 1), *measured("two.mp4", 1)],
        [
            *anchored("one.mp4", "tiles", "default", 3),
            *anchored("one.mp4", "tiles", "plain", 2),
            *anchored("two.mp4", "tiles", "default", 0.8),
            *anchored("one.mp4", "pixels", "gbrp", 4, split=""),
            *anchored("two.mp4", "pixels", "gbrp", 4, split="", frames=32),
            *anchored("two.mp4", "other", "default", 4, split="blocks.9"),
        ],
    )
    assert result.exit_code == 0, result.output
    lines = [re.split(r"  +", line) for line in result.output.splitlines()]
    assert lines == [
        ["blocks.4", "tiles", "pixels"],
        ["one.mp4", "-50.0 % (-50.0 %) 0.005–1", "-75.0 % (-75.0 %) 0.005–1"],
        ["two.mp4", "+25.0 % (+25.0 %) 0.005–1", "refused"],
        ["mean", "-12.5 %", "-75.0 % (of 1 clips)"],
        ["geometric mean", "-20.9 %", "-75.0 % (of 1 clips)"],
        ["worst", "+25.0 % two.mp4", "-75.0 % one.mp4"],
        ["refused: two.mp4 against pixels: measured over 32 frames, not 64"],
        [""],
    ]


def test_codec_against_codec(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        measured("one.mp4", 0.5),
        [*measured("one.mp4", 1), *measured("one.mp4", 2, motion="zero")],
        "--kl",
        "0.01:0.5",
    )
    assert result.exit_code == 0, result.output
    header, row, *_ = (re.split(r"  +", line) for line in result.output.splitlines())
    assert header == ["blocks.4", "anchors search", "anchors zero"]
    assert row == ["one.mp4", "-50.0 % (-50.0 %) 0.01–0.5", "-75.0 % (-75.0 %) 0.01–0.5"]


def test_rows_are_chosen_by_column(tmp_path: Path) -> None:
    test = [*measured("one.mp4", 0.5), *measured("one.mp4", 0.7, motion="zero")]
    anchors = measured("one.mp4", 1)
    result = run(tmp_path, test, anchors, "--test-where", "motion=zero")
    assert "-30.0 %" in result.output
    result = run(tmp_path, test, anchors)
    assert result.exit_code == 1
    assert "two rows for point 0 (motion=search and zero" in result.output
    assert "choose with --test-where COLUMN=VALUE" in result.output
    result = run(tmp_path, test, anchors, "--test-where", "motion=none")
    assert "no row has motion=none" in result.output
    result = run(tmp_path, test, anchors, "--test-where", "effort=3")
    assert "has no column 'effort'" in result.output


def test_what_the_command_refuses(tmp_path: Path) -> None:
    test, anchors = measured("one.mp4", 1), anchored("one.mp4", "tiles", "default", 1)
    assert "no row has split=blocks.9" in run(tmp_path, test, anchors, "--split", "blocks.9").output
    other = anchored("one.mp4", "tiles", "default", 1, model="n")
    assert "the files hold the models m, n" in run(tmp_path, test, other).output
    assert "LOW:HIGH" in run(tmp_path, test, anchors, "--kl", "1").output
    assert "LOW:HIGH" in run(tmp_path, test, anchors, "--kl", "1:0.5").output
    assert "COLUMN=VALUE" in run(tmp_path, test, anchors, "--test-where", "motion").output
    short = run(tmp_path, test, anchors[:3])
    assert short.exit_code == 0
    assert "against tiles: the curve of the anchor has 3 rates" in short.output
